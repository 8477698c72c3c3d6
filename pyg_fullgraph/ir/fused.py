"""The fused words: where each operand of a fused kernel lives, and which index its edges are sorted by.

Every fused value has `args = (x, src, index)` and named operands. `x` is gathered by `src`, or is an edge value itself
where `src` is None; `index` is the destination of every edge.

| word | gives | operands |
| --- | --- | --- |
| gather_reduce | rows | x, weight: one reduction of (weighted) source rows |
| message_reduce | rows, several | x, dst, edge: several reductions of activation(x + dst + edge) |
| softmax_reduce | rows | x, dst, edge, scale: the sum of messages weighted by their softmax |
| attention | rows | x and the parts of a score |
| message | edges | x, dst, edge |
| edge_dot | edges | x (the keys), query |
"""

from __future__ import annotations

import enum

from pyg_fullgraph.ir.program import Ref, Value


class At(enum.Enum):
    """Where an operand of a fused value is read."""

    SOURCE = "at the edge's source"
    EDGE = "at the edge"
    ROW = "at the destination"
    GLOBAL = "everywhere"


_ROLES = {
    "weight": At.EDGE,
    "score": At.EDGE,
    "score_edge": At.EDGE,
    "key_edge": At.EDGE,
    "edge": At.EDGE,
    "key": At.SOURCE,
    "score_src": At.SOURCE,
    "query": At.ROW,
    "score_dst": At.ROW,
    "dst": At.ROW,
    "att": At.GLOBAL,
    "scale": At.GLOBAL,
}

TO_ROWS = frozenset(["gather_reduce", "message_reduce", "softmax_reduce", "attention"])
TO_EDGES = frozenset(["message", "edge_dot"])
FUSED = TO_ROWS | TO_EDGES


def operands(value: Value) -> list[tuple[str, str, At]]:
    """The operands of a fused value but its indices: (role, name, where it is read)."""
    x, src = value.args[:2]
    found = [("x", x.name, At.EDGE if src is None else At.SOURCE)]
    for role, arg in value.kwargs.items():
        if isinstance(arg, Ref):
            found.append((role, arg.name, _ROLES[role]))
    return found


def index_of(value: Value) -> str | None:
    """The destination index that a value's edges are sorted by; None for values that need no order of edges."""
    if value.op in FUSED:
        return str(value.args[2].name)
    return str(value.args[1].name) if value.op in ("reduce", "softmax") else None
