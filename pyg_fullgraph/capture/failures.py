"""Turning what went wrong inside a trace into a `Problem` that names the construct, the layer, the line and the
way out.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch
from torch._subclasses.fake_tensor import (
    DataDependentOutputException,
    DynamicOutputShapeException,
    UnsupportedOperatorException,
)
from torch.fx.experimental.symbolic_shapes import GuardOnDataDependentSymNode

from pyg_fullgraph.capture.problems import Problem, Problems
from pyg_fullgraph.capture.where import Place, Tracker
from pyg_fullgraph.errors import CaptureError, FullGraphError

#: Exceptions that only a trace can raise: whoever catches one of these changes what is traced.
ONLY_IN_A_TRACE = (
    DataDependentOutputException,
    DynamicOutputShapeException,
    GuardOnDataDependentSymNode,
    UnsupportedOperatorException,
)

BRANCH_ADVICE = (
    "Write both branches as tensors (torch.where), or decide in Python from an argument or an attribute of the model."
)
NUMBER_ADVICE = "Keep it a tensor, or pass the number as an argument of forward or an attribute of the model."
OPERATOR_ADVICE = "Use an equivalent made of index_select, scatter and dense operators."


def explain_failure(
    error: BaseException,
    tracker: Tracker,
    model: torch.nn.Module,
    number: int = 0,
    place: Place | None = None,
    called: str = "",
) -> Problem:
    """The problem behind an exception that a traced forward raised.

    The first exception of the chain counts: libraries catch one and raise another, misleading one (as in
    `Aggregation.__call__`, which re-raises from its own `index.max()`).

    Args:
        error: the exception.
        tracker: of the trace.
        model: named where no line is known.
        number: how many operators were recorded before.
        place: where it was raised; read from the exception's frames if None.
        called: the function of torch that raised it, where it is known.
    """
    first = first_of(error)
    if place is None:
        place = tracker.of_error(first)
    if not place.where:
        place = tracker.of_error(error)
    if not place.where:
        place = Place(f"{type(model).__name__}.forward", "")
    what, why, advice = _diagnose(first, called)
    return Problem(what, why, advice, place, number)


@contextlib.contextmanager
def as_capture_error(model: torch.nn.Module) -> Iterator[None]:
    """For all that is done with a recorded forward: what torch's symbolic sizes raise is no error of the user's.

    Raises:
        CaptureError: in the place of an error that only a trace can raise.
    """
    try:
        yield
    except FullGraphError:
        raise
    except Exception as error:
        if not only_in_a_trace(error):
            raise
        problems = Problems()
        problems.add(explain_failure(error, Tracker(model), model))
        raise CaptureError(problems.texts()) from error


def first_of(error: BaseException) -> BaseException:
    """The exception that an exception followed from."""
    while error.__cause__ is not None or (error.__context__ is not None and not error.__suppress_context__):
        following = error.__cause__ if error.__cause__ is not None else error.__context__
        assert following is not None
        error = following
    return error


def only_in_a_trace(error: BaseException) -> bool:
    """True where the forward could not have raised this outside of a trace."""
    first = first_of(error)
    return isinstance(first, ONLY_IN_A_TRACE) or _is_symbolic(_text_of(first))


def first_line(error: BaseException | None) -> str:
    """The class and the first line of what an exception followed from."""
    if error is None:
        return ""
    first = first_of(error)
    return f"{type(first).__name__}: {_text_of(first)}"


def _text_of(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else ""


def _is_symbolic(text: str) -> bool:
    marks = ("Cannot cast", "can't be cast", "data-dependent", "'SymInt'", "'SymFloat'", "data pointer", "FakeTensor")
    return any(mark in text for mark in marks)


def _diagnose(error: BaseException, called: str) -> tuple[str, str, str]:
    """(what, why, advice)."""
    text = _text_of(error)
    if isinstance(error, DataDependentOutputException):
        return f"the operator '{error.func}'", "gives Python a value that depends on the data", BRANCH_ADVICE
    if isinstance(error, GuardOnDataDependentSymNode):
        what = f"the operator '{called}'" if called else "a decision of torch"
        return (
            what,
            f"needs a plain number or a decision ({error.cond}) that differs from graph to graph",
            NUMBER_ADVICE,
        )
    if isinstance(error, (UnsupportedOperatorException, DynamicOutputShapeException)):
        return f"the operator '{error.func}'", "has no symbolic form", OPERATOR_ADVICE
    if "data pointer" in text:
        return (
            "a compiled extension",
            "reads the memory of a tensor, which a program for all graphs does not have",
            "Register its operator with torch.library.custom_op and register_fake, or write it with plain operators.",
        )
    if _is_symbolic(text):
        return f"a size of the graph ({text})", "is used as a plain Python number", NUMBER_ADVICE
    if isinstance(error, NotImplementedError):
        return text or "this", "is not supported", "Use fallback='eager', or write that part with plain operators."
    return (
        f"{type(error).__name__} ({text})" if text else type(error).__name__,
        "was raised",
        "If the model's own forward raises this for the same call, the call is wrong; otherwise this construct "
        "cannot be captured: write it with plain tensor operators.",
    )
