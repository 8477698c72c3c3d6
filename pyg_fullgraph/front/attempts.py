"""Several ways to compare a result with the model's own forward, the cheapest first; and what was found."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from pyg_fullgraph.errors import FullGraphError, FullGraphMismatch
from pyg_fullgraph.front.compare import Incomparable, Pair, compare, side_by_side
from pyg_fullgraph.front.own import Make, Own, OwnFailed, Unsteady

NO_ROWS = "no rows"


@dataclass(frozen=True)
class Verification:
    """What was compared, and how close it was.

    Attributes:
        how: ``"neighbourhood"``, ``"subgraph"``, ``"whole"`` or ``"none"``.
        nodes: how many rows were compared.
        edges: how many edges the model's forward ran on.
        worst: the largest difference found.
        allowed: the largest difference allowed.
        reason: why not the exact neighbourhood, or why nothing was compared.
        amplified: whether the model amplifies rounding; ``worst`` is then the distance to float64.
    """

    how: str
    nodes: int = 0
    edges: int = 0
    worst: float = 0.0
    allowed: float = 0.0
    reason: str = ""
    amplified: bool = False

    def __str__(self) -> str:
        if self.how == "none":
            return f"not verified: {self.reason}"
        where = {"neighbourhood": "their exact neighbourhood", "subgraph": "an induced subgraph"}
        because = f" ({self.reason})" if self.reason else ""
        return (
            f"verified {self.nodes:,} nodes against the model's forward on {where.get(self.how, 'the whole graph')}, "
            f"{self.edges:,} edges{because}: largest difference {self.worst:.1e}, allowed {self.allowed:.1e}"
            + (", from the model in float64, since it amplifies rounding" if self.amplified else "")
        )


#: Number of a tensor among the results, and the tensor that forward returns -> which rows the result has.
Rows = Callable[[int, Tensor], Tensor | None]
#: One comparison: raises `FullGraphMismatch`, or `Incomparable` where the forward cannot run in this way.
Attempt = Callable[[], Verification]


def first_that_agrees(attempts: Iterable[Attempt], otherwise: str = "there is nothing to compare") -> Verification:
    """What the first comparison found that did not refuse the result; nothing, where the forward ran in none.

    A later attempt takes less for granted than an earlier one, so that its agreement is worth more than the earlier
    refusal: on renumbered nodes, say, the forward of a model that looks at a node's number is another function.

    Args:
        attempts: the comparisons.
        otherwise: the reason to give where there are none.

    Raises:
        FullGraphMismatch: some refused the result and none agreed (the first of them), or the forward gives another
            result at every call.
    """
    refused: FullGraphMismatch | None = None
    failure: Incomparable | None = None
    for attempt in attempts:
        try:
            return attempt()
        except Unsteady:
            raise
        except FullGraphMismatch as error:
            refused = refused or error
        except Incomparable as error:
            failure = failure or error
    try:
        if refused is not None:
            raise refused
        return Verification("none", reason=otherwise if failure is None else _why(failure))
    finally:
        del refused, failure  # an error keeps the frames it came through, and these the graph


def whole(own: Own, call: Make, output: Any, rows: Rows, edges: int, reason: str = "") -> Verification:
    """The result compared with forward on the very call.

    Args:
        own: the model's own forward.
        call, output: makes the arguments; and the result for it.
        rows: which rows of a tensor that forward returns the result has; None for all.
        edges: how many there are, for the report.
        reason: why it is compared in this way.

    Raises:
        FullGraphMismatch: a row differs, or the forward itself raises.
        OwnFailed: there is not enough memory for it.
    """
    try:
        expected = own(call)
    except OwnFailed as failure:
        if _is_short_of_memory(failure.__cause__):
            raise
        raise FullGraphMismatch(
            f"{own.name}.forward itself raises {_text(failure)} on these very arguments, so there is no result that "
            "the captured program could be equal to. Run model(...) on them to see where; verify='off' switches this "
            "check off."
        ) from failure.__cause__
    both = side_by_side(output, expected)
    pairs = [Pair(ours, theirs, rows(leaf, theirs), leaf) for leaf, (ours, theirs) in enumerate(both)]
    count = max((pair.ours.size(0) for pair in pairs if pair.ours.dim()), default=1)
    shown = next((pair.rows for pair in pairs if pair.rows is not None), torch.arange(count))
    found = compare(pairs, shown, own.name, "the whole graph", own.again(call))
    return Verification("whole", count, edges, reason=reason, **found)


def on_a_part(engine: Callable[..., Any], call: Make) -> Any:
    """What the engine gives on a part of the graph.

    Raises:
        Incomparable: it does not take that part.
    """
    args, kwargs = call()
    try:
        return engine(*args, **kwargs)
    except FullGraphError as error:
        raise Incomparable(f"the captured program does not take a part of the graph: {error}") from error


def _is_short_of_memory(error: BaseException | None) -> bool:
    return isinstance(error, (MemoryError, torch.OutOfMemoryError)) or "can't allocate memory" in str(error)


def _text(failure: Incomparable) -> str:
    error = failure.__cause__
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0] if lines else ''}"


def _why(failure: Incomparable) -> str:
    if not isinstance(failure, OwnFailed):
        return str(failure)
    return f"the model's forward fails on a part of the graph: {_text(failure)}"
