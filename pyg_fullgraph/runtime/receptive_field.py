"""The receptive field of some output rows: the rows of every space that each superstep must compute for them.

Found backwards over the schedule: what a block program fetches for the rows that are needed of it must have been
computed before. The rows of a space are renumbered so that those needed longest come first: every superstep then
computes a prefix. Structural values (degrees, weights) are those of the whole graph, sliced: nothing is recomputed on
the smaller one, and sizes that the model reads as numbers stay those of the whole graph (`ir.extents`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import sympy
import torch
from torch import Tensor

from pyg_fullgraph.graph.csr import edges_in_steps, positions_of
from pyg_fullgraph.ir import BlockProgram, Dim, Program, Schedule, Stage, Value, map_args, needs_all_rows, refs_of
from pyg_fullgraph.ir.extents import Means, meaning
from pyg_fullgraph.ir.fetches import Fetch
from pyg_fullgraph.ir.fused import FUSED
from pyg_fullgraph.ir.program import is_symbolic
from pyg_fullgraph.runtime.executor import Compiled
from pyg_fullgraph.runtime.in_edges import InEdges
from pyg_fullgraph.runtime.structure import Structure

#: A receptive field with more of the rows than this is not worth the renumbering: copies of inputs and in-edges cost
#: about what the computation of as many rows does.
WORTHWHILE = 0.6

Asked = Mapping[sympy.Expr, Tensor]


@dataclass(frozen=True)
class RowMap:
    """Some rows of one space under new numbers.

    Args:
        rows: int64 [M], the rows that are here, in their new order.
        place: int64 [total], the new number of every row; -1 for rows that are not here.
    """

    rows: Tensor
    place: Tensor

    @classmethod
    def of(cls, rows: Tensor, total: int) -> RowMap:
        """From distinct row numbers in their new order."""
        place = torch.full((total,), -1, dtype=torch.int64, device=rows.device)
        place[rows] = torch.arange(rows.numel(), device=rows.device)
        return cls(rows, place)

    def localize(self, index: Tensor) -> Tensor:
        """Old row numbers as new ones, in the same integer type; rows that are not here become 0."""
        return self.place.index_select(0, index.reshape(-1)).clamp_(min=0).to(index.dtype).view(index.shape)

    def take(self, tensor: Tensor, dim: int = 0) -> Tensor:
        """The rows that are here."""
        return tensor.index_select(dim, self.rows)


@dataclass(frozen=True)
class ReceptiveField:
    """A restricted run: its structure and inputs, rows to compute in each superstep, and where the asked rows are.

    Args:
        structure, inputs: of the rows that are here.
        limits: space -> how many of its rows each superstep computes: the first ones.
        position: space -> int64 [M], where the rows asked for are.
    """

    structure: Structure
    inputs: dict[str, Tensor]
    limits: dict[sympy.Expr, tuple[int, ...]]
    position: dict[sympy.Expr, Tensor]


def receptive_field(
    compiled: Compiled, structure: Structure, inputs: dict[str, Tensor], asked: Asked
) -> ReceptiveField | None:
    """The receptive field of the rows asked for; None where all rows are needed, or nearly all.

    Args:
        compiled: what runs.
        structure: of the whole graph, prepared.
        inputs: all tensor arguments by name.
        asked: space -> int64 [M], rows of outputs. Outputs over rows of other spaces need all rows.
    """
    program, spaces = compiled.program, frozenset(asked)
    if spaces not in compiled.restrictable:
        compiled.restrictable[spaces] = can_restrict(program, compiled.schedule, spaces)
    if not compiled.restrictable[spaces]:
        return None
    found = _Search(compiled, structure, asked).run()
    if found is None:
        return None
    maps, limits = found
    small = structure.restricted({space: int(rows.rows.numel()) for space, rows in maps.items()})
    for number, step in enumerate(compiled.schedule.steps):
        for position, block in enumerate(step.blocks):
            for layout in compiled.code[number, position].layouts:
                if layout not in small.in_edges:  # its first use is for the most rows
                    rows = maps[block.space].rows[: limits[block.space][number]]
                    small.in_edges[layout] = _in_edges(compiled, structure, maps, layout, rows, block.space)
    by_row = {fetch.index: maps[_space(program, fetch)] for fetch in _fetches(compiled.schedule) if not fetch.layout}
    for name, item in structure.values.items():
        small.values[name] = _sliced(program[name], item, maps)
        if name in by_row:
            small.values[name] = by_row[name].localize(small.values[name])
    picked = dict(inputs)
    for value in program:
        if value.op == "input" and value.stage is Stage.DATA:
            picked[value.args[0]] = _sliced(value, inputs[value.args[0]], maps)
    return ReceptiveField(
        small, picked, limits, {space: maps[space].place.index_select(0, rows) for space, rows in asked.items()}
    )


def _sliced(value: Value, item: Any, maps: Mapping[sympy.Expr, RowMap]) -> Any:
    """The rows that are here of a value; all of it where it has none of these spaces."""
    if not isinstance(item, Tensor) or value.row_dim is None or value.space not in maps:
        return item
    return maps[value.space].take(item, value.row_dim)


def _in_edges(
    compiled: Compiled,
    structure: Structure,
    maps: Mapping[sympy.Expr, RowMap],
    layout: str,
    rows: Tensor,
    space: sympy.Expr,
) -> InEdges:
    """The in-edges of `rows`, the first of those that are here; the others have none."""
    program, edges = compiled.program, structure.in_edges[layout]
    rowptr, positions = positions_of(edges.rowptr, rows)
    rowptr = torch.cat([rowptr, rowptr[-1:].expand(maps[space].rows.numel() - rows.numel())])
    values = {name: tensor.index_select(0, positions) for name, tensor in edges.values.items()}
    for fetch in _fetches(compiled.schedule):
        if fetch.layout == layout:
            sorted_index = edges.values[fetch.index].index_select(0, positions)
            values[fetch.index] = maps[_space(program, fetch)].localize(sorted_index)
    perm = None if edges.perm is None else edges.perm.index_select(0, positions)
    return InEdges(rowptr, values, perm, edges)


def _fetches(schedule: Schedule) -> Iterator[Fetch]:
    return (fetch for step in schedule.steps for block in step.blocks for fetch in block.fetches)


def _space(program: Program, fetch: Fetch) -> sympy.Expr:
    """The rows among which a fetch picks."""
    space = program[fetch.value].space
    assert space is not None
    return space


class _Search:
    """Backwards over the schedule: the last superstep in which each row is computed.

    Args:
        compiled, structure, asked: as for `receptive_field`.
    """

    ABSENT = -2  # what is not here; -1: what is here as an input, and never computed

    def __init__(self, compiled: Compiled, structure: Structure, asked: Asked) -> None:
        self.compiled, self.program, self.structure = compiled, compiled.program, structure
        self.steps = compiled.schedule.steps
        self.last: dict[sympy.Expr, Tensor] = {}  # space -> int16 [total]
        for block in (block for step in self.steps for block in step.blocks):
            self._of(block.space)
        for space, rows in asked.items():
            self._of(space)[rows] = len(self.steps) - 1

    def run(self) -> tuple[dict[sympy.Expr, RowMap], dict[sympy.Expr, tuple[int, ...]]] | None:
        """The rows of every space that are here, and how many of them each superstep computes."""
        for number in reversed(range(len(self.steps))):
            for block in self.steps[number].blocks:
                rows = (self._of(block.space) >= number).nonzero().view(-1)
                for fetch in block.fetches:
                    self._mark(fetch, rows, number - 1)
        limits = {
            space: tuple(int((last >= number).sum()) for number in range(len(self.steps)))
            for space, last in self.last.items()
        }
        if not self._pays(limits):
            return None
        return {space: self._map(last) for space, last in self.last.items()}, limits

    def _of(self, space: sympy.Expr) -> Tensor:
        if space not in self.last:
            total = int(self.structure.size_of(space))
            self.last[space] = torch.full((total,), self.ABSENT, dtype=torch.int16)
        return self.last[space]

    def _mark(self, fetch: Fetch, rows: Tensor, number: int) -> None:
        """What is fetched for `rows` must be there after the superstep `number`."""
        last = self._of(_space(self.program, fetch))
        for index in self._numbers(fetch, rows):
            index = index.long()
            last[index] = last[index].clamp_(min=number)

    def _numbers(self, fetch: Fetch, rows: Tensor) -> Iterator[Tensor]:
        if fetch.layout is None:
            yield self.structure.value(fetch.index).index_select(0, rows).reshape(-1)
            return
        edges = self.structure.in_edges[fetch.layout]
        for part in edges_in_steps(edges.rowptr, rows):
            yield edges.values[fetch.index].index_select(0, positions_of(edges.rowptr, part)[1])

    def _pays(self, limits: Mapping[sympy.Expr, tuple[int, ...]]) -> bool:
        """Whether it saves enough of the rows of all block programs."""
        computed = total = 0
        for number, step in enumerate(self.steps):
            for block in step.blocks:
                computed += limits[block.space][number]
                total += self.last[block.space].numel()
        return computed <= WORTHWHILE * total

    @staticmethod
    def _map(last: Tensor) -> RowMap:
        """The rows that are here, those computed longest first."""
        rows = (last >= -1).nonzero().view(-1)
        order = last.index_select(0, rows).sort(descending=True, stable=True).indices
        return RowMap.of(rows.index_select(0, order), last.numel())


def can_restrict(program: Program, schedule: Schedule, asked: frozenset[sympy.Expr]) -> bool:
    """Whether a run can be restricted to the rows that the asked ones depend on.

    It cannot where a value is made of all rows, where rows of other spaces are returned as well, or where a number of a
    row is used as more than the place to fetch a row from: rows get new numbers.

    Args:
        program, schedule: what runs.
        asked: the spaces of which some rows are asked for.
    """
    if needs_all_rows(program, schedule) or not all(is_symbolic(space) for space in asked):
        return False
    fetches = list(_fetches(schedule))
    renumbered: dict[tuple[str, str | None], set[Any]] = {}
    for fetch in fetches:
        renumbered.setdefault((fetch.index, fetch.layout), set()).add(program[fetch.value].space)
    outputs = [program[name] for name in program.output_names()]
    return (
        all(len(spaces) == 1 for spaces in renumbered.values())
        and all(_is_plain(program[fetch.value]) and program[fetch.index].stage is Stage.STRUCT for fetch in fetches)
        and all(value.stage is not Stage.DATA or value.space in asked for value in outputs)
        and not {value.name for value in outputs} & {fetch.index for fetch in fetches}
        and all(_is_restrictable(program, block, fetches) for step in schedule.steps for block in step.blocks)
    )


def _is_plain(value: Value) -> bool:
    """One row for each of a space that is a size of the graph."""
    return value.row_dim is not None and value.space is not None and value.space.is_Symbol


def _is_restrictable(program: Program, block: BlockProgram, fetches: list[Fetch]) -> bool:
    numbers = {fetch.index for fetch in fetches}
    for name, context in block.order:
        value = program[name]
        if name in block.stored and (context is not None or value.space != block.space):
            return False
        if any(program[ref].is_pairwise for ref in value.refs()) or numbers & _plain_refs(value):
            return False
        if not _sizes_are_clear(value):
            return False
    return bool(block.space.is_Symbol)


def _plain_refs(value: Value) -> set[str]:
    """The values that are used otherwise than as an index of rows."""
    indices = (1, 2) if value.op in FUSED else (1,) if value.op in ("gather", "reduce", "softmax") else ()
    args = [arg for position, arg in enumerate(value.args) if position not in indices]
    return set(refs_of((tuple(args), value.kwargs)))


def _sizes_are_clear(value: Value) -> bool:
    """Whether each size among the arguments is known to be a number of rows, or a number as any other."""
    if value.op in FUSED or value.op in ("gather", "reduce", "softmax"):
        return True
    arguments: list[tuple[int | str, Any]] = [*enumerate(value.args), *value.kwargs.items()]
    sized = [where for where, arg in arguments if _has_size(arg)]
    return value.op == "aten" and all(meaning(value, where) is not Means.PLACE for where in sized)


def _has_size(tree: Any) -> bool:
    found: list[Dim] = []
    map_args(tree, lambda leaf: found.append(leaf) if isinstance(leaf, Dim) else None)
    return bool(found)
