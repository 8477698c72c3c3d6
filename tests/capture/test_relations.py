"""Layers that loop over many relations: captured as one pass, and the result is that of the loop."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch_geometric
from torch import Tensor
from torch_geometric.nn import FiLMConv, RGCNConv

import pyg_fullgraph as fg
from pyg_fullgraph.capture import bind, relations, trace

N, E, R = 60, 400, 12
X, EDGES = torch.randn(N, 16), torch.randint(0, N - 5, (2, E))  # some nodes without edges
KINDS = torch.randint(0, R - 2, (E,)).where(torch.rand(E) < 0.9, torch.full((E,), R - 1))  # one relation without
PAIR = (X, torch.randn(N + 7, 5))

LAYERS: dict[str, tuple[Callable[[], torch.nn.Module], Any]] = {
    "mean": (lambda: RGCNConv(16, 8, R), X),
    "add": (lambda: RGCNConv(16, 8, R, aggr="add", bias=False), X),
    "max": (lambda: RGCNConv(16, 8, R, aggr="max"), X),
    "min": (lambda: RGCNConv(16, 8, R, aggr="min", root_weight=False), X),
    "mul": (lambda: RGCNConv(16, 8, R, aggr="mul"), X),  # of no edges one: keeps its loop
    "bases": (lambda: RGCNConv(16, 8, R, num_bases=3), X),
    "blocks": (lambda: RGCNConv(16, 8, R, num_blocks=4), X),
    "blocks-max": (lambda: RGCNConv(16, 8, R, num_blocks=2, aggr="max"), X),
    "pair": (lambda: RGCNConv((16, 5), 8, R), PAIR),
    "backwards": (lambda: RGCNConv(16, 8, R, flow="target_to_source"), X),
    "no features": (lambda: RGCNConv(N, 8, R), None),
    "ids": (lambda: RGCNConv(90, 8, R, num_bases=2), torch.randint(0, 90, (N,))),
    "ids-max": (lambda: RGCNConv(90, 8, R, aggr="max"), torch.randint(0, 90, (N,))),
    "film": (lambda: FiLMConv(16, 8, R), X),
    "film-pair": (lambda: FiLMConv((16, 5), 8, R, act=None, aggr="max"), PAIR),
    "film-backwards": (lambda: FiLMConv(16, 8, R, flow="target_to_source"), X),
    "film-network": (lambda: FiLMConv(16, 8, R, nn=torch.nn.Linear(16, 16)), X),
}


@pytest.mark.parametrize("name", LAYERS)
def test_equals_the_loop(name: str) -> None:
    make, x = LAYERS[name]
    layer = make().eval()
    engine = fg.compile(layer)
    with torch.no_grad():
        for kept in (slice(None), slice(0, 31), slice(0, 2)):
            call = (x, EDGES[:, kept], KINDS[kept])
            torch.testing.assert_close(engine(*call), layer(*call), rtol=1e-5, atol=1e-5)
    assert engine.verification is None or engine.verification.worst <= engine.verification.allowed


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_other_types(dtype: torch.dtype) -> None:
    layer = RGCNConv(16, 8, R, bias=False).eval().to(dtype)
    with torch.no_grad():
        expected, got = layer(X.to(dtype), EDGES, KINDS), fg.compile(layer, verify="off")(X.to(dtype), EDGES, KINDS)
    assert got.dtype == expected.dtype
    loose = 1e-10 if dtype == torch.float64 else 0.05
    torch.testing.assert_close(got, expected, rtol=loose, atol=loose)


class Doubled(RGCNConv):
    def message(self, x_j: Tensor, edge_type_ptr: Any) -> Tensor:
        return 2 * x_j


class Shifted(RGCNConv):
    def forward(self, x: Any, edge_index: Tensor, edge_type: Any = None) -> Tensor:
        return super().forward(x, edge_index, edge_type) + 1


@pytest.mark.parametrize("cls", [Doubled, Shifted])
def test_sub_classes_are_their_own(cls: type) -> None:
    layer = cls(16, 8, R).eval()
    with torch.no_grad():
        torch.testing.assert_close(fg.compile(layer)(X, EDGES, KINDS), layer(X, EDGES, KINDS), rtol=1e-5, atol=1e-5)


def test_nothing_stays_in_torch_geometric() -> None:
    before = RGCNConv.forward, FiLMConv.forward
    fg.compile(RGCNConv(16, 8, R).eval())(X, EDGES, KINDS)
    assert (RGCNConv.forward, FiLMConv.forward) == before


@pytest.mark.parametrize("kind", [R, R + 5, -1])
def test_relations_that_do_not_exist(kind: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """An error where it is one of the layer's; dropped where the layer drops their edges."""
    kinds = KINDS.clone()
    kinds[7] = kind
    with pytest.raises(fg.InputError, match=r"edge_type\[7\]"):
        fg.compile(RGCNConv(16, 8, R).eval())(X, EDGES, kinds)
    for layer in (RGCNConv(16, 8, R, num_blocks=4).eval(), FiLMConv(16, 8, R).eval()):
        with torch.no_grad():
            torch.testing.assert_close(fg.compile(layer)(X, EDGES, kinds), layer(X, EDGES, kinds), rtol=1e-5, atol=1e-5)
    monkeypatch.setattr(torch_geometric.backend, "use_segment_matmul", False)
    layer = RGCNConv(16, 8, R).eval()
    with torch.no_grad():
        torch.testing.assert_close(fg.compile(layer)(X, EDGES, kinds), layer(X, EDGES, kinds), rtol=1e-5, atol=1e-5)


def _operators(layer: torch.nn.Module) -> int:
    traced = trace(layer.eval(), bind(layer, (X, EDGES, KINDS), {})[0])
    return sum(node.op == "call_function" for node in traced.graph.nodes)


@pytest.mark.parametrize("bases", [None, 4])
def test_the_trace_does_not_grow(bases: int | None) -> None:
    """Nor do its seconds: a call of two layers of 237 relations took 42, and takes 2."""
    few, many = (_operators(RGCNConv(16, 8, count, num_bases=bases)) for count in (relations.FEW + 1, 300))
    assert few == many < 60


def test_two_layers_of_a_knowledge_graph(data_dir: Any) -> None:
    arrays = np.load(data_dir / "kg_fb15k237.npz")
    edges, kinds = (torch.from_numpy(arrays[name].astype(np.int64)) for name in ("edge_index", "edge_type"))

    class Net(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = (RGCNConv(16, 16, 237, num_bases=4) for _ in range(2))

        def forward(self, x: Tensor, edge_index: Tensor, edge_type: Tensor) -> Tensor:
            return self.second(self.first(x, edge_index, edge_type).relu(), edge_index, edge_type)

    model, x = Net().eval(), torch.randn(14_541, 16)
    got = fg.compile(model, verify="off")(x, edges, kinds)
    with torch.no_grad():
        expected = model(x, edges, kinds)
    torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-4 * float(expected.abs().max()))
