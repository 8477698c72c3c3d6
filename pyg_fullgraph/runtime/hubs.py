"""What a split block program calls: tiles of one row's edges, and totals over them.

Sums of the half types are kept in float32, as the kernels do.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from pyg_fullgraph.ops.reference import EPSILON, widen

_COMBINE: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "sum": torch.add,
    "mean": torch.add,
    "square_sum": torch.add,
    "max": torch.maximum,
    "min": torch.minimum,
    "mul": torch.mul,
}

Stats = tuple[Tensor, Tensor]  # maximum of the scores so far, and the sum of exp(score - maximum)


def tiles(bounds: tuple[int, int], size: int) -> Iterator[tuple[int, int]]:
    """The edges [first, last) in runs of `size`; one empty run where there are none."""
    first, last = bounds
    if first == last:
        yield first, last
    for start in range(first, last, size):
        yield start, min(start + size, last)


def one_row(first: int, last: int) -> Tensor:
    """The `rowptr` of a single row with the edges [first, last)."""
    return torch.tensor([first, last])


def added(total: Tensor | None, part: Tensor, reduce: str) -> Tensor:
    """The total with one more tile's part."""
    return widen(part) if total is None else _COMBINE[reduce](total, widen(part))


def finished(total: Tensor, dtype: torch.dtype, reduce: str, bounds: tuple[int, int]) -> Tensor:
    """The reduction of a row, from its total over all tiles."""
    if reduce == "mean":
        total = total / max(bounds[1] - bounds[0], 1)
    return total.to(dtype)


def all_added(
    totals: tuple[Tensor, ...] | None, parts: tuple[Tensor, ...], reduces: tuple[str, ...]
) -> tuple[Tensor, ...]:
    """`added` for several reductions of one message."""
    before = totals or (None,) * len(parts)
    return tuple(added(total, part, reduce) for total, part, reduce in zip(before, parts, reduces, strict=True))


def all_finished(
    totals: tuple[Tensor, ...], dtype: torch.dtype, reduces: tuple[str, ...], bounds: tuple[int, int]
) -> tuple[Tensor, ...]:
    """`finished` for several reductions of one message."""
    return tuple(finished(total, dtype, reduce, bounds) for total, reduce in zip(totals, reduces, strict=True))


def with_scores(stats: Stats | None, score: Tensor) -> Stats:
    """The statistics of a softmax with one more tile's scores `[E, ...]`."""
    score = widen(score)
    if score.shape[0] == 0:
        empty = score.new_zeros(score.shape[1:])
        return (empty, empty) if stats is None else stats
    top = score.amax(0)
    if stats is None:
        return top, (score - top).exp().sum(0)
    peak = torch.maximum(stats[0], top)
    return peak, stats[1] * (stats[0] - peak).exp() + (score - peak).exp().sum(0)


def weights(score: Tensor, stats: Stats) -> Tensor:
    """A tile's softmax, given the statistics of the whole row."""
    wide = (widen(score) - stats[0]).exp() / (stats[1] + EPSILON)
    return wide.to(score.dtype)


def weighted(message: Tensor, weight: Tensor) -> Tensor:
    """The sum of a tile's messages, each column by its own weights, as one row."""
    return (widen(message) * widen(weight)).sum(0, keepdim=True)
