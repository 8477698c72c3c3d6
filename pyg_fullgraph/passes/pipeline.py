"""The passes in their order, as a plain named list, and what each of them changes in a program."""

from __future__ import annotations

import difflib
import os
from collections import Counter
from collections.abc import Callable, Collection
from dataclasses import dataclass

from pyg_fullgraph.ir import Program, Stage, Value
from pyg_fullgraph.ir.check import check_program
from pyg_fullgraph.ir.printer import format_program
from pyg_fullgraph.passes.accumulate import accumulate_products
from pyg_fullgraph.passes.columns import drop_columns
from pyg_fullgraph.passes.cse import merge_equal
from pyg_fullgraph.passes.fuse import fuse_aggregations
from pyg_fullgraph.passes.halves import widen_products
from pyg_fullgraph.passes.heads import fold_scores, share_rows
from pyg_fullgraph.passes.hoist import hoist
from pyg_fullgraph.passes.mean import fuse_mean
from pyg_fullgraph.passes.messages import fuse_messages, fuse_reductions
from pyg_fullgraph.passes.narrow import narrow_aggregations
from pyg_fullgraph.passes.pools import pool_rows
from pyg_fullgraph.passes.scalers import scale_products
from pyg_fullgraph.passes.softmax import fuse_softmax
from pyg_fullgraph.passes.threshold import fuse_thresholds
from pyg_fullgraph.passes.union import split_unions
from pyg_fullgraph.passes.views import simplify_views

#: Set to 1, as by the tests, it has every program checked after every pass (`ir.check`).
CHECKED = "PYG_FULLGRAPH_CHECK"

PIPELINE: list[tuple[str, Callable[[Program], None]]] = [
    ("cse", merge_equal),
    ("views", simplify_views),
    ("pools", pool_rows),
    ("softmax", fuse_softmax),
    ("threshold", fuse_thresholds),
    ("union", split_unions),
    ("hoist", hoist),
    ("columns", drop_columns),
    ("reductions", fuse_reductions),
    ("fuse", fuse_aggregations),
    ("messages", fuse_messages),
    ("mean", fuse_mean),
    ("scores", fold_scores),
    ("heads", share_rows),
    ("narrow", narrow_aggregations),
    ("scalers", scale_products),
    ("accumulate", accumulate_products),
    ("halves", widen_products),
]


@dataclass(frozen=True)
class Change:
    """What one pass did to a program.

    Args:
        name: the pass.
        before, after: the program's data values, one a line.
        counts: what there is more or less of, `"mm on E"` -> -1.
    """

    name: str
    before: str
    after: str
    counts: dict[str, int]

    @property
    def diff(self) -> str:
        """The lines that differ, as a unified diff."""
        lines = difflib.unified_diff(self.before.splitlines(), self.after.splitlines(), "before", "after", lineterm="")
        return "\n".join(line.rstrip() for line in lines)

    def __str__(self) -> str:
        listed = ", ".join(f"{count:+d} {what}" for what, count in self.counts.items())
        return f"{self.name}: {listed or 'no change'}"


def optimise(program: Program, skip: Collection[str] = (), record: bool = False) -> list[Change]:
    """Run the pipeline in place.

    Args:
        program: from capture.
        skip: names of passes to leave out (any of them may be: the result is the same, only slower).
        record: whether to return what each pass changed; it takes longer.

    Returns:
        One change per pass that ran, if asked for.

    Raises:
        ValueError: `skip` names no pass.
    """
    unknown = set(skip) - {name for name, _ in PIPELINE}
    if unknown:
        raise ValueError(f"no pass named {sorted(unknown)}; there are {[name for name, _ in PIPELINE]}")
    changes: list[Change] = []
    if os.environ.get(CHECKED) == "1":
        check_program(program, "capture")
    text, counts = (format_program(program), _counts(program)) if record else ("", Counter())
    for name, run in PIPELINE:
        if name in skip:
            continue
        run(program)
        if os.environ.get(CHECKED) == "1":
            check_program(program, name)
        if record:
            before, text = text, format_program(program)
            old, counts = counts, _counts(program)
            changed = {key: counts[key] - old[key] for key in {**old, **counts} if counts[key] != old[key]}
            changes.append(Change(name, before, text, changed))
    return changes


def _counts(program: Program) -> Counter[str]:
    """How many data values there are of each operator, by the rows they have."""
    return Counter(_what(program, value) for value in program if value.stage is Stage.DATA and value.op != "input")


def _what(program: Program, value: Value) -> str:
    word = value.op
    if value.op == "aten":
        word = "getitem" if value.target is None else value.target.overloadpacket.__name__
    return f"{word} on {program.space_name(value.space)}" if value.space is not None else word
