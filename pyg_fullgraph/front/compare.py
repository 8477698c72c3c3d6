"""Two results side by side: how far they may differ, and what tells when rounding is to blame.

Some models amplify rounding (a standard deviation of messages that are nearly equal, say), so that their own float32
forward is far from what they define. Where a difference is too large, the module runs once more in float64, and the
result has to be about as close to that as the module's own forward is. That holds only for a forward that gives the
same result twice, and up to a bound: two runs that differ by anything would allow anything.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from pyg_fullgraph.capture.returned import unpack
from pyg_fullgraph.errors import FullGraphMismatch

#: How many times farther from float64 than the model's own forward a result may be: both are maxima of random errors.
AMPLIFIED = 10
#: Largest allowed difference, as a fraction of the largest magnitude, by dtype of the output.
TOLERANCE = {torch.float64: 1e-9, torch.float32: 1e-4, torch.bfloat16: 5e-2, torch.float16: 1e-2}
TOLERANCE |= {torch.complex128: 1e-9, torch.complex64: 1e-4}
#: The same where a model amplifies rounding: beyond it a comparison tells nothing, and is no excuse.
WIDEST = {torch.float64: 1e-3, torch.float32: 1e-1, torch.bfloat16: 5e-1, torch.float16: 2.5e-1}


@dataclass(frozen=True)
class Again:
    """What is asked once a difference is too large.

    Attributes:
        steady: raises where the model's forward gives another result at every call.
        wide: the tensors of the model's forward in float64; none where it does not run in that type.
    """

    steady: Callable[[], None]
    wide: Callable[[], list[Tensor]]


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
    return [Pair(ours, theirs, None, leaf) for leaf, (ours, theirs) in enumerate(side_by_side(output, expected))]


class Incomparable(Exception):
    """There is nothing to compare in this way."""


def side_by_side(output: Any, expected: Any) -> list[tuple[Tensor, Tensor]]:
    """The tensors of a result, each with the same of the model's forward.

    Raises:
        FullGraphMismatch: there are not as many.
    """
    ours, theirs = tensors_of(output), tensors_of(expected)
    if len(ours) != len(theirs):
        raise FullGraphMismatch(f"The result has {len(ours)} tensors where forward returns {len(theirs)}. " + _ADVICE)
    return list(zip(ours, theirs, strict=True))


def differ(one: Any, other: Any) -> bool:
    """Whether two results of the same forward differ by more than what rounding in another order may do."""
    both = tensors_of(one), tensors_of(other)
    if len(both[0]) != len(both[1]):
        return True
    for a, b in zip(*both, strict=True):
        if a.shape != b.shape or a.dtype != b.dtype:
            return True
        difference, limit = _difference(a, b)
        if difference.numel() and float(difference.max()) > limit:
            return True
    return False


def tensors_of(output: Any) -> list[Tensor]:
    """The tensors of a result; of a sparse matrix, where its entries are (duplicates merged), and their values."""
    found: list[Tensor] = []
    for leaf in unpack(output)[0]:
        if isinstance(leaf, Tensor):
            found += [leaf] if leaf.layout == torch.strided else _entries(leaf)
    return found


def has_matrix(output: Any) -> bool:
    """Whether a sparse matrix is among the results: its columns are nodes as well."""
    return any(isinstance(leaf, Tensor) and leaf.layout != torch.strided for leaf in unpack(output)[0])


def _entries(matrix: Tensor) -> list[Tensor]:
    merged = matrix.to_sparse_coo().coalesce()
    return [merged.indices(), merged.values()]


def compare(pairs: list[Pair], nodes: Tensor | list[Tensor], name: str, where: str, again: Again) -> dict[str, Any]:
    """The largest difference and what is allowed, as attributes of a `Verification`.

    Args:
        pairs: what to compare.
        nodes: the node of every compared row, for the message; a list where they differ from pair to pair.
        name, where: of the model and of the part of the graph, for the message.
        again: runs the model once more on that part; asked only if a difference is too large.

    Raises:
        FullGraphMismatch: a difference is too large, or the model gives another result at every call.
        Incomparable: there are no pairs.
    """
    if not pairs:
        raise Incomparable("no rows of the result have a counterpart in what forward returns there")
    worst, allowed, wide = 0.0, 0.0, None
    for number, pair in enumerate(pairs):
        ours, theirs = pair.ours, pair.of(pair.whole)
        if ours.shape != theirs.shape or ours.dtype != theirs.dtype:
            raise FullGraphMismatch(
                f"The result is {ours.dtype} {list(ours.shape)} where {name}.forward gives {theirs.dtype} "
                f"{list(theirs.shape)} (on {where}). " + _ADVICE
            )
        difference, limit = _difference(ours, theirs)
        if difference.numel() == 0:
            continue
        largest = float(difference.max())
        if largest > limit:
            if wide is None:
                again.steady()
                wide = again.wide()
            rounded = _rounding(pair, wide)
            if rounded is None or rounded[0] > rounded[1]:
                shown = nodes[number] if isinstance(nodes, list) else nodes
                raise FullGraphMismatch(_describe(ours, theirs, difference, limit, shown, name, where))
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
    if not math.isfinite(limit):  # overflow is no rounding
        return None
    return float(ours.max()), min(limit, WIDEST.get(pair.whole.dtype, 0.0) * _largest(wide[pair.leaf]))


def _difference(ours: Tensor, theirs: Tensor) -> tuple[Tensor, float]:
    """Element-wise distance in float64, infinite where only one is finite, and the distance allowed."""
    a, b = _as_float64(ours), _as_float64(theirs)
    same = (a == b) | (a.isnan() & b.isnan())
    difference = torch.where(same, 0.0, (a - b).abs()).nan_to_num(nan=float("inf"))
    return difference, TOLERANCE.get(theirs.dtype, 0.0) * _largest(theirs)


def _largest(tensor: Tensor) -> float:
    """The largest finite magnitude; 1 where there is none."""
    wide = _as_float64(tensor)
    finite = wide[wide.isfinite()]
    return float(finite.abs().max()) if finite.numel() > 0 else 1.0


def _as_float64(tensor: Tensor) -> Tensor:
    """On the CPU; a complex number as two."""
    tensor = tensor.detach().cpu().resolve_conj()
    tensor = tensor if tensor.layout is torch.strided else tensor.to_dense()
    return (torch.view_as_real(tensor) if tensor.is_complex() else tensor).to(torch.float64)


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
        f"{float(_as_float64(ours)[tuple(index)]):.6g}, {name}.forward on {where} gives "
        f"{float(_as_float64(theirs)[tuple(index)]):.6g}; they differ by {float(difference.flatten()[flat]):.2e}, more "
        f"than the tolerance {limit:.2e} ({count:,} of {difference.numel():,} compared values do). " + _ADVICE
    )
