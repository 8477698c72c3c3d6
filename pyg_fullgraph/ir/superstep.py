"""`Schedule`: a program cut into supersteps, each a list of whole operators and one block program per space."""

from __future__ import annotations

from dataclasses import dataclass, field

import sympy

from pyg_fullgraph.ir.fetches import Fetch
from pyg_fullgraph.ir.program import Program


@dataclass(frozen=True)
class BlockProgram:
    """What one block of rows of one space runs, once per superstep.

    Args:
        space: the rows' space.
        order: the values to compute, each with the destination index on whose in-edges it runs (None: on the rows).
        stored: values written whole, because they are needed at other rows, later, or as output.
        fetches: what it reads of other rows.
    """

    space: sympy.Expr
    order: tuple[tuple[str, str | None], ...]  # (value, destination index whose in-edges it runs on; None: rows)
    stored: tuple[str, ...]
    fetches: tuple[Fetch, ...] = ()

    @property
    def layouts(self) -> frozenset[str]:
        """The destination indices by which it fetches."""
        return frozenset(fetch.layout for fetch in self.fetches if fetch.layout is not None)


@dataclass(frozen=True)
class Superstep:
    """One bulk-synchronous step: whole operators first, then every space's block program.

    Args:
        views: values that only reshape what is complete already, at no cost.
        whole: values that need their inputs complete, run on whole tables.
        blocks: one program per row space.
        frees: stored values no longer needed after this step.
    """

    whole: tuple[str, ...]
    blocks: tuple[BlockProgram, ...]
    frees: tuple[str, ...] = ()
    views: tuple[str, ...] = ()


def needs_all_rows(program: Program, schedule: Schedule) -> bool:
    """True where some value is made of all rows: a run cannot be restricted to some nodes' neighbourhood then."""
    names = [name for step in schedule.steps for block in step.blocks for name, _ in block.order]
    return any(step.whole for step in schedule.steps) or any(program[name].is_pool for name in names)


@dataclass
class Schedule:
    """The supersteps of a program, in order."""

    steps: list[Superstep] = field(default_factory=list)

    @property
    def hops(self) -> int:
        """How many supersteps fetch over edges: over how many of them a row of the output can see."""
        return sum(any(block.layouts for block in step.blocks) for step in self.steps)
