"""`Plan`: what a run does on one graph, as data: made before it, printed by `explain`, reserved by the store, executed.

::

    step 0
      rows of N: 2,708 in 11 blocks
        fetch  x by source at in-edges of target, merged as mean
        store  relu  float32[2708, 16], table, 173,312 bytes, steps 0 to 1
      held: 173,312 bytes
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property

import sympy
from torch import Tensor

from pyg_fullgraph.ir import BlockProgram, Program, Schedule
from pyg_fullgraph.ir.fetches import Fetch
from pyg_fullgraph.plan.blocks import Blocks, cut_blocks
from pyg_fullgraph.plan.tables import Extents, Parts, TableSpec, bytes_by_step, make_tables

#: Space -> how many of its first rows each superstep computes, where fewer than are here.
Limits = Mapping[sympy.Expr, tuple[int, ...]]


@dataclass(frozen=True)
class Launch:
    """One block program of a superstep.

    Args:
        block: what a block of rows computes, stores and fetches.
        space: name of its rows.
        rows: how many are computed; None where only the run tells.
        blocks: their row blocks with the bounds of their in-edges; None as well.
    """

    block: BlockProgram
    space: str
    rows: int | None
    blocks: Blocks | None

    @property
    def fetches(self) -> tuple[Fetch, ...]:
        """What it reads of other rows."""
        return self.block.fetches


@dataclass(frozen=True)
class StepPlan:
    """One superstep.

    Args:
        whole: operators that run on whole tables, first; views among them cost nothing.
        launches: the block programs.
        reductions: totals over all rows, complete at its end.
        frees: values that nothing needs after it.
        held: bytes of all tables at its end, before it frees.
    """

    whole: tuple[str, ...]
    launches: tuple[Launch, ...]
    reductions: tuple[str, ...]
    frees: tuple[str, ...]
    held: int


@dataclass(frozen=True)
class Plan:
    """The supersteps of a run on one graph, and the tables that they make.

    Args:
        steps: in order.
        tables: value -> its table, in the order in which they are made.
    """

    steps: tuple[StepPlan, ...]
    tables: Mapping[str, TableSpec]

    @property
    def peak(self) -> int:
        """The most bytes of tables at one time."""
        return max((step.held for step in self.steps), default=0)

    @cached_property
    def digest(self) -> str:
        """The same for two plans that do the same: of their text and the bounds of all blocks."""
        bounds = [launch.blocks for step in self.steps for launch in step.launches]
        return hashlib.sha256(f"{self}\n{bounds}".encode()).hexdigest()[:16]

    def __hash__(self) -> int:
        return hash(self.digest)

    def __str__(self) -> str:
        lines = []
        for number, step in enumerate(self.steps):
            lines.append(f"step {number}")
            lines += [f"  whole  {self.tables.get(name, name)}" for name in step.whole]
            for launch in step.launches:
                lines += self._launch(launch)
            lines += [f"  free   {', '.join(step.frees)}"] if step.frees else []
            lines.append(f"  held: {step.held:,} bytes")
        return "\n".join(lines)

    def _launch(self, launch: Launch) -> list[str]:
        lines = [f"  rows of {launch.space}: {'known as it runs' if launch.rows is None else f'{launch.rows:,}'}"]
        if launch.blocks is not None:
            lines[0] += f" in {len(launch.blocks):,} block{'' if len(launch.blocks) == 1 else 's'}"
        lines += [f"    fetch  {fetch}" for fetch in launch.fetches]
        return lines + [f"    store  {self.tables[name]}" for name in launch.block.stored]


def make_plan(
    program: Program,
    schedule: Schedule,
    parts: Parts,
    extents: Extents,
    rowptrs: Callable[[BlockProgram], list[Tensor]],
    limits: Limits | None = None,
) -> Plan:
    """The plan of a schedule for one graph.

    Args:
        program, schedule: what runs.
        parts: from `placed_parts`.
        extents: of the spaces of the graph.
        rowptrs: int64 [rows + 1 or more] of every aggregation of a block program.
        limits: where fewer rows than are here are computed.
    """
    tables = make_tables(program, schedule, parts, extents)
    held = bytes_by_step(tables, len(schedule.steps))
    steps = []
    for number, step in enumerate(schedule.steps):
        launches = []
        for block in step.blocks:
            extent = extents(block.space)
            rows = None if extent is None else extent.local
            if rows is not None and limits is not None and block.space in limits:
                rows = min(rows, limits[block.space][number])
            blocks = None if rows is None else row_blocks(program, block, rows, rowptrs)
            launches.append(Launch(block, program.space_name(block.space), rows, blocks))
        reductions = tuple(name for block in step.blocks for name in block.stored if program[name].is_pool)
        steps.append(StepPlan((*step.views, *step.whole), tuple(launches), reductions, step.frees, held[number]))
    return Plan(tuple(steps), tables)


def row_blocks(
    program: Program, block: BlockProgram, rows: int, rowptrs: Callable[[BlockProgram], list[Tensor]]
) -> Blocks:
    """The row blocks of a block program; of no rows none, but one without rows where it makes a total."""
    if rows > 0:
        return cut_blocks(program, block, rows, rowptrs(block))
    if any(program[name].is_pool for name in block.stored):
        return [(0, 0, ((0, 0),) * len(rowptrs(block)))]
    return []
