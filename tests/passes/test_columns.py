"""Columns that nobody uses are not computed; wide ones are computed where they are stored."""

from __future__ import annotations

import torch
import torch_geometric.nn as gnn
from torch import Tensor

from .programs import EDGE_INDEX, X, assert_same, optimised, values


class Parts(torch.nn.Module):
    def __init__(self, width: int, used: tuple[int, ...], bias: bool = True) -> None:
        super().__init__()
        self.lin, self.width, self.used = torch.nn.Linear(16, 3 * width, bias), width, used
        self.conv = gnn.SimpleConv()

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        rows = self.lin(x)
        parts = [rows[:, self.width * part : self.width * (part + 1)] for part in self.used]
        return torch.cat([self.conv(parts[0], edge_index), *parts[1:]], dim=-1)


def widths(module: torch.nn.Module) -> list[int]:
    program = optimised(module, X, EDGE_INDEX, skip=("narrow",))
    return sorted(value.width for value in values(program, "addmm") + values(program, "mm"))


def test_unused_columns_go() -> None:
    module = Parts(8, (1,)).eval()
    assert widths(module) == [8]
    assert_same(module, X, EDGE_INDEX)
    module = Parts(8, (2, 0), bias=False).eval()
    assert widths(module) == [8, 8]
    assert_same(module, X, EDGE_INDEX)


def test_wide_parts_are_products_of_their_own() -> None:
    module = Parts(48, (0, 1, 2)).eval()
    assert widths(module) == [48, 48, 48]
    assert_same(module, X, EDGE_INDEX)


def test_narrow_parts_share_one_product() -> None:
    module = Parts(8, (0, 1, 2)).eval()
    assert widths(module) == [24]
    assert_same(module, X, EDGE_INDEX)


def test_a_product_that_is_used_whole_stays() -> None:
    class Whole(Parts):
        def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
            rows = self.lin(x)
            return torch.cat([self.conv(rows[:, :8], edge_index), rows], dim=-1)

    module = Whole(8, ()).eval()
    assert widths(module) == [24]
    assert_same(module, X, EDGE_INDEX)
