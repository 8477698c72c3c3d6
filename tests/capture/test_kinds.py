"""Kinds of nodes and edges that a heterogeneous model does not know, and kinds for a model that knows none."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch_geometric.data import Data, HeteroData
from torch_geometric.nn import GCN, GraphSAGE, HeteroConv, HGTConv, SAGEConv, to_hetero

import pyg_fullgraph as fg
from pyg_fullgraph.errors import CaptureError, InputError


def graph(paper: str = "paper", writes: str = "writes", features: bool = True) -> HeteroData:
    data = HeteroData()
    data[paper].x = torch.randn(20, 8)
    if features:
        data["author"].x = torch.randn(15, 8)
    else:
        data["author"].num_nodes = 15
    edges = torch.stack([torch.randint(0, 15, (40,)), torch.randint(0, 20, (40,))])
    data["author", writes, paper].edge_index, data[paper, "rev", "author"].edge_index = edges, edges.flip(0)
    return data


class ByTypes(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.lin = nn.ModuleDict({kind: nn.Linear(8, 8) for kind in graph().node_types})
        self.conv = HGTConv(8, 8, graph().metadata(), 2)

    def forward(self, x_dict: dict, edge_index_dict: dict) -> dict:
        return self.conv({kind: self.lin[kind](x) for kind, x in x_dict.items()}, edge_index_dict)


class ByConvs(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = HeteroConv({kind: SAGEConv(8, 4) for kind in graph().edge_types})

    def forward(self, x_dict: dict, edge_index_dict: dict) -> dict:
        return self.conv(x_dict, edge_index_dict)


MODELS = {
    "HGT": ByTypes,
    "HeteroConv": ByConvs,
    "to_hetero": lambda: to_hetero(GraphSAGE(8, 8, 2, 4), graph().metadata()),
}
WRONG = {
    "node type": (graph("papers"), r"author, paper; x\w* has 'papers'. Did you mean 'paper'\?"),
    "edge type": (graph(writes="writs"), r"edge_index\w* has \('author', 'writs', 'paper'\). Did you mean"),
    "no features": (graph(features=False), r"'author' has edges, but x\w* has no 'author' .*data\['author'\]\.x"),
}


@pytest.mark.parametrize("wrong", WRONG)
@pytest.mark.parametrize("name", MODELS)
def test_kinds_that_the_model_does_not_know(name, wrong, capfd):
    model, (data, match) = MODELS[name]().eval(), WRONG[wrong]
    try:
        model(data.x_dict, data.edge_index_dict)
    except Exception:
        for call in (lambda: fg.inference(model, data), lambda: fg.compile(model)(data.x_dict, data.edge_index_dict)):
            with pytest.raises(InputError, match=match):
                call()
    else:  # HeteroConv leaves out what it does not know
        got, want = fg.inference(model, data), model(data.x_dict, data.edge_index_dict)
        assert got.keys() == want.keys()
        assert all(torch.allclose(got[key], want[key], atol=1e-5) for key in want)
    assert "Traceback" not in capfd.readouterr().err.partition("HERE")[0] or name == "to_hetero"


def test_another_number_of_kinds():
    one = Data(x=torch.randn(20, 8), edge_index=torch.randint(0, 20, (2, 40)))
    for model in (ByTypes(), ByConvs()):
        with pytest.raises(InputError, match=r"node types author, paper.*Pass a HeteroData"):
            fg.inference(model.eval(), one)
    with pytest.raises(InputError, match=r"dictionary of types \(author, paper\).*to_homogeneous"):
        fg.inference(GCN(8, 8, 2, 4).eval(), graph())


def test_a_norm_that_was_registered_after_eval():
    model = SAGEConv(8, 4).eval()
    nn.utils.parametrizations.weight_norm(model.lin_l, "weight")
    x, edges = torch.randn(20, 8), torch.randint(0, 20, (2, 40))
    for call in (fg.compile(model), lambda *args: fg.inference(model, *args)):
        with pytest.raises(InputError, match=r"lin_l.parametrizations.*after model\.eval\(\).*again"):
            call(x, edges)
    model.eval()
    assert torch.allclose(fg.compile(model)(x, edges), model(x, edges), atol=1e-5)


def test_the_diagonal():
    class Full(nn.Module):
        def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
            return (x @ x.t()).fill_diagonal_(0) @ x

    class Own(nn.Module):
        def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
            return (x.t() @ x).fill_diagonal_(0) @ x.t()

    x, edges = torch.randn(20, 8), torch.randint(0, 20, (2, 40))
    try:
        got = fg.compile(Full().eval())(x, edges)
    except CaptureError as error:
        assert "Max(1" not in str(error)
    else:
        assert torch.allclose(got, Full()(x, edges), atol=1e-4)
    assert torch.allclose(fg.compile(Own().eval(), verify="off")(x, edges), Own()(x, edges), atol=1e-4)
