"""The backend of `torch.compile`: exact on what Dynamo takes whole and on parts, few traces, reasons told once."""

from __future__ import annotations

import contextlib
import importlib
import logging
import re
from collections.abc import Callable, Iterator
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import pytest
import torch
import torch._dynamo
import torch.nn.functional as F
import torch_geometric.nn as gnn
from torch import Tensor
from torch.utils import _pytree as pytree

import pyg_fullgraph as fg
from pyg_fullgraph import dynamo
from pyg_fullgraph.errors import InputError
from pyg_fullgraph.front.notes import ONCE

pytestmark = pytest.mark.skipif(
    fg.ops.kernels()["backend"] != "cpp", reason="the backend serves where kernels are built"
)


class Mine(gnn.MessagePassing):
    def __init__(self) -> None:
        super().__init__(aggr="max")
        self.lin = torch.nn.Linear(32, 16)

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        return x + self.propagate(edge_index, x=x)

    def message(self, x_i: Tensor, x_j: Tensor) -> Tensor:
        return self.lin(torch.cat([x_i, x_j], dim=-1)).relu()


PNA = {"aggregators": ["mean", "max", "std"], "scalers": ["identity", "amplification"], "deg": torch.tensor([1, 2, 3])}
MODELS: dict[str, Callable[[], torch.nn.Module]] = {
    "GCN": lambda: gnn.GCN(16, 16, 2, 4),
    "GraphSAGE": lambda: gnn.GraphSAGE(16, 16, 2, 4, jk="cat"),
    "GAT": lambda: gnn.GAT(16, 16, 2, 4, heads=2),
    "GIN": lambda: gnn.GIN(16, 16, 2, 4, norm="batch_norm"),
    "PNA": lambda: gnn.PNA(16, 16, 1, 4, **PNA),
    "mine": Mine,
}
LOOPS = ("GCN", "GAT")  # Dynamo takes these whole only with `dynamo_options`


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    logger = logging.getLogger("torch.__trace")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    torch._dynamo.reset()
    ONCE.forget()
    yield
    torch._dynamo.reset()
    logger.setLevel(level)


@pytest.fixture
def parts(monkeypatch: pytest.MonkeyPatch) -> list[dynamo.Recorded]:
    """The parts that the backend was given and serves or declines."""
    made: list[dynamo.Recorded] = []
    original = dynamo.Recorded.__init__

    def init(self: dynamo.Recorded, *args: Any) -> None:
        original(self, *args)
        made.append(self)

    monkeypatch.setattr(dynamo.Recorded, "__init__", init)
    return made


@pytest.fixture
def told(caplog: pytest.LogCaptureFixture) -> Callable[[], list[str]]:
    caplog.set_level(logging.WARNING, logger="pyg_fullgraph")
    return lambda: [record.getMessage() for record in caplog.records if record.name == "pyg_fullgraph"]


def graph(nodes: int, edges: int) -> tuple[Tensor, Tensor]:
    return torch.randn(nodes, 16), torch.randint(0, nodes, (2, edges))


def close(ours: Any, theirs: Any) -> None:
    for one, other in zip(pytree.tree_leaves(ours), pytree.tree_leaves(theirs), strict=True):
        if not isinstance(other, Tensor):
            assert one == other
            continue
        assert one.shape == other.shape and one.dtype == other.dtype
        if other.numel():
            assert float((one - other).abs().max()) <= 1e-5 * max(float(other.abs().max()), 1e-12)


def served(part: dynamo.Recorded) -> bool:
    return part.engine is not None and bool(part.engine._captured) and not part.final


SIZES = [(50, 200), (60, 300), (16, 16), (70, 70), (2, 2), (9, 2)]


@pytest.mark.parametrize("whole", [True, False], ids=["options", "default"])
@pytest.mark.parametrize("name", MODELS)
def test_equals_the_model_for_all_sizes(
    name: str, whole: bool, parts: list[dynamo.Recorded], told: Callable[[], list[str]]
) -> None:
    """One part and one trace for all sizes; with the default settings several parts of a model with self-loops."""
    model = MODELS[name]().eval()
    compiled = torch.compile(model, backend=dynamo.backend, dynamic=True)
    with torch.no_grad(), fg.dynamo_options() if whole else contextlib.nullcontext():
        for nodes, edges in SIZES:
            args = graph(nodes, edges)
            close(compiled(*args), model(*args))
    if whole or name not in LOOPS:
        assert len(parts) == 1
    assert all(served(part) and len(part.engine._captured) == 1 for part in parts), told()  # type: ignore[union-attr]
    assert not told()


@pytest.mark.parametrize("name", ["GCN", "GraphSAGE"])
def test_small_graphs(name: str) -> None:
    """Dynamo takes sizes 0 and 1 for numbers and captures anew."""
    model = MODELS[name]().eval()
    compiled = torch.compile(model, backend=dynamo.backend, dynamic=True)
    with torch.no_grad(), fg.dynamo_options():
        for nodes, edges in [(7, 0), (7, 1), (1, 0), (1, 1), (1, 5), (30, 90)]:
            args = graph(nodes, edges)
            close(compiled(*args), model(*args))


