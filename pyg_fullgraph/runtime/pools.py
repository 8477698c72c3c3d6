"""Totals over all rows that the blocks of a superstep add to, in row order, whichever thread is first.

The order makes two runs agree to the bit: a part that is early waits until all rows before it have been added.
"""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from pyg_fullgraph.ops import trusted
from pyg_fullgraph.ops.reference import widen

_COMBINE: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "sum": torch.add,
    "max": torch.maximum,
    "min": torch.minimum,
    "mul": torch.mul,
}


class _InOrder(ABC):
    """Takes parts of consecutive rows in any order and adds them in that of the rows."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiting: dict[int, tuple[int, Any]] = {}
        self._next = 0

    def _take(self, start: int, stop: int, part: Any) -> None:
        with self._lock:
            if start != self._next:  # its rows may lie in scratch, which the thread's next block overwrites
                part = pytree.tree_map_only(Tensor, Tensor.clone, part)
            self._waiting[start] = stop, part
            while self._next in self._waiting:
                self._next, ready = self._waiting.pop(self._next)
                self._add(ready)

    @abstractmethod
    def _add(self, part: Any) -> None:
        """Take the next rows' part into the total."""

    @abstractmethod
    def result(self) -> Tensor:
        """The total, once all rows have been added."""


class RowPool(_InOrder):
    """A reduction over all rows into one tensor.

    Args:
        combine: sum, max or min.
    """

    def __init__(self, combine: str) -> None:
        super().__init__()
        self._combine = _COMBINE[combine]
        self._total: Tensor | None = None
        self._dtype: torch.dtype | None = None

    def add(self, start: int, stop: int, part: Tensor) -> None:
        """Add what rows [start, stop) come to."""
        self._take(start, stop, part)

    def _add(self, part: Tensor) -> None:
        if self._total is None:
            self._total, self._dtype = widen(part), part.dtype
        else:
            self._total = self._combine(self._total, widen(part))

    def result(self) -> Tensor:
        assert self._total is not None
        return self._total.to(self._dtype)


class GroupPool(_InOrder):
    """Rows reduced into groups, by the group of each.

    Args:
        groups: how many groups there are.
        tail: columns of a row.
        dtype, device: of the rows.
        reduce: sum, mean, max, min or mul; a group without rows is 0 (1 for mul).
    """

    def __init__(
        self, groups: int, tail: tuple[int, ...], dtype: torch.dtype, device: torch.device, reduce: str
    ) -> None:
        super().__init__()
        self.reduce, self.dtype = reduce, dtype
        self._combine = _COMBINE["sum" if reduce == "mean" else reduce]
        wide = torch.float32 if dtype in (torch.float16, torch.bfloat16) else dtype
        start = {"max": _least(wide), "min": _largest(wide), "mul": 1}.get(reduce, 0)
        self._total = torch.full((groups, *tail), start, dtype=wide, device=device)
        self._rows = torch.zeros(groups, dtype=torch.int64, device=device)

    def add(self, start: int, stop: int, index: Tensor, rows: Tensor) -> None:
        """Add rows [start, stop) to their groups.

        Args:
            index: the group of each row, `[B]`.
            rows: `[B, ...]`.
        """
        self._take(start, stop, self._part(index, widen(rows)))

    def _part(self, index: Tensor, rows: Tensor) -> tuple[Tensor, Tensor, Tensor] | None:
        """The rows reduced within their block: groups, their rows, how many they are."""
        if index.numel() == 0:
            return None
        if bool((index[1:] > index[:-1]).all()):  # every row is a group of its own
            return index.long(), rows, torch.ones_like(index, dtype=torch.int64)
        groups, within, count = torch.unique(index, return_inverse=True, return_counts=True)
        rowptr, perm = trusted.csr(within.contiguous(), groups.numel(), threads=1)
        reduce = "sum" if self.reduce == "mean" else self.reduce
        return groups.long(), trusted.gather_reduce(rows, perm, rowptr, reduce=reduce, threads=1), count

    def _add(self, part: tuple[Tensor, Tensor, Tensor] | None) -> None:
        if part is not None:
            groups, rows, count = part  # each group once
            if self._combine is torch.add:
                self._total.index_add_(0, groups, rows)
            else:
                self._total[groups] = self._combine(self._total[groups], rows)
            self._rows.index_add_(0, groups, count)

    def result(self) -> Tensor:
        total, column = self._total, self._rows.view(-1, *[1] * (self._total.dim() - 1))
        if self.reduce == "mean":
            count = column.clamp(min=1)
            total = total / count if total.is_floating_point() else total.div(count, rounding_mode="floor")
        elif self.reduce in ("max", "min"):
            total = torch.where(column > 0, total, torch.zeros_like(total))
        return total.to(self.dtype)


def _least(dtype: torch.dtype) -> float | int:
    return float("-inf") if dtype.is_floating_point else torch.iinfo(dtype).min


def _largest(dtype: torch.dtype) -> float | int:
    return float("inf") if dtype.is_floating_point else torch.iinfo(dtype).max
