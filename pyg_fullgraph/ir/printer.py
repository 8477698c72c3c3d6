"""Print programs and schedules as a reader wants them: one value a line, with its rows, shape and source."""

from __future__ import annotations

from typing import Any

from pyg_fullgraph.ir.program import Dim, Program, Ref, Stage, Value, is_symbolic, map_args
from pyg_fullgraph.ir.superstep import Schedule


def format_value(program: Program, value: Value) -> str:
    """`name  f32[N, 64]  = op(args)   # where`."""
    sizes = ", ".join(program.space_name(s) if is_symbolic(s) else str(s) for s in value.shape)
    kind = str(value.dtype).removeprefix("torch.") if value.dtype is not None else "scalar"
    word = value.op if value.op != "aten" else _target(value)
    listed = [_text(program, arg) for arg in value.args]
    listed += [f"{key}={_text(program, arg)}" for key, arg in value.kwargs.items()]
    line = f"{value.name:<24} {kind}[{sizes}] = {word}({', '.join(listed)})"
    return f"{line:<110}  # {value.where}" if value.where else line


def _target(value: Value) -> str:
    return "getitem" if value.target is None else str(value.target).removeprefix("aten.").removesuffix(".default")


def _text(program: Program, arg: Any) -> str:
    def leaf(item: Any) -> Any:
        return program.space_name(item.expr) if isinstance(item, Dim) else item

    if isinstance(arg, (Ref, Dim)):
        return str(leaf(arg))
    return str(map_args(arg, leaf)) if isinstance(arg, (tuple, list)) else str(arg)


def format_program(program: Program, stages: tuple[Stage, ...] = (Stage.DATA,)) -> str:
    """The values of some stages, one a line."""
    shown = [value for value in program if value.stage in stages and value.op not in ("input", "param")]
    return "\n".join(format_value(program, value) for value in shown)


def format_schedule(program: Program, schedule: Schedule) -> str:
    """The supersteps: whole operators, then each block program, with what it stores."""
    lines: list[str] = []
    for number, step in enumerate(schedule.steps):
        lines.append(f"superstep {number}")
        for name in step.views:
            lines.append(f"  view    {format_value(program, program[name])}")
        for name in step.whole:
            lines.append(f"  whole   {format_value(program, program[name])}")
        for block in step.blocks:
            lines.append(f"  rows of {program.space_name(block.space)}, stores {', '.join(block.stored) or 'nothing'}")
            for name, context in block.order:
                mark = "    edge  " if context is not None else "    row   "
                lines.append(mark + format_value(program, program[name]))
            lines += [f"    fetch   {fetch}" for fetch in block.fetches]
    return "\n".join(lines)
