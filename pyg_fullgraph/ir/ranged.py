"""How rows [a, b) of a value are made of ranges of rows of others: what needs no value whole."""

from __future__ import annotations

import enum
from dataclasses import dataclass

import torch

from pyg_fullgraph.ir.program import Dim, Program, Ref, Value, packet_of

aten = torch.ops.aten

_ARANGES = {aten.arange.default, aten.arange.start, aten.arange.start_step}
_FOLDED = (aten.scatter_add, aten.index_add)


class How(enum.Enum):
    """What a range of rows is made of."""

    LOCAL = "the same rows of the operands"
    LOOKUP = "rows of a whole table, at the same rows of an index"
    MASKED = "those rows of an operand that a mask keeps"
    JOINED = "rows of the operands, one after the other"
    NUMBERS = "numbers in order"


@dataclass(frozen=True)
class Ranged:
    """How a value's rows are made.

    Args:
        how: of what.
        read: the operands read by range; of MASKED the mask and, unless its own rows are meant, the operand.
    """

    how: How
    read: tuple[str, ...] = ()


def ranged(program: Program, value: Value) -> Ranged | None:
    """How rows of a value can be made by range; None where all of it has to be made at once."""
    if value.row_dim is None:
        return None
    if value.op == "gather":
        return _lookup(program, value, value.row_dim, value.args[1])
    if value.op != "aten":
        return None
    packet = packet_of(value)
    if packet is aten.index_select:
        dim = value.args[1] % len(value.shape)
        return _lookup(program, value, dim, value.args[2])
    if packet is aten.index:
        return _indexed(program, value)
    if packet is aten.nonzero:
        return _nonzero(program, value)
    if packet is aten.cat:
        return _joined(program, value)
    if value.target in _ARANGES:
        fine = value.dtype is not None and not value.dtype.is_floating_point
        return Ranged(How.NUMBERS) if fine and all(isinstance(arg, (int, Dim)) for arg in value.args) else None
    return _local(program, value)


def folded(program: Program, value: Value) -> tuple[str, str] | None:
    """(index, source) of a value to whose rows something is added, edge by edge in order; None for all others."""
    if packet_of(value) not in _FOLDED or len(value.args) != 4 or value.kwargs:
        return None
    base, dim, index, source = value.args
    if not all(isinstance(arg, Ref) for arg in (base, index, source)):
        return None
    dim %= max(len(value.shape), 1)
    edges, added = program[index.name], program[source.name]
    return (index.name, source.name) if _along(edges, added, 0 if len(edges.shape) == 1 else dim, dim) else None


def _along(index: Value, source: Value, index_dim: int, dim: int) -> bool:
    return index.row_dim == index_dim and source.row_dim == dim and index.space == source.space


def _local(program: Program, value: Value) -> Ranged | None:
    operands = [program[name] for name in value.refs()]
    if not value.local or any(item.is_pairwise for item in operands):
        return None
    if any(item.space is not None and item.space != value.space for item in operands):
        return None
    return Ranged(How.LOCAL, tuple(dict.fromkeys(item.name for item in operands if item.space is not None)))


def _lookup(program: Program, value: Value, dim: int, index: Ref) -> Ranged | None:
    numbers = program[index.name]
    fine = dim == value.row_dim and len(numbers.shape) == 1 and numbers.space == value.space
    return Ranged(How.LOOKUP, (index.name,)) if fine else None


def _indexed(program: Program, value: Value) -> Ranged | None:
    table, entries = value.args[:2]
    given = [(dim, entry) for dim, entry in enumerate(entries) if entry is not None]
    if len(given) != 1 or not isinstance(given[0][1], Ref) or not isinstance(table, Ref):
        return None
    (dim, entry), rows = given[0], program[table.name]
    index = program[entry.name]
    if index.dtype in (torch.int32, torch.int64):
        return _lookup(program, value, dim, entry)
    kept = index.dtype is torch.bool and len(index.shape) == 1 and index.space is not None
    if not kept or not rows.row_dim == value.row_dim == dim or rows.space != index.space:
        return None
    return Ranged(How.MASKED, (entry.name, table.name))


def _nonzero(program: Program, value: Value) -> Ranged | None:
    mask = program[value.args[0].name]
    fine = mask.dtype is torch.bool and len(mask.shape) == 1 and mask.space is not None and value.row_dim == 0
    return Ranged(How.MASKED, (mask.name,)) if fine else None


def _joined(program: Program, value: Value) -> Ranged | None:
    dim = value.args[1] % len(value.shape) if len(value.args) > 1 else 0
    parts = [program[item.name] for item in value.args[0]]
    if dim != value.row_dim or any(part.row_dim != dim for part in parts):
        return None
    return Ranged(How.JOINED, tuple(part.name for part in parts))
