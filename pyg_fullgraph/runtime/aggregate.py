"""Call an aggregation module on the groups of one block: for what has no kernel (median, LSTM, set transformers)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from pyg_fullgraph.ops.reference import rows_of_edges


def aggregate(handle: Any, x: Tensor, rowptr: Tensor, largest: int, dim: int = 0) -> Tensor:
    """`handle` on every row's edges, as it gives it on the whole graph.

    Rows without edges are left out of the call and get what one further, empty group gets: a block may begin with such
    a row, or have no edge at all, which the modules do not expect.

    Args:
        handle: an `OpaqueAggregation`.
        x: edge values, `[E, ...]`, or with the edges at dimension `dim`, in the order of `rowptr`.
        rowptr: int64 `[B + 1]`.
        largest: how many edges the largest row of the whole graph has.
        dim: where the edges are.

    Returns:
        `[B, ...]`, rows at `dim`.
    """
    degree = rowptr.diff()
    full = degree > 0
    count, rows = int(full.sum()), degree.numel()
    index = (full.cumsum(0) - 1).index_select(0, rows_of_edges(rowptr))
    if count == 0:  # one made-up group, so that the module has something to work on
        shape = list(x.shape)
        shape[dim] = 1
        x, index = x.new_zeros(shape), index.new_zeros(1)
    groups = max(count, 1)
    limit = None if handle.padding is None else largest + handle.padding
    out = handle(x, index, groups + (count < rows), dim, limit)
    if count == rows:
        return out
    place = torch.full((rows,), groups)
    place[full] = torch.arange(count)
    return out.index_select(dim, place)
