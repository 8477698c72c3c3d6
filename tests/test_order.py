"""`order=`: the same results with the nodes computed in another order, kept with the graph, or a reason not to."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch_geometric.nn as pyg
from torch import Tensor

import pyg_fullgraph as fg
from pyg_fullgraph.engine import Engine
from pyg_fullgraph.errors import GraphError
from pyg_fullgraph.graph.generate import grid, rmat
from pyg_fullgraph.plan import blocks
from pyg_fullgraph.runtime import arrange
from tests.cases.case import Case, module_of, replay_graph
from tests.cases.table import ALL
from tests.graphs import NASTY
from tests.test_exactness import assert_exact, forward, same_bits
from tests.traces import shared

ORDERS = ("rcm", "community")
MODELS = (
    "GCNConv",
    "SAGEConv",
    "GATConv",
    "GATv2Conv",
    "PNAConv",
    "RGCNConv",
    "TransformerConv",
    "m.GCN",
    "m.PNA",
    "h.RGCN",
    "h.HeteroConv",
    "h.HGT",
    "h.to_hetero-GAT",
    "p.global_mean_pool",
    "u.GraphClassifier",
    "a.SortAggregation-readout",
    "ChebConv",
    "GATConv-attention",
)


@pytest.fixture(autouse=True)
def tiny_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks of at most five rows, so that every operator is run on parts of its rows."""
    for name, value in (("MIN_ROWS", 1), ("MAX_ROWS", 5), ("SMALLEST", 5)):
        monkeypatch.setattr(blocks, name, value)


