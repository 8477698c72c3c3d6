"""Sizes of the graph that a model computes with stay the numbers that they are, wherever a pass moves an operator."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch_geometric.utils import add_self_loops, coalesce, remove_self_loops

import pyg_fullgraph as fg

Forward = Callable[["Model", Tensor, Tensor, Tensor], Tensor]
RING = torch.tensor([[0, 1, 2, 3, 4, 5, 1], [1, 1, 3, 2, 4, 0, 2]])
MORE = torch.tensor([[0, 1, 2, 3, 4, 5, 1, 2, 2], [1, 1, 3, 2, 4, 0, 2, 5, 1]])


class Model(nn.Module):
    def __init__(self, function: Forward) -> None:
        super().__init__()
        self.function, self.lin, self.pair = function, nn.Linear(8, 4), nn.Linear(16, 4)

    def forward(self, x: Tensor, edge_index: Tensor, weight: Tensor) -> Tensor:
        return self.function(self, x, edge_index, weight)


def added(e: Tensor, messages: Tensor, count: int) -> Tensor:
    return torch.zeros(count, messages.size(1)).index_add(0, e[1], messages)


def weighted(x: Tensor, e: Tensor, w: Tensor) -> Tensor:
    return added(e, x[e[0]] * w.view(-1, 1), x.size(0))


def both_ways(e: Tensor, w: Tensor) -> tuple[Tensor, Tensor]:
    return torch.cat([e, e.flip(0)], 1), torch.cat([w, 2 * w])


def with_loops(e: Tensor, w: Tensor, count: int) -> tuple[Tensor, Tensor]:
    return add_self_loops(*remove_self_loops(e, w), num_nodes=count)


ON_EDGES: dict[str, Forward] = {  # of one endpoint: computed on the nodes
    "times": lambda m, x, e, w: added(e, m.lin(x[e[0]] * e.size(1)), x.size(0)),
    "over": lambda m, x, e, w: added(e, m.lin(x[e[0]] / e.size(1)), x.size(0)),
    "after a product": lambda m, x, e, w: added(e, torch.relu(m.lin(x[e[0]]) + e.size(1)), x.size(0)),
    "beside the other end": lambda m, x, e, w: added(
        e, m.pair(torch.cat([x[e[0]] * e.size(1), x[e[1]]], 1)), x.size(0)
    ),
    "power": lambda m, x, e, w: added(e, torch.sigmoid(m.lin(x[e[0]])).pow(e.size(1)), x.size(0)),
    "filled in": lambda m, x, e, w: added(e, m.lin(x[e[0]]).masked_fill(x[e[0], :4] > 0, e.size(1)), x.size(0)),
    "shape and number": lambda m, x, e, w: added(
        e, m.lin(x[e[0]]).unsqueeze(1).expand(e.size(1), 1, 4).reshape(-1, 4) * e.size(1), x.size(0)
    ),
    "clamped": lambda m, x, e, w: added(e, m.lin(x[e[0]]).clamp(max=e.size(1) / 10), x.size(0)),
    "of nodes": lambda m, x, e, w: added(e, m.lin(x[e[0]]) * x.size(0), x.size(0)) / x.size(0),
    "of nodes alone": lambda m, x, e, w: x.size(0) * m.lin(x) + weighted(x, e, w)[:, :4],
}
ON_PARTS: dict[str, Forward] = {  # joined rows: computed on each part
    "added to weights": lambda m, x, e, w: (lambda a, b: weighted(x, a, b + a.size(1)))(*both_ways(e, w)),
    "full_like": lambda m, x, e, w: (lambda a, b: weighted(x, a, b + torch.full_like(b, a.size(1))))(*both_ways(e, w)),
    "bounds": lambda m, x, e, w: (lambda a, b: weighted(x, a, (b - b.size(0)).clamp(min=-b.size(0))))(*both_ways(e, w)),
    "self-loops": lambda m, x, e, w: (lambda a, b: weighted(x, a, b + a.size(1)))(*with_loops(e, w, x.size(0))),
    "self-loops, in place": lambda m, x, e, w: (lambda a, b: weighted(x, a, b.add_(a.size(1))))(
        *with_loops(e, w, x.size(0))
    ),
    "nodes twice": lambda m, x, e, w: m.lin(torch.cat([x, x + 1]) / (2 * x.size(0))).view(2, -1, 4).sum(0),
}
FOUND: dict[str, Forward] = {  # how many are left is found in the data
    "left": lambda m, x, e, w: (lambda a, b: weighted(x, a, b.add_(a.size(1))))(*remove_self_loops(e, w)),
    "left, in a parameter": lambda m, x, e, w: x @ m.lin.weight.t().add(remove_self_loops(e)[0].size(1)),
    "left, in a copy of it": lambda m, x, e, w: x @ m.lin.weight.t().clone().add_(remove_self_loops(e)[0].size(1)),
    "merged": lambda m, x, e, w: (lambda a, b: weighted(x, a, b.add_(a.size(1))))(*coalesce(e, w)),
    "ones": lambda m, x, e, w: (lambda a: weighted(x, a, torch.ones(a.size(1)).add_(a.size(1))))(
        remove_self_loops(e)[0]
    ),
    "kept": lambda m, x, e, w: m.lin(x) * e[:, e[0] < e[1]].size(1) + m.lin.weight.mean() * e.size(1),
}


@pytest.mark.parametrize("name", [*ON_EDGES, *ON_PARTS, *FOUND])
def test_numbers(name: str) -> None:
    model = Model((ON_EDGES | ON_PARTS | FOUND)[name]).eval()
    engine = fg.compile(model, verify="off")
    for edge_index in (RING, MORE):
        x, weight = torch.randn(6, 8), torch.rand(edge_index.size(1))
        want = model(x, edge_index, weight.clone())
        scale = want.abs().max()
        torch.testing.assert_close(engine(x, edge_index, weight) / scale, want / scale, rtol=0, atol=1e-6)
        if "twice" not in name:
            nodes = torch.tensor([4, 1])
            got = engine(x, edge_index, weight, nodes=nodes)
            torch.testing.assert_close(got / scale, want[nodes] / scale, rtol=0, atol=1e-6)
    assert len(engine._captured) == 1
