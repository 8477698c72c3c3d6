"""Sparse matrices among the arguments and attributes of a forward: the tensors they are made of, and back.

A matrix is a `Branch` of its indices, its values, and for each sparse dimension a tensor without memory that only
counts it; what kind of matrix it is, is constant:

| kind | indices |
| --- | --- |
| coo (of torch), SparseTensor (of torch_sparse) | one `[nnz]` for each sparse dimension |
| csr, csc | row (column) pointers, and the column (row) of every entry |
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from pyg_fullgraph.errors import CaptureError
from pyg_fullgraph.graph.convert import is_sparse_tensor

_COMPRESSED = {torch.sparse_csr: "csr", torch.sparse_csc: "csc"}


class Kind(NamedTuple):
    """What of a matrix is constant.

    Args:
        layout: "coo", "csr", "csc" or "SparseTensor".
        coalesced: whether torch knows that a COO matrix has no duplicates and its entries are in order.
        dims: how many sparse dimensions there are.
        valued: False for a `SparseTensor` without values.
        tail: sizes of the dense dimensions.
    """

    layout: str
    coalesced: bool
    dims: int
    valued: bool
    tail: tuple[int, ...]


@dataclass(frozen=True)
class Parts:
    """A matrix taken apart: `size` has the sizes of the sparse dimensions."""

    kind: Kind
    indices: tuple[Tensor, ...]
    value: Tensor | None
    size: tuple[int, ...]

    def named(self) -> list[tuple[str, Tensor]]:
        """The tensors with what they are called, in the order of `Branch.children`."""
        first, last = {"csr": ("crow", "col"), "csc": ("ccol", "row")}.get(self.kind.layout, ("row", "col"))
        names = (first, last)[: len(self.indices)] if len(self.indices) <= 2 else map(str, range(len(self.indices)))
        found = [*zip(names, self.indices, strict=True)]
        return found if self.value is None else [*found, ("value", self.value)]


def is_matrix(value: Any) -> bool:
    """Whether an argument is a sparse matrix, of torch or of torch_sparse; also one that cannot be captured."""
    if isinstance(value, Tensor):
        return value.layout not in (torch.strided, torch._mkldnn) and not hasattr(value, "as_tensor")  # type: ignore[attr-defined]
    return type(value).__name__ == "SparseTensor" and is_sparse_tensor(value)


def parts_of(matrix: Any, name: str) -> Parts:
    """The tensors that a matrix is made of; its own, not copies.

    Raises:
        CaptureError: it has a layout that is not captured.
    """
    if not isinstance(matrix, Tensor):
        row, col, value = matrix.coo()
        kind = Kind("SparseTensor", False, 2, value is not None, () if value is None else tuple(value.shape[1:]))
        return Parts(kind, (row, col), value, tuple(int(n) for n in matrix.sparse_sizes()))
    if matrix.layout == torch.sparse_coo and matrix.sparse_dim() > 0:
        dims, size = matrix.sparse_dim(), tuple(matrix.shape)
        kind = Kind("coo", matrix.is_coalesced(), dims, True, size[dims:])
        return Parts(kind, matrix._indices().unbind(0), matrix._values(), size[:dims])
    if matrix.layout in _COMPRESSED and matrix.dim() - matrix.dense_dim() == 2:
        layout, size = _COMPRESSED[matrix.layout], tuple(matrix.shape)
        kind = Kind(layout, True, 2, True, size[2:])
        if layout == "csr":
            return Parts(kind, (matrix.crow_indices(), matrix.col_indices()), matrix.values(), size[:2])
        return Parts(kind, (matrix.ccol_indices(), matrix.row_indices()), matrix.values(), size[:2])
    raise CaptureError(
        f"'{name}' is a sparse tensor of the layout {matrix.layout} and shape {list(matrix.shape)}: not one matrix of "
        f"single entries, so it cannot be captured. Pass {name}.to_sparse_csr() or {name}.to_sparse_coo() (one matrix "
        "for each of a batch); fallback='eager' runs the model's own forward."
    )


#: Makes a matrix from its kind, its tensors (indices, then values) and its sparse sizes.
Make = Callable[[Kind, Sequence[Any], Sequence[Any]], Any]


def whole(kind: Kind, tensors: Sequence[Any], size: Sequence[Any]) -> Any:
    """The matrix that `parts_of` took apart."""
    indices = tensors[: kind.dims]
    value: Any = tensors[kind.dims] if kind.valued else None
    if kind.layout == "SparseTensor":
        cls = sys.modules["torch_sparse"].SparseTensor
        return cls(row=indices[0], col=indices[1], value=value, sparse_sizes=tuple(size), is_sorted=True)
    shape = (*size, *kind.tail)
    if kind.layout == "coo":
        return torch.sparse_coo_tensor(torch.stack(list(indices)), value, shape, is_coalesced=kind.coalesced or None)
    make = torch.sparse_csr_tensor if kind.layout == "csr" else torch.sparse_csc_tensor
    return make(indices[0], indices[1], value, shape)