@pytest.fixture
def computed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The orders that were computed, by name."""
    names: list[str] = []
    original = arrange.order_nodes
    monkeypatch.setattr(arrange, "order_nodes", lambda name, *rest: names.append(name) or original(name, *rest))
    return names


def case_of(name: str) -> Case:
    return next(case for case in ALL if case.id == name)


def gcn(num_layers: int = 2) -> torch.nn.Module:
    torch.manual_seed(0)
    return pyg.GCN(8, 16, num_layers).eval()


def features(num_nodes: int, width: int = 8) -> Tensor:
    return torch.randn(num_nodes, width, generator=torch.Generator().manual_seed(7))


def mesh(side: int) -> Tensor:
    """A grid of side * side nodes, numbered at random."""
    return torch.randperm(side * side, generator=torch.Generator().manual_seed(2))[grid(side, side)]


def close(left: Tensor, right: Tensor) -> None:
    torch.testing.assert_close(left, right, rtol=0, atol=1e-5 * float(right.abs().max()))


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("name", [pytest.param(name, marks=pytest.mark.xdist_group(name)) for name in MODELS])
def test_equals_forward(name: str, order: str) -> None:
    case = case_of(name)
    module = module_of(case)
    engine = Engine(module, verify="off", threads=2, order=order)
    for graph in (replay_graph(), *(NASTY[key] for key in ("mixed", "hub_both", "duplicates", "no_edges"))):
        args, kwargs = case.make_inputs(graph)
        expected = forward(module, (args, kwargs))
        if expected is not None:
            with shared(name):
                got = engine(*args, **kwargs)
            assert_exact(name, module, (args, kwargs), expected, got)


@pytest.mark.parametrize("graph", NASTY)
def test_nasty_graphs(graph: str) -> None:
    num_nodes, edge_index = NASTY[graph]
    model, x = gcn(), features(num_nodes)
    with torch.no_grad():
        expected = model(x, edge_index)
    for order in ORDERS:
        with shared("order.gcn"):
            got = Engine(model, verify="off", order=order)(x, edge_index)
        assert got.shape == expected.shape
        if expected.numel():
            close(got, expected)


def test_the_nodes_do_run_in_another_order(computed: list[str]) -> None:
    edge_index, x = mesh(20), features(400)
    engine = Engine(gcn(), verify="off", order="rcm")
    engine(x, edge_index)
    (captured,) = engine._captured.values()
    (entry,) = captured.structures._items.values()
    (edges,) = entry.item.in_edges.values()
    (source,) = (value for name, value in edges.values.items() if not value.is_floating_point())
    destination = torch.arange(400).repeat_interleave(edges.rowptr.diff())
    assert int((source - destination).abs().max()) <= 24  # 300 and more as numbered
    assert computed == ["rcm"]


def test_computed_once_per_graph_and_again_when_it_changes(computed: list[str]) -> None:
    model, x, edge_index = gcn(), features(400), mesh(20)
    engine = Engine(model, verify="off", order="rcm")
    first = engine(x, edge_index)
    close(engine(x * 2, edge_index), model(x * 2, edge_index))
    assert computed == ["rcm"]
    assert same_bits(first, engine(x, edge_index))
    assert len(engine._captured[next(iter(engine._captured))].structures) == 1
    edge_index[1] = edge_index[1].flip(0)
    close(engine(x, edge_index), model(x, edge_index))
    assert computed == ["rcm", "rcm"]
    engine(x, edge_index.clone())  # the same graph
    assert computed == ["rcm", "rcm"]
    engine(x, mesh(20).flip(1))
    assert computed == ["rcm"] * 3


def test_node_numbers_among_the_results_are_the_given_ones() -> None:
    torch.manual_seed(0)
    model, edge_index, x = pyg.GATConv(8, 4, heads=2).eval(), mesh(6), features(36)

    class Both(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = model

        def forward(self, x: Tensor, edge_index: Tensor) -> Any:
            return self.conv(x, edge_index, return_attention_weights=True)

    with torch.no_grad():
        out, (edges, alpha) = Both()(x, edge_index)
    got, (got_edges, got_alpha) = Engine(Both().eval(), verify="off", order="rcm")(x, edge_index)
    close(got, out)
    assert torch.equal(got_edges, edges)
    close(got_alpha, alpha)


def test_explain_tells_what_an_order_keeps_and_copies() -> None:
    x, edge_index = features(400), mesh(20)
    given, engine = Engine(gcn(), verify="off"), Engine(gcn(), verify="off", order="rcm")
    for item in (given, engine):
        item(x, edge_index)
    (captured,) = engine._captured.values()
    ((arrangement, note),) = (entry.item for entry in captured.arranged._items.values())
    copied = 400 * (8 + 16) * 4 / 2**20
    assert arrangement.nbytes == 400 * 8 + edge_index.nbytes
    assert f"a call copies {copied:.1f} MiB of its inputs and outputs" in note
    report = engine.explain(x, edge_index)
    assert report.structure_bytes == given.explain(x, edge_index).structure_bytes + arrangement.nbytes
    assert note in str(report)
    assert len(report.measured) == 2


@pytest.mark.parametrize("mask", [False, True], ids=["numbers", "mask"])
def test_selected_nodes_run_in_the_given_order(mask: bool, computed: list[str]) -> None:
    model, x, edge_index = gcn(), features(400), mesh(20)
    engine = Engine(model, verify="off", order="rcm")
    nodes = torch.tensor([7, 3, 399, 3])
    expected = engine(x, edge_index)
    assert computed == ["rcm"]
    if mask:
        nodes = torch.zeros(400, dtype=torch.bool).index_fill_(0, nodes, True)
    close(engine(x, edge_index, nodes=nodes), expected[nodes])
    assert computed == ["rcm"]


def test_verification_of_an_order_passes_and_finds_a_wrong_one(monkeypatch: pytest.MonkeyPatch) -> None:
    x, edge_index = features(400), mesh(20)
    engine = Engine(gcn(), verify="always", order="rcm")
    engine(x, edge_index)
    assert engine.verification is not None
    monkeypatch.setattr(arrange.Arrangement, "restored", lambda self, result: result)
    with pytest.raises(fg.FullGraphMismatch):
        engine(x, edge_index)


class Positional(torch.nn.Module):
    """Adds to each node a code of where it stands."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.code = pyg.GCNConv(8, 8), torch.nn.Embedding(500, 8)

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        return self.conv(x + self.code(torch.arange(x.size(0))), edge_index)


class Identified(torch.nn.Module):
    """Looks every node's own number up, which is an argument."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.code = pyg.GCNConv(8, 8), torch.nn.Embedding(500, 8)

    def forward(self, n_id: Tensor, edge_index: Tensor) -> Tensor:
        return self.conv(self.code(n_id), edge_index)


class Directed(torch.nn.Module):
    """Uses edges to later nodes only."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = pyg.SAGEConv(8, 8)

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        return self.conv(x, edge_index[:, edge_index[0] < edge_index[1]])


