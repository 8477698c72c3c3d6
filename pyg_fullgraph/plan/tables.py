"""The tables of a run, before it runs: where each value that is kept whole lives, how large it is, and how long.

Three values may share the memory of one table: the value itself, views of it, and the parts that are joined in it one
after another (`TableSpec.alias_of`). The memory is taken when the first of them is made, and given back after the last.
"""

from __future__ import annotations

import enum
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import sympy
import torch

from pyg_fullgraph.ir import BlockProgram, Program, Schedule, Stage, Value, is_aten
from pyg_fullgraph.ir.extents import Extent
from pyg_fullgraph.ir.program import is_symbolic
from pyg_fullgraph.passes.union import joined_rows

aten = torch.ops.aten

#: Space -> its rows here; None for one whose size only the run tells.
Extents = Callable[[sympy.Expr], Extent | None]
#: Stored value -> the joined table that it is a part of, and its number there.
Parts = Mapping[str, tuple[str, int]]


class Residence(enum.Enum):
    """Who makes the memory of a value."""

    TABLE = "table"  # the store, before the blocks that write it
    PART = "part"  # rows of a joined table
    VIEW = "view"  # another table, in another shape
    WHOLE = "whole"  # the operator that computes all of it at once; the store takes it over
    TOTAL = "total"  # the accumulator of a reduction over all rows


@dataclass(frozen=True)
class TableSpec:
    """One value that outlives the blocks that compute it.

    Args:
        value: its name.
        extent: the rows; None for a value without rows, or whose number of rows only the run tells.
        tail: sizes of its other dimensions.
        dtype: of its elements.
        residence: who makes its memory.
        alias_of: the value whose memory it shares; an argument's is the user's. None where it has its own.
        born: the superstep that makes it.
        dies: the last superstep that needs it; the number of supersteps for an output.
        known: whether its size is known before the run.
    """

    value: str
    extent: Extent | None
    tail: tuple[int, ...]
    dtype: torch.dtype | None
    residence: Residence
    alias_of: str | None
    born: int
    dies: int
    known: bool = True

    @property
    def nbytes(self) -> int:
        """Bytes of its own; 0 where it shares another's memory or its size is not known."""
        if self.alias_of is not None or not self.known or self.dtype is None:
            return 0
        rows = 1 if self.extent is None else self.extent.local
        return rows * math.prod(self.tail) * self.dtype.itemsize

    def __str__(self) -> str:
        kind = str(self.dtype).removeprefix("torch.")
        rows = "?" if not self.known else "" if self.extent is None else str(self.extent.local)
        sizes = ", ".join([*([rows] if rows else []), *map(str, self.tail)])
        shared = f", in the memory of {self.alias_of}" if self.alias_of is not None else f", {self.nbytes:,} bytes"
        return f"{self.value}  {kind}[{sizes}], {self.residence.value}{shared}, steps {self.born} to {self.dies}"


def make_tables(program: Program, schedule: Schedule, parts: Parts, extents: Extents) -> dict[str, TableSpec]:
    """The tables of all supersteps, by value, in the order in which they are made.

    Args:
        program, schedule: what runs.
        parts: from `placed_parts`.
        extents: of the spaces of the graph at hand.
    """
    return _Tables(program, schedule, parts, extents).run()


def bytes_by_step(tables: Mapping[str, TableSpec], steps: int) -> tuple[int, ...]:
    """Bytes that are held at the end of each superstep, before it frees what is not needed any longer."""
    held = [0] * steps
    for spec in tables.values():
        if spec.nbytes:
            first, last = lifetime(tables, spec.value)
            for number in range(first, min(last + 1, steps)):
                held[number] += spec.nbytes
    return tuple(held)


def lifetime(tables: Mapping[str, TableSpec], value: str) -> tuple[int, int]:
    """The first and the last superstep in which the memory of a table is held, by it or by what shares it."""
    sharing = [spec for spec in tables.values() if root_of(tables, spec.value) == value]
    return min(spec.born for spec in sharing), max(spec.dies for spec in sharing)


def root_of(tables: Mapping[str, TableSpec], value: str) -> str:
    """The value whose memory a table is in."""
    while value in tables and (above := tables[value].alias_of) is not None:
        value = above
    return value


