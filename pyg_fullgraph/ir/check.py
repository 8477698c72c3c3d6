"""What must hold of every program, checked between passes: a pass that breaks it is named, not what fails later.

Off for users, on in the tests (`PYG_FULLGRAPH_CHECK=1`): each rule is one that the cut or the emitter relies on.
"""

from __future__ import annotations

from collections.abc import Iterator

import sympy
import torch

from pyg_fullgraph.ir.fused import FUSED, TO_ROWS, At, operands
from pyg_fullgraph.ir.program import Program, Ref, Stage, Value

#: The grammar's words (`ir.program`): arguments that must be `Ref`s, by position.
WORDS: dict[str, tuple[int, ...]] = {
    "input": (),
    "param": (),
    "const": (),
    "aten": (),
    "pool": (),
    "gather": (0, 1),
    "reduce": (0, 1),
    "softmax": (0, 1),
    "group_pool": (0, 1),
    **dict.fromkeys(FUSED, (0, 2)),
}
LEAVES = ("input", "param", "const")


class ProgramError(AssertionError):
    """A program breaks a rule of the intermediate representation: a fault of a pass, never of a user."""


def check_program(program: Program, after: str) -> None:
    """Checks order, words, arguments, stages, levels and types of all values.

    Args:
        program: after a pass.
        after: the pass.

    Raises:
        ProgramError: names the pass, the value, and the rule.
    """
    known: set[str] = set()
    for name, value in program.values.items():
        for problem in _problems(program, name, value, known):
            raise ProgramError(f"after pass '{after}': %{name} = {value.op}(...): {problem}")
        known.add(name)
    for ref in program.output_names():
        if ref not in known:
            raise ProgramError(f"after pass '{after}': an output is %{ref}, which is no value")
    for size, definer in program.definers.items():
        used = any(size in value._symbols for value in program)
        if used and definer not in known:
            raise ProgramError(
                f"after pass '{after}': the size {size} is used, but %{definer}, which tells it, is gone"
            )


def _problems(program: Program, name: str, value: Value, known: set[str]) -> Iterator[str]:
    if value.name != name:
        yield f"it calls itself %{value.name}"
    if value.op not in WORDS:
        yield f"there is no word '{value.op}'"
        return
    missing = [ref for ref in value.refs() if ref not in known]
    if missing:
        yield f"it uses %{missing[0]}, which is not defined before it"
        return
    for position in WORDS[value.op]:
        if len(value.args) <= position or not isinstance(value.args[position], Ref):
            yield f"argument {position} is no value"
            return
    if value.op == "aten" and value.target is None and len(value.args) != 2:
        yield "a result of several is taken by (value, number)"
    stages = [program[ref].stage for ref in value.refs()]
    if value.op not in LEAVES and value.stage < max(stages, default=Stage.CONST):
        yield f"its stage {value.stage.name} is before that of what it uses"
    yield from _levels(program, value)


def _levels(program: Program, value: Value) -> Iterator[str]:
    """Rows and types of the words that lead from one space to another."""
    if value.op == "gather":
        yield from _index(program, value, 1)
        table, index = (program[ref.name] for ref in value.args[:2])
        if table.row_dim is None:
            yield f"%{table.name} has no rows to pick from"
        if value.space != index.space and not index.is_pairwise:
            yield f"its rows are not those of its index %{index.name}"
        if value.dtype != table.dtype:
            yield f"its type {value.dtype} is not that of %{table.name}, {table.dtype}"
    elif value.op in ("reduce", "softmax"):
        yield from _index(program, value, 1)
        x, index = (program[ref.name] for ref in value.args[:2])
        if x.space != index.space:
            yield f"%{x.name} and its index %{index.name} have rows of different spaces"
        if value.op == "softmax" and value.shape != x.shape:
            yield "a softmax has the shape of its scores"
    elif value.op in FUSED:
        yield from _fused(program, value)
    elif value.target is torch.ops.aten.cat.default and all(isinstance(part, Ref) for part in value.args[0]):
        yield from _union(program, value)


def _union(program: Program, value: Value) -> Iterator[str]:
    """The size of a `cat` in terms of its parts' sizes; a trace may know it by another name."""
    shapes = [program[part.name].shape for part in value.args[0]]
    if {len(shape) for shape in shapes} != {len(value.shape)}:
        return
    dim = (value.args[1] if len(value.args) > 1 else value.kwargs.get("dim", 0)) % len(value.shape)
    size, total = sympy.sympify(value.shape[dim]), sympy.sympify(sum(shape[dim] for shape in shapes))
    if size.free_symbols <= total.free_symbols and size != total:
        yield f"its size {size} is not the sum of its parts', {total}"


def _fused(program: Program, value: Value) -> Iterator[str]:
    yield from _index(program, value, 2)
    layout, rows = program[value.args[2].name], value.space if value.op in TO_ROWS else None
    if value.args[1] is not None:
        yield from _index(program, value, 1)
        if program[value.args[1].name].space != layout.space:
            yield "its two indices are not of the same edges"
    for role, ref, where in operands(value):
        space = program[ref].space
        if where is At.EDGE and space != layout.space:
            yield f"'{role}' is read at the edge, but %{ref} has other rows"
        if where is At.ROW and rows is not None and space != rows:
            yield f"'{role}' is read at the destination, but %{ref} has other rows"
        if where is At.SOURCE and space is None:
            yield f"'{role}' is read at the source, but %{ref} has no rows"


def _index(program: Program, value: Value, position: int) -> Iterator[str]:
    index = program[value.args[position].name]
    if index.dtype is None or index.dtype.is_floating_point or index.dtype in (torch.bool, torch.complex64):
        yield f"%{index.name} is an index of type {index.dtype}"