@pytest.mark.parametrize(("model", "why"), [(Positional, "embedding"), (Directed, "lt")], ids=["arange", "lt"])
def test_refused_with_a_note_and_exact(model: type[torch.nn.Module], why: str, computed: list[str]) -> None:
    torch.manual_seed(0)
    module, x, edge_index = model().eval(), features(400), mesh(20)
    engine = Engine(module, verify="off", order="rcm")
    close(engine(x, edge_index), module(x, edge_index))
    assert computed == []
    assert any("kept the given order" in note and f"'{why}'" in note for note in engine.notes)
    assert "kept the given order" in str(engine.explain(x, edge_index))


def test_node_numbers_as_features_stay_as_they_are(computed: list[str]) -> None:
    torch.manual_seed(0)
    module, edge_index = Identified().eval(), mesh(20)
    n_id = torch.randperm(400, generator=torch.Generator().manual_seed(4))
    close(Engine(module, verify="off", order="rcm")(n_id, edge_index), module(n_id, edge_index))
    assert computed == ["rcm"]


def test_a_graph_made_in_inference_mode(computed: list[str]) -> None:
    with torch.inference_mode():
        edge_index = mesh(20)
    model, x = gcn(), features(400)
    engine = Engine(model, verify="off", order="rcm")
    with torch.no_grad():
        close(engine(x, edge_index), model(x, edge_index))
        close(engine(x, edge_index), model(x, edge_index))
    assert computed == ["rcm"]


def test_a_missing_node_is_the_error_that_it_is_without_an_order() -> None:
    with pytest.raises(GraphError, match="edge_index"):
        Engine(gcn(), order="rcm")(features(4), torch.tensor([[0, 1, 9], [1, 0, 2]]))


def test_auto_keeps_the_order_of_a_small_graph(computed: list[str]) -> None:
    model, x, edge_index = gcn(), features(400), mesh(20)
    engine = Engine(model, verify="off", order="auto", calls=10)
    close(engine(x, edge_index), model(x, edge_index))
    assert computed == []
    assert any("'auto', 10 calls" in note and "kept the given order" in note for note in engine.notes)


@pytest.mark.parametrize(
    ("graph", "calls", "reordered"), [("mesh", 100, True), ("mesh", 1, False), ("rmat", 100, False)]
)
def test_auto_follows_what_it_measures(
    graph: str, calls: int, reordered: bool, monkeypatch: pytest.MonkeyPatch, computed: list[str]
) -> None:
    """With caches of 16 and 512 rows: a mesh in no order misses, one in order does not; R-MAT is no better for it."""
    monkeypatch.setattr("pyg_fullgraph.plan.locality.cache_bytes", lambda: (16 * 256, 512 * 256))
    for name in ("MAX_ROWS", "SMALLEST"):
        monkeypatch.setattr(blocks, name, 4096)
    edge_index = mesh(64) if graph == "mesh" else rmat(12, 8)
    model, x = pyg.GCN(64, 64, 12).eval(), features(4096, 64)
    engine = Engine(model, verify="off", order="auto", calls=calls)
    with torch.no_grad():
        close(engine(x, edge_index), model(x, edge_index))
    (captured,) = engine._captured.values()
    ((arrangement, note),) = (entry.item for entry in captured.arranged._items.values())
    assert (arrangement is not None) == reordered, note
    assert ("kept the given order" in note) != reordered
    assert note in engine.notes
    assert computed == (["rcm"] if calls > 1 else [])


def test_options_reach_the_engine() -> None:
    model, x, edge_index = gcn(), features(400), mesh(20)
    with torch.no_grad():
        expected = model(x, edge_index)
    close(fg.inference(model, x, edge_index, order="rcm"), expected)
    close(fg.compile(model, order="community")(x, edge_index), expected)
    with pytest.raises(ValueError, match="'rcm', 'community', 'auto'"):
        fg.compile(model, order="degree")
    with pytest.raises(ValueError, match="calls=0"):
        fg.compile(model, order="auto", calls=0)


def test_an_argument_without_rows_stays_where_it_is() -> None:
    """`u` is one vector for the whole graph."""

    class Shifted(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = gcn()

        def forward(self, x: torch.Tensor, edge_index: torch.Tensor, u: torch.Tensor) -> torch.Tensor:
            return self.conv(x, edge_index) + u

    model, x, edge_index = Shifted().eval(), features(400), mesh(20)
    with torch.no_grad():
        u = torch.randn(model.conv(x, edge_index).size(1))
        close(Engine(model, verify="off", order="rcm")(x, edge_index, u), model(x, edge_index, u))
