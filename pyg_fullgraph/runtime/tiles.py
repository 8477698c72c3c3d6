"""Rows of structural values by range, so that a graph's structure is made without an edge value whole.

A value with no more rows than a tile is made whole and kept: that is one tile. Of a larger one any range of rows can be
asked for, and is made of ranges of what it depends on (`ir.ranged`): rows that a mask keeps, of the cells of the mask;
joined rows, of their parts. What has to be made at once is made at once.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator
from typing import Any, Protocol

import numpy as np
import sympy
import torch
from torch import Tensor

from pyg_fullgraph.ir import Dim, Program, Ref, Stage, Value, map_args
from pyg_fullgraph.ir.extents import SHAPE_ARGUMENT
from pyg_fullgraph.ir.program import packet_of
from pyg_fullgraph.ir.ranged import How, Ranged, folded, ranged
from pyg_fullgraph.runtime.evaluate import callee

aten = torch.ops.aten

#: Rows that are made at a time: some dozens of temporaries of so many rows fit into a cache.
TILE = 1 << 16

_VIEWS = {
    *(aten.select, aten.slice, aten.view, aten.unsqueeze, aten.squeeze, aten.expand, aten.t, aten.transpose),
    *(aten.permute, aten.alias, aten.detach),
}
#: What they return spans as much memory as what they are given: for a range of columns, that is whole rows.
_SPANNING = (aten.select_scatter, aten.slice_scatter)


class Values(Protocol):
    """What holds the values that are whole, and makes others so."""

    program: Program
    sizes: dict[sympy.Symbol, int | float]
    values: dict[str, Any]

    def size_of(self, expr: sympy.Expr) -> int | float:
        """The number that a symbolic size has."""

    def value(self, name: str) -> Any:
        """A value whole."""


class Tiles:
    """Makes values of one graph range by range.

    Args:
        held: its values.
    """

    def __init__(self, held: Values) -> None:
        self.held, self.program = held, held.program
        self._forms: dict[str, Ranged | None] = {}
        self._large: dict[str, bool] = {}
        self._orders: dict[tuple[str, ...], list[tuple[Value, list[str]]]] = {}
        self._places: dict[str, int] = {}
        self._kept: dict[str, list[int]] = {}  # mask -> how many rows it keeps before each of its cells, and in all
        self._last: dict[str, tuple[int, Tensor]] = {}  # the last cell asked for, and what is kept of it

    # -- what can be made -------------------------------------------------------------------------------------

    def form(self, name: str) -> Ranged | None:
        """How a value's rows are made by range, on this graph."""
        if name not in self._forms:
            form = ranged(self.program, self.program[name])
            joined = form.read if form is not None and form.how is How.JOINED else ()
            if joined and sum(self._rows(part) for part in joined) != self._rows(name):
                form = None  # the sizes that were traced say otherwise
            self._forms[name] = form
        return self._forms[name]

    def is_large(self, name: str) -> bool:
        """Whether a value has rows, and more than a tile, as far as that can be known before it is made."""
        space = self.program[name].space
        if space is None:
            return False
        if name not in self._large:
            for symbol in space.free_symbols - self.held.sizes.keys():
                definer = self.program.definers[symbol]
                if definer == name or self.program[definer].stage is not Stage.STRUCT:
                    return False
            self._large[name] = self._rows(name) > TILE
        return self._large[name]

    def is_free(self, name: str) -> bool:
        """Whether a value is there, or is a view of what is there."""
        while name not in self.held.values:
            value = self.program[name]
            if packet_of(value) not in _VIEWS:
                return False
            name = value.refs()[0]
        return True

    def counts(self, symbol: sympy.Symbol) -> int | None:
        """The rows that a large mask keeps, where these are what a size counts; None where they are not."""
        name = self.program.definers[symbol]
        form = self._masked(name)
        return self._cells(form.read[0])[-1] if form is not None and self.program[name].space == symbol else None

    def makes(self, name: str) -> bool:
        """Whether a whole value is better made range by range: nothing that it depends on is then made whole."""
        value = self.program[name]
        if name in self.held.values or value.op not in ("aten", "gather"):
            return False
        if self._masked(name) is not None:
            return True
        fold = folded(self.program, value)
        if fold is not None:
            return self.is_large(fold[0]) and not all(self.is_free(item) for item in fold)
        if packet_of(value) is aten.expand or not self.is_large(name) or self.form(name) is None:
            return False
        return not all(self.is_free(ref) for ref in value.refs() if self.program[ref].space is not None)

    def _masked(self, name: str) -> Ranged | None:
        form = self.form(name) if packet_of(self.program[name]) in (aten.index, aten.nonzero) else None
        return form if form is not None and form.how is How.MASKED and self.is_large(form.read[0]) else None

    def _rows(self, name: str) -> int:
        space = self.program[name].space
        assert space is not None
        return int(self.held.size_of(space))

    # -- making it --------------------------------------------------------------------------------------------

    def whole(self, name: str) -> Tensor:
        """A value whole, range by range; see `makes`."""
        value = self.program[name]
        fold = folded(self.program, value)
        if fold is not None:
            return self._fold(value, *fold)
        out, dim = None, value.row_dim or 0
        for a, b, (rows,) in self.stream((name,)):
            if out is None:
                shape = list(rows.shape)
                shape[dim] = self._rows(name)
                out = torch.empty(shape, dtype=rows.dtype, device=rows.device)
            out.narrow(dim, a, b - a).copy_(rows)
        assert out is not None
        return out

    def _fold(self, value: Value, index: str, source: str) -> Tensor:
        out: Tensor = self.held.value(value.args[0].name).clone()
        add = out.scatter_add_ if packet_of(value) is aten.scatter_add else out.index_add_
        for _, _, (numbers, rows) in self.stream((index, source)):
            add(value.args[1], numbers, rows)
        return out

    def stream(self, names: tuple[str, ...]) -> Iterator[tuple[int, int, list[Any]]]:
        """(a, b, rows [a, b) of each value) until all rows were there; values of one space, at least one range.

        Args:
            names: of the values.
        """
        count = self._rows(names[0])
        for a in range(0, max(count, 1), TILE):
            b = min(a + TILE, count)
            yield a, b, self.take(names, a, b)
        self._last.clear()

    def take(self, names: tuple[str, ...], a: int, b: int) -> list[Any]:
        """Rows [a, b) of values of one space."""
        found: dict[str, Any] = {}
        for value, dead in self._order(names):
            found[value.name] = self._range(value, a, b, found)
            for name in dead:
                del found[name]
        return [found[name] for name in names]

    def _order(self, names: tuple[str, ...]) -> list[tuple[Value, list[str]]]:
        """The values to make for these, all of one space, each with those that nothing reads any more after it."""
        if names not in self._orders:
            self._places = self._places or {name: place for place, name in enumerate(self.program.values)}
            reads: dict[str, tuple[str, ...]] = {}
            stack = list(names)
            while stack:
                name = stack.pop()
                if name not in reads:
                    form = self._by_range(name)
                    reads[name] = form.read if form is not None and form.how in (How.LOCAL, How.LOOKUP) else ()
                    stack += reads[name]
            order = sorted(reads, key=self._places.__getitem__)
            last = {read: name for name in order for read in reads[name]}
            self._orders[names] = [
                (self.program[name], [read for read in set(reads[name]) - set(names) if last[read] == name])
                for name in order
            ]
        return self._orders[names]

    def _by_range(self, name: str) -> Ranged | None:
        """How a value is made by range; None where it is taken from the whole one."""
        if name in self.held.values:
            return None
        return self.form(name) if self.is_large(name) else self._masked(name)

    def _range(self, value: Value, a: int, b: int, found: dict[str, Any]) -> Any:
        form = self._by_range(value.name)
        if form is None:
            return _narrow(self.held.value(value.name), value.row_dim or 0, a, b)
        if form.how is How.LOCAL:
            return self._local(value, b - a, found)
        if form.how is How.LOOKUP:
            return self._lookup(value, found[form.read[0]])
        if form.how is How.MASKED:
            return self._mask(value, form, a, b)
        if form.how is How.JOINED:
            return self._join(value, form, a, b)
        start, step = _numbering(value)
        start = int(self.held.size_of(start.expr)) if isinstance(start, Dim) else start
        device = value.kwargs.get("device")
        return torch.arange(start + a * step, start + b * step, step, dtype=value.dtype, device=device)

    def _local(self, value: Value, rows: int, found: dict[str, Any]) -> Any:
        if value.target is None:
            return found[value.args[0].name][value.args[1]]

        def leaf(item: Any) -> Any:
            if isinstance(item, Ref):
                return found[item.name] if self.program[item.name].space is not None else self.held.value(item.name)
            return self.held.size_of(item.expr) if isinstance(item, Dim) else item

        def size(item: Any) -> Any:
            factor = item.expr / value.space if isinstance(item, Dim) else None
            return int(factor) * rows if factor is not None and factor.is_Integer else leaf(item)

        shape_at = SHAPE_ARGUMENT.get(packet_of(value))
        args = [map_args(arg, size if position == shape_at else leaf) for position, arg in enumerate(value.args)]
        if packet_of(value) in _SPANNING:
            args[0] = args[0].contiguous()
        return callee(value)(*args, **map_args(value.kwargs, leaf))

    def _lookup(self, value: Value, index: Tensor) -> Tensor:
        table: Tensor = self.held.value(value.args[0].name)
        assert value.row_dim is not None
        if packet_of(value) is not aten.index:
            return table.index_select(value.row_dim, index)
        return aten.index.Tensor(table, [None] * value.row_dim + [index])

    def _join(self, value: Value, form: Ranged, a: int, b: int) -> Tensor:
        parts, first = [], 0
        for name in form.read:
            count = self._rows(name)
            start, stop = max(a - first, 0), min(b - first, count)
            if start < stop:
                parts.append(self.take((name,), start, stop)[0])
            first += count
        return torch.cat(parts, value.row_dim or 0).to(value.dtype)

    # -- masks ------------------------------------------------------------------------------------------------

    def _cells(self, mask: str) -> list[int]:
        if mask not in self._kept:
            kept = [0]
            for _, _, (cell,) in self.stream((mask,)):
                kept.append(kept[-1] + int(np.count_nonzero(cell.numpy()) if cell.is_cpu else cell.sum()))
            self._kept[mask] = kept
        return self._kept[mask]

    def _mask(self, value: Value, form: Ranged, a: int, b: int) -> Tensor:
        kept, dim = self._cells(form.read[0]), value.row_dim or 0
        parts: list[Tensor] = []
        cell = max(bisect_right(kept, a) - 1, 0)
        while cell + 1 < len(kept) and (kept[cell] < b or not parts):
            rows = self._of_cell(value, form, cell)
            start, stop = max(a - kept[cell], 0), min(b, kept[cell + 1]) - kept[cell]
            parts.append(rows.narrow(dim, start, max(stop - start, 0)))
            cell += 1
        if not parts:  # an empty range at the very end
            parts.append(self._of_cell(value, form, 0).narrow(dim, 0, 0))
        return parts[0] if len(parts) == 1 else torch.cat(parts, dim)

    def _of_cell(self, value: Value, form: Ranged, cell: int) -> Tensor:
        """What a mask keeps of one of its cells; ranges follow one another, so the last one is at hand.

        NumPy finds the entries of a mask in a sixth of torch's time.
        """
        last = self._last.get(value.name)
        if last is not None and last[0] == cell:
            return last[1]
        a = cell * TILE
        mask, *rows = self.take(form.read, a, min(a + TILE, self._rows(form.read[0])))
        numbers = torch.from_numpy(np.flatnonzero(mask.numpy())) if mask.is_cpu else mask.nonzero().view(-1)
        made = _kept(rows[0], value.row_dim or 0, numbers) if rows else numbers.view(-1, 1) + a
        self._last[value.name] = cell, made
        return made


def _numbering(value: Value) -> tuple[Any, int]:
    """The first number of an `arange` and the step."""
    if value.target is aten.arange.default:
        return 0, 1
    return value.args[0], value.args[2] if value.target is aten.arange.start_step else 1


def _narrow(whole: Any, dim: int, a: int, b: int) -> Any:
    if isinstance(whole, (tuple, list)):  # of an operator with several results
        return [_narrow(item, dim, a, b) for item in whole]
    return whole if whole.shape[dim] == b - a else whole.narrow(dim, a, b - a)


def _kept(rows: Tensor, dim: int, numbers: Tensor) -> Tensor:
    if rows.dim() == 2 and dim == 1:  # the ends of edges: torch takes four times as long for both at once
        return torch.stack([row.index_select(0, numbers) for row in rows])
    return rows.index_select(dim, numbers)
