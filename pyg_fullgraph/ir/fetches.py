"""`Fetch`: what a superstep needs of other rows, named in the schedule and not hidden in generated text.

::

    s = gather_reduce(%h, %src, %dst, reduce=mean)     Fetch h by src, in the in-edges of dst, merged as a mean
    y = gather(%h, %permutation)                       Fetch h by permutation, one row for each, merged as plain rows

Prediction, the receptive field of `nodes=`, and whoever moves rows from elsewhere read the same fetches.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import sympy

from pyg_fullgraph.ir.fused import FUSED, TO_EDGES, At, index_of, operands
from pyg_fullgraph.ir.program import Program, Value

Instance = tuple[str, str | None]  # a value, and the destination index on whose in-edges it runs (None: its rows)

#: How parts that are fetched by themselves merge: as they are, or as what an online softmax keeps.
ROWS, SOFTMAX = "rows", "softmax"


@dataclass(frozen=True)
class Fetch:
    """A stored value of which a block program reads rows by number.

    Args:
        value: the table.
        index: the numbers of its rows.
        layout: the destination index whose in-edges the numbers belong to; None for one number (or more) per row.
        algebra: how partial results of what is fetched merge: "rows" (they do not), the names of reductions
            ("sum", "mean", "max", ..., several joined by "+"), or "softmax" (maximum, sum and weighted sum).
    """

    value: str
    index: str
    layout: str | None
    algebra: str

    def __str__(self) -> str:
        at = "" if self.layout is None else f" at in-edges of {self.layout}"
        return f"{self.value} by {self.index}{at}, merged as {self.algebra}"


def fetches_of(program: Program, order: tuple[Instance, ...], space: sympy.Expr) -> tuple[Fetch, ...]:
    """The fetches of a block program, each once, in the order of their first use.

    Args:
        program: holds the values.
        order: what a block computes.
        space: the rows of the block program.
    """
    found: dict[Fetch, None] = {}
    for name, context in order:
        found.update(dict.fromkeys(_fetches(program, program[name], context, space)))
    return tuple(found)


def _fetches(program: Program, value: Value, context: str | None, space: sympy.Expr) -> Iterator[Fetch]:
    if value.op == "gather" and not repeats_own_rows(program, value, context, space):
        yield Fetch(value.args[0].name, value.args[1].name, context, ROWS)
    if value.op in FUSED and value.args[1] is not None:
        src, layout = value.args[1].name, index_of(value)
        for _role, name, where in operands(value):
            if where is At.SOURCE:
                yield Fetch(name, src, layout, _algebra(value))


def repeats_own_rows(program: Program, value: Value, context: str | None, space: sympy.Expr) -> bool:
    """True for a gather at in-edges by their own destination: each row of the block is repeated for its edges."""
    return context is not None and value.args[1].name == context and program[value.args[0].name].space == space


def _algebra(value: Value) -> str:
    if value.op in TO_EDGES:
        return ROWS
    if value.op == "gather_reduce":
        return str(value.kwargs["reduce"])
    if value.op == "message_reduce":
        return "+".join(value.kwargs["reduces"])
    return SOFTMAX
