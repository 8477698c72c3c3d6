"""Which values have one row per node where the number of nodes is a plain number: that of a parameter's rows.

Sizes alone cannot tell: a table of 8 nodes with 8 columns has two axes of 8. So the axis is followed from where edges
pick rows or add to them, through the operators after it.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import torch

from pyg_fullgraph.ir.program import Program, Ref, Value, is_symbolic
from pyg_fullgraph.ir.uses import uses

aten = torch.ops.aten

_OVER_DIMS = "sum mean amax amin max min prod any all std var argmax argmin logsumexp median"
_REDUCTIONS = {getattr(aten, name): 1 for name in _OVER_DIMS.split(" ")} | {aten.norm: 2, aten.linalg_vector_norm: 2}
_PRODUCTS = {aten.mm: 0, aten.addmm: 1, aten.matmul: 0}  # -> which operand's rows are the result's
_ADDING = "scatter scatter_add scatter_reduce index_add index_put reduce_by"

Axes = dict[str, tuple[int, Any]]  # value -> the dimension of its nodes, and how many there are


def plain_rows(program: Program, sizes: Collection[Any]) -> Axes:
    """The values of a program that have rows of nodes.

    Args:
        program: any.
        sizes: how many nodes there are, plain numbers (`ir.ends.numbered_by_edges`).
    """
    seeds: Axes = {}
    for use in uses(program):
        if not is_symbolic(use.size) and use.size in sizes:
            value = program[use.value]
            name = value.name if _adds(value) else value.refs()[0]
            dim = next((d for d, size in enumerate(program[name].shape) if size == use.size), None)
            if dim is not None:
                seeds.setdefault(name, (dim, use.size))
    found: Axes = {}
    for value in program:
        if value.name in seeds:
            found[value.name] = seeds[value.name]
            continue
        for name in value.refs():
            if name in found and value.name not in found:
                moved = _moved(program, value, name, found[name][0])
                if moved is not None and value.shape[moved] == found[name][1]:
                    found[value.name] = moved, found[name][1]
    return found


def _adds(value: Value) -> bool:
    """Whether rows are added to, as opposed to picked."""
    packet = getattr(value.target, "overloadpacket", None)
    return value.op in ("reduce", "group_pool") or getattr(packet, "__name__", "") in _ADDING.split()


def _moved(program: Program, value: Value, name: str, dim: int) -> int | None:
    """The dimension of a result that an operand's dimension becomes; None where it is gone, or not known."""
    operand, packet = program[name].shape, getattr(value.target, "overloadpacket", None)
    if value.target is None:
        return dim if value.shape[: dim + 1] == operand[: dim + 1] else None
    if packet in _PRODUCTS:
        first = value.args[_PRODUCTS[packet]]
        return 0 if isinstance(first, Ref) and first.name == name and dim == 0 else None
    if packet in (aten.t, aten.transpose, aten.permute):
        order = list(range(len(operand)))
        if packet is aten.permute:
            order = [int(d) % len(operand) for d in value.args[1]]
        else:
            one, two = (0, len(operand) - 1) if packet is aten.t else (int(d) for d in value.args[1:3])
            order[one], order[two] = order[two], order[one]
        return order.index(dim)
    if packet in _REDUCTIONS:
        return _kept(value, operand, dim, _REDUCTIONS[packet])
    if torch.Tag.pointwise in getattr(value.target, "tags", ()):
        moved = dim + len(value.shape) - len(operand)
        return moved if moved >= 0 else None
    return dim if value.shape[: dim + 1] == operand[: dim + 1] else None


def _kept(value: Value, operand: tuple[Any, ...], dim: int, at: int) -> int | None:
    """Where a dimension stands after a reduction over others."""
    given = value.args[at] if len(value.args) > at else value.kwargs.get("dim")
    dims = [given] if isinstance(given, int) else given
    if not dims:
        return None
    reduced = {int(d) % len(operand) for d in dims}
    if dim in reduced:
        return None
    return dim if len(value.shape) == len(operand) else dim - sum(d < dim for d in reduced)