class _Tables:
    def __init__(self, program: Program, schedule: Schedule, parts: Parts, extents: Extents) -> None:
        self.program, self.schedule, self.parts, self.extents = program, schedule, parts, extents
        self.dies = {name: number for number, step in enumerate(schedule.steps) for name in step.frees}
        self.found: dict[str, TableSpec] = {}

    def run(self) -> dict[str, TableSpec]:
        for number, step in enumerate(self.schedule.steps):
            for name in (*step.views, *step.whole):
                alias = self._shared_by(name)
                self._add(name, number, Residence.WHOLE if alias is None else Residence.VIEW, alias)
            for block in step.blocks:
                for name in block.stored:
                    self._stored(name, block, number)
        return self.found

    def _stored(self, name: str, block: BlockProgram, number: int) -> None:
        base = view_base(self.program, name, block.stored)
        if self.program[name].is_pool:
            self._add(name, number, Residence.TOTAL, None)
        elif base is not None:
            self._add(name, number, Residence.VIEW, base)
        elif name in self.parts:
            self._add(name, number, Residence.PART, self.parts[name][0])
        else:
            self._add(name, number, Residence.TABLE, None)

    def _shared_by(self, name: str) -> str | None:
        """The operand whose memory a whole operator's result lies in."""
        value = self.program[name]
        if value.target is None and value.op == "aten":  # one of several results, each with memory of its own
            return None
        schema = getattr(value.target, "_schema", None)
        if schema is None or not value.args or not hasattr(value.args[0], "name") or not schema.returns:
            return None
        alias = schema.returns[0].alias_info
        return str(value.args[0].name) if alias is not None and not alias.is_write else None

    def _add(self, name: str, born: int, residence: Residence, alias: str | None) -> None:
        value = self.program[name]
        if value.stage is not Stage.DATA:
            return
        sizes = [self._size(size) for size in value.shape]
        dies = self.dies.get(name, len(self.schedule.steps))
        extent = None if value.space is None else self.extents(value.space)
        known = None not in sizes and not value.multi
        if value.space is None:
            tail = tuple(size or 0 for size in sizes)
        else:
            tail = tuple(size or 0 for axis, size in enumerate(sizes) if axis != value.row_dim)
        self.found[name] = TableSpec(name, extent, tail, value.dtype, residence, alias, born, dies, known)

    def _size(self, size: sympy.Expr | int) -> int | None:
        if not is_symbolic(size):
            return int(size)
        extent = self.extents(size)
        return None if extent is None else extent.local


def view_base(program: Program, name: str, stored: tuple[str, ...]) -> str | None:
    """The stored value that `name` is a view of, rows first: both can share one table. None where there is none."""
    base = program[name]
    while is_aten(base, aten.view) and base.row_dim == 0:
        below = program[base.args[0].name]
        if below.row_dim != 0 or below.space != base.space:
            return None
        if below.name in stored:
            return below.name
        base = below
    return None


def placed_parts(program: Program, schedule: Schedule) -> dict[str, tuple[str, int]]:
    """Stored values that can be written straight into their rows of a joined table.

    Args:
        program, schedule: what runs.
    """
    stored: dict[str, tuple[str, ...]] = {}
    parts: dict[str, tuple[str, int]] = {}
    for step in schedule.steps:
        for name in step.whole:
            for number, part in enumerate(joined_rows(program, program[name]) or []):
                if part.name in stored and part.name not in parts and _fits(program, program[name], part.name):
                    parts[part.name] = name, number
        for block in step.blocks:
            own = {name for name in block.stored if view_base(program, name, block.stored) is None}
            stored.update(dict.fromkeys(own, block.stored))
    return parts


def _fits(program: Program, union: Value, part: str) -> bool:
    """Rows first, of the union's type, and a size that is known before anything runs."""
    value = program[part]
    if union.row_dim != 0 or value.row_dim != 0 or value.dtype != union.dtype or union.space is None:
        return False
    definers = [program.definers.get(symbol) for symbol in union.space.free_symbols]
    return all(name is None or program[name].stage is Stage.STRUCT for name in definers)