def test_as_many_nodes_as_edges_at_first(parts: list[dynamo.Recorded]) -> None:
    model = MODELS["GraphSAGE"]().eval()
    compiled = torch.compile(model, backend=dynamo.backend, dynamic=True)
    with torch.no_grad():
        for args in (graph(40, 40), graph(40, 90), graph(16, 16)):
            close(compiled(*args), model(*args))
    assert all(served(part) for part in parts) and len(parts) <= 2


def test_settings_are_needed_at_the_first_call_only(parts: list[dynamo.Recorded]) -> None:
    model = MODELS["GCN"]().eval()
    compiled = torch.compile(model, backend=dynamo.backend, dynamic=True)
    with torch.no_grad():
        with fg.dynamo_options():
            compiled(*graph(30, 90))
        args = graph(50, 70)
        close(compiled(*args), model(*args))
    assert len(parts) == 1


def test_parameters_are_live() -> None:
    model = MODELS["GraphSAGE"]().eval()
    compiled = torch.compile(model, backend=dynamo.backend, dynamic=True)
    args = graph(30, 90)
    with torch.no_grad():
        close(compiled(*args), model(*args))
        model.load_state_dict({key: value * -1.5 for key, value in model.state_dict().items()})
        close(compiled(*args), model(*args))
        model.convs[0].lin_l.weight = torch.nn.Parameter(torch.ones(16, 16))
        close(compiled(*args), model(*args))


def test_fixed_sizes_are_told_once_and_marked_ones_served(
    parts: list[dynamo.Recorded], told: Callable[[], list[str]]
) -> None:
    model = MODELS["GCN"]().eval()
    compiled = torch.compile(model, backend=dynamo.backend)
    with torch.no_grad():
        args = graph(30, 90)
        assert torch.equal(compiled(*args), model(*args))
        (note,) = told()
        assert "dynamic=True" in note and not any(served(part) for part in parts)
        torch._dynamo.reset()
        parts.clear()
        torch._dynamo.mark_dynamic(args[0], 0)
        torch._dynamo.mark_dynamic(args[1], 1)
        with fg.dynamo_options():
            close(torch.compile(model, backend=dynamo.backend)(*args), model(*args))
    assert [served(part) for part in parts] == [True] and len(told()) == 1


def test_training_runs_as_recorded(told: Callable[[], list[str]]) -> None:
    ours, theirs = gnn.GATConv(16, 4), gnn.GATConv(16, 4)
    ours.load_state_dict(theirs.state_dict())
    args = graph(30, 90)
    compiled = torch.compile(ours, backend=dynamo.backend, dynamic=True)
    for _ in range(2):
        for module, call in ((ours, compiled), (theirs, theirs)):
            module.zero_grad()
            call(*args).square().sum().backward()
        for left, right in zip(ours.parameters(), theirs.parameters(), strict=True):
            assert left.grad is not None and right.grad is not None
            close(left.grad, right.grad)
    (note,) = told()
    assert "gradient" in note


# Functions: what a backend must not get wrong ------------------------------------------------------


def aggregate(x: Tensor, edge_index: Tensor) -> Tensor:
    return torch.zeros_like(x).index_add(0, edge_index[1], x[edge_index[0]])


def writes(x: Tensor, edge_index: Tensor) -> Tensor:
    x.add_(1)
    return aggregate(x, edge_index)


def writes_into_a_view(x: Tensor, edge_index: Tensor) -> Tensor:
    x[:, :4].mul_(2)
    return aggregate(x, edge_index)


def writes_edges(x: Tensor, edge_index: Tensor) -> Tensor:
    out = aggregate(x, edge_index)
    edge_index[0].fill_(0)
    return out


def returns_inputs(x: Tensor, edge_index: Tensor) -> tuple[Tensor, ...]:
    return x, aggregate(x, edge_index), x.view(-1), edge_index


def returns_structure(x: Tensor, edge_index: Tensor) -> tuple[Any, ...]:
    loops = torch.arange(x.size(0)).repeat(2, 1)
    both = torch.cat([edge_index, loops], dim=1)
    return aggregate(x, both), both, both[0], x.size(0) + 1, None


def breaks(x: Tensor, edge_index: Tensor) -> Tensor:
    h = aggregate(x, edge_index)
    if h.sum() > 0:
        h = h.relu()
    return aggregate(h, edge_index) - h.mean(0)


def random(x: Tensor, edge_index: Tensor) -> Tensor:
    return aggregate(x, edge_index) + 0 * torch.rand_like(x)


