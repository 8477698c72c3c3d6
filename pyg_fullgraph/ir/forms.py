"""How values look after renumbering: `Form`, and what becomes of rows that meet (see `ir.renumber`)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pyg_fullgraph.ir.program import Value

FIXED, ALIKE = "as before", "all alike"
Segment = tuple[Any, Any]  # how many rows; FIXED, ALIKE, or the space whose new order they have
Rows = tuple[Segment, ...]


class NotRenumberable(Exception):
    """Says which operator needs the given order."""


@dataclass(frozen=True)
class Form:
    """How a value looks after renumbering.

    Args:
        rows: segments along the row dimension; () for a value without rows.
        numbers: the space whose node numbers the values are, None for other values; a pair for the two rows of an edge
            list whose ends are of different spaces.
        dim: of inputs and outputs, the dimension of the rows.
    """

    rows: Rows = ()
    numbers: Any = None
    dim: int = 0

    @property
    def moved(self) -> bool:
        """Whether any row stands elsewhere."""
        return any(mark not in (FIXED, ALIKE) for _, mark in self.rows)

    @property
    def alike(self) -> bool:
        return bool(self.rows) and all(mark == ALIKE for _, mark in self.rows)


def merged(parts: list[Rows]) -> Rows:
    """The rows of a result whose operands have these rows side by side."""
    result: Rows = ()
    for rows in parts:
        if not rows or rows == result:
            continue
        if not result or (len(result) == 1 and result[0][1] == ALIKE):
            result = rows
        elif len(rows) == len(result) and all(a[0] == b[0] for a, b in zip(rows, result, strict=True)):
            result = tuple(_both(a, b) for a, b in zip(rows, result, strict=True))
        elif not (len(rows) == 1 and rows[0][1] == ALIKE):
            raise NotRenumberable("combines rows in the order of the nodes with rows in another order")
    return result


def _both(a: Segment, b: Segment) -> Segment:
    if a[1] == b[1] or b[1] == ALIKE:
        return a
    if a[1] == ALIKE:
        return b
    raise NotRenumberable("combines rows in the order of the nodes with rows that stay where they are")


def unmoved(value: Value, numbers: Any = None) -> Form:
    """The form of a value that is as it was."""
    return Form(() if value.row_dim is None else ((value.space, FIXED),), numbers)
