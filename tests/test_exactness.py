"""Every layer and model of the capture table, through the whole engine, equals its own full-batch forward.

Element by element within 1e-5 of the largest magnitude, on a graph other than the traced one and on nasty graphs;
two runs agree to the bit, and so do the memory-mapped home and one thread.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from pyg_fullgraph.engine import Engine
from pyg_fullgraph.errors import CaptureError
from pyg_fullgraph.plan import blocks
from tests.capture.cases import CASES, Case, module_of, replay_graph
from tests.graphs import NASTY

GRAPHS = {
    "replay": replay_graph(),
    **{name: NASTY[name] for name in ("empty", "no_edges", "one_node", "N_equals_E", "mixed")},
}
TOLERANCE = 1e-5


@pytest.fixture(autouse=True)
def tiny_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks of at most five rows, so that every operator is run on parts of its rows."""
    for name, value in (("MIN_ROWS", 1), ("MAX_ROWS", 5), ("SMALLEST", 5)):
        monkeypatch.setattr(blocks, name, value)


def forward(case: Case, module: torch.nn.Module, graph: tuple[int, Tensor]) -> Any:
    """The module's own output, None where it cannot run on this graph either."""
    args, kwargs = case.make_inputs(graph)
    try:
        with torch.no_grad():
            return module(*args, **kwargs)
    except (RuntimeError, IndexError, ValueError, AssertionError):
        return None


def exact_difference(expected: Any, got: Any) -> float:
    """The largest difference over all outputs, relative to the largest magnitude of each."""
    worst = 0.0
    wanted, given = pytree.tree_leaves(expected), pytree.tree_leaves(got)
    assert len(wanted) == len(given)
    for left, right in zip(wanted, given, strict=True):
        if not isinstance(left, Tensor):
            assert left == right
            continue
        assert left.shape == right.shape
        assert left.dtype == right.dtype
        if not left.is_floating_point():
            assert torch.equal(left, right)
        elif left.numel():
            finite = torch.isfinite(left)
            assert torch.equal(finite, torch.isfinite(right))
            if finite.any():
                scale = left[finite].abs().max().clamp(min=1e-30)
                worst = max(worst, float((left[finite] - right[finite]).abs().max() / scale))
    return worst


def same_bits(left: Any, right: Any) -> bool:
    pairs = zip(pytree.tree_leaves(left), pytree.tree_leaves(right), strict=True)
    tensors = [(a, b) for a, b in pairs if isinstance(a, Tensor)]
    return all(torch.equal(torch.nan_to_num(a), torch.nan_to_num(b)) for a, b in tensors if a.is_floating_point())


@pytest.mark.parametrize("case", [case for case in CASES if not case.refused], ids=lambda case: case.id)
def test_engine_equals_forward(case: Case) -> None:
    module = module_of(case)
    engine = Engine(module, verify="off", threads=2)
    compared = 0
    for name, graph in GRAPHS.items():
        expected = forward(case, module_of(case), graph)  # a fresh one: `cached=True` layers keep their first graph
        if expected is None:
            continue
        args, kwargs = case.make_inputs(graph)
        assert exact_difference(expected, engine(*args, **kwargs)) <= TOLERANCE, name
        compared += 1
    assert compared


@pytest.mark.parametrize("case", [case for case in CASES if not case.refused], ids=lambda case: case.id)
def test_runs_agree_to_the_bit(case: Case) -> None:
    module = module_of(case)
    args, kwargs = case.make_inputs(GRAPHS["mixed"])
    if forward(case, module, GRAPHS["mixed"]) is None:
        pytest.skip("its own forward cannot run on this graph")
    first = Engine(module, verify="off", threads=2)(*args, **kwargs)
    mapped = Engine(module, verify="off", threads=1, home="mapped")
    assert same_bits(first, mapped(*args, **kwargs))
    assert same_bits(first, mapped(*args, **kwargs))


@pytest.mark.parametrize("case", [case for case in CASES if case.refused], ids=lambda case: case.id)
def test_refused_with_the_line(case: Case) -> None:
    module = module_of(case)
    args, kwargs = case.make_inputs(GRAPHS["replay"])
    with pytest.raises(CaptureError, match=r"\.py:\d+"):
        Engine(module)(*args, **kwargs)
