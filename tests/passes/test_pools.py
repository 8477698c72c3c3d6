"""Graph-level reductions are totals that blocks add to: nothing but the result is stored for them."""

from __future__ import annotations

import pytest
import torch
import torch_geometric.nn as gnn
from torch import Tensor
from torch_geometric.utils import scatter, softmax

from pyg_fullgraph.engine import Engine

from .programs import EDGE_INDEX, X, assert_same, optimised, values

BATCH = torch.arange(X.size(0)) * 5 // X.size(0)


class Pooled(torch.nn.Module):
    """A layer, a function of its rows (and their graphs), and a layer again where rows come back."""

    def __init__(self, function, batch: Tensor | None = None) -> None:
        super().__init__()
        self.first, self.function = gnn.SAGEConv(16, 16), function
        self.lin = torch.nn.Linear(16, 1)
        self.norm = gnn.InstanceNorm(16)

    def forward(self, x: Tensor, edge_index: Tensor, batch: Tensor | None = None) -> Tensor:
        h = self.first(x, edge_index)
        return self.function(self, h) if batch is None else self.function(self, h, batch)


ROWS = {
    "mean": lambda self, h: h - h.mean(0),
    "mean of all": lambda self, h: h - h.mean(),
    "std": lambda self, h: (h - h.mean(0)) / h.std(0),
    "var of all, biased": lambda self, h: h / h.var(unbiased=False),
    "max": lambda self, h: h / h.amax(0, keepdim=True).abs(),
    "least of all": lambda self, h: h - h.min(),
    "norm": lambda self, h: h / torch.linalg.vector_norm(h),
    "norm of columns": lambda self, h: h / h.norm(dim=0),
    "softmax over the nodes": lambda self, h: h * torch.softmax(self.lin(h), dim=0),
    "log softmax over the nodes": lambda self, h: torch.log_softmax(h, dim=0),
    "linear attention": lambda self, h: h @ (h.t() @ h),
    "batched linear attention": lambda self, h: torch.einsum(
        "nhd,hde->nhe", h.view(-1, 2, 8), torch.einsum("nhd,nhe->hde", h.view(-1, 2, 8), h.view(-1, 2, 8))
    ).flatten(1),
    "instance norm": lambda self, h: self.norm(h),
    "sum twice": lambda self, h: h + h.sum(0) * h.relu().sum(0),
    "vector out": lambda self, h: h.mean(0),
    "number out": lambda self, h: h.pow(2).sum(),
}


@pytest.mark.parametrize("name", ROWS)
def test_of_all_rows(name: str) -> None:
    module = Pooled(ROWS[name]).eval()
    program = optimised(module, X, EDGE_INDEX)
    assert values(program, "pool")
    assert all(value.local for value in program if value.op == "aten" and value.space is not None)
    assert_same(module, X, EDGE_INDEX)


def attend(h: Tensor, gate: Tensor, batch: Tensor) -> Tensor:
    return scatter(softmax(gate, batch) * h, batch, 0, int(batch.max()) + 1, "sum")


GROUPS = {
    "add": lambda self, h, batch: gnn.global_add_pool(h, batch),
    "mean": lambda self, h, batch: gnn.global_mean_pool(h, batch),
    "max": lambda self, h, batch: gnn.global_max_pool(h, batch),
    "fixed number": lambda self, h, batch: gnn.global_max_pool(h, batch, 7),
    "back to the rows": lambda self, h, batch: h - gnn.global_mean_pool(h, batch)[batch],
    "attention": lambda self, h, batch: attend(h, self.lin(h), batch),
}


@pytest.mark.parametrize("order", ["sorted", "mixed"])
@pytest.mark.parametrize("name", GROUPS)
def test_of_groups(name: str, order: str) -> None:
    module = Pooled(GROUPS[name]).eval()
    batch = BATCH if order == "sorted" else BATCH[torch.randperm(X.size(0), generator=torch.Generator().manual_seed(3))]
    program = optimised(module, X, EDGE_INDEX, batch)
    assert values(program, "group_pool") or values(program, "pool")
    assert_same(module, X, EDGE_INDEX, batch)


def test_nothing_is_stored_for_a_total() -> None:
    module = Pooled(ROWS["number out"]).eval()
    engine = Engine(module, verify="off")
    engine(X, EDGE_INDEX)
    (captured,) = engine._captured.values()
    stored = [name for step in captured.compiled.schedule.steps for block in step.blocks for name in block.stored]
    assert [captured.program[name].op for name in stored] == ["pool"]


def test_half_types_are_added_up_in_single() -> None:
    module = Pooled(ROWS["mean"]).eval().bfloat16()
    x = torch.ones(3000, 16, dtype=torch.bfloat16)
    x[::2] += 3.0
    edges = torch.randint(0, 3000, (2, 9000), generator=torch.Generator().manual_seed(0))
    expected = module(x, edges).detach()
    got = Engine(module, verify="off")(x, edges)
    torch.testing.assert_close(got, expected, rtol=0, atol=0.02 * float(expected.abs().max()))
