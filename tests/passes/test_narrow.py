"""Whether a matrix product comes before an aggregation or after it, by the sizes of the first graph."""

from __future__ import annotations

import pytest
import torch
import torch_geometric.nn as gnn
from torch import Tensor

from pyg_fullgraph.engine import Engine

from .programs import EDGE_INDEX, EDGES, X, assert_same, optimised, values


def edges_between(sources: int, targets: int, count: int) -> Tensor:
    generator = torch.Generator().manual_seed(count)
    src, dst = (torch.randint(0, size, (count,), generator=generator) for size in (sources, targets))
    return torch.stack([src, dst])


def gathered(module: torch.nn.Module, *args: object) -> set[int]:
    """How many columns are gathered."""
    return {value.width for value in values(optimised(module.eval(), *args), "gather_reduce")}


@pytest.mark.parametrize("count, columns", [(80, 16), (1600, 12)])
def test_more_edges_pay_for_one_more_table(count: int, columns: int) -> None:
    conv, edge_index = gnn.SAGEConv(16, 12), edges_between(40, 40, count)
    assert gathered(conv, X, edge_index) == {columns}
    assert_same(conv.eval(), X, edge_index)


class Bipartite(torch.nn.Module):
    """A layer between two sets of nodes."""

    def __init__(self, columns: int, width: int) -> None:
        super().__init__()
        self.conv = gnn.SAGEConv((columns, columns), width)

    def forward(self, x_src: Tensor, x_dst: Tensor, edge_index: Tensor) -> Tensor:
        return self.conv((x_src, x_dst), edge_index)


def products(program: object) -> set[str]:
    return {str(value.space) for word in ("mm", "addmm") for value in values(program, word)}  # type: ignore[arg-type]


@pytest.mark.parametrize("sources, targets, columns, width", [(10, 2000, 32, 32), (2000, 10, 64, 48)])
def test_the_side_with_fewer_rows_is_multiplied(sources: int, targets: int, columns: int, width: int) -> None:
    """Of few sources at equal widths, too; of few destinations although they gather more columns then."""
    model = Bipartite(columns, width).eval()
    args = (torch.randn(sources, columns), torch.randn(targets, columns), edges_between(sources, targets, 4000))
    program = optimised(model, *args)
    assert (len(products(program)) == 2) == (sources < targets)
    assert_same(model, *args)


def test_sparse_relations_are_aggregated_first() -> None:
    conv = gnn.RGCNConv(16, 10, num_relations=30)
    types = torch.randint(0, 30, (EDGES,), generator=torch.Generator().manual_seed(0))
    assert gathered(conv, X, EDGE_INDEX, types) == {16}


def test_an_input_is_read_once_for_all_relations() -> None:
    """Few edges each: what decides is the width of the rows that the products read."""
    conv, edge_index = gnn.RGCNConv(16, 4, num_relations=8), edges_between(40, 40, 120)
    types = torch.randint(0, 8, (120,), generator=torch.Generator().manual_seed(0))
    assert gathered(conv, X, edge_index, types) == {4}


def test_dense_relations_are_multiplied_first() -> None:
    conv, edge_index = gnn.RGCNConv(16, 4, num_relations=2), edges_between(40, 40, 2000)
    types = torch.randint(0, 2, (2000,), generator=torch.Generator().manual_seed(0))
    assert gathered(conv, X, edge_index, types) == {4}
    assert_same(conv.eval(), X, edge_index, types)


def test_a_choice_holds_for_later_graphs_and_is_what_explain_tells() -> None:
    engine = Engine(gnn.SAGEConv(16, 12).eval())
    dense, sparse = edges_between(40, 40, 1600), edges_between(40, 40, 80)
    engine(X, dense)
    report = engine.explain(X, sparse)
    assert report.costs[-1].blocks[0].gathered == 80 * (12 * 4 + 4)
    assert {change.name: change for change in report.passes}["narrow"].counts


def test_a_table_that_replaces_another_costs_nothing() -> None:
    """A hidden layer that only the product reads: storing the product instead saves bytes, at any degree."""
    model = gnn.GCN(16, 32, 2, 24).eval()
    program = optimised(model, X, edges_between(40, 40, 80))
    assert sorted(value.width for value in values(program, "gather_reduce") if value.width > 1) == [16, 24]
