"""From which end of an edge a program sends messages, read from the program itself: not every layer has a `flow`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from pyg_fullgraph.ir import Program, Ref, Value, is_aten
from pyg_fullgraph.ir.fused import index_of

aten = torch.ops.aten
_NONE: Mapping[str, int] = {}
_SAME = (aten.alias, aten.detach, aten.clone, aten._to_copy, aten.view, aten.expand, aten.unsqueeze, aten.squeeze)


def senders(program: Program, parts: Mapping[str, int] = _NONE) -> set[int]:
    """The rows of the edge list `[2, E]` that hold the nodes which messages come from.

    Args:
        program: any program.
        parts: arguments that are one row of an edge list, or what it is computed from -> which row.

    Returns:
        {0} where messages go from row 0 to row 1, as usual; {1} where they go back; {0, 1} where they go both ways,
        or where the program does not show it.
    """
    found: set[int] = set()
    for value in program:
        index = index_of(value)
        if index is not None:
            row = _row(program, program[index], parts)
            found |= {0, 1} if row is None else {1 - row}
    return found


def _row(program: Program, index: Value, parts: Mapping[str, int]) -> int | None:
    """Which row of an edge list an index is; None where that is not plain to see."""
    if index.op == "input":
        return parts.get(index.args[0])
    if is_aten(index, aten.searchsorted):  # row numbers from row pointers
        pointers = program[index.args[0].name]
        while is_aten(pointers, aten.slice) or is_aten(pointers, aten._to_copy):
            pointers = program[pointers.args[0].name]
        return _row(program, pointers, parts) if pointers.op == "input" else None
    if is_aten(index, aten.select) and len(index.args) > 2 and index.args[1] == 0:
        edges = program[index.args[0].name]
        return int(index.args[2]) % 2 if _is_edge_list(program, edges) else None
    rows = {_row(program, part, parts) for part in _parts(program, index, 0)}
    return next(iter(rows)) if len(rows) == 1 else None


def _is_edge_list(program: Program, value: Value) -> bool:
    """Whether the rows of a `[2, E]` value are those of an argument."""
    if value.shape[:1] != (2,):
        return False
    if value.op == "input":
        return len(value.shape) == 2
    parts = _parts(program, value, 1)
    return bool(parts) and all(_is_edge_list(program, part) for part in parts)


def _parts(program: Program, value: Value, axis: int) -> list[Value]:
    """The edges that `value` holds in their order: filtered along `axis`, or appended to one another.

    Self-loops that no argument tells are left out.
    """
    found: list[Any] = []
    filtered = is_aten(value, aten.index) and len(value.args[1]) == axis + 1 and value.args[1][:axis] == [None] * axis
    if filtered or any(is_aten(value, packet) for packet in _SAME):
        found = [value.args[0]]
    elif is_aten(value, aten.cat) and (value.args[1] if len(value.args) > 1 else 0) in (axis, -1):
        found = value.args[0]
    parts = [program[item.name] for item in found if isinstance(item, Ref)]
    return [part for part in parts if _reads_input(program, part)]


def _reads_input(program: Program, value: Value) -> bool:
    seen, stack = set(), [value.name]
    while stack:
        name = stack.pop()
        if program[name].op == "input":
            return True
        if name not in seen:
            seen.add(name)
            stack += program[name].refs()
    return False
