"""Whether a program computes with the number of edges, or with an edge's place in the list: read from the program."""

from __future__ import annotations

from typing import Any

import torch

from pyg_fullgraph.ir import Dim, Program, map_args, packet_of

aten = torch.ops.aten
_COMPUTES = (
    aten.arange, aten.scalar_tensor, aten.full, aten.mul, aten.add, aten.sub, aten.rsub, aten.div, aten.pow,
    aten.remainder, aten.floor_divide, aten.lt, aten.le, aten.gt, aten.ge, aten.eq, aten.ne, aten.clamp,
    aten.masked_fill,
)  # fmt: skip


def counts_edges(program: Program) -> bool:
    """True where fewer edges may give other rows, although none of theirs is missing.

    Args:
        program: any program.
    """
    nodes = {size for size, name in program.spaces.items() if name.startswith("N")}

    found: list[Dim] = []

    def look(leaf: Any) -> None:
        if isinstance(leaf, Dim) and leaf.expr.free_symbols - nodes:
            found.append(leaf)

    for value in program:
        packet = packet_of(value)
        if packet in _COMPUTES:
            args = value.args[1:] if packet is aten.full else value.args  # the first is a shape
            map_args((args, value.kwargs), look)
    return bool(found)
