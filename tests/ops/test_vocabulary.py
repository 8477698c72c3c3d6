"""`reduce_by` and `softmax_by` against plain torch on indices in any order."""

from __future__ import annotations

import pytest
import torch
from torch_geometric.utils import scatter, softmax

from pyg_fullgraph import ops
from pyg_fullgraph.errors import GraphError, OperatorError
from tests.graphs import nasty

from .conftest import assert_close

REDUCES = {"sum": "sum", "mean": "mean", "max": "max", "min": "min", "mul": "mul"}


@nasty()
@pytest.mark.parametrize("reduce", REDUCES)
@pytest.mark.parametrize("dtype", [torch.int32, torch.int64], ids=["int32", "int64"])
def test_reduce_by(num_nodes, edge_index, reduce, dtype):
    x = torch.randn(edge_index.size(1), 3, 5, generator=torch.Generator().manual_seed(0))
    got = ops.reduce_by(x, edge_index[1].to(dtype), num_nodes, reduce)
    if reduce == "mul":  # of many factors: in double, where the order of the product is not seen
        expected = torch.ones(num_nodes, 3, 5, dtype=torch.double)
        index = edge_index[1].view(-1, 1, 1).expand_as(x)
        expected = expected.scatter_reduce(0, index, x.double(), "prod").float()
    else:
        expected = scatter(x, edge_index[1], 0, num_nodes, reduce)
    assert_close(got, expected)


@nasty()
def test_softmax_by(num_nodes, edge_index):
    x = torch.randn(edge_index.size(1), 4, generator=torch.Generator().manual_seed(0))
    assert_close(ops.softmax_by(x, edge_index[1], num_nodes), softmax(x, edge_index[1], num_nodes=num_nodes))


def test_gradients_flow():
    x = torch.randn(5, 2, requires_grad=True)
    index = torch.tensor([1, 0, 1, 3, 1])
    (ops.reduce_by(x, index, 4, "sum") ** 2).sum().backward()
    expected = 2 * torch.zeros(4, 2).index_add(0, index, x.detach())[index]
    assert_close(x.grad, expected)


def test_bad_arguments_are_named():
    x, index = torch.ones(3, 2), torch.tensor([0, 1, 2])
    with pytest.raises(OperatorError, match="median"):
        ops.reduce_by(x, index, 3, "median")
    with pytest.raises(OperatorError, match="E = 2"):
        ops.reduce_by(x, index[:2], 3)
    with pytest.raises(GraphError, match="edge 2 has index 2"):
        ops.reduce_by(x, index, 2)
