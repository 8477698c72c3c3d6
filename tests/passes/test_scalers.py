"""Rows scaled by a number each are multiplied before they are scaled, and never joined."""

from __future__ import annotations

import torch
import torch_geometric.nn as gnn
from torch import Tensor

from .programs import EDGE_INDEX, X, assert_same, optimised, values

DEGREES = torch.tensor([1, 4, 6, 3, 2])


class Scaled(torch.nn.Module):
    """`[x, s x, t x] W + b`, with the numbers of each row taken from the row itself."""

    def __init__(self, bias: bool = True) -> None:
        super().__init__()
        self.lin, self.gate = torch.nn.Linear(48, 8, bias), torch.nn.Linear(16, 2)
        self.conv = gnn.SimpleConv()

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        h = self.conv(x, edge_index)
        s, t = self.gate(x).unsqueeze(-1).unbind(1)
        return self.lin(torch.cat([s * h, h, h * t], dim=-1))


def test_the_joined_row_is_never_made() -> None:
    for module in (Scaled().eval(), Scaled(bias=False).eval()):
        assert not values(optimised(module, X, EDGE_INDEX), "cat")
        assert values(optimised(module, X, EDGE_INDEX, skip=("scalers",)), "cat")
        assert_same(module, X, EDGE_INDEX)


def test_only_scaled_rows_are_worth_it() -> None:
    class Plain(Scaled):
        def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
            h = self.conv(x, edge_index)
            return self.lin(torch.cat([h, x, h * x], dim=-1))

    module = Plain().eval()
    assert values(optimised(module, X, EDGE_INDEX), "cat")
    assert_same(module, X, EDGE_INDEX)


def test_pna_multiplies_its_aggregations_three_times_and_scales_the_products() -> None:
    lists = {"aggregators": ["mean", "max"], "scalers": ["identity", "amplification", "attenuation"]}
    conv = gnn.PNAConv(16, 8, **lists, deg=DEGREES).eval()
    program = optimised(conv, X, EDGE_INDEX)
    assert len(values(program, "addcmul")) == 2
    (joined,) = values(program, "cat")
    assert joined.width == 32  # mean and max, not three times that and x
    assert_same(conv, X, EDGE_INDEX)
