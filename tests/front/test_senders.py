"""Which end of an edge sends, read from programs; and that verification believes it."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch_geometric.nn import DirGNNConv, GATConv, GCNConv, SAGEConv

import pyg_fullgraph as fg
from pyg_fullgraph.front.senders import senders


class Raw(torch.nn.Module):
    """Messages by hand, from one row of the edge list to the other."""

    def __init__(self, source: int) -> None:
        super().__init__()
        self.source = source

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        message = x[edge_index[self.source]].tanh()
        return torch.zeros_like(x).index_add(0, edge_index[1 - self.source], message)


class Turned(torch.nn.Module):
    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        source, destination = edge_index.flip(0)
        return torch.zeros_like(x).index_add(0, destination, x[source])


class Undirected(torch.nn.Module):
    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        source, destination = torch.cat([edge_index, edge_index.flip(0)], dim=1)
        return torch.zeros_like(x).index_add(0, destination, x[source])


CASES: dict[str, tuple[Callable[[], torch.nn.Module], set[int]]] = {
    "along": (lambda: Raw(0), {0}),
    "back": (lambda: Raw(1), {1}),
    "turned": (Turned, {0, 1}),
    "undirected": (Undirected, {0, 1}),
    "GCN": (lambda: GCNConv(6, 6), {0}),
    "GCN back": (lambda: GCNConv(6, 6, flow="target_to_source"), {1}),
    "GAT": (lambda: GATConv(6, 6), {0}),
    "both ways": (lambda: DirGNNConv(SAGEConv(6, 6)), {0, 1}),
    "none": (lambda: torch.nn.Sequential(), set()),
}


@pytest.mark.parametrize("name", CASES)
def test_senders(name: str) -> None:
    build, expected = CASES[name]
    model = build().eval()
    x, edge_index = torch.randn(300, 6), torch.randint(0, 300, (2, 900))
    args = (x,) if name == "none" else (x, edge_index)
    engine = fg.compile(model)
    out = engine(*args)  # verified: a wrong direction would raise FullGraphMismatch
    with torch.no_grad():
        torch.testing.assert_close(out, model(*args), rtol=0, atol=1e-5 * float(out.abs().max()))
    (captured,) = engine._captured.values()
    assert senders(captured.program) == expected
    if expected == {0}:
        assert engine.verification is not None and engine.verification.how == "neighbourhood"
