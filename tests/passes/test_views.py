"""Idle operators go, reshapes take one form, and rows stay rows."""

from __future__ import annotations

import pytest
import torch
import torch_geometric.nn as gnn
from torch import Tensor

from .programs import EDGE_INDEX, Message, X, assert_same, changes, optimised, values


class OnRows(torch.nn.Module):
    """A row-wise function, then an aggregation, so that blocks and gathers are involved."""

    def __init__(self, function, **modules: torch.nn.Module) -> None:
        super().__init__()
        self.function, self.conv = function, gnn.SimpleConv()
        for name, module in modules.items():
            self.add_module(name, module)

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        return self.conv(self.function(self, x), edge_index)


@pytest.mark.parametrize(
    "function",
    [
        lambda self, x: x.view(-1, 1, 16).repeat(1, 1, 1).squeeze(1),
        lambda self, x: (x + 0) * 1,
        lambda self, x: x.unsqueeze(1).transpose(1, 2).reshape(-1, 16),
        lambda self, x: torch.stack([x], dim=1)[:, 0],
        lambda self, x: torch.cat([x], dim=-1).clone(),
        lambda self, x: x[:, None, :].permute(0, 2, 1).flatten(1),
        lambda self, x: x.view(-1, 4, 4).view(-1, 2, 8).view(-1, 16),
    ],
)
def test_nothing_is_left_of_idle_operators(function) -> None:
    module = OnRows(function).eval()
    program = optimised(module, X, EDGE_INDEX)
    assert [value.op for value in program if value.op not in ("input", "aten")] == ["gather_reduce"]
    (made,) = values(program, "gather_reduce")
    assert made.args[0].name == "x"
    assert_same(module, X, EDGE_INDEX)


def test_a_transpose_that_moves_columns_stays() -> None:
    module = OnRows(lambda self, x: x.view(-1, 4, 4).transpose(1, 2).reshape(-1, 16)).eval()
    assert values(optimised(module, X, EDGE_INDEX), "transpose")
    assert_same(module, X, EDGE_INDEX)


@pytest.mark.parametrize(
    "function",
    [
        lambda self, x: self.lin(x.view(-1, 4, 4)).flatten(1),
        lambda self, x: self.lin(x.view(-1, 4, 4).transpose(0, 1)).transpose(0, 1).flatten(1),
        lambda self, x: torch.stack([self.lin(x[:, :4]), self.lin(x[:, 4:8])]).mean(0),
    ],
    ids=["rows first", "rows second", "stack"],
)
def test_linear_layers_on_more_dimensions_keep_the_rows(function) -> None:
    module = OnRows(function, lin=torch.nn.Linear(4, 4)).eval()
    program = optimised(module, X, EDGE_INDEX)
    assert all(value.local for value in program if value.op == "aten" and value.space is not None)
    assert_same(module, X, EDGE_INDEX)


def test_recurrent_and_attending_layers_keep_the_rows() -> None:
    class Attends(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.attention = torch.nn.MultiheadAttention(4, 2, batch_first=True)
            self.conv = gnn.SimpleConv()

        def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
            tokens = x.view(-1, 4, 4)
            return self.conv(self.attention(tokens, tokens, tokens, need_weights=False)[0].flatten(1), edge_index)

    assert_same(Attends().eval(), X, EDGE_INDEX)


def test_reductions_of_joined_columns_are_taken_apart() -> None:
    class Joined(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.lin = torch.nn.Linear(16, 8)

        def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
            row, col = edge_index
            message = torch.cat([x[row], self.lin(x)[row]], dim=-1)
            return torch.zeros(x.size(0), 24).index_add_(0, col, message)

    module = Joined().eval()
    assert changes(module, X, EDGE_INDEX)["views"].counts == {"cat on E": -1, "reduce on N": 1, "cat on N": 1}
    assert len(values(optimised(module, X, EDGE_INDEX), "gather_reduce")) == 2
    assert_same(module, X, EDGE_INDEX)


def test_masked_writes_are_row_wise() -> None:
    def function(self, x, row, col):
        out = x.clone()
        out[x[:, 0] > 0] = 2.0
        return torch.zeros_like(x).index_add_(0, col, out[row])

    module = Message(function).eval()
    program = optimised(module, X, EDGE_INDEX)
    assert values(program, "where", "N")
    assert not values(program, "index_put")
    assert_same(module, X, EDGE_INDEX)


def test_parts_of_what_is_joined() -> None:
    module = OnRows(lambda self, x: torch.stack([x, x * 2], 1)[:, 1] + torch.cat([x, x * 3], -1)[:, 16:]).eval()
    program = optimised(module, X, EDGE_INDEX)
    assert not values(program, "stack") + values(program, "cat") + values(program, "slice")
    assert_same(module, X, EDGE_INDEX)
