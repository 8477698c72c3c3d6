"""Functions of the edges alone are traced once for all layers, and every layer still has its own result."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch_geometric import nn as gnn
from torch_geometric.nn.conv import gcn_conv
from torch_geometric.utils import add_self_loops, degree, remove_self_loops

import pyg_fullgraph as fg
from pyg_fullgraph.capture import bind, repeated, trace

X, EDGES, WEIGHT = torch.randn(20, 8), torch.randint(0, 20, (2, 70)), torch.rand(70)


def _layers(count: int) -> torch.nn.Module:
    return gnn.models.GCN(8, 8, count).eval()


@pytest.mark.parametrize("layers", [2, 6])
def test_edges_are_normalised_once(layers: int, monkeypatch: pytest.MonkeyPatch) -> None:
    runs, original = [], gcn_conv.gcn_norm

    def counted(*args: Any, **kwargs: Any) -> Any:
        runs.append(1)
        return original(*args, **kwargs)

    monkeypatch.setattr(gcn_conv, "gcn_norm", counted)
    monkeypatch.setitem(repeated._FUNCTIONS, "gcn_norm", counted)
    trace(_layers(layers), bind(_layers(layers), (X, EDGES), {})[0])
    assert len(runs) == 1


def _written(x: Tensor, edges: Tensor, weight: Tensor) -> Tensor:
    """Results and arguments written in place between two calls with the same names."""
    first, w = gcn_conv.gcn_norm(edges, weight, x.size(0))
    w.mul_(3)
    first[0].add_(0)
    second, again = gcn_conv.gcn_norm(edges, weight, x.size(0))
    return torch.stack([w, again, first[0].float(), second[1].float()])


def _argument(x: Tensor, edges: Tensor, weight: Tensor) -> Tensor:
    weight = weight.clone()
    _, before = gcn_conv.gcn_norm(edges, weight, x.size(0))
    weight[:5] *= 2
    _, after = gcn_conv.gcn_norm(edges, weight, x.size(0))
    return torch.stack([before, after])


def _other_arguments(x: Tensor, edges: Tensor, weight: Tensor) -> Tensor:
    found = [
        gcn_conv.gcn_norm(edges, weight, x.size(0), improved)[1][-20:] + gcn_conv.gcn_norm(edges, None, 20)[1][-20:]
        for improved in (True, False, True)
    ]
    return torch.stack([*found, degree(edges[0], x.size(0)), degree(edges[1], x.size(0))])


def _handed_on(x: Tensor, edges: Tensor, weight: Tensor) -> Tensor:
    """Without self-loops the edges are handed on as they are: a write reaches the caller's."""
    weight = weight.clone()
    for _ in range(2):
        _, same = gcn_conv.gcn_norm(edges, weight, x.size(0), add_self_loops=False)
        same.add_(1)
        more, _ = add_self_loops(remove_self_loops(edges, weight)[0], None, num_nodes=x.size(0))
        weight.add_(more.sum())
    return torch.stack([weight, same])


class Net(torch.nn.Module):
    def __init__(self, body: Any) -> None:
        super().__init__()
        self.body, self.conv = body, gnn.SAGEConv(8, 8)

    def forward(self, x: Tensor, edge_index: Tensor, edge_weight: Tensor) -> Any:
        return self.conv(x, edge_index), self.body(x, edge_index, edge_weight)


@pytest.mark.parametrize(
    "body", [_written, _argument, _other_arguments, _handed_on], ids=lambda body: body.__name__.strip("_")
)
def test_results_are_those_of_separate_calls(body: Any) -> None:
    model = Net(body).eval()
    with torch.no_grad():
        expected = model(X, EDGES, WEIGHT)
        got = fg.compile(model, verify="off")(X, EDGES, WEIGHT)
    for one, other in zip(got, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)


def test_nothing_is_kept_in_torch_geometric() -> None:
    before = gcn_conv.gcn_norm
    engine = fg.compile(_layers(3))
    with torch.no_grad():
        torch.testing.assert_close(engine(X, EDGES), engine.model(X, EDGES), rtol=1e-5, atol=1e-5)
    assert gcn_conv.gcn_norm is before


@pytest.mark.parametrize("layers", [2, 12])
def test_fake_results_are_kept_where_many_layers_ask_for_them(layers: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """An entry of torch's cache costs more than the operator it spares, unless it serves several layers."""
    kept, make = [], FakeTensorMode._make_cache_entry
    monkeypatch.setattr(FakeTensorMode, "_make_cache_entry", lambda *args: kept.append(1) or make(*args))
    model = _layers(layers)
    trace(model, bind(model, (X, EDGES), {})[0])
    assert bool(kept) == repeated.many_alike(model.modules()) == (layers == 12)
