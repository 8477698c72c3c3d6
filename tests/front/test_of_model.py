"""An engine takes a whole `Data`, and shows its model's parameters."""

from __future__ import annotations

import pytest
import torch
from torch_geometric.data import Data, HeteroData
from torch_geometric.nn import GATConv, HGTConv
from torch_geometric.nn.models import GCN

import pyg_fullgraph as fg
from pyg_fullgraph.engine import Engine
from pyg_fullgraph.errors import InputError
from tests.cases.case import replay_graph


@pytest.fixture
def data() -> Data:
    nodes, edge_index = replay_graph()
    return Data(x=torch.randn(nodes, 8), edge_index=edge_index, edge_weight=torch.rand(edge_index.size(1)))


def close(got: torch.Tensor, expected: torch.Tensor) -> bool:
    return bool((got - expected).abs().max() <= 1e-5 * expected.abs().max())


@pytest.mark.parametrize("build", [lambda: GCN(8, 16, 2, 4), lambda: GATConv(8, 4, heads=2)], ids=["GCN", "GAT"])
def test_data_gives_what_inference_gives(build, data: Data) -> None:
    model = build().eval()
    engine = Engine(model)
    assert torch.equal(engine(data), fg.inference(model, data))
    assert torch.equal(engine(data, nodes=[3, 1]), engine(data)[[3, 1]])


def test_arguments_by_name_go_with_data(data: Data) -> None:
    model = GCN(8, 16, 2, 4).eval()
    engine = Engine(model)
    with torch.no_grad():
        assert close(engine(data, edge_weight=None), model(data.x, data.edge_index))
        assert close(engine(data), model(data.x, data.edge_index, edge_weight=data.edge_weight))


def test_heterogeneous_data() -> None:
    data = HeteroData()
    data["a"].x, data["b"].x = torch.randn(9, 8), torch.randn(7, 8)
    data["a", "to", "b"].edge_index = torch.stack([torch.randint(0, 9, (20,)), torch.randint(0, 7, (20,))])
    data["b", "to", "a"].edge_index = data["a", "to", "b"].edge_index.flip(0)
    model = HGTConv(8, 4, data.metadata()).eval()
    with torch.no_grad():
        expected = model(data.x_dict, data.edge_index_dict)
    got = Engine(model)(data)
    assert all(close(got[key], expected[key]) for key in ("a", "b"))


def test_a_forward_that_takes_data_gets_it(data: Data) -> None:
    class Whole(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = GCN(8, 16, 2, 4)

        def forward(self, data: Data) -> torch.Tensor:
            return self.inner(data.x, data.edge_index)

    model = Whole().eval()
    with torch.no_grad():
        assert close(Engine(model)(data), model(data))


def test_explain_takes_data(data: Data) -> None:
    engine = Engine(GCN(8, 16, 2, 4).eval())
    engine(data)
    assert "GCN" in repr(engine)
    assert str(engine.explain(data)).splitlines()[0] == str(
        engine.explain(data.x, data.edge_index, edge_weight=data.edge_weight)
    ).splitlines()[0]  # fmt: skip


def test_missing_edges_are_named() -> None:
    with pytest.raises(InputError, match="edge_index"):
        Engine(GCN(8, 16, 2, 4).eval())(Data(x=torch.randn(5, 8)))


def test_parameters_are_the_models(data: Data) -> None:
    model = GCN(8, 16, 2, 4)
    engine = Engine(model)
    with pytest.raises(InputError, match="train mode"):
        engine(data)
    assert engine.eval() is engine and not model.training
    assert [id(p) for p in engine.parameters()] == [id(p) for p in model.parameters()]
    before = engine(data)
    engine.load_state_dict({name: 2 * tensor for name, tensor in engine.state_dict().items()})
    with torch.no_grad():
        assert close(engine(data), model(data.x, data.edge_index, data.edge_weight))
    assert not torch.equal(engine(data), before)


def test_a_notebook_shows_model_options_and_notes() -> None:
    engine = Engine(GCN(8, 16, 2, 4).eval(), order="rcm")
    engine.notes.append("a < b")
    shown = engine._repr_html_()
    assert "Engine(GCN" in shown and "rcm" in shown and "a &lt; b" in shown and "<pre>GCN(8, 4" in shown
