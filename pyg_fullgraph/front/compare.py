"""Two results side by side: how far they may differ, and what tells when rounding is to blame.

Some models amplify rounding (a standard deviation of messages that are nearly equal, say), so that their own float32
forward is far from what they define. Where a difference is too large, the module runs once more in float64, and the
result has to be about as close to that as the module's own forward is.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from pyg_fullgraph.errors import FullGraphMismatch

#: How many times farther from float64 than the model's own forward a result may be: both are maxima of random errors.
AMPLIFIED = 10
#: Largest allowed difference, as a fraction of the largest magnitude, by dtype of the output.
TOLERANCE = {torch.float64: 1e-9, torch.float32: 1e-4, torch.bfloat16: 5e-2, torch.float16: 1e-2}


@dataclass(frozen=True)
class Pair:
    """One tensor of a result, and the same of the model's forward on a part of the graph.

    Attributes:
        ours: the rows to compare.
        whole: all that forward gives.
        rows: which of its rows those are; ``None`` for all.
        leaf: its number among the tensors that forward returns.
    """

    ours: Tensor
    whole: Tensor
    rows: Tensor | None
    leaf: int

    def of(self, whole: Tensor) -> Tensor:
        """The rows to compare of another run of forward."""
        return whole if self.rows is None else whole[self.rows.to(whole.device)]


def pairs_of(output: Any, expected: Any) -> list[Pair]:
    """All tensors of two results, side by side."""
    both = zip(leaves(output), leaves(expected), strict=True)
    return [Pair(ours, theirs, None, leaf) for leaf, (ours, theirs) in enumerate(both)]


def leaves(output: Any) -> list[Tensor]:
    """The tensors of a result."""
    return [leaf for leaf in pytree.tree_leaves(output) if isinstance(leaf, Tensor)]


def compare(
    pairs: list[Pair], nodes: Tensor, name: str, where: str, exact: Callable[[], list[Tensor]]
) -> dict[str, Any]:
    """The largest difference and what is allowed, as attributes of a `Verification`.

    Args:
        pairs: what to compare.
        nodes: the node of every compared row, for the message.
        name, where: of the model and of the part of the graph, for the message.
        exact: runs the model in float64 on that part; asked only if a difference is too large.

    Raises:
        FullGraphMismatch: a difference is too large.
    """
    worst, allowed, wide = 0.0, 0.0, None
    for pair in pairs:
        ours, theirs = pair.ours, pair.of(pair.whole)
        if ours.shape != theirs.shape:
            raise FullGraphMismatch(
                f"The result has shape {list(ours.shape)} where {name}.forward gives {list(theirs.shape)} "
                f"(on {where}). " + _ADVICE
            )
        difference, limit = _difference(ours, theirs)
        if difference.numel() == 0:
            continue
        largest = float(difference.max())
        if largest > limit:
            wide = exact() if wide is None else wide
            rounded = _rounding(pair, wide)
            if rounded is None or rounded[0] > rounded[1]:
                raise FullGraphMismatch(_describe(ours, theirs, difference, limit, nodes, name, where))
            largest, limit = rounded
        worst, allowed = max(worst, largest), max(allowed, limit)
    return {"worst": worst, "allowed": allowed, "amplified": wide is not None}


def _rounding(pair: Pair, wide: list[Tensor]) -> tuple[float, float] | None:
    """How far the result is from float64 and how far it may be; None where that is not known."""
    if pair.leaf >= len(wide) or not pair.whole.is_floating_point() or wide[pair.leaf].shape != pair.whole.shape:
        return None
    own, _ = _difference(pair.whole, wide[pair.leaf])  # of all rows: the more there are, the surer is the maximum
    ours, _ = _difference(pair.ours, pair.of(wide[pair.leaf]))
    limit = AMPLIFIED * float(own.max())
    return (float(ours.max()), limit) if math.isfinite(limit) else None  # overflow is no rounding


def _difference(ours: Tensor, theirs: Tensor) -> tuple[Tensor, float]:
    """Element-wise distance in float64, infinite where only one is finite, and the distance allowed."""
    tolerance = TOLERANCE.get(theirs.dtype, 0.0)
    a, b = ours.detach().to("cpu", torch.float64), theirs.detach().to("cpu", torch.float64)
    same = (a == b) | (a.isnan() & b.isnan())
    difference = torch.where(same, 0.0, (a - b).abs()).nan_to_num(nan=float("inf"))
    finite = b[b.isfinite()]
    return difference, tolerance * (float(finite.abs().max()) if finite.numel() > 0 else 1.0)


_ADVICE = (
    "This result must not be used. Please report it with the model and the text of "
    "pyg_fullgraph.compile(model).explain(...). Meanwhile model(...) itself is right; verify='off' switches "
    "this check off."
)


def _describe(
    ours: Tensor, theirs: Tensor, difference: Tensor, limit: float, nodes: Tensor, name: str, where: str
) -> str:
    """The worst element, in words."""
    flat = int(difference.argmax())
    index = [int(i) for i in torch.unravel_index(torch.tensor(flat), difference.shape)]
    by_node = bool(index) and nodes.numel() == difference.size(0)
    row = f"node {int(nodes[index[0]])}" if by_node else f"row {index[0] if index else 0}"
    column = ", ".join(str(i) for i in index[1:])
    count = int((difference > limit).sum())
    return (
        f"{row}{f', column {column}' if column else ''}: pyg_fullgraph gives "
        f"{float(ours[tuple(index)]):.6g}, {name}.forward on {where} gives "
        f"{float(theirs[tuple(index)]):.6g}; they differ by {float(difference.flatten()[flat]):.2e}, more "
        f"than the tolerance {limit:.2e} ({count:,} of {difference.numel():,} compared values do). " + _ADVICE
    )
