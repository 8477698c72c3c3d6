"""Code that asks whether a size is one certain number: captured for all others, and its own forward for that one."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch_geometric import nn as gnn

import pyg_fullgraph as fg

TYPES = [("a", "r", "b"), ("b", "s", "a")]


class Layer(torch.nn.Module):
    """One layer with edge attributes."""

    def __init__(self, conv: torch.nn.Module) -> None:
        super().__init__()
        self.conv = conv

    def forward(self, x: Tensor, edge_index: Tensor, edge_attr: Tensor) -> Tensor:
        return self.conv(x, edge_index, edge_attr)


LAYERS = {
    "GINE": lambda: Layer(gnn.GINEConv(torch.nn.Linear(16, 16), edge_dim=8)),
    "CG": lambda: Layer(gnn.CGConv(16, dim=8)),
    "GEN": lambda: Layer(gnn.GENConv(16, 16, edge_dim=8)),
}


def _call(edges: int) -> tuple[Any, ...]:
    drawn = torch.Generator().manual_seed(edges)
    index = {t: torch.stack([torch.randint(0, n, (edges,), generator=drawn) for n in (20, 20)]) for t in TYPES}
    x = {"a": torch.randn(30, 8, generator=drawn), "b": torch.randn(20, 5, generator=drawn)}
    return x, index, {t: torch.randn(edges, 3, generator=drawn) for t in TYPES}


@pytest.mark.parametrize("name", LAYERS)
def test_bases_with_edge_attributes(name: str) -> None:
    model = gnn.to_hetero_with_bases(
        LAYERS[name](), (["a", "b"], TYPES), num_bases=2, in_channels={"x": 16, "edge_attr": 8}
    ).eval()
    with torch.no_grad():
        model(*_call(60))
        engine = fg.compile(model)
        for edges in (60, 41, 2, 3):
            expected, got = model(*_call(edges)), engine(*_call(edges))
            for kind in expected:
                torch.testing.assert_close(got[kind], expected[kind], rtol=1e-4, atol=1e-4)
    assert any("takes another branch" in note for note in engine.notes)  # two edges of each type


def _rows(x: Tensor, edge_index: Tensor) -> Tensor:
    return x * 2 if x.size(0) == 7 else x + 1


def _not(x: Tensor, edge_index: Tensor) -> Tensor:
    return x * 2 if edge_index.shape[1] != 12 else x + 1


def _length(x: Tensor, edge_index: Tensor) -> Tensor:
    return x * 2 if len(x) == 7 and x.dtype == torch.long else x + 1


def _twice(x: Tensor, edge_index: Tensor) -> Tensor:
    out = x * 3 if x.size(0) == 9 else x
    return out - 1 if edge_index.size(1) == 12 else out


class Asking(torch.nn.Module):
    def __init__(self, body: Any) -> None:
        super().__init__()
        self.body, self.conv = body, gnn.SAGEConv(4, 4)

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        return self.conv(self.body(x, edge_index), edge_index)


@pytest.mark.parametrize("body", [_rows, _not, _length, _twice], ids=lambda body: body.__name__.strip("_"))
@pytest.mark.parametrize("first", [(7, 12), (9, 20)], ids=["asked for", "another"])
def test_each_size_takes_its_branch(body: Any, first: tuple[int, int]) -> None:
    model = Asking(body).eval()
    engine = fg.compile(model)
    with torch.no_grad():
        for nodes, edges in (first, (9, 12), (7, 20), (7, 12), (9, 20), (11, 30), (7, 12)):
            x, edge_index = torch.randn(nodes, 4), torch.randint(0, nodes, (2, edges))
            torch.testing.assert_close(engine(x, edge_index), model(x, edge_index), rtol=1e-5, atol=1e-5)


def test_other_decisions_are_refused() -> None:
    model = Asking(lambda x, edge_index: x * 2 if x.size(0) > 8 else x + 1).eval()
    with pytest.raises(fg.CaptureError, match="decision of Python"):
        fg.compile(model)(torch.randn(9, 4), torch.randint(0, 9, (2, 20)))
