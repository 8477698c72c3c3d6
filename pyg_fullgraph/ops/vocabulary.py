"""Edge to node by an index in any order: what a program says before its edges are sorted.

`reduce_by` and `softmax_by` take the destination of every edge instead of a sorted graph. They are the words that a
traced model, `fg.Graph` and the adapters of `capture` share; a compiled program sorts each index once per graph and
runs the sorted operators (`segment_reduce`, `gather_reduce`, `segment_softmax`) instead.
"""

from __future__ import annotations

import torch
from torch import Tensor

from pyg_fullgraph.ops.attention import segment_softmax
from pyg_fullgraph.ops.check import check_count, check_index, check_reduce, check_rows
from pyg_fullgraph.ops.reduce import gather_reduce
from pyg_fullgraph.ops.sort import csr


def reduce_by(x: Tensor, index: Tensor, rows: int, reduce: str = "sum") -> Tensor:
    """Reduce the rows of `x` by their destination: `out[i] = reduce over e with index[e] == i of x[e]`.

    Args:
        x: [E, ...].
        index: int32 or int64 [E], each in [0, rows) (checked).
        rows: how many destinations there are.
        reduce: "sum", "mean", "max", "min" or "mul".

    Returns:
        [rows, ...] of x's type; a destination without edges is 0 (1 for `mul`).

    Raises:
        OperatorError: an argument has a wrong shape, type or name.
        GraphError: a destination is out of range.
    """
    check_index("reduce_by", "index", index)
    check_count("reduce_by", "rows", rows)
    check_reduce("reduce_by", reduce)
    check_rows("reduce_by", "x", x, index.numel(), "E")
    rowptr, perm = csr(index, rows)
    return gather_reduce(x, perm, rowptr, reduce=reduce)


def softmax_by(x: Tensor, index: Tensor, rows: int) -> Tensor:
    """Softmax of the rows of `x` among those of equal destination, each column by itself.

    Args:
        x: [E, ...].
        index: int32 or int64 [E], each in [0, rows) (checked).
        rows: how many destinations there are.

    Returns:
        [E, ...] of x's type: `exp(x - max) / (sum of exp(x - max) + 1e-16)`, as `torch_geometric.utils.softmax`.

    Raises:
        OperatorError: an argument has a wrong shape or type.
        GraphError: a destination is out of range.
    """
    check_index("softmax_by", "index", index)
    check_count("softmax_by", "rows", rows)
    check_rows("softmax_by", "x", x, index.numel(), "E")
    rowptr, perm = csr(index, rows)
    order = perm.long()
    inverse = torch.empty_like(order)
    inverse[order] = torch.arange(order.numel(), device=order.device)
    return segment_softmax(x.index_select(0, order), rowptr).index_select(0, inverse)
