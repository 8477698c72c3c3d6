"""`nodes=` computes what the asked rows depend on, for every way in which a superstep may look at other rows."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch_geometric import nn as gnn

import pyg_fullgraph as fg
from pyg_fullgraph import engine as engine_module
from pyg_fullgraph.graph.csr import positions_of
from pyg_fullgraph.runtime import receptive_field as module
from pyg_fullgraph.runtime.receptive_field import RowMap

NODES, OTHERS, WIDTH = 60, 40, 4


def edges(rows: int, columns: int, count: int = 90, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    source = torch.randint(0, rows, (count,), generator=generator)
    return torch.stack([source, torch.randint(0, columns, (count,), generator=generator)])


class Base(nn.Module):
    """Two layers, so that a row needs others that need others."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.first, self.second = gnn.SAGEConv(WIDTH, WIDTH), gnn.SAGEConv(WIDTH, WIDTH)


class NumberOfNodes(Base):
    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        return self.second(self.first(x, edge_index) * x.size(0) / 7, edge_index) + x.size(0)


class Permuted(Base):
    def forward(self, x: Tensor, edge_index: Tensor, other: Tensor) -> Tensor:
        h = self.first(x, edge_index)
        return self.second(h + h[other], edge_index)


class PermutedLast(Base):
    def forward(self, x: Tensor, edge_index: Tensor, other: Tensor) -> Tensor:
        return self.second(self.first(x, edge_index), edge_index)[other] + x[other]


class TwoEdgeLists(Base):
    def forward(self, x: Tensor, edge_index: Tensor, more: Tensor) -> Tensor:
        return self.second(self.first(x, edge_index), more) + self.first(x, more)


class NumberAndPlace(Base):
    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        h, (source, target) = self.first(x, edge_index), edge_index
        weighed = h[source] * source.view(-1, 1)
        return h + torch.zeros_like(h).index_add_(0, target, weighed)


