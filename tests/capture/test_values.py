"""Relations that are computed from edge attributes: how many edges one has is known at the call alone."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch_geometric.data import Data
from torch_geometric.nn import RGCNConv

import pyg_fullgraph as fg
from tests.runtime.test_indices import drawn, features

N, E = 30, 90
EDGES = drawn(N, N, E)


class Computed(torch.nn.Module):
    """Features of its own; `scale` beyond the number of relations gives some that do not exist."""

    def __init__(self, relations: int, scale: int | None = None, numbers: bool = False, **options: Any) -> None:
        super().__init__()
        self.scale, self.numbers = scale or relations, numbers
        self.table = torch.nn.Parameter(features(N, 10))
        self.conv = RGCNConv(N if numbers else 10, 10, relations, **options)

    def forward(self, edge_index: Tensor, edge_attr: Tensor) -> Tensor:
        return self.conv(None if self.numbers else self.table, edge_index, (edge_attr.mean(1) * self.scale).long())


CASES: dict[str, Computed] = {
    "blocks": Computed(7, num_blocks=5),
    "plain": Computed(4),
    "bases": Computed(3, num_bases=2),
    "many": Computed(12, aggr="max"),
    "many blocks": Computed(12, num_blocks=2),
    "numbers of nodes": Computed(5, numbers=True, aggr="sum"),
    "no root": Computed(3, numbers=True, root_weight=False),
    "some do not exist": Computed(7, num_blocks=5, scale=12),
}


@pytest.mark.parametrize("name", CASES)
def test_is_what_forward_gives(name: str) -> None:
    model = CASES[name].eval()
    engine = fg.compile(model)
    for seed in range(2):
        attributes = torch.rand(E, 3, generator=torch.Generator().manual_seed(seed))
        with torch.no_grad():
            want = model(EDGES, attributes)
        torch.testing.assert_close(engine(EDGES, attributes), want, rtol=1e-5, atol=1e-5)
    assert len(engine._captured) == 1
    data = Data(edge_index=EDGES, edge_attr=attributes, num_nodes=N)
    torch.testing.assert_close(fg.inference(model, data), want, rtol=1e-5, atol=1e-5)


def test_relations_that_do_not_exist_are_an_error_where_they_are_one() -> None:
    model, attributes = Computed(7, scale=12).eval(), torch.rand(E, 3)
    with pytest.raises((IndexError, RuntimeError)):
        model(EDGES, attributes)
    with pytest.raises((fg.FullGraphError, IndexError, RuntimeError)):
        fg.compile(model)(EDGES, attributes)
