"""From an edge list to rows: the stable counting sort behind every graph, of all edges or of one tile after another."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from pyg_fullgraph.errors import GraphError
from pyg_fullgraph.ops import reference
from pyg_fullgraph.ops.backend import INDICES, PLAIN, load, threads_or_default
from pyg_fullgraph.ops.check import check_count, check_index, fail, flat


def csr(index: Tensor, num_rows: int, *, threads: int | None = None) -> tuple[Tensor, Tensor]:
    """Sort edges by row, stably: `index[perm]` is sorted and equal rows keep their order.

    Args:
        index: int32 or int64 [E], the row of each edge, in [0, num_rows) (checked).
        num_rows: the number of rows N.
        threads: how many threads to use; torch's number if None.

    Returns:
        rowptr: int64 [N + 1]; the edges of row i are `perm[rowptr[i] : rowptr[i + 1]]`.
        perm: [E], of index's type.

    Raises:
        OperatorError: `index` has a wrong shape or type, or `num_rows` or `threads` is no number of rows or threads.
        GraphError: a row is out of range; the first such edge is named.
    """
    check_index("csr", "index", index)
    check_count("csr", "num_rows", num_rows)
    threads = threads_or_default(threads)
    if index.dtype == torch.int32 and index.numel() > torch.iinfo(torch.int32).max:
        fail("csr", "index", index, "int64 for so many edges: perm has index's type")
    if torch.compiler.is_compiling():
        result: tuple[Tensor, Tensor] = torch.ops.pyg_fullgraph.csr(index, num_rows)
        return result
    if type(index) in PLAIN and (index.is_meta or index.layout is not torch.strided):
        fail("csr", "index", index, "a dense tensor that holds values")
    plain = type(index) in PLAIN and index.device.type == "cpu"
    module = load().module if plain else None
    if module is None:
        if type(index) in PLAIN:
            fail_range(index, num_rows)
        return reference.csr(index, num_rows)
    index = flat(index)
    rowptr = torch.empty(num_rows + 1, dtype=torch.int64)
    perm = torch.empty_like(index)
    fine = module.csr(
        index.data_ptr(), INDICES[index.dtype], index.numel(), num_rows,
        rowptr.data_ptr(), perm.data_ptr(), threads,
    )  # fmt: skip
    if not fine:
        fail_range(index, num_rows)
    return rowptr, perm


def count_rows(index: Tensor, counts: Tensor, *, threads: int | None = None) -> None:
    """Add the edges of a tile to the counts of their rows.

    Args:
        index: int32 or int64 [T], the row of each edge, in [0, N) (checked).
        counts: int64 [N], contiguous; written to.
        threads: how many threads to use; torch's number if None.

    Raises:
        OperatorError: a tensor has a wrong shape or type.
        GraphError: a row is out of range; the first such edge is named, and nothing is written.
    """
    module = _tiled("count_rows", index, "counts", counts)
    if module is None:
        fail_range(index, counts.numel(), "count_rows")
        counts += torch.bincount(index, minlength=counts.numel())
        return
    index = flat(index)
    threads = threads_or_default(threads)
    if not module.count_rows(
        index.data_ptr(), INDICES[index.dtype], index.numel(), counts.numel(), counts.data_ptr(), threads
    ):
        fail_range(index, counts.numel(), "count_rows")


def place_rows(index: Tensor, start: Tensor, *, threads: int | None = None) -> Tensor:
    """The places of a tile's edges in the stable order by row, where all earlier tiles were placed before.

    Args:
        index: int32 or int64 [T], the row of each edge, in [0, N) (checked).
        start: int64 [N], contiguous: the place of each row's next edge; moves on by its edges in this tile.
        threads: how many threads to use; torch's number if None.

    Returns:
        int64 [T].

    Raises:
        OperatorError: a tensor has a wrong shape or type.
        GraphError: a row is out of range; the first such edge is named, and nothing is written.
    """
    module = _tiled("place_rows", index, "start", start)
    if module is None:
        fail_range(index, start.numel(), "place_rows")
        return reference.place_rows(index, start)
    index = flat(index)
    places = torch.empty(index.numel(), dtype=torch.int64)
    threads = threads_or_default(threads)
    if not module.place_rows(
        index.data_ptr(), INDICES[index.dtype], index.numel(), start.numel(), start.data_ptr(), places.data_ptr(),
        threads,
    ):  # fmt: skip
        fail_range(index, start.numel(), "place_rows")
    return places


def _tiled(operator: str, index: Tensor, name: str, rows: Tensor) -> Any:
    """The extension if it can serve a tile, after a check of the tensors; None for the reference."""
    check_index(operator, "index", index)
    fine = rows.dtype == torch.int64 and rows.layout is torch.strided and rows.dim() == 1 and rows.is_contiguous()
    if not fine or rows.is_neg() or rows.is_meta or rows.device != index.device:
        fail(operator, name, rows, f"a contiguous int64 tensor [N] on {index.device} whose memory holds its values")
    if index.is_meta or index.layout is not torch.strided:
        fail(operator, "index", index, "a dense tensor that holds values")
    plain = type(index) in PLAIN and type(rows) in PLAIN and index.device.type == "cpu"
    return load().module if plain else None


def fail_range(index: Tensor, num_rows: int, operator: str = "csr") -> None:
    """Raise the error for the first edge whose row is out of range, if there is one."""
    bad = ((index < 0) | (index >= num_rows)).nonzero()
    if bad.numel():
        edge = int(bad[0])
        raise GraphError(f"{operator}: edge {edge} has index {int(index[edge])}; valid: 0 to {num_rows - 1}")
