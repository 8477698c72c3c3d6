"""Layers that add self-loops and ask whether there are edges, where numbers among the arguments are sizes."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch_geometric.nn import GATConv, GCNConv
from torch_geometric.utils import add_self_loops, remove_self_loops, softmax

import pyg_fullgraph as fg
from tests.runtime.test_indices import drawn, features


class Branching(torch.nn.Module):
    """Asks about the sizes that it is given, as layers ask about their edges."""

    def __init__(self) -> None:
        super().__init__()
        self.lin = torch.nn.Linear(8, 4)

    def forward(self, x: Tensor, edge_index: Tensor, size: tuple[int, int]) -> Tensor:
        edge_index, _ = remove_self_loops(edge_index)
        edge_index, _ = add_self_loops(edge_index, num_nodes=min(size))
        h = self.lin(x)
        if size[1] == 1:
            return h.sum(0, keepdim=True)
        if edge_index.numel() == 0:
            return h.new_zeros(size[1], 4)
        alpha = softmax(h.sum(1)[edge_index[0]], edge_index[1], num_nodes=size[1])
        return h.new_zeros(size[1], 4).index_add(0, edge_index[1], h[edge_index[0]] * alpha.view(-1, 1))


def call(
    rows: int, columns: int, *, pair: bool = False, attributes: bool = False
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    x, y = features(rows, 8), features(columns, 8) if pair else None
    more = {"edge_attr": features(40, 3)} if attributes else {}
    return ((x, y), drawn(rows, columns)), {"size": (rows, columns), **more}


SIZES = [(4, 2), (5, 9), (7, 3), (6, 6)]


@pytest.mark.parametrize("attributes", [False, True])
@pytest.mark.parametrize("pair", [False, True])
@pytest.mark.parametrize("heads", [1, 2])
def test_gat_between_two_sets(pair: bool, attributes: bool, heads: int) -> None:
    conv = GATConv((8, 8), 4, heads=heads, edge_dim=3 if attributes else None).eval()
    engine = fg.compile(conv)
    for rows, columns in SIZES[:3] if not attributes else [(4, 2), (7, 3)]:  # PyG itself means over the smaller set
        args, kwargs = call(rows, columns, pair=pair, attributes=attributes)
        with torch.no_grad():
            want = conv(*args, **kwargs)
        torch.testing.assert_close(engine(*args, **kwargs), want, rtol=1e-5, atol=1e-5)
    assert len(engine._captured) == 1


@pytest.mark.parametrize("first", SIZES)
def test_a_branch_on_a_size_goes_the_way_of_the_call(first: tuple[int, int]) -> None:
    model = Branching().eval()
    engine = fg.compile(model)
    for rows, columns in (first, (5, 1), (9, 4), (3, 2)):
        x, edges = features(rows, 8), drawn(rows, columns)
        with torch.no_grad():
            want = model(x, edges, (rows, columns))
        torch.testing.assert_close(engine(x, edges, (rows, columns)), want, rtol=1e-5, atol=1e-5)


def test_a_layer_with_the_number_of_nodes() -> None:
    class Counted(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = GCNConv(4, 3)

        def forward(self, edge_index: Tensor, num_nodes: int) -> Tensor:
            return self.conv(torch.ones(num_nodes, 4), edge_index)

    model = Counted().eval()
    engine = fg.compile(model)
    for count in (12, 30, 7):
        edges = drawn(count, count)
        with torch.no_grad():
            want = model(edges, count)
        torch.testing.assert_close(engine(edges, count), want, rtol=1e-5, atol=1e-5)
    assert len(engine._captured) == 1
