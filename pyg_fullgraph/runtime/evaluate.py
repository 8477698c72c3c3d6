"""Evaluate one value on whole tensors: used for parameters, for structure and for operators that have no block form."""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from pyg_fullgraph.ir import Dim, Ref, Value, map_args, packet_of
from pyg_fullgraph.ir.extents import SHAPE_ARGUMENT
from pyg_fullgraph.ir.work import SizeOf
from pyg_fullgraph.ops import trusted

Lookup = Callable[[str], Any]


def evaluate(value: Value, lookup: Lookup, size_of: SizeOf, rows_of: SizeOf | None = None) -> Any:
    """The value of an `aten`, `gather`, `reduce`, `softmax` or fused value, from whole operands.

    Args:
        value: what to compute.
        lookup: name -> its whole tensor.
        size_of: symbolic size -> its number for this graph.
        rows_of: symbolic size -> how many rows are here, where that differs.
    """

    def leaf(item: Any, sizes: SizeOf = size_of) -> Any:
        if isinstance(item, Ref):
            return lookup(item.name)
        return sizes(item.expr) if isinstance(item, Dim) else item

    args, kwargs = map_args(value.args, leaf), map_args(value.kwargs, leaf)
    if rows_of is not None and (shape := SHAPE_ARGUMENT.get(packet_of(value))) is not None:
        here = map_args(value.args[shape], functools.partial(leaf, sizes=rows_of))
        args = (*args[:shape], here, *args[shape + 1 :])
    if value.op == "aten":
        if value.target is None:
            return operator.getitem(*args)
        return _call_sorted(value.target, *args) if _wants_sorted(value.target) else callee(value)(*args, **kwargs)
    return _WHOLE[value.op](value, size_of, *args, **kwargs)


def callee(value: Value) -> Any:
    """What to call for an `aten` value: views become reshapes, since real strides may differ from the traced ones."""
    if value.target in (torch.ops.aten.view.default, torch.ops.aten._unsafe_view.default):
        return torch.ops.aten.reshape.default
    return value.target


def _wants_sorted(target: Any) -> bool:
    """A handle to an aggregation module that refuses an index in any other order."""
    return bool(getattr(target, "needs_sorted_index", False))


def _call_sorted(handle: Any, x: Tensor, index: Tensor, dim_size: int, dim: int) -> Tensor:
    order = torch.argsort(index, stable=True)
    return handle(x.index_select(dim, order), index[order], dim_size, dim)


def _gather(value: Value, size_of: SizeOf, x: Tensor, index: Tensor) -> Tensor:
    assert value.row_dim is not None
    return x.index_select(value.row_dim, index)


def _rows(value: Value, size_of: SizeOf) -> int:
    assert value.space is not None
    return int(size_of(value.space))


def _reduce(value: Value, size_of: SizeOf, x: Tensor, index: Tensor, reduce: Any) -> Tensor:
    assert value.row_dim is not None
    if not isinstance(reduce, str):
        given = x, index, _rows(value, size_of), value.row_dim
        return _call_sorted(reduce, *given) if _wants_sorted(reduce) else reduce(*given)
    rowptr, perm = trusted.csr(index.contiguous(), _rows(value, size_of))
    sorted_rows = x.movedim(value.row_dim, 0).index_select(0, perm.long())
    return trusted.segment_reduce(sorted_rows, rowptr, reduce).movedim(0, value.row_dim)


def _softmax(value: Value, size_of: SizeOf, score: Tensor, index: Tensor, rows: int) -> Tensor:
    rowptr, perm = trusted.csr(index.contiguous(), rows)
    row_dim = value.row_dim or 0
    sorted_rows = trusted.segment_softmax(score.movedim(row_dim, 0).index_select(0, perm.long()), rowptr)
    out = torch.empty_like(sorted_rows)
    out[perm.long()] = sorted_rows
    return out.movedim(0, row_dim)


def edge_weight(weight: Tensor | None) -> Tensor | None:
    """A weight as the kernels take it: [E] for one per edge, [E, H] for one per head."""
    if weight is None:
        return None
    if weight.dim() == 3 and weight.shape[1] > 1:
        return weight.squeeze(2)
    return weight.reshape(weight.shape[0])


def explicit(value: Tensor, src: Tensor, rowptr: Tensor, *, score: Tensor, **more: Any) -> Tensor:
    """`trusted.attention` with scores of any trailing shape that flattens to [E, H]."""
    return trusted.attention(value, src, rowptr, score.reshape(score.shape[0], value.shape[1]), **more)


def gatv2(
    value: Tensor, src: Tensor, rowptr: Tensor, *, key: Tensor, query: Tensor, att: Tensor, **more: Any
) -> Tensor:
    """`trusted.attention_gatv2` with `att` of any leading shape that flattens to [H, C]."""
    return trusted.attention_gatv2(value, src, rowptr, key, query, att.reshape(key.shape[1:]), **more)


ATTENTION: dict[str, Callable[..., Tensor]] = {
    "explicit": explicit,
    "additive": trusted.attention_additive,
    "gatv2": gatv2,
    "dot": trusted.attention_dot,
}

_WHOLE: dict[str, Callable[..., Tensor]] = {
    "gather": _gather,
    "reduce": _reduce,
    "softmax": _softmax,
}
