"""Checks that a forward makes of its arguments' shapes: made at each call, cold and warm."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch_geometric.data import HeteroData
from torch_geometric.nn import GAT, GCN, GATConv, GCNConv, GINConv, GraphConv, GraphSAGE, HeteroConv, SAGEConv

import pyg_fullgraph as fg
from pyg_fullgraph.errors import InputError

from .user_models import OwnChecks

X, EDGES = torch.randn(30, 8), torch.randint(0, 30, (2, 100))
TURNED, THREE = EDGES.t().contiguous(), torch.randint(0, 30, (3, 100))

MODELS = {
    "SAGEConv": lambda: SAGEConv(8, 4),
    "GraphConv": lambda: GraphConv(8, 4),
    "GINConv": lambda: GINConv(nn.Linear(8, 4)),
    "GCNConv": lambda: GCNConv(8, 4),
    "GATConv": lambda: GATConv(8, 4),
    "GraphSAGE": lambda: GraphSAGE(8, 16, 2, 4),
    "GCN": lambda: GCN(8, 16, 2, 4),
    "GAT": lambda: GAT(8, 16, 2, 4),
}


@pytest.mark.parametrize("warm", [False, True], ids=["cold", "warm"])
@pytest.mark.parametrize("name", MODELS)
def test_edges_of_another_shape(name, warm):
    model = MODELS[name]().eval()
    engine = fg.compile(model)
    if warm:
        engine(X, EDGES)
    with pytest.raises(InputError, match=r"edge_index has shape \[100, 2\].*\[2, E\].*edge_index.t\(\).contiguous\(\)"):
        engine(X, TURNED)
    with pytest.raises(InputError, match=r"edge_index has shape \[3, 100\].*\[2, E\]"):
        engine(X, THREE)
    assert torch.allclose(engine(X, EDGES), model(X, EDGES), atol=1e-5)


def test_in_dictionaries():
    kinds = [("a", "to", "b"), ("b", "to", "a")]

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = HeteroConv({kind: SAGEConv(8, 4) for kind in kinds})

        def forward(self, x_dict: dict, edge_index_dict: dict) -> dict:
            return self.conv(x_dict, edge_index_dict)

    model, xs = Net().eval(), {"a": X, "b": X[:20]}
    edges = {kind: torch.randint(0, 20, (2, 50)) for kind in kinds}
    turned = {kind: index.t().contiguous() for kind, index in edges.items()}
    with pytest.raises(InputError, match=r"edge_index_dict.*\[50, 2\]"):
        fg.compile(model)(xs, turned)
    data = HeteroData()
    data["a"].x, data["b"].x = xs["a"], xs["b"]
    for kind in kinds:
        data[kind].edge_index = turned[kind]
    with pytest.raises(InputError, match=r"\[50, 2\]"):
        fg.inference(model, data)


def test_one_that_wants_pairs_gets_them():
    class Pairs(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = SAGEConv(8, 4)

        def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
            if edge_index.size(1) != 2:
                raise ValueError("pairs, please")
            return self.conv(x, edge_index.t())

    model = Pairs().eval()
    engine = fg.compile(model)
    assert torch.allclose(engine(X, TURNED), model(X, TURNED), atol=1e-5)
    with pytest.raises(InputError, match="size"):
        engine(X, EDGES)


@pytest.mark.parametrize("form", ["if", "assert", "not", "and"])
def test_own_checks_of_sizes(form):
    model = OwnChecks(form).eval()
    engine, weight = fg.compile(model), torch.rand(100)
    assert torch.allclose(engine(X, EDGES, weight), model(X, EDGES, weight), atol=1e-5)
    assert torch.allclose(engine(X, EDGES, weight), model(X, EDGES, weight), atol=1e-5)
    more, few = (torch.randn(31, 8), EDGES, weight), (X, EDGES[:, :20], weight[:20])
    for call in (more, few):
        try:
            want = model(*call)
        except (ValueError, AssertionError):
            with pytest.raises(InputError, match=r"user_models\.py"):
                engine(*call)
            with pytest.raises(InputError, match=r"user_models\.py"):
                fg.compile(model)(*call)
        else:
            assert torch.allclose(engine(*call), want, atol=1e-5)
