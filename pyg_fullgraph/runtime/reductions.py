"""Reductions over all rows of a stored value, block by block: what a graph-wide norm needs of the whole graph."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from pyg_fullgraph.ir import Value, is_aten
from pyg_fullgraph.runtime.home import Table

aten = torch.ops.aten


def reduce_rows(value: Value, tables: Mapping[str, Table]) -> Tensor | None:
    """The sum or mean of a table over its rows, None where `value` is not such a reduction.

    Args:
        value: an operator that needs its inputs complete.
        tables: name -> stored value, rows first.
    """
    if not is_aten(value, aten.sum) and not is_aten(value, aten.mean):
        return None
    refs = value.refs()
    if len(refs) != 1 or refs[0] not in tables or value.kwargs:
        return None
    dims = value.args[1] if len(value.args) > 1 else None
    keep = bool(value.args[2]) if len(value.args) > 2 else False
    if dims is not None and list(dims) != [0]:
        return None
    table = tables[refs[0]]
    partial: Callable[[Tensor], Tensor] = (
        (lambda rows: rows.sum()) if dims is None else (lambda rows: rows.sum(0, keepdim=keep))
    )
    total = table.reduce(partial, torch.add)
    if is_aten(value, aten.sum):
        return total
    whole = table.whole()
    return total / (whole.numel() if dims is None else whole.shape[0])
