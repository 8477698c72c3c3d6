"""Whether a program computes with the number of edges."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch_geometric.nn import GAT, GCN, GCNConv, GraphConv, GraphSAGE, SAGEConv

from pyg_fullgraph.engine import Engine
from pyg_fullgraph.front.counts import counts_edges


class Numbers(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = GraphConv(8, 4)

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        return self.conv(x, edge_index, torch.arange(edge_index.size(1)) % 3 * 1.0)


class Mean(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = SAGEConv(8, 4)

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        return self.conv(x, edge_index) * (edge_index.size(1) / x.size(0))


class Nodes(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = GCNConv(8, 4)

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        return self.conv(x * torch.arange(x.size(0)).view(-1, 1), edge_index) / x.size(0)


@pytest.mark.parametrize(
    ("build", "counted"),
    [
        (Numbers, True),
        (Mean, True),
        (Nodes, False),
        (lambda: GCN(8, 8, 2, 4), False),
        (lambda: GAT(8, 8, 2, 4), False),
        (lambda: GraphSAGE(8, 8, 2, 4), False),
    ],
    ids=["numbers of edges", "mean degree", "numbers of nodes", "GCN", "GAT", "SAGE"],
)
def test_counts_edges(build: Any, counted: bool) -> None:
    model, x, edges = build().eval(), torch.randn(40, 8), torch.randint(0, 40, (2, 160))
    engine = Engine(model)
    got, want = engine(x, edges), model(x, edges).detach()
    torch.testing.assert_close(got, want, rtol=0, atol=1e-5 * float(want.abs().max()))
    (captured,) = engine._captured.values()
    assert counts_edges(captured.program) == counted
    assert engine.verification is not None and engine.verification.how != "none"
