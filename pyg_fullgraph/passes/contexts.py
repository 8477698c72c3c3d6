"""Where edge values are used: which reductions they lead to."""

from __future__ import annotations

import sympy

from pyg_fullgraph.ir import Program, Value
from pyg_fullgraph.ir.fused import FUSED, TO_ROWS, At, index_of, operands


def edge_contexts(program: Program) -> dict[str, set[str | None]]:
    """In whose in-edges each value is used: destination indices, None for its own rows or whole."""
    found: dict[str, set[str | None]] = {name: set() for name in program.values}
    for name in program.output_names():
        found[name].add(None)
    for value in reversed(list(program)):
        index = index_of(value)
        at_edge = {ref for _, ref, where in operands(value) if where is At.EDGE} if value.op in FUSED else set()
        for ref in value.refs():
            if value.op in ("reduce", "softmax"):
                found[ref].add(index if ref == value.args[0].name else None)
            elif value.op in FUSED:
                found[ref].add(index if ref in at_edge else None)
            elif value.op == "aten" and value.local and program[ref].space == value.space:
                found[ref] |= found[value.name] or {None}
            else:
                found[ref].add(None)
    return found


def of_own_row(program: Program, value: Value, index: str) -> bool:
    """True for a gather by `index` of rows that are those it reduces into: a block has them at hand.

    A table may have another number of rows than the reduction has, also where the index fits both: the features of a
    pair beside a matrix that says by itself how many rows it has. Its rows are gathered like any others.

    Args:
        program: holds the values.
        value: of the edges.
        index: name of the destination index.
    """
    if value.op != "gather" or value.args[1].name != index:
        return False
    return program[value.args[0].name].space == row_space(program, index)


def row_space(program: Program, index: str) -> sympy.Expr | None:
    """The rows that a destination index reduces into; None where nothing is reduced by it."""
    for user in program.users_of(index):
        value = program[user]
        if value.op in (*TO_ROWS, "reduce") and index_of(value) == index:
            return value.space
    return None
