"""Rows that no type or name counts: another number of them is the same trace, unless a forward counts them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch_geometric.nn import SAGEConv

import pyg_fullgraph as fg

SIZES = ((6, 9, 20), (7, 5, 11), (5, 5, 17), (8, 13, 13), (3, 9, 9))
Call = tuple[Any, ...]


class Layers(nn.Module):
    def __init__(self, forward: Callable[..., Any]) -> None:
        super().__init__()
        self.conv, self.lin, self.function = SAGEConv((8, 8), 4), nn.Linear(8, 4), forward

    def added(self, x: Tensor, edge_index: Tensor) -> Tensor:
        return torch.zeros(x.size(0), 4).index_add(0, edge_index[1], self.lin(x)[edge_index[0]])


class TwoSets(Layers):
    def forward(self, x: Tensor, y: Tensor, edge_index: Tensor) -> Any:
        return self.function(self, x, y, edge_index)


class Queries(Layers):
    def forward(self, x: Tensor, edge_index: Tensor, queries: Tensor, which: Tensor | None = None) -> Any:
        return self.function(self, x, edge_index, queries, which)


def between(a: int, b: int, edges: int) -> Tensor:
    return torch.stack([torch.randint(0, a, (edges,)), torch.randint(0, b, (edges,))])


TWO_SETS: dict[str, Callable[..., Any]] = {
    "a layer": lambda m, x, y, e: m.conv((x, y), e),
    "both results": lambda m, x, y, e: (m.conv((x, y), e), m.lin(x)),
    "by hand": lambda m, x, y, e: m.lin(y).index_add(0, e[1], m.lin(x)[e[0]]),
    "there and back": lambda m, x, y, e: m.conv((m.conv((x, y), e).repeat(1, 2), x), e.flip(0)),
}
QUERIES: dict[str, Callable[..., Any]] = {
    "all pairs": lambda m, x, e, q, w: m.lin(q) @ m.added(x, e).t(),
    "beside": lambda m, x, e, q, w: (m.added(x, e), m.lin(q)),
    "of some nodes": lambda m, x, e, q, w: m.added(x, e)[w] + m.lin(q),
}


def equal(got: Any, want: Any) -> None:
    for a, b in zip(
        got if isinstance(want, tuple) else [got], want if isinstance(want, tuple) else [want], strict=True
    ):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)


def traces(model: nn.Module, calls: list[Call]) -> int:
    """How many programs serve these calls, each of which is compared with the model's own result."""
    engine = fg.compile(model)
    for call in calls:
        equal(engine(*call), model(*call))
    return len(engine._captured)


@pytest.mark.parametrize("name", TWO_SETS)
def test_two_sets_of_nodes_without_types(name: str) -> None:
    calls = [(torch.randn(a, 8), torch.randn(b, 8), between(a, b, edges)) for a, b, edges in SIZES]
    assert traces(TwoSets(TWO_SETS[name]).eval(), calls) == 2  # that the number changes is seen in the second call


@pytest.mark.parametrize("name", QUERIES)
def test_queries(name: str) -> None:
    calls = [
        (torch.randn(a, 8), between(a, a, edges), torch.randn(b, 8), torch.randint(0, a, (b,))) for a, b, edges in SIZES
    ]
    assert traces(Queries(QUERIES[name]).eval(), calls) == 2


def test_a_forward_that_counts_them_is_traced_for_each_number() -> None:
    def weighted(m: Layers, x: Tensor, e: Tensor, q: Tensor, w: Any) -> Tensor:
        h = m.lin(x)
        for factor in q:
            h = torch.zeros_like(h).index_add(0, e[1], h[e[0]]) * factor
        return h

    calls = [(torch.randn(6, 8), between(6, 6, 20), torch.rand(count)) for count in (2, 3, 4, 3)]
    assert traces(Queries(weighted).eval(), calls) == 3


def test_widths_that_change_together_are_widths() -> None:
    def product(m: Layers, x: Tensor, e: Tensor, q: Tensor, w: Any) -> Tensor:
        h = x @ q
        return torch.zeros(x.size(0), 4).index_add(0, e[1], h[e[0]])

    calls = [(torch.randn(6, width), between(6, 6, 20), torch.randn(width, 4)) for width in (8, 5, 3)]
    assert traces(Queries(product).eval(), calls) == 3
