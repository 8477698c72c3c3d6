"""Rows of several types in one table: each part is computed in its place, so that joining them copies nothing."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import sympy
from torch import Tensor

from pyg_fullgraph.ir import Program
from pyg_fullgraph.passes.union import joined_rows
from pyg_fullgraph.plan.tables import Parts, TableSpec
from pyg_fullgraph.runtime.home import Table
from pyg_fullgraph.runtime.store import TableStore


class Unions:
    """The unions of one run.

    Args:
        program: holds the values.
        parts: from `placed_parts`.
        size_of: symbolic size -> its number for this graph.
        tables: of the plan.
        store: where tables live.
    """

    def __init__(
        self,
        program: Program,
        parts: Parts,
        size_of: Callable[[sympy.Expr], int | float],
        tables: Mapping[str, TableSpec],
        store: TableStore,
    ) -> None:
        self.program, self.parts, self.size_of, self.tables, self.store = program, parts, size_of, tables, store
        self._open: dict[str, Table] = {}
        self._placed: dict[str, set[int]] = {}

    def part(self, name: str) -> Table | None:
        """The rows of a union that a value is to be written to; None where it is no part of one."""
        if name not in self.parts:
            return None
        union, number = self.parts[name]
        start, stop = self._span(union, number)
        self._placed.setdefault(union, set()).add(number)
        table = self._table(union).part(start, stop)
        self.store.share(name)
        return table

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
            assert value.space is not None
            tail = tuple(int(size) for size in value.shape[1:])
            self._open[union] = self.store.allocate(self.tables[union], int(self.size_of(value.space)), tail)
        return self._open[union]

    def _span(self, union: str, number: int) -> tuple[int, int]:
        parts = joined_rows(self.program, self.program[union]) or []
        sizes = [int(self.size_of(self.program[part.name].shape[0])) for part in parts]
        return sum(sizes[:number]), sum(sizes[: number + 1])
