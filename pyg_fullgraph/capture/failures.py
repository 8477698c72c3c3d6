"""Turning what went wrong inside a trace into an error that names the construct, the layer, the line and the
way out.
"""

from __future__ import annotations

import linecache
import traceback

import torch
from torch._subclasses.fake_tensor import (
    DataDependentOutputException,
    DynamicOutputShapeException,
    UnsupportedOperatorException,
)
from torch.fx.experimental.symbolic_shapes import GuardOnDataDependentSymNode

from pyg_fullgraph.capture.where import Tracker, is_machinery
from pyg_fullgraph.errors import CaptureError

_BRANCH_ADVICE = (
    "Write both branches as tensors (torch.where), or decide in Python from an argument or an attribute of the model."
)
_SPARSE_ADVICE = (
    "Keep the graph as edge_index (with edge_weight) inside forward: propagate(), or "
    "torch_geometric.utils.scatter of "
    "x[edge_index[0]] by edge_index[1]; it is compiled to one sparse kernel."
)


def explain_failure(error: BaseException, tracker: Tracker, model: torch.nn.Module) -> CaptureError:
    """The `CaptureError` for an exception that a traced forward raised.

    The first exception of the chain counts: libraries catch one and raise another, misleading one (as in
    `Aggregation.__call__`, which re-raises from its own `index.max()`).
    """
    first = error
    while first.__cause__ is not None or (first.__context__ is not None and not first.__suppress_context__):
        following = first.__cause__ if first.__cause__ is not None else first.__context__
        assert following is not None
        first = following
    where, layer = tracker.of_error(first)
    if not where:
        where, layer = tracker.of_error(error)
    what, advice = _diagnose(first)
    if "sparse" in _source_line(first):
        what, advice = "A torch.sparse matrix is made or multiplied", _SPARSE_ADVICE
    place = f"at {where}" if where else f"in {type(model).__name__}.forward"
    layer_text = f", layer '{layer}'" if layer else ""
    return CaptureError(f"{what} {place}{layer_text}. {advice}")


def _source_line(error: BaseException) -> str:
    """The line of the user's or PyG's code that raised."""
    lines = [(f.f_code.co_filename, n) for f, n in traceback.walk_tb(error.__traceback__)]
    own = [(name, number) for name, number in lines if not is_machinery(name)]
    return linecache.getline(*own[-1]) if own else ""


def _diagnose(error: BaseException) -> tuple[str, str]:
    """(what happened, what to do)."""
    if isinstance(error, DataDependentOutputException):
        return (
            f"A Python value is read from a tensor by '{error.func}'",
            "`if tensor`, bool(tensor), tolist() and numpy() depend on the data, so one program cannot "
            "serve all graphs. " + _BRANCH_ADVICE,
        )
    if isinstance(error, GuardOnDataDependentSymNode):
        return (
            f"A Python decision depends on the data or on a size found in it ({error.cond})",
            _BRANCH_ADVICE,
        )
    if isinstance(error, (UnsupportedOperatorException, DynamicOutputShapeException)):
        return (
            f"The operator '{error.func}' has no symbolic form",
            "Use an equivalent made of index_select, scatter and dense operators.",
        )
    text = str(error).strip().split("\n")[0]
    if "Cannot cast" in text or "can't be cast" in text or "data-dependent" in text.lower():
        return (f"A symbolic size is used as a plain Python number ({text})", _BRANCH_ADVICE)
    if isinstance(error, NotImplementedError):
        return (
            f"Not supported: {text}",
            "Use fallback='eager' for this model, or write that part with plain operators.",
        )
    return (
        f"{type(error).__name__}: {text}",
        "If the model's own forward raises this for the same call, the call is wrong; otherwise this "
        "construct cannot be "
        "captured: write it with plain tensor operators.",
    )
