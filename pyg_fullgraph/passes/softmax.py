"""Recognise the softmax over a node's in-edges in the five operators PyG writes for it.

::

    before                                             after
    m = reduce(%score, %dst, max)                      alpha = softmax(%score, %dst)
    e = exp(%score - gather(%m, %dst))
    s = reduce(%e, %dst, sum) + 1e-16
    alpha = %e / gather(%s, %dst)

The operator is `torch_geometric.utils.softmax`; the constant 1e-16 is part of it.
"""

from __future__ import annotations

from typing import Any

import torch

from pyg_fullgraph.ir import Dim, Program, Ref, Stage, Value, is_aten

aten = torch.ops.aten


def fuse_softmax(program: Program) -> None:
    """Replace the chain by `softmax` values, in place."""
    for value in list(program):
        match = _match(program, value)
        if match is None:
            continue
        score, index, rows = match
        program.values[value.name] = Value(
            value.name,
            "softmax",
            (Ref(score), Ref(index)),
            {"rows": rows},
            value.shape,
            value.dtype,
            Stage.DATA,
            where=value.where,
        )
    program.drop_dead()


def _match(program: Program, value: Value) -> tuple[str, str, Any] | None:
    if not is_aten(value, aten.div) or len(value.refs()) != 2:
        return None
    top, bottom = (program[ref] for ref in value.refs())
    if not is_aten(top, aten.exp) or bottom.op != "gather":
        return None
    index = bottom.args[1].name
    plus = program[bottom.args[0].name]
    if not is_aten(plus, aten.add) or len(plus.refs()) != 1 or plus.args[1] != 1e-16:
        return None
    total = program[plus.args[0].name]
    if not _is_reduce(total, "sum", top.name, index):
        return None
    shifted = program[top.args[0].name]
    if not is_aten(shifted, aten.sub) or len(shifted.refs()) != 2 or shifted.kwargs.get("alpha", 1) != 1:
        return None
    score, peak_at_edge = shifted.refs()
    peak = program[peak_at_edge]
    if peak.op != "gather" or peak.args[1].name != index:
        return None
    if total.space is None or not _is_reduce(program[peak.args[0].name], "max", score, index):
        return None
    return score, index, Dim(total.space)


def _is_reduce(value: Value, reduce: str, of: str, index: str) -> bool:
    return value.op == "reduce" and value.kwargs["reduce"] == reduce and value.refs() == [of, index]
