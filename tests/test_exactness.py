"""Every layer and model of the coverage table, through the whole engine, equals its own full-batch forward.

Each case is traced once and then runs on graphs of other sizes, nasty ones among them, in blocks of five rows. Results
are compared element by element within 1e-5 of the largest magnitude. Where a model amplifies rounding, they must be
no farther from the float64 result than twice torch_geometric's own float32; a warning names such cases. Runs agree to
the bit, in memory, memory-mapped and with tables that hand out only the rows that are fetched, on two threads and on
one. The bytes that the store has handed out at the end of each superstep are those of the plan. What runs in each
superstep is what `tests/golden` says.
"""

from __future__ import annotations

import copy
import os
import warnings
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from pyg_fullgraph.engine import Engine
from pyg_fullgraph.plan import StepPlan, blocks
from pyg_fullgraph.runtime.executor import Run
from tests.cases.case import Case, GraphLike, Inputs, module_of, replay_graph
from tests.cases.table import ALL
from tests.graphs import NASTY
from tests.stores import CompactHome
from tests.texts import Golden, text_of
from tests.traces import shared

GRAPHS: dict[str, GraphLike] = {"replay": replay_graph(), **NASTY}
ALWAYS = ("replay", "mixed")
NASTIEST = ("no_edges", "one_node", "empty", "hub_both")
IN_TURN = [name for name in NASTY if name not in ALWAYS]
ALL_GRAPHS = "PYG_FULLGRAPH_ALL_GRAPHS"  # set it to run every case on every graph
TOLERANCE = 1e-5
EXACT = [case for case in ALL if case.status == "exact"]


class AmplifiedRounding(UserWarning):
    """A case was accepted by its distance to float64, not by its distance to torch_geometric."""


@pytest.fixture(autouse=True)
def tiny_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks of at most five rows, so that every operator is run on parts of its rows."""
    for name, value in (("MIN_ROWS", 1), ("MAX_ROWS", 5), ("SMALLEST", 1)):
        monkeypatch.setattr(blocks, name, value)


@pytest.fixture(autouse=True)
def planned(monkeypatch: pytest.MonkeyPatch) -> None:
    """Compare planned with real bytes of tables after every superstep."""
    free = Run._free

    def checked(self: Run, step: StepPlan) -> None:
        assert not all(spec.known for spec in self.plan.tables.values()) or step.held == self.store.held
        free(self, step)

    monkeypatch.setattr(Run, "_free", checked)


def graphs_of(case: Case) -> list[str]:
    """The usual graphs, the nastiest for a core case, and one more in turn."""
    if os.environ.get(ALL_GRAPHS):
        return list(GRAPHS)
    one_more = IN_TURN[EXACT.index(case) % len(IN_TURN)]
    return list(dict.fromkeys([*ALWAYS, *(NASTIEST if case.core else ()), one_more]))


def forward(module: torch.nn.Module, inputs: Inputs) -> Any:
    """The module's own output, None where it cannot run on this graph either."""
    args, kwargs = inputs
    try:
        with torch.no_grad():
            return module(*args, **kwargs)
    except (RuntimeError, IndexError, ValueError, AssertionError):
        return None


def pairs(expected: Any, got: Any) -> list[tuple[Tensor, Tensor]]:
    """The tensors of two results side by side; all else must be equal."""
    wanted, given = pytree.tree_leaves(expected), pytree.tree_leaves(got)
    assert len(wanted) == len(given)
    both = list(zip(wanted, given, strict=True))
    for left, right in both:
        if isinstance(left, Tensor):
            assert (left.shape, left.dtype) == (right.shape, right.dtype)
        else:
            assert left == right
    return [(left, right) for left, right in both if isinstance(left, Tensor)]


def difference(expected: Any, got: Any) -> float:
    """The largest difference over all outputs, relative to the largest magnitude of each."""
    worst = 0.0
    for left, right in pairs(expected, got):
        if not left.is_floating_point():
            assert torch.equal(left, right)
            continue
        finite = left.isfinite()
        assert torch.equal(finite, right.isfinite())
        assert torch.equal(left[~finite].nan_to_num(nan=7.0), right[~finite].nan_to_num(nan=7.0))
        if finite.any():
            scale = float(left[finite].abs().max())
            worst = max(worst, float((left - right)[finite].abs().max()) / max(scale, 1e-30))
    return worst


def to_double(tree: Any) -> Any:
    return pytree.tree_map(lambda leaf: leaf.double() if _is_float(leaf) else leaf, tree)


def _is_float(leaf: Any) -> bool:
    return isinstance(leaf, Tensor) and leaf.is_floating_point()


def distances(module: torch.nn.Module, inputs: Inputs, expected: Any, got: Any) -> list[tuple[float, float]]:
    """For every output: how far torch_geometric's float32 and ours are from the float64 result."""
    args, kwargs = to_double(inputs)
    with torch.no_grad():
        exact = copy.deepcopy(module).double()(*args, **kwargs)
    leaves = [
        (d, a, b) for (a, b), d in zip(pairs(expected, got), pytree.tree_leaves(exact), strict=True) if _is_float(a)
    ]
    return [(float((a - d).abs().max()), float((b - d).abs().max())) for d, a, b in leaves if d.numel()]


def assert_exact(where: str, module: torch.nn.Module, inputs: Inputs, expected: Any, got: Any) -> None:
    """Within the tolerance, or within twice torch_geometric's own distance to float64."""
    found = difference(expected, got)
    if found <= TOLERANCE:
        return
    measured = distances(module, inputs, expected, got)
    assert all(ours <= 2 * theirs for theirs, ours in measured), f"{where}: {found:.1e}, from float64 {measured}"
    warnings.warn(f"{where}: {found:.1e}, but as close to float64 as twice PyG", AmplifiedRounding, stacklevel=2)


def same_bits(left: Any, right: Any) -> bool:
    return all(torch.equal(a.nan_to_num(), b.nan_to_num()) for a, b in pairs(left, right) if a.is_floating_point())


@pytest.mark.parametrize("case", EXACT, ids=lambda case: case.id)
def test_engine_equals_forward(case: Case, golden: Golden, monkeypatch: pytest.MonkeyPatch) -> None:
    module = module_of(case)
    engine = Engine(module, verify="off", threads=2)
    results: dict[str, Any] = {}
    for name in graphs_of(case):
        inputs = case.make_inputs(GRAPHS[name])
        own = module_of(case) if case.keeps else module
        expected = forward(own, inputs)
        if expected is None:
            continue
        with shared(case.id):
            results[name] = engine(*inputs[0], **inputs[1])
        assert_exact(f"{case.id} on {name}", own, inputs, expected, results[name])
    assert results
    assert len(engine._captured) == 1 or case.resized
    captured = next(iter(engine._captured.values()))
    engine.threads, engine.home = 1, "mapped"
    name = next(iter(results))
    args, kwargs = case.make_inputs(GRAPHS[name])
    assert same_bits(results[name], engine(*args, **kwargs))
    golden.check(case.kind, case.id, text_of(captured.program, captured.compiled.schedule))
    monkeypatch.setattr("pyg_fullgraph.engine.make_home", lambda name, device, spare: CompactHome(device))
    assert same_bits(results[name], engine(*args, **kwargs))
