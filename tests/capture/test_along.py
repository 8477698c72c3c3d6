"""Aggregations that sort or rank, along any axis, wherever they stand."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch_geometric.nn import SAGEConv
from torch_geometric.nn.aggr import MedianAggregation, QuantileAggregation

import pyg_fullgraph as fg
from tests.runtime.test_indices import drawn, features

GROUPS = torch.tensor([0, 0, 1, 1, 1, 2])
MIXED = GROUPS[torch.tensor([3, 0, 5, 1, 4, 2])]
N = 20


class Columns(torch.nn.Module):
    """Aggregates the columns of node rows, or the nodes of their transpose."""

    def __init__(self, transposed: bool) -> None:
        super().__init__()
        self.conv, self.aggr, self.transposed = SAGEConv(8, 6), MedianAggregation(), transposed

    def forward(self, x: Tensor, edge_index: Tensor, groups: Tensor) -> Tensor:
        h = self.conv(x, edge_index)
        return self.aggr(h.t(), groups, dim=0, dim_size=4).t() if self.transposed else self.aggr(h, groups, dim=1)


class Pooled(torch.nn.Module):
    def __init__(self, dim: int) -> None:
        super().__init__()
        self.conv, self.aggr, self.dim = SAGEConv(8, 6), QuantileAggregation([0.2, 0.9]), dim

    def forward(self, x: Tensor, edge_index: Tensor, batch: Tensor) -> Tensor:
        h = self.conv(x, edge_index)
        return self.aggr(h if self.dim == 0 else h.t(), batch, dim=self.dim)


X, EDGES, BATCH = features(N, 8), drawn(N, N), torch.arange(N) // 7
WIDE = features(10, 6)
CASES: dict[str, tuple[torch.nn.Module, tuple[Any, ...], dict[str, Any]]] = {
    "median, columns": (MedianAggregation(), (WIDE, GROUPS), {"dim": 1}),
    "quantile, columns": (QuantileAggregation(0.3), (WIDE, MIXED), {"dim": 1}),
    "quantile, last of two": (QuantileAggregation([0.3, 0.7], "midpoint"), (WIDE, GROUPS), {"dim": -1}),
    "a size given": (QuantileAggregation(0.3), (WIDE, GROUPS), {"dim": 1, "dim_size": 5}),
    "rows": (QuantileAggregation(0.3, "lower"), (WIDE.t().contiguous(), MIXED), {"dim": 0}),
    "middle of three": (MedianAggregation(), (torch.randn(4, 6, 8), MIXED), {"dim": 1}),
    "first of three": (QuantileAggregation(0.3), (torch.randn(6, 4, 8), GROUPS), {"dim": 0}),
    "last of three": (QuantileAggregation(0.3), (torch.randn(4, 8, 6), GROUPS), {"dim": 2}),
    "columns of a model": (Columns(False), (X, EDGES, MIXED), {}),
    "columns of a transpose": (Columns(True), (X, EDGES, MIXED), {}),
    "nodes of graphs": (Pooled(0), (X, EDGES, BATCH), {}),
    "nodes of graphs, transposed": (Pooled(1), (X, EDGES, BATCH), {}),
    "inside of a layer": (SAGEConv(8, 4, aggr="median"), (torch.randn(3, N, 8), EDGES), {}),
}


@pytest.mark.parametrize("name", CASES)
def test_is_what_forward_gives(name: str) -> None:
    model, args, kwargs = CASES[name]
    with torch.no_grad():
        want = model.eval()(*args, **kwargs)
    engine = fg.compile(model)
    for _ in range(2):
        torch.testing.assert_close(engine(*args, **kwargs), want, rtol=1e-5, atol=1e-5)
