"""Integers are checked by what the forward reads with them, and by nothing else."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch_geometric.nn import GATConv, GCNConv, GraphConv, HypergraphConv, SAGEConv

import pyg_fullgraph as fg

FEW, MANY = 5, 9


def drawn(rows: int, columns: int, count: int = 40) -> Tensor:
    generator = torch.Generator().manual_seed(rows + columns)
    ends = [torch.randint(0, n, (count,), generator=generator) for n in (rows, columns)]
    ends[0][-1], ends[1][-1] = rows - 1, columns - 1
    return torch.stack(ends)


def features(rows: int, columns: int) -> Tensor:
    return torch.randn(rows, columns, generator=torch.Generator().manual_seed(columns))


class TwoSets(torch.nn.Module):
    def __init__(self, conv: Any = GraphConv) -> None:
        super().__init__()
        self.there, self.back = conv((8, 6), 4), conv((4, 8), 3)

    def forward(self, users: Tensor, items: Tensor, likes: Tensor) -> tuple[Tensor, Tensor]:
        found = self.there((users, items), likes)
        return found, self.back((found, users), likes.flip(0))


class Spans(torch.nn.Module):
    """Computes with pairs that are no edges."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = SAGEConv(8, 4)

    def forward(self, x: Tensor, edge_index: Tensor, edges_seen: Tensor) -> Tensor:
        return self.conv(x, edge_index) * (edges_seen[1] - edges_seen[0]).float().mean()


class Padded(torch.nn.Module):
    """Scores pairs; a negative number stands for none."""

    def __init__(self, filtered: bool) -> None:
        super().__init__()
        self.conv, self.filtered = SAGEConv(8, 4), filtered

    def forward(self, x: Tensor, edge_index: Tensor, pairs: Tensor) -> Tensor:
        h, known = self.conv(x, edge_index), (pairs >= 0).all(dim=0)
        a, b = pairs[:, known] if self.filtered else pairs.clamp(min=0)
        score = (h[a] * h[b]).sum(-1)
        return score if self.filtered else score * known


class Masked(Padded):
    """Negative numbers count from the end, as in `x[-1]`, and are masked afterwards."""

    def forward(self, x: Tensor, edge_index: Tensor, pairs: Tensor) -> Tensor:
        h = self.conv(x, edge_index)
        return (h[pairs[0]] * h[pairs[1]]).sum(-1) * (pairs >= 0).all(dim=0)


