"""Work that depends on one endpoint moves to the nodes, and only where it should."""

from __future__ import annotations

import itertools

import torch
import torch_geometric.nn as gnn
from torch import Tensor
from torch_geometric.utils import scatter

from pyg_fullgraph.engine import Engine

from .programs import EDGE_ATTR, EDGE_INDEX, Message, X, assert_same, changes, optimised, values


def total(message: Tensor, col: Tensor, like: Tensor, reduce: str = "sum") -> Tensor:
    return scatter(message, col, 0, like.size(0), reduce)


def mlp(*widths: int) -> torch.nn.Sequential:
    layers = [layer for pair in itertools.pairwise(widths) for layer in (torch.nn.Linear(*pair), torch.nn.ReLU())]
    return torch.nn.Sequential(*layers[:-1])


def test_edge_conv_multiplies_on_nodes() -> None:
    conv = gnn.EdgeConv(mlp(32, 24, 8)).eval()
    counts = changes(conv, X, EDGE_INDEX)["hoist"].counts
    assert counts["addmm on E"] == -1  # of two: the second layer stays on the edges
    assert counts["cat on E"] == counts["sub on E"] == -1
    assert counts["mm on N"] == counts["addmm on N"] == 1
    assert_same(conv, X, EDGE_INDEX)


def test_edge_attributes_stay_on_the_edges_as_a_narrow_product() -> None:
    conv = gnn.CGConv(16, dim=3).eval()
    program = optimised(conv, X, EDGE_INDEX, EDGE_ATTR)
    products = values(program, "addmm", "E") + values(program, "mm", "E")
    assert [program[product.args[-1].name].shape[0] for product in products] == [3, 3]
    assert_same(conv, X, EDGE_INDEX, EDGE_ATTR)


def test_pna_has_no_product_on_edges() -> None:
    lists = {"aggregators": ["mean", "min", "max"], "scalers": ["identity"], "deg": torch.tensor([1, 4, 6, 3])}
    conv = gnn.PNAConv(16, 8, **lists).eval()
    assert values(optimised(conv, X, EDGE_INDEX, skip=("hoist",)), "addmm", "E")
    program = optimised(conv, X, EDGE_INDEX)
    assert not values(program, "addmm", "E") + values(program, "mm", "E")
    assert_same(conv, X, EDGE_INDEX)


def test_scores_of_one_endpoint_are_taken_on_nodes() -> None:
    class Scored(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.att = torch.nn.Parameter(torch.randn(16))

        def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
            score = (x[edge_index[0]] * self.att).sum(-1, keepdim=True).tanh()
            return total(score * x[edge_index[0]], edge_index[1], x)

    module = Scored().eval()
    program = optimised(module, X, EDGE_INDEX)
    assert len(values(program, "tanh", "N")) == 1
    assert not values(program, "tanh", "E")
    assert_same(module, X, EDGE_INDEX)


def test_wide_arithmetic_on_one_endpoint_moves_only_with_a_product() -> None:
    def wide(x: Tensor, row: Tensor) -> Tensor:
        return torch.cat([x[row], x[row].abs(), x[row].exp()], -1)

    class Kept(torch.nn.Module):
        def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
            return total(wide(x, edge_index[0]) * wide(x, edge_index[1]), edge_index[1], x)

    module = Kept().eval()
    assert len(values(optimised(module, X, EDGE_INDEX), "exp", "E")) == 2
    assert_same(module, X, EDGE_INDEX)
    lin = torch.nn.Linear(48, 8)
    module = Message(lambda self, x, row, col: total(self.lin(wide(x, row)).tanh(), col, x), lin=lin).eval()
    assert len(values(optimised(module, X, EDGE_INDEX), "exp", "N")) == 1
    assert_same(module, X, EDGE_INDEX)


def test_a_bare_difference_is_taken_before_it_is_multiplied() -> None:
    """Positions far from the origin and close to each other: their difference is exact, products of them are not."""
    pos = torch.randn(X.size(0), 16, generator=torch.Generator().manual_seed(5)) * 1e-2 + 1e4
    module = Message(
        lambda self, x, row, col: total(self.lin(x[row] - x[col]), col, x), lin=torch.nn.Linear(16, 8)
    ).eval()
    assert "mm on N" not in changes(module, pos, EDGE_INDEX)["hoist"].counts
    with torch.no_grad():
        expected = module(pos, EDGE_INDEX)
        double = module.double()(pos.double(), EDGE_INDEX)
    module.float()
    got = Engine(module, verify="off")(pos, EDGE_INDEX)
    assert float((got - double).abs().max()) <= 2 * float((expected - double).abs().max()) + 1e-6


def test_rows_picked_from_the_nodes_stay_where_they_are() -> None:
    """A layer per degree: each works on the nodes of that degree, which are fewer than all."""
    conv = gnn.MFConv(16, 8, max_degree=3).eval()
    counts = changes(conv, X, EDGE_INDEX)["hoist"].counts
    assert not counts
    assert_same(conv, X, EDGE_INDEX)
