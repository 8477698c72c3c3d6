"""Between which numbers the entries of an index lie, read from the arguments that they come from where that is enough.

Rows that a mask keeps lie between the bounds of all of them, joined rows between those of their parts: so the ends of
edges are read where the user has them, once, and what is made of them only where that says too little.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from pyg_fullgraph.ir import Program, Ref
from pyg_fullgraph.ir.program import packet_of
from pyg_fullgraph.ir.ranged import How
from pyg_fullgraph.runtime.tiles import Tiles

aten = torch.ops.aten

Range = tuple[int, int]  # smallest and largest
NOTHING: Range = (0, -1)  # the range of no entries

_SAME = {
    *(aten.view, aten._unsafe_view, aten.reshape, aten.expand, aten.unsqueeze, aten.squeeze, aten.clone),
    *(aten.contiguous, aten.alias, aten.detach),
}


class Bounds:
    """The bounds of integer values of one graph.

    Args:
        tiles: of the graph.
    """

    def __init__(self, tiles: Tiles) -> None:
        self.tiles, self.program = tiles, tiles.program
        self._known: dict[tuple[str, int | None], Range | None] = {}
        self._exact: dict[str, Range] = {}

    def within(self, name: str, low: int, high: int) -> bool:
        """Whether all entries of a value lie in [low, high)."""
        return _inside(self._outer(name, None), low, high) or _inside(self.exact(name), low, high)

    def fit(self, name: str, dtype: torch.dtype) -> bool:
        """Whether a type of integers can hold a value."""
        limits = torch.iinfo(dtype)
        return self.within(name, limits.min, limits.max)

    def forget(self) -> None:
        """Values have changed."""
        self._known.clear()
        self._exact.clear()

    def exact(self, name: str) -> Range:
        """The smallest and the largest entry."""
        if name not in self._exact:
            found = NOTHING
            if self.tiles.is_large(name) and not self.tiles.is_free(name):
                for _, _, (rows,) in self.tiles.stream((name,)):
                    found = _joined(found, _of(rows))
            else:
                found = _of(self.tiles.held.value(name))
            self._exact[name] = found
        return self._exact[name]

    def _outer(self, name: str, row: int | None) -> Range | None:
        """A range around the entries of a value, or of its row `row`, without making it; None where that takes more."""
        if (name, row) not in self._known:
            self._known[name, row] = self._follow(self.program, name, row)
        return self._known[name, row]

    def _follow(self, program: Program, name: str, row: int | None) -> Range | None:
        value = program[name]
        if self.tiles.is_free(name) or not self.tiles.is_large(name):
            return self._of_whole(name, row)
        form, packet = self.tiles.form(name), packet_of(value)
        if form is not None and form.how is How.MASKED and len(form.read) == 2:
            return self._outer(form.read[1], row)
        if form is not None and form.how is How.JOINED:
            found: Range | None = NOTHING
            for part in form.read:
                outer = self._outer(part, row)
                found = None if found is None or outer is None else _joined(found, outer)
            return found
        if form is not None and form.how is How.NUMBERS:
            return self.exact(name)
        first: Any = value.args[0] if value.op == "aten" and value.args else None
        if not isinstance(first, Ref):
            return None
        if packet is aten.select and value.args[1] == 0:
            number = value.args[2]
            return self._outer(first.name, number) if row is None and isinstance(number, int) and number >= 0 else None
        if packet is aten.repeat or packet in _SAME:
            return self._outer(first.name, None)
        return None

    def _of_whole(self, name: str, row: int | None) -> Range:
        if row is None:
            return self.exact(name)
        return _of(self.tiles.held.value(name)[row])


def _of(entries: Tensor) -> Range:
    if entries.numel() == 0:
        return NOTHING
    low, high = torch.aminmax(entries)
    return int(low), int(high)


def _joined(a: Range, b: Range) -> Range:
    if a == NOTHING or b == NOTHING:
        return b if a == NOTHING else a
    return min(a[0], b[0]), max(a[1], b[1])


def _inside(found: Range | None, low: int, high: int) -> bool:
    return found is not None and (found == NOTHING or (found[0] >= low and found[1] < high))
