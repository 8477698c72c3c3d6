"""Recognise PyG's mean: a sum divided by the number of in-edges, at least one.

::

    before                                             after
    c = clamp(scatter_add(0, %dst, 1), 1)   # [N]      out = gather_reduce(%x, %src, %dst, mean)
    s = gather_reduce(%x, %src, %dst, sum)
    out = %s / expand(view(%c))
"""

from __future__ import annotations

from dataclasses import replace

import torch

from pyg_fullgraph.ir import Program, Ref, Value, is_aten

aten = torch.ops.aten


def fuse_mean(program: Program) -> None:
    """Replace such divisions by `mean` aggregations, in place."""
    users = program.users()
    for value in list(program):
        if not is_aten(value, aten.div) or len(value.refs()) != 2 or value.kwargs:
            continue
        total, count = (program[ref] for ref in value.refs())
        plain = total.op == "gather_reduce" and total.kwargs == {"reduce": "sum"}
        if not plain or users[total.name] != [value.name] or total.name in program.output_names():
            continue
        if _counts(program, count, total.args[2].name):
            program.values[value.name] = replace(total, name=value.name, kwargs={"reduce": "mean"}, where=total.where)
    program.drop_dead()


def _counts(program: Program, value: Value, index: str) -> bool:
    """True where `value` is max(1, how often each row occurs in `index`), broadcast over columns."""
    while is_aten(value, aten.expand) or is_aten(value, aten.view):
        value = program[value.args[0].name]
    if not is_aten(value, aten.clamp) or len(value.args) != 2 or value.args[1] != 1 or value.kwargs:
        return False
    counted = program[value.args[0].name]
    if not is_aten(counted, aten.scatter_add) or counted.args[1] != 0:
        return False
    base, ones = program[counted.args[0].name], program[counted.args[3].name]
    root = program[counted.args[2].name]
    while root.name != index and (is_aten(root, aten.expand) or is_aten(root, aten.view)):
        root = program[root.args[0].name]
    return root.name == index and _filled(base, 0) and _filled(ones, 1)


def _filled(value: Value, number: float) -> bool:
    return is_aten(value, aten.full) and not isinstance(value.args[1], Ref) and value.args[1] == number
