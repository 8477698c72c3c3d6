"""How many rows a space has, in the three senses that differ once a run holds only a part of the rows.

A symbolic size in a program is a number of rows in one place and a number like any other in the next: in
`h.view(N, 4) / N` the first is of the rows that are here, the second is what the model means. `meaning` decides which
for every argument of an operator, and nowhere else is it decided.
"""

from __future__ import annotations

import enum
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import sympy
import torch

from pyg_fullgraph.ir.program import Dim, Value, map_args, packet_of

aten = torch.ops.aten

#: Operators that take a shape, and the position of it.
SHAPE_ARGUMENT = {
    aten.view: 1,
    aten._unsafe_view: 1,
    aten.reshape: 1,
    aten.expand: 1,
    aten.repeat: 1,
    aten.full: 0,
    aten.zeros: 0,
    aten.ones: 0,
    aten.empty: 0,
    aten.native_group_norm: 3,
}

#: Operators, beside the element-wise ones, whose numbers are values and never places of rows.
_NUMBERS = (aten.full, aten.scalar_tensor, aten.full_like)


@dataclass(frozen=True)
class Extent:
    """The rows of one space, here.

    Args:
        total: as the model means it: divisors of means, arithmetic on N, numbers of groups.
        owned: rows computed here: the bounds of loops.
        local: rows that can be addressed here, those owned first: the shapes of tables.
    """

    total: int
    owned: int
    local: int


class Means(enum.Enum):
    """What a size stands for where it is an argument."""

    SHAPE = "the rows that are here"
    NUMBER = "a number, that of all rows"
    PLACE = "the place of a row, or something else: right only where all rows are here, in their order"


def meaning(value: Value, position: int | str) -> Means:
    """What a symbolic size stands for in an argument of an `aten` value.

    Args:
        value: the call.
        position: of the argument, or its name.
    """
    packet = packet_of(value)
    if SHAPE_ARGUMENT.get(packet, -1) == position:
        return Means.SHAPE
    if packet in _NUMBERS or torch.Tag.pointwise in getattr(value.target, "tags", ()):
        return Means.NUMBER
    return Means.PLACE


def on_other_rows(
    value: Value, leaf: Callable[[Any], Any], rows: sympy.Expr | int
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The arguments of an operator that is moved to other rows than its own.

    Args:
        value: the operator as it is, with its space.
        leaf: gives the operand in the place of a `Ref`, and any other leaf as it is.
        rows: how many rows there are instead, in its shape; sizes elsewhere are numbers, and stay.
    """

    def in_shape(item: Any) -> Any:
        return Dim(rows) if isinstance(item, Dim) and item.expr == value.space else leaf(item)

    at = SHAPE_ARGUMENT.get(packet_of(value))
    args = tuple(map_args(arg, in_shape if position == at else leaf) for position, arg in enumerate(value.args))
    return args, map_args(value.kwargs, leaf)
