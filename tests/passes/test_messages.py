"""Messages, several reductions of one, softmax aggregation and dot products end up in one kernel each."""

from __future__ import annotations

import pytest
import torch
import torch_geometric.nn as gnn
from torch import Tensor
from torch_geometric.utils import scatter

from .programs import EDGE_ATTR, EDGE_INDEX, Message, X, assert_same, optimised, values


def total(message: Tensor, col: Tensor, like: Tensor, reduce: str = "sum") -> Tensor:
    return scatter(message, col, 0, like.size(0), reduce)


def kernels(module: torch.nn.Module, *args: Tensor) -> list[str]:
    words = (
        "gather_reduce",
        "message_reduce",
        "softmax_reduce",
        "attention",
        "message",
        "edge_dot",
        "reduce",
        "gather",
    )
    program = optimised(module, *args)
    return [word for word in words for _ in values(program, word)]


def test_several_reductions_of_one_message_are_one() -> None:
    conv = gnn.SAGEConv(16, 8, aggr=["sum", "mean", "max", "min", "std"]).eval()
    program = optimised(conv, X, EDGE_INDEX)
    (made,) = values(program, "message_reduce")
    assert set(made.kwargs["reduces"]) == {"sum", "max", "min", "square_sum"}
    assert_same(conv, X, EDGE_INDEX, tolerance=2e-5)


def test_a_single_reduction_of_source_rows_stays_the_simplest_kernel() -> None:
    assert kernels(gnn.SAGEConv(16, 8).eval(), X, EDGE_INDEX) == ["gather_reduce"]


@pytest.mark.parametrize(
    "function",
    [
        lambda self, x, row, col, e: total((x[row] + e @ self.w).relu(), col, x),
        lambda self, x, row, col, e: total(x[row] + x[col] + e @ self.w, col, x, "max"),
        lambda self, x, row, col, e: total(
            torch.nn.functional.leaky_relu(x[row] + e @ self.w, 0.1) + 0.5, col, x, "min"
        ),
    ],
    ids=["relu", "both ends", "leaky_relu and shift"],
)
def test_messages_are_formed_in_the_kernel(function) -> None:
    module = Message(function).eval()
    module.w = torch.nn.Parameter(torch.randn(3, 16))
    assert kernels(module, X, EDGE_INDEX, EDGE_ATTR) == ["message_reduce"]
    assert_same(module, X, EDGE_INDEX, EDGE_ATTR)


def test_a_message_that_a_network_goes_on_with() -> None:
    nn = torch.nn.Sequential(torch.nn.Linear(32, 24), torch.nn.ReLU(), torch.nn.Linear(24, 8))
    conv = gnn.EdgeConv(nn).eval()
    assert kernels(conv, X, EDGE_INDEX) == ["message", "reduce"]
    (message,) = values(optimised(conv, X, EDGE_INDEX), "message")
    assert message.kwargs["activation"] == "relu"
    assert_same(conv, X, EDGE_INDEX)


def test_a_message_that_leaves_the_model_is_not_fused() -> None:
    class Both(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.w = torch.nn.Parameter(torch.randn(16, 16))

        def forward(self, x: Tensor, edge_index: Tensor) -> tuple[Tensor, Tensor]:
            message = (x[edge_index[0]] + x[edge_index[1]]).relu()
            return total(message @ self.w, edge_index[1], x), message

    module = Both().eval()
    assert "message" not in kernels(module, X, EDGE_INDEX)


@pytest.mark.parametrize("options", [{}, {"learn_t": True, "t": 0.7}], ids=["fixed", "learned"])
def test_softmax_aggregation(options) -> None:
    conv = gnn.GENConv(16, 8, "softmax", edge_dim=3, **options).eval()
    assert kernels(conv, X, EDGE_INDEX, EDGE_ATTR) == ["softmax_reduce"]
    assert_same(conv, X, EDGE_INDEX, EDGE_ATTR)


def test_softmax_aggregation_per_channel() -> None:
    conv = gnn.SAGEConv(16, 8, aggr=gnn.SoftmaxAggregation(learn=True, channels=16)).eval()
    assert kernels(conv, X, EDGE_INDEX) == ["softmax_reduce"]
    assert_same(conv, X, EDGE_INDEX)


@pytest.mark.parametrize("kind", ["MX", "SD"])
def test_super_gat_multiplies_its_ends_without_storing_them(kind: str) -> None:
    conv = gnn.SuperGATConv(16, 8, heads=2, attention_type=kind).eval()
    found = kernels(conv, X, EDGE_INDEX)
    assert "attention" in found
    assert ("edge_dot" in found) or kind == "SD"  # SD: the dot product kernel of attention itself
    assert_same(conv, X, EDGE_INDEX)


def test_dot_products_of_rows_without_heads() -> None:
    def function(self, x, row, col):
        return total((x[row] * x[col]).sum(-1, keepdim=True).sigmoid() * x[row], col, x)

    module = Message(function).eval()
    assert sorted(kernels(module, X, EDGE_INDEX)) == ["edge_dot", "gather_reduce"]
    assert_same(module, X, EDGE_INDEX)
