"""Rows of several types in one table: each part is computed in its place, so that joining them copies nothing."""

from __future__ import annotations

from collections.abc import Callable

import sympy
from torch import Tensor

from pyg_fullgraph.ir import Program, Schedule, Stage, Value
from pyg_fullgraph.passes.union import joined_rows
from pyg_fullgraph.runtime.buffers import view_base
from pyg_fullgraph.runtime.home import Home, Table

Parts = dict[str, tuple[str, int]]  # stored value -> the union it is a part of, and its number there


def placed_parts(program: Program, schedule: Schedule) -> Parts:
    """Stored values that can be written straight into their rows of a union.

    Args:
        program, schedule: what runs.
    """
    stored: dict[str, tuple[str, ...]] = {}
    parts: Parts = {}
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


class Unions:
    """The unions of one run.

    Args:
        program: holds the values.
        parts: from `placed_parts`.
        size_of: symbolic size -> its number for this graph.
        home: where tables live.
    """

    def __init__(
        self, program: Program, parts: Parts, size_of: Callable[[sympy.Expr], int | float], home: Home
    ) -> None:
        self.program, self.parts, self.size_of, self.home = program, parts, size_of, home
        self._open: dict[str, Table] = {}
        self._placed: dict[str, set[int]] = {}

    def part(self, name: str) -> Table | None:
        """The rows of a union that a value is to be written to; None where it is no part of one."""
        if name not in self.parts:
            return None
        union, number = self.parts[name]
        start, stop = self._span(union, number)
        self._placed.setdefault(union, set()).add(number)
        return self._table(union).part(start, stop)

    def joined(self, name: str, whole: Callable[[str], Tensor]) -> Table | None:
        """A union, after what was not written in place has been copied; None where nothing was.

        Args:
            name: the value that joins.
            whole: any complete value, by name.
        """
        if name not in self._open:
            return None
        table, placed = self._open.pop(name), self._placed.pop(name)
        for number, part in enumerate(joined_rows(self.program, self.program[name]) or []):
            if number not in placed:
                start, _stop = self._span(name, number)
                table.write(start, whole(part.name))
        return table

    def close(self) -> None:
        """Let go of unions that were never joined: those of a run that failed."""
        self._open.clear()

    def _table(self, union: str) -> Table:
        if union not in self._open:
            value = self.program[union]
            assert value.dtype is not None and value.space is not None
            tail = tuple(int(size) for size in value.shape[1:])
            self._open[union] = self.home.allocate(int(self.size_of(value.space)), tail, value.dtype)
        return self._open[union]

    def _span(self, union: str, number: int) -> tuple[int, int]:
        parts = joined_rows(self.program, self.program[union]) or []
        sizes = [int(self.size_of(self.program[part.name].shape[0])) for part in parts]
        return sum(sizes[:number]), sum(sizes[: number + 1])