class Labelled(torch.nn.Module):
    """Picks rows of a parameter by integers of another kind."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.table = SAGEConv(8, 4), torch.nn.Parameter(torch.randn(3, 4))

    def forward(self, x: Tensor, edge_index: Tensor, kind: Tensor) -> Tensor:
        return self.conv(x, edge_index) + self.table.index_select(0, kind)


X, ITEMS = features(FEW, 8), features(MANY, 6)
AROUND, ACROSS = drawn(FEW, FEW), drawn(FEW, MANY)
CASES: dict[str, tuple[torch.nn.Module, tuple[Any, ...], dict[str, Any]]] = {
    "more-hyperedges-than-nodes": (HypergraphConv(8, 4), (X, ACROSS), {}),
    "hyperedges-counted": (HypergraphConv(8, 4), (X, ACROSS), {"num_edges": 12}),
    "fewer-hyperedges": (HypergraphConv(6, 4), (ITEMS, ACROSS.flip(0)), {}),
    "hyperedge-weights": (HypergraphConv(8, 4), (X, ACROSS, torch.rand(MANY)), {}),
    "hyperedge-attention": (
        HypergraphConv(8, 4, use_attention=True),
        (X, ACROSS),
        {"hyperedge_attr": features(MANY, 8)},
    ),
    "size": (SAGEConv((8, 8), 4), ((X, None), ACROSS), {"size": (FEW, MANY)}),
    "size-weights": (GraphConv((8, 8), 4), ((X, None), ACROSS, torch.rand(40)), {"size": (FEW, MANY)}),
    "pair": (GATConv((8, 6), 4, add_self_loops=False), ((X, ITEMS), ACROSS), {}),
    "more-sources": (GraphConv((6, 8), 4), ((ITEMS, X), ACROSS.flip(0)), {}),
    "users-and-items": (TwoSets(), (X, ITEMS, ACROSS), {}),
    "users-and-items-sage": (TwoSets(SAGEConv), (X, ITEMS, ACROSS), {}),
    "spans": (Spans(), (X, AROUND, torch.tensor([[100, 200, 300], [150, 260, 390]])), {}),
    "negative-spans": (Spans(), (X, AROUND, torch.tensor([[-7, -9], [-2, 1 << 40]])), {}),
    "padded-and-clamped": (Padded(False), (X, AROUND, torch.tensor([[0, 1, -1, 3], [1, 2, -1, 4]])), {}),
    "padded-and-masked": (Masked(False), (X, AROUND, torch.tensor([[0, 1, -1, 3], [1, 2, -5, 4]])), {}),
    "padded-and-dropped": (Padded(True), (X, AROUND, torch.tensor([[0, 1, -1, 3], [1, 2, -1, 4]])), {}),
}


@pytest.mark.parametrize("name", CASES)
def test_is_what_forward_gives(name: str) -> None:
    model, args, kwargs = CASES[name]
    with torch.no_grad():
        want = model.eval()(*args, **kwargs)
    engine = fg.compile(model)
    for _ in range(2):
        torch.testing.assert_close(engine(*args, **kwargs), want, rtol=1e-5, atol=1e-5)
    assert engine.verification is not None
    assert engine.verification.how != "none", engine.verification.reason


def broken(edges: Tensor, row: int, value: int) -> Tensor:
    edges = edges.clone()
    edges[row, 3] = value
    return edges


@pytest.mark.parametrize(
    ("model", "args", "words"),
    [
        (GCNConv(8, 4), (X, broken(AROUND, 0, 5)), ["Edge 3 of 'edge_index'", "its source 5 does not exist"]),
        (GATConv(8, 4), (X, broken(AROUND, 1, -1)), ["Edge 3 of 'edge_index'", "its destination -1", "padding"]),
        (TwoSets(), (X, ITEMS, broken(ACROSS, 1, 9)), ["Edge 3 of 'likes'", "its destination 9", "0 to 8"]),
        (TwoSets(), (X, ITEMS, broken(ACROSS, 0, 5)), ["Edge 3 of 'likes'", "its source 5", "0 to 4"]),
        (TwoSets(), (X, ITEMS, broken(ACROSS, 0, 1 << 40)), ["Edge 3 of 'likes'", "0 to 4"]),
        (HypergraphConv(8, 4), (X, broken(ACROSS, 0, 7)), ["Edge 3 of 'hyperedge_index'", "its source 7", "0 to 4"]),
        (Masked(False), (X, AROUND, torch.tensor([[0, -6], [1, 2]])), ["Edge 1 of 'pairs'", "its source -6"]),
        (Padded(True), (X, AROUND, torch.tensor([[0, 6], [1, 2]])), ["Edge 1 of 'pairs'", "its source 6"]),
        (Padded(False), (X, AROUND, torch.tensor([[0, 6], [1, 2]])), ["computed from 'pairs'", "0 to 4"]),
        (Labelled(), (X, AROUND, torch.tensor([0, 1, 3, 0, 1])), ["kind[2] is 3", "0 to 2"]),
    ],
)
def test_what_is_read_out_of_range_is_named(model: torch.nn.Module, args: tuple[Any, ...], words: list[str]) -> None:
    with pytest.raises((fg.GraphError, fg.InputError)) as caught:
        fg.compile(model.eval(), verify="off")(*args)
    assert not [word for word in words if word not in str(caught.value)], str(caught.value)


def test_size_says_how_many_there_are() -> None:
    conv = SAGEConv((8, 8), 4).eval()
    with pytest.raises(fg.GraphError, match="its destination 8 does not exist: the 8 destination nodes"):
        fg.compile(conv, verify="off")((X, None), ACROSS, size=(FEW, 8))
