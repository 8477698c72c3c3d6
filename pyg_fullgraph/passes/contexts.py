"""Where edge values are used: which reductions they lead to."""

from __future__ import annotations

from pyg_fullgraph.ir import Program
from pyg_fullgraph.ir.fused import FUSED, At, index_of, operands


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
