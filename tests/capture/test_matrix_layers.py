"""Layers of PyG on sparse matrices: with self-loops that they change, and on pairs of node sets."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch_geometric import nn as pyg
from torch_geometric.utils import coalesce

import pyg_fullgraph as fg
from tests.capture.test_matrices import checked, close, coo

LOOPS: dict[str, Callable[[], nn.Module]] = {
    "GAT": lambda: pyg.GATConv(8, 4, heads=2),
    "GATv2": lambda: pyg.GATv2Conv(8, 4, heads=2, share_weights=True),
    "SuperGAT": lambda: pyg.SuperGATConv(8, 4, heads=2),
    "GCN": lambda: pyg.GCNConv(8, 4),
    "FeaSt": lambda: pyg.FeaStConv(8, 4, heads=2),
    "ClusterGCN": lambda: pyg.ClusterGCNConv(8, 4),
}


@pytest.mark.parametrize("layout", ["csr", "coo"])
@pytest.mark.parametrize("name", LOOPS)
def test_self_loops(name: str, layout: str) -> None:
    """Removed and added in the matrix itself, which merges its entries again."""
    layer = LOOPS[name]().eval()
    engine = fg.compile(layer)
    for count, seed in ((60, 0), (17, 1)):
        adj = coo(20, 20, count, seed)
        adj.values().fill_(1.0)
        adj = adj.to_sparse_csr() if layout == "csr" else adj
        x = torch.randn(20, 8)
        close(engine(x, adj), layer(x, adj))
    checked(engine)
    assert len(engine._captured) == 1


def mlp(columns: int) -> nn.Module:
    return nn.Sequential(nn.Linear(columns, 6), nn.ReLU(), nn.Linear(6, 5))


PAIRS: dict[str, Callable[[], nn.Module]] = {
    "Edge": lambda: pyg.EdgeConv(mlp(16)),
    "GAT": lambda: pyg.GATConv((8, 8), 4, heads=2, add_self_loops=False),
    "GATv2": lambda: pyg.GATv2Conv((8, 8), 4, heads=2, add_self_loops=False),
    "Transformer": lambda: pyg.TransformerConv((8, 8), 4, heads=2),
    "ResGated": lambda: pyg.ResGatedGraphConv((8, 8), 4),
    "General": lambda: pyg.GeneralConv((8, 8), 4, attention=True),
    "FiLM": lambda: pyg.FiLMConv((8, 8), 4),
    "CG": lambda: pyg.CGConv((8, 8)),
    "SAGE": lambda: pyg.SAGEConv((8, 8), 4),
}


@pytest.mark.parametrize("name", PAIRS)
def test_pairs_of_node_sets(name: str) -> None:
    """The rows of a matrix and those of the targets are as many, but nothing says so before the forward does."""
    layer = PAIRS[name]().eval()
    engine = fg.compile(layer)
    for sources, targets, count in ((12, 7, 30), (6, 15, 40)):
        adj = coo(targets, sources, count).to_sparse_csr()
        adj.values().fill_(1.0)
        pair = torch.randn(sources, 8), torch.randn(targets, 8)
        close(engine(pair, adj), layer(pair, adj))
    checked(engine)


class Merges(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.lin = nn.Linear(8, 4)

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        src, dst = coalesce(torch.cat([edge_index, edge_index.flip(0)], 1))
        if src.numel() == 0:
            return self.lin(x)
        return torch.zeros(x.size(0), 4).index_add(0, dst, self.lin(x)[src])


def test_a_merge_leaves_something_and_is_traced_once() -> None:
    model = Merges().eval()
    engine = fg.compile(model)
    for edges in ([[0, 1, 1, 2], [1, 0, 2, 2]], [[3, 3], [3, 3]], [[0, 4, 4, 4, 1], [4, 4, 4, 0, 1]]):
        x, edge_index = torch.randn(6, 8), torch.tensor(edges)
        close(engine(x, edge_index), model(x, edge_index))
    assert len(engine._captured) == 1
    assert coalesce.__module__.startswith("torch_geometric")