class Bipartite(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.there, self.back = gnn.SAGEConv((WIDTH, WIDTH), WIDTH), gnn.SAGEConv((WIDTH, WIDTH), WIDTH)

    def forward(self, x: Tensor, y: Tensor, there: Tensor, back: Tensor) -> Tensor:
        h = self.there((x, y), there).relu()
        return self.back((h, x), back)


def inputs(model: nn.Module) -> tuple[Tensor, ...]:
    torch.manual_seed(0)
    x, graph = torch.randn(NODES, WIDTH), edges(NODES, NODES)
    if isinstance(model, Bipartite):
        return x, torch.randn(OTHERS, WIDTH), edges(NODES, OTHERS), edges(OTHERS, NODES, seed=1)
    if isinstance(model, (Permuted, PermutedLast)):
        return x, graph, torch.randperm(NODES)
    if isinstance(model, TwoEdgeLists):
        return x, graph, edges(NODES, NODES, seed=1)
    return x, graph


@pytest.fixture(autouse=True)
def always(monkeypatch: pytest.MonkeyPatch) -> None:
    """Restrict also where it saves nothing."""
    monkeypatch.setattr(module, "WORTHWHILE", float("inf"))


@pytest.fixture
def computed(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The rows computed of each block."""
    rows: list[int] = []
    monkeypatch.setattr(engine_module.Progress, "rows", lambda self, count: rows.append(count))
    return rows


MODELS = [NumberOfNodes, Permuted, PermutedLast, TwoEdgeLists, NumberAndPlace, Bipartite]


@pytest.mark.parametrize("build", MODELS, ids=lambda build: build.__name__)
@pytest.mark.parametrize("verify", ["off", "auto"])
def test_rows_are_those_of_the_whole(build: type[nn.Module], verify: str, computed: list[int]) -> None:
    model = build().eval()
    args, asked = inputs(model), torch.tensor([5, 59, 5, 0])
    expected = model(*args).detach()
    engine = fg.compile(model, verify=verify)
    whole = engine(*args)
    all_rows = sum(computed)
    computed.clear()
    found = engine(*args, nodes=asked)
    torch.testing.assert_close(whole, expected, rtol=1e-5, atol=1e-5 * float(expected.abs().max()))
    torch.testing.assert_close(found, expected[asked], rtol=1e-5, atol=1e-5 * float(expected.abs().max()))
    if build not in (NumberAndPlace, Bipartite):  # numbers of rows as data; a second set of nodes that is not symbolic
        assert sum(computed) < all_rows
    assert engine(*args, nodes=torch.empty(0, dtype=torch.long)).shape == (0, WIDTH)


@pytest.mark.parametrize("kind", ["sage", "gat", "rgcn-like"])
def test_kinds_of_nodes(kind: str, computed: list[int]) -> None:
    def layer() -> gnn.HeteroConv:
        def conv(same: bool) -> nn.Module:
            if kind == "gat":
                return gnn.GATConv((WIDTH, WIDTH), WIDTH, add_self_loops=False)
            return gnn.SAGEConv((WIDTH, WIDTH), WIDTH) if kind == "sage" else gnn.GraphConv((WIDTH, WIDTH), WIDTH)

        triples = [("a", "to", "b"), ("b", "to", "a"), ("a", "in", "a")]
        return gnn.HeteroConv({triple: conv(triple[0] == triple[2]) for triple in triples})

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(2)
            self.layers = nn.ModuleList([layer(), layer()])

        def forward(self, x_dict: dict[str, Tensor], edge_index_dict: dict) -> dict[str, Tensor]:
            for conv in self.layers:
                x_dict = {kind: x.relu() for kind, x in conv(x_dict, edge_index_dict).items()}
            return x_dict

    model = Net().eval()
    x = {"a": torch.randn(NODES, WIDTH), "b": torch.randn(OTHERS, WIDTH)}
    graph = {
        ("a", "to", "b"): edges(NODES, OTHERS),
        ("b", "to", "a"): edges(OTHERS, NODES, seed=1),
        ("a", "in", "a"): edges(NODES, NODES, seed=2),
    }
    expected = {kind: out.detach() for kind, out in model(x, graph).items()}
    engine = fg.compile(model)
    engine(x, graph)
    all_rows = sum(computed)
    for asked in ({"a": [1, 50], "b": [2]}, {"a": [], "b": [39]}, {"b": [1]}):
        computed.clear()
        found = engine(x, graph, nodes=asked)
        for kind_, out in found.items():
            theirs = expected[kind_][asked[kind_]] if kind_ in asked else expected[kind_]
            torch.testing.assert_close(out, theirs, rtol=1e-5, atol=1e-5)
        if len(asked) == 2:
            assert sum(computed) < all_rows


def test_a_large_receptive_field_is_not_worth_it(monkeypatch: pytest.MonkeyPatch, computed: list[int]) -> None:
    monkeypatch.undo()
    rows: list[int] = []
    monkeypatch.setattr(engine_module.Progress, "rows", lambda self, count: rows.append(count))
    model = NumberOfNodes().eval()
    args = inputs(model)
    engine = fg.compile(model, verify="off")
    found = engine(*args, nodes=torch.arange(50))
    assert sum(rows) == 2 * NODES
    torch.testing.assert_close(found, model(*args)[:50].detach(), rtol=1e-5, atol=1e-3)


def test_a_row_map_takes_and_renumbers() -> None:
    rows = RowMap.of(torch.tensor([4, 1]), 6)
    assert rows.localize(torch.tensor([1, 4, 4, 5], dtype=torch.int32)).tolist() == [1, 0, 0, 0]
    assert rows.localize(torch.tensor([[1], [4]])).dtype == torch.int64
    assert rows.take(torch.arange(12).view(6, 2)).tolist() == [[8, 9], [2, 3]]
    assert rows.take(torch.arange(12).view(2, 6), 1).tolist() == [[4, 1], [10, 7]]


def test_positions_of_in_edges() -> None:
    rowptr = torch.tensor([2, 4, 4, 7])
    bounds, positions = positions_of(rowptr, torch.tensor([2, 0]))
    assert bounds.tolist() == [0, 3, 5] and positions.tolist() == [2, 3, 4, 0, 1]
