"""What is told of a loader's settings before any work."""

from __future__ import annotations

import warnings

import pytest
import torch
from torch_geometric.data import Data, HeteroData
from torch_geometric.loader import NeighborLoader

from pyg_fullgraph.front.checks import warn_about_loader


def said(loader) -> list[str]:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        warn_about_loader(loader)
    return [str(each.message) for each in caught if "input_nodes" in str(each.message)]


def two_types() -> HeteroData:
    data = HeteroData()
    data["a"].x, data["b"].x = torch.randn(60, 8), torch.randn(40, 8)
    data["a", "to", "b"].edge_index = torch.stack([torch.randint(0, 60, (200,)), torch.randint(0, 40, (200,))])
    data["b", "to", "a"].edge_index = data["a", "to", "b"].edge_index.flip(0)
    return data


MASK = torch.arange(60) < 9
HETERO = [(("a", MASK), True), (("a", MASK.nonzero().view(-1)), True), ("a", False), (("b", torch.arange(40)), False)]


@pytest.mark.parametrize("nodes,subset", HETERO, ids=["mask", "numbers", "a type", "all of a type"])
def test_some_nodes_of_a_type(nodes, subset):
    loader = NeighborLoader(two_types(), num_neighbors=[-1], batch_size=16, input_nodes=nodes)
    assert bool(said(loader)) == subset


@pytest.mark.parametrize("nodes,subset", [(MASK, True), (None, False), (torch.arange(60), False)])
def test_some_nodes(nodes, subset):
    data = Data(x=torch.randn(60, 8), edge_index=torch.randint(0, 60, (2, 200)))
    loader = NeighborLoader(data, num_neighbors=[-1], batch_size=16, input_nodes=nodes)
    assert bool(said(loader)) == subset
