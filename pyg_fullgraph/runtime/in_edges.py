"""`InEdges`: the edges of one aggregation by destination, sorted tile by tile."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

import torch
from torch import Tensor

from pyg_fullgraph.ops.memory import empty
from pyg_fullgraph.ops.sort import count_rows, place_rows
from pyg_fullgraph.runtime.tiles import Tiles


@dataclass
class InEdges:
    """The edges of one aggregation, sorted by destination.

    Args:
        rowptr: int64 [rows + 1].
        values: structural edge values in this order, rows first, by name; indices as int32 where they fit.
        perm: [E], the original edge at each position; int32 where that fits, None where nothing asks for it.
        whole: the edges that these are a part of, where they are.
    """

    rowptr: Tensor
    values: dict[str, Tensor] = field(default_factory=dict)
    perm: Tensor | None = None
    whole: InEdges | None = None

    @cached_property
    def num_edges(self) -> int:
        return int(self.rowptr[-1])

    @cached_property
    def largest(self) -> int:
        """How many edges the row with the most of them has, of all rows of the graph: some aggregations pad to it."""
        if self.whole is not None:
            return self.whole.largest
        return int(self.rowptr.diff().max()) if self.rowptr.numel() > 1 else 0

    def tensors(self) -> list[Tensor]:
        """Everything that is kept."""
        return [self.rowptr, *self.values.values(), *([] if self.perm is None else [self.perm])]


def sort_edges(
    tiles: Tiles, index: str, rows: int, values: Mapping[str, torch.dtype | None], permuted: bool
) -> InEdges:
    """Sort edges by destination, stably: first the rows are counted, then each edge's values go where they belong.

    No more than a tile of anything is held beside what is returned and one number per row.

    Args:
        tiles: make the values.
        index: the destination of each edge.
        rows: how many destinations there are.
        values: structural edge values to bring into this order, and the type to keep each in (None: its own).
        permuted: whether to say which edge is where.

    Raises:
        GraphError: a destination is out of range.
    """
    rowptr = _counted(tiles, index, rows).cumsum_(0)
    edges, start, names = InEdges(rowptr), rowptr[:-1].clone(), list(values)
    count, device = edges.num_edges, rowptr.device
    if permuted:
        number = torch.int32 if count <= torch.iinfo(torch.int32).max else torch.int64
        edges.perm = empty((count,), number, device)
    for a, b, (destination, *made) in tiles.stream((index, *names)):
        places = place_rows(destination, start)
        for name, part in zip(names, made, strict=True):
            part = part.movedim(tiles.program[name].row_dim or 0, 0)
            if name not in edges.values:
                edges.values[name] = empty((count, *part.shape[1:]), values[name] or part.dtype, device)
            _put(edges.values[name], places, part)
        if edges.perm is not None:
            _put(edges.perm, places, torch.arange(a, b, dtype=edges.perm.dtype, device=device))
    return edges


def _counted(tiles: Tiles, index: str, rows: int) -> Tensor:
    """Zero, then how many edges each row has."""
    counts: Tensor | None = None
    for _, _, (destination,) in tiles.stream((index,)):
        if counts is None:
            counts = torch.zeros(rows + 1, dtype=torch.int64, device=destination.device)
        count_rows(destination, counts[1:])
    assert counts is not None  # there is at least one range
    return counts


def _put(out: Tensor, places: Tensor, rows: Tensor) -> None:
    """Write rows to their places, each of which is taken once."""
    rows = rows.to(out.dtype)
    if out.dim() == 1:  # a third of the time of the other
        out.scatter_(0, places, rows)
    else:
        out[places] = rows
