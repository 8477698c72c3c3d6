"""Where a program picks rows by number or adds to them, and which of its arguments these numbers come from."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch

from pyg_fullgraph.ir.fused import FUSED, TO_ROWS, At, operands
from pyg_fullgraph.ir.matrices import matrices_in, numbered_by
from pyg_fullgraph.ir.program import Dim, Program, Ref, Size, Value, packet_of

aten = torch.ops.aten

_CARRIED = "clone _to_copy contiguous view _unsafe_view reshape unsqueeze squeeze expand repeat index index_select"
_CARRY = {getattr(aten, name) for name in _CARRIED.split()}
_SCATTERED = "index_select gather scatter scatter_add scatter_reduce index_add index_copy"
_ALONG = {getattr(aten, name) for name in _SCATTERED.split()}  # (table, dim, index, ...)
_BY_LIST = {aten.index, aten.index_put}  # (table, [index or mask or None, ...])
_BY_ROWS = ("reduce_by", "softmax_by")  # (x, index, rows), registered by us

Place = tuple[str, int | None]  # an argument, and which of its first dimension's entries


@dataclass(frozen=True)
class Use:
    """An index that picks entries of a table, or to whose entries something is added.

    Args:
        value: the value that does so.
        index: the integers.
        size: how many entries there are; symbolic or a number.
        rows: whether they are the table's rows, those of a space.
        wraps: whether negative numbers count from the end, as in `x[index]`.
    """

    value: str
    index: str
    size: Size
    rows: bool
    wraps: bool = False


def uses(program: Program) -> Iterator[Use]:
    """Every use of an integer value as an index, as they run; last those by matrices that are returned."""
    for value in program:
        yield from uses_by(program, value)
    for matrix in matrices_in(program.outputs):
        for index, size in numbered_by(matrix):
            yield Use(index.name, index.name, _number(size), True)


def uses_by(program: Program, value: Value) -> Iterator[Use]:
    """The indices that one value uses."""
    if value.op == "gather":
        table = program[value.args[0].name]
        yield Use(value.name, value.args[1].name, table.space, True, value.name in program.wrapping)
    elif value.op == "reduce":
        yield Use(value.name, value.args[1].name, value.space, True)
    elif value.op == "softmax":
        yield Use(value.name, value.args[1].name, _number(value.kwargs["rows"]), True)
    elif value.op in FUSED:
        yield from _fused(program, value)
    elif value.op == "group_pool":
        yield Use(value.name, value.args[1].name, value.shape[value.row_dim or 0], True)
    elif value.op in ("aten", "pool"):
        yield from _of_operator(program, value)


def _fused(program: Program, value: Value) -> Iterator[Use]:
    src, index = value.args[1:3]
    for _, name, at in operands(value):
        if at is At.SOURCE and src is not None:
            yield Use(value.name, src.name, program[name].space, True)
        elif at is At.ROW:
            yield Use(value.name, index.name, program[name].space, True)
    if value.op in TO_ROWS:
        yield Use(value.name, index.name, value.space, True)


def _of_operator(program: Program, value: Value) -> Iterator[Use]:
    packet = getattr(value.target, "overloadpacket", None)
    if packet is None or not value.args:
        return
    if packet in _ALONG and isinstance(value.args[0], Ref):
        table, dim, index = program[value.args[0].name], value.args[1], value.args[2]
        yield from _along(program, value, table, dim, index)
    elif packet is aten.embedding and isinstance(value.args[0], Ref):
        yield from _along(program, value, program[value.args[0].name], 0, value.args[1])
    elif packet in _BY_LIST and isinstance(value.args[0], Ref):
        table, dim = program[value.args[0].name], 0
        for index in value.args[1]:
            yield from _along(program, value, table, dim, index, wraps=True)
            mask = isinstance(index, Ref) and program[index.name].dtype is torch.bool
            dim += len(program[index.name].shape) if mask else 1
    elif packet._qualified_op_name.split("::")[1] in _BY_ROWS and isinstance(value.args[1], Ref):
        yield Use(value.name, value.args[1].name, _number(value.args[2]), True)


def _along(program: Program, value: Value, table: Value, dim: int, index: Any, wraps: bool = False) -> Iterator[Use]:
    if not isinstance(index, Ref) or program[index.name].dtype is torch.bool or not table.shape:
        return
    dim %= len(table.shape)
    yield Use(value.name, index.name, table.shape[dim], table.row_dim == dim, wraps)


def _number(size: Any) -> Size:
    return size.expr if isinstance(size, Dim) else size


def origins(program: Program, name: str, row: int | None = None) -> set[Place]:
    """The arguments whose entries a value holds, followed back through views, copies, selections and joins."""
    value = program[name]
    if value.op == "input":
        return {(name, row)}
    if value.op != "aten":
        return set()
    first = value.args[0].name if value.args and isinstance(value.args[0], Ref) else None
    if value.target is None:
        whole = packet_of(program[first]) if first is not None else None
        return origins(program, program[first].refs()[0], value.args[1]) if first and whole is aten.unbind else set()
    packet = packet_of(value)
    if packet in (aten.cat, aten.stack):
        parts = [item.name for item in value.args[0]]
        dim = value.args[1] if len(value.args) > 1 else 0
        if dim == 0 and row is not None and len(parts) == 2:
            return origins(program, parts[row])
        return set().union(*(origins(program, part, row) for part in parts))
    if first is None:
        return set()
    if packet is aten.select and value.args[1] == 0 and value.args[2] in (0, 1):
        return origins(program, first, value.args[2])
    if packet is aten.flip and list(value.args[1]) == [0]:
        return origins(program, first, None if row is None else 1 - row)
    return origins(program, first, row) if packet in _CARRY else set()


def arguments_below(program: Program, *names: str) -> set[str]:
    """The names of all values of arguments that these values are computed from."""
    found: set[str] = set()
    seen: set[str] = set()
    stack = list(names)
    while stack:
        name = stack.pop()
        if name not in seen:
            seen.add(name)
            stack += program[name].refs()
            if program[name].op == "input":
                found.add(name)
    return found
