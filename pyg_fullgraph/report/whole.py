"""What runs whole and not block by block: told, since it takes the memory that PyG's own forward takes for it."""

from __future__ import annotations

from collections.abc import Collection

import torch

from pyg_fullgraph.ir import Program, Ref, Schedule, Stage, Value, packet_of

aten = torch.ops.aten

_BY_INDEX = {aten.index_select: 2, aten.index: 1, aten.gather: 2, aten.scatter_add: 2, aten.index_add: 2}
_BY_INDEX |= {aten.scatter_reduce: 2, aten.index_put: 1, aten.index_copy: 2}


def whole_notes(program: Program, schedule: Schedule, placed: Collection[str] = (), costly: bool = False) -> list[str]:
    """One line for each operator that needs its operands complete and gives rows.

    Args:
        program, schedule: what runs.
        placed: values that join rows which are written in place, and so cost nothing.
        costly: only those that take more memory than a table of rows: all pairs of rows, and rows of the edges that
            are picked by features.
    """
    notes: dict[str, None] = {}
    for step in schedule.steps:
        for name in step.whole:
            value = program[name]
            if (value.row_dim is None and not value.is_pairwise) or name in placed or _is_part(program, value):
                continue
            if costly and not (value.is_pairwise or _by_features(program, value)):
                continue
            sizes = " x ".join(program.space_name(s) if not isinstance(s, int) else str(s) for s in value.shape)
            what = getattr(packet_of(value), "__name__", value.op)
            at = f" at {value.where}" if value.where else ""
            notes[f"'{what}'{at} runs whole, on {sizes} values at once: {_why(program, value)}"] = None
    return list(notes)


def _is_part(program: Program, value: Value) -> bool:
    """Rows of a joined table, which are read where they are."""
    return packet_of(value) in (aten.slice, aten.narrow, aten.view, aten.transpose, aten.permute, aten.expand)


def _why(program: Program, value: Value) -> str:
    if value.is_pairwise:
        return "it compares all rows with all others"
    if _by_features(program, value):
        return "which rows it reads or writes depends on features, so that no order of them can be kept with the graph"
    return "it has no form for a part of the rows"


def _by_features(program: Program, value: Value) -> bool:
    position = _BY_INDEX.get(packet_of(value))
    if position is None:
        return False
    index = value.args[position]
    index = next((item for item in index if item is not None), None) if isinstance(index, list) else index
    return isinstance(index, Ref) and program[index.name].stage is Stage.DATA
