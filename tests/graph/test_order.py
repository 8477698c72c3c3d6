"""Every order is a permutation, the same each time, and does what its name says."""

from __future__ import annotations

import pytest
import torch
from scipy.sparse import coo_matrix
from torch import Tensor

from pyg_fullgraph.graph.generate import grid, path, rmat
from pyg_fullgraph.graph.order import ORDERS, inverse, order_nodes
from tests.graphs import NASTY

GRAPHS = {**NASTY, "rmat": (256, rmat(8, 4)), "path": (50, path(50)), "grid": (400, grid(20, 20))}


def bandwidth(edge_index: Tensor) -> int:
    return int((edge_index[0] - edge_index[1]).abs().max())


def shuffled(num_nodes: int, edge_index: Tensor) -> Tensor:
    return torch.randperm(num_nodes, generator=torch.Generator().manual_seed(3))[edge_index]


@pytest.mark.parametrize("dtype", [torch.int32, torch.int64], ids=str)
@pytest.mark.parametrize("graph", GRAPHS)
@pytest.mark.parametrize("name", ORDERS)
def test_a_permutation_and_the_same_each_time(name: str, graph: str, dtype: torch.dtype) -> None:
    num_nodes, edge_index = GRAPHS[graph]
    src, dst = edge_index.to(dtype)
    order = order_nodes(name, src, dst, num_nodes)
    assert order.dtype == torch.int64
    assert torch.equal(order.sort().values, torch.arange(num_nodes))
    assert torch.equal(order, order_nodes(name, src, dst, num_nodes))
    assert torch.equal(inverse(order)[order], torch.arange(num_nodes))


def test_degree_is_by_out_edges_descending_and_stable() -> None:
    src = torch.tensor([2, 2, 2, 0, 3, 3, 1])
    order = order_nodes("degree", src, torch.zeros_like(src), 6)
    assert order.tolist() == [2, 3, 0, 1, 4, 5]


def test_rcm_of_a_shuffled_path_is_the_path() -> None:
    edge_index = shuffled(50, path(50))
    assert bandwidth(inverse(order_nodes("rcm", *edge_index, 50))[edge_index]) == 1


def test_rcm_narrows_a_shuffled_grid_as_scipy_does() -> None:
    from scipy.sparse.csgraph import reverse_cuthill_mckee

    edge_index = shuffled(400, grid(20, 20))
    matrix = coo_matrix((torch.ones(edge_index.size(1)), edge_index.numpy()), (400, 400)).tocsr()
    theirs = torch.from_numpy(reverse_cuthill_mckee(matrix, symmetric_mode=True).copy()).long()
    ours = order_nodes("rcm", *edge_index, 400)
    assert bandwidth(edge_index) > 300
    assert bandwidth(inverse(ours)[edge_index]) <= 1.2 * bandwidth(inverse(theirs)[edge_index])


def test_rcm_does_not_need_both_directions() -> None:
    one_way = shuffled(400, grid(20, 20)[:, :760])
    assert bandwidth(inverse(order_nodes("rcm", *one_way, 400))[one_way]) <= 24


def test_community_keeps_communities_together() -> None:
    """Eight cliques of 12 nodes in a ring, numbered at random: every clique ends in 12 places in a row."""
    within = torch.combinations(torch.arange(12)).t()
    parts = [within + 12 * k for k in range(8)] + [torch.tensor([[12 * k], [(12 * k + 12) % 96]]) for k in range(8)]
    names = torch.randperm(96, generator=torch.Generator().manual_seed(5))
    edge_index = names[torch.cat(parts, dim=1)]
    places = inverse(order_nodes("community", *torch.cat([edge_index, edge_index.flip(0)], dim=1), 96))
    for k in range(8):
        members = places[names[12 * k : 12 * k + 12]]
        assert int(members.max() - members.min()) == 11


def test_an_unknown_order_lists_those_there_are() -> None:
    with pytest.raises(ValueError, match="'degree', 'rcm', 'community'"):
        order_nodes("hilbert", torch.tensor([0]), torch.tensor([0]), 1)
