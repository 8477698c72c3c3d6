"""Which integer arguments of a program hold node numbers, and of which nodes: read from how they are used."""

from __future__ import annotations

from typing import Any

import torch

from pyg_fullgraph.ir.program import Program, Ref, Value, packet_of
from pyg_fullgraph.ir.renumber import node_spaces

aten = torch.ops.aten

_CARRIED = "clone _to_copy contiguous view _unsafe_view reshape unsqueeze squeeze expand repeat index index_select"
_CARRY = {getattr(aten, name) for name in _CARRIED.split()}
_BY_INDEX = {aten.index_select: 2, aten.scatter_add: 2, aten.index_add: 2, aten.scatter_reduce: 2, aten.scatter: 2}
_BY_LIST = {aten.index: 1, aten.index_put: 1}

Place = tuple[str, int | None]  # an argument, and which of its first dimension's entries


def ends(program: Program) -> dict[str, Any]:
    """Argument name -> the space whose nodes it numbers; a pair where the two rows of an edge list differ.

    An argument numbers the nodes whose rows it picks, or to whose rows it adds. That this holds wherever it is used is
    for `renumber` to check.
    """
    spaces = node_spaces(program)
    found: dict[Place, Any] = {}
    for value in program:
        for index, space in _uses(program, value):
            if space in spaces:
                for place in _origins(program, index, None):
                    found.setdefault(place, space)
    numbers: dict[str, Any] = {}
    for value in program:
        if value.op != "input" or value.dtype in (None, torch.bool) or value.dtype.is_floating_point:
            continue
        name = value.name
        both = found.get((name, None))
        rows = tuple(found.get((name, row), both) for row in (0, 1))
        if len(value.shape) == 2 and value.shape[0] == 2 and rows != (None, None):
            numbers[value.args[0]] = rows if rows[0] != rows[1] else rows[0]
        elif both is not None:
            numbers[value.args[0]] = both
    return numbers


def _uses(program: Program, value: Value) -> list[tuple[str, Any]]:
    """(index, the space that it counts) of a value that reads or adds rows by index."""
    if value.op == "gather":
        return [(value.args[1].name, program[value.args[0].name].space)]
    if value.op == "reduce":
        return [(value.args[1].name, value.space)]
    packet = packet_of(value)
    position = _BY_INDEX.get(packet, _BY_LIST.get(packet))
    if position is None or not isinstance(value.args[0], Ref):
        return []
    index = value.args[position]
    table = program[value.args[0].name]
    if packet in _BY_LIST:
        found = [(dim, item) for dim, item in enumerate(index) if item is not None]
        if len(found) != 1:
            return []
        dim, index = found[0]
    else:
        dim = value.args[1]
    on_rows = table.row_dim is not None and dim % len(table.shape) == table.row_dim
    fits = isinstance(index, Ref) and program[index.name].dtype is not torch.bool
    return [(index.name, table.space)] if on_rows and fits else []


def _origins(program: Program, name: str, row: int | None) -> set[Place]:
    """The arguments whose entries a value holds, followed back through views, copies and joins."""
    value = program[name]
    if value.op == "input":
        return {(name, row)}
    if value.op != "aten":
        return set()
    first = value.args[0].name if value.args and isinstance(value.args[0], Ref) else None
    if value.target is None:
        whole = packet_of(program[first]) if first is not None else None
        return _origins(program, program[first].refs()[0], value.args[1]) if first and whole is aten.unbind else set()
    packet = packet_of(value)
    if packet in (aten.cat, aten.stack):
        parts = [item.name for item in value.args[0]]
        dim = value.args[1] if len(value.args) > 1 else 0
        if dim == 0 and row is not None and len(parts) == 2:
            return _origins(program, parts[row], None)
        return set().union(*(_origins(program, part, row) for part in parts))
    if first is None:
        return set()
    if packet is aten.select and value.args[1] == 0 and value.args[2] in (0, 1):
        return _origins(program, first, value.args[2])
    if packet is aten.flip and list(value.args[1]) == [0]:
        return _origins(program, first, None if row is None else 1 - row)
    return _origins(program, first, row) if packet in _CARRY else set()
