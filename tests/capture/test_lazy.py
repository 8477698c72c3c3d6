"""Lazy parameters: only those that the forward uses are asked for, and none is given a shape by a trace."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.parameter import UninitializedParameter
from torch_geometric.nn import GATConv, HeteroConv, HeteroDictLinear, HGTConv, Linear, SAGEConv

import pyg_fullgraph as fg
from pyg_fullgraph.errors import InputError

torch.manual_seed(0)
KINDS = ["a", "b", "c"]
RELATIONS = [("a", "r", "b"), ("c", "s", "b")]
X = {"a": torch.randn(5, 16), "b": torch.randn(6, 32)}
EDGES = {("a", "r", "b"): torch.stack([torch.randint(0, 5, (20,)), torch.randint(0, 6, (20,))])}


def _unset(model: nn.Module) -> list[str]:
    return [name for name, value in model.named_parameters() if isinstance(value, UninitializedParameter)]


class Unused(nn.Module):
    """Lazy layers of which some are never called; one of them lies in a list."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.spare = SAGEConv((-1, -1), 4), GATConv(-1, 4)
        self.more = [nn.LazyLinear(3)]

    def forward(self, x: torch.Tensor, edge_index: torch.Tensor) -> torch.Tensor:
        return self.conv(x, edge_index)


def _hetero() -> nn.Module:
    return HeteroConv({relation: SAGEConv((-1, -1), 4) for relation in RELATIONS})


def _dictionary() -> nn.Module:
    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.lin = HeteroDictLinear(-1, 8, types=KINDS)
            self.conv = SAGEConv((8, 8), 4)

        def forward(self, x: dict[str, Any], edges: dict[Any, Any]) -> torch.Tensor:
            h = self.lin(x)
            return self.conv((h["a"], h["b"]), edges["a", "r", "b"])

    return Model()


CASES: dict[str, tuple[Any, tuple[Any, ...]]] = {
    "HGTConv": (lambda: HGTConv(-1, 64, (KINDS, RELATIONS), heads=2), (X, EDGES)),
    "HeteroConv": (_hetero, (X, EDGES)),
    "HeteroDictLinear": (_dictionary, (X, EDGES)),
    "layers without a call": (Unused, (X["a"], torch.randint(0, 5, (2, 20)))),
}


@pytest.mark.parametrize("name", CASES)
@torch.no_grad()
def test_unused_lazy_parameters_are_not_asked_for(name: str) -> None:
    build, args = CASES[name]
    model = build().eval()
    expected, unset = model(*args), _unset(model)
    assert unset
    for result in (fg.compile(model)(*args), fg.compile(model, verify="off")(*args)):
        torch.testing.assert_close(result, expected)
    assert _unset(model) == unset


@pytest.mark.parametrize("name", CASES)
@torch.no_grad()
def test_used_ones_are_named_and_left_alone(name: str) -> None:
    build, args = CASES[name]
    model = build().eval()
    unset = _unset(model)
    engine = fg.compile(model)
    for _ in range(2):
        with pytest.raises(InputError, match=r"lazy parameters have no shape yet \('.*' first\). Run the model once"):
            engine(*args)
    assert _unset(model) == unset
    model(*args)
    torch.testing.assert_close(engine(*args), model(*args))


@torch.no_grad()
def test_a_type_that_comes_later() -> None:
    model = HeteroConv({relation: SAGEConv((-1, -1), 4) for relation in RELATIONS}).eval()
    model(X, EDGES)
    engine = fg.compile(model)
    torch.testing.assert_close(engine(X, EDGES), model(X, EDGES))
    x = {**X, "c": torch.randn(7, 8)}
    edges = {**EDGES, ("c", "s", "b"): torch.stack([torch.randint(0, 7, (20,)), torch.randint(0, 6, (20,))])}
    with pytest.raises(InputError, match="lazy"):
        engine(x, edges)
    model(x, edges)
    torch.testing.assert_close(engine(x, edges), model(x, edges))


@torch.no_grad()
def test_caught_by_the_forward_it_is_told_all_the_same() -> None:
    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.lin = Linear(-1, 4)

        def forward(self, x: torch.Tensor, edge_index: torch.Tensor) -> torch.Tensor:
            try:
                return self.lin(x)
            except Exception:
                return x

    with pytest.raises(InputError, match=r"'lin\.weight'"):
        fg.compile(Model().eval())(X["a"], torch.randint(0, 5, (2, 20)))