FUNCTIONS = {
    "aggregate": (aggregate, True),
    "writes": (writes, False),
    "writes_into_a_view": (writes_into_a_view, False),
    "writes_edges": (writes_edges, False),
    "returns_inputs": (returns_inputs, True),
    "returns_structure": (returns_structure, True),
    "breaks": (breaks, True),
    "random": (random, False),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions(name: str, parts: list[dynamo.Recorded], told: Callable[[], list[str]]) -> None:
    function, serves = FUNCTIONS[name]
    compiled = torch.compile(function, backend=dynamo.backend, dynamic=True)
    x, edge_index = graph(30, 90)
    ours, theirs = (x.clone(), edge_index.clone()), (x.clone(), edge_index.clone())
    with torch.no_grad():
        for _ in range(3):
            got, expected = compiled(*ours), function(*theirs)
            close(got, expected)
            close(ours, theirs)
            for left, right in zip(pytree.tree_leaves(got), pytree.tree_leaves(expected), strict=True):
                if isinstance(right, Tensor):  # what a call returned is the caller's
                    left.zero_()
                    right.zero_()
    assert all(served(part) for part in parts) == serves and parts
    assert len(told()) == (0 if serves else 1)


def test_numbers(parts: list[dynamo.Recorded]) -> None:
    def scaled(x: Tensor, edge_index: Tensor, times: int, plus: float) -> Tensor:
        return aggregate(x, edge_index) * times + plus

    compiled = torch.compile(scaled, backend=dynamo.backend, dynamic=True)
    with torch.no_grad():
        for times, plus in ((3, 0.5), (4, 0.25), (-2, 0.25), (0, 1.0)):
            args = (*graph(30, 90), times, plus)
            close(compiled(*args), scaled(*args))
    assert any(served(part) for part in parts)


def test_programs_on_graphs(parts: list[dynamo.Recorded]) -> None:
    def gat(g: fg.Graph, x: Tensor, w: Tensor, a_src: Tensor, a_dst: Tensor) -> Tensor:
        h = x @ w
        score = F.leaky_relu(g.src(h @ a_src) + g.dst(h @ a_dst), 0.2)
        return g.sum(g.softmax(score) * g.src(h))

    compiled = torch.compile(gat, backend=dynamo.backend, dynamic=True)
    weights = [torch.randn(16, 8), torch.randn(8, 1), torch.randn(8, 1)]
    with torch.no_grad():
        for nodes, edges in ((30, 90), (40, 70)):
            x, edge_index = graph(nodes, edges)
            g = fg.Graph(edge_index, nodes)
            close(compiled(g, x, *weights), gat(g, x, *weights))
    assert len(parts) == 1 and served(parts[0])


def test_heterogeneous(parts: list[dynamo.Recorded]) -> None:
    kinds = {("a", "w", "p"): (20, 30), ("p", "c", "p"): (30, 30), ("p", "r", "a"): (30, 20)}
    model = gnn.HeteroConv({kind: gnn.SAGEConv((16, 16), 8) for kind in kinds}).eval()
    x = {"a": torch.randn(20, 16), "p": torch.randn(30, 16)}
    edges = {
        kind: torch.stack([torch.randint(0, left, (50 + k,)), torch.randint(0, right, (50 + k,))])
        for k, (kind, (left, right)) in enumerate(kinds.items())
    }
    compiled = torch.compile(model, backend=dynamo.backend, dynamic=True)
    with torch.no_grad():
        close(compiled(x, edges), model(x, edges))
    assert parts and all(served(part) for part in parts)


def test_a_users_mistake_is_the_models_own_error(told: Callable[[], list[str]]) -> None:
    compiled = torch.compile(aggregate, backend=dynamo.backend, dynamic=True)
    x, edge_index = graph(30, 90)
    edge_index[0, 7] = 30
    with torch.no_grad(), pytest.raises((IndexError, RuntimeError)):
        compiled(x, edge_index)
    assert not told()


def test_options(parts: list[dynamo.Recorded]) -> None:
    compiled = torch.compile(aggregate, backend=dynamo.backend, dynamic=True, options={"threads": 1, "verify": "off"})
    with torch.no_grad():
        compiled(*graph(30, 90))
    assert parts[0].engine is not None and (parts[0].engine.threads, parts[0].engine.verify) == (1, "off")
    with pytest.raises(InputError, match=r"Unknown option 'mode' .* threads, home, verify"):
        dynamo.backend(torch.fx.symbolic_trace(torch.nn.Identity()), [], options={"mode": 3})


def test_entry_point() -> None:
    text = (Path(__file__).parent.parent / "pyproject.toml").read_text()
    match = re.search(r'^\[project.entry-points.torch_dynamo_backends\]\npyg_fullgraph = "([\w.]+):(\w+)"$', text, re.M)
    assert match and getattr(importlib.import_module(match[1]), match[2]) is dynamo.backend


def test_by_name(parts: list[dynamo.Recorded]) -> None:
    if "pyg_fullgraph" not in {point.name for point in entry_points(group="torch_dynamo_backends")}:
        pytest.skip("installed before there was an entry point: install the package again")
    with torch.no_grad():
        args = graph(30, 90)
        close(torch.compile(aggregate, backend="pyg_fullgraph", dynamic=True)(*args), aggregate(*args))
    assert served(parts[0])
