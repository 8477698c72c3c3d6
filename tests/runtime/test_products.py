"""Products with what goes into their store, products by type, and edge products that are reduced at once."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch_geometric.nn import EdgeConv, HeteroLinear, MessagePassing, RGCNConv

import pyg_fullgraph as fg
from pyg_fullgraph.ops.linear import pack
from pyg_fullgraph.runtime.products import TypeRanges, typed

N = 60
EDGE_INDEX = torch.cat([torch.randint(0, N, (2, 400)), torch.stack([torch.arange(40), torch.full((40,), 7)])], 1)
EDGE_INDEX[1, EDGE_INDEX[1] == 5] = 6  # row 5 has no edges


def both(model: nn.Module, *args: Tensor, **options: object) -> str:
    """Compares with the model's own forward, and returns the text of the block programs."""
    engine = fg.compile(model.eval(), verify="off", **options)
    with torch.no_grad():
        want = model(*args)
    got = engine(*args)
    assert (got - want).abs().max() <= 1e-5 * want.abs().max()
    rows = torch.tensor([5, 7, 20])
    torch.testing.assert_close(engine(*args, nodes=rows), want[rows], rtol=1e-4, atol=1e-5)
    return "\n".join(engine.explain(*args).code)


class Messages(MessagePassing):
    """Messages of a given form under a given reduction."""

    def __init__(self, form: str, aggr: str) -> None:
        super().__init__(aggr=aggr)
        self.form = form
        self.first, self.second = nn.Linear(8, 12), nn.Linear(12, 20, bias="plain" not in form)

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        return self.propagate(edge_index, x=self.first(x)).relu()

    def message(self, x_i: Tensor, x_j: Tensor) -> Tensor:
        made = self.second((x_i + x_j).relu())
        if "relu" in self.form:
            made = made.relu()
        return made * 2 if "more" in self.form else made


@pytest.mark.parametrize("aggr", ["sum", "mean", "max", "min"])
@pytest.mark.parametrize("form", ["bias", "bias relu", "plain", "relu more"])
def test_products_of_messages(form: str, aggr: str) -> None:
    text = both(Messages(form, aggr).double(), torch.randn(N, 8).double(), EDGE_INDEX)
    if form in ("bias", "plain") and aggr in ("max", "min"):  # else other fusions may come first
        assert "edge_linear(" in text
    assert "more" not in form or "edge_linear(" not in text


def test_a_hub_in_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pyg_fullgraph.plan.blocks.EDGE_BYTES", 4096)
    both(Messages("bias", "max"), torch.randn(N, 8), EDGE_INDEX)


class Rows(nn.Module):
    """Row-wise products in several forms, one of whose operands is used again."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Linear(8, 8), nn.Linear(8, 8, bias=False), nn.Linear(8, 8)

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        first = self.a(x).relu()
        used_twice = self.b(first)
        added = torch.addmm(used_twice, first, self.b.weight)
        scaled = torch.addmm(self.a.bias, added, self.c.weight, beta=0.5, alpha=2.0)
        summed = torch.zeros_like(x).index_add(0, edge_index[1], self.c(scaled.relu() + used_twice)[edge_index[0]])
        return self.c(summed).relu() + summed.relu()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_products_of_rows(dtype: torch.dtype) -> None:
    text = both(Rows().to(dtype), torch.randn(N, 8, dtype=dtype), EDGE_INDEX)
    assert "relu=True" in text and "linear(" in text


def test_a_sum_of_products_starts_with_the_first_and_ends_with_bias_and_relu() -> None:
    class Relations(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = RGCNConv(8, 8, 2)

        def forward(self, x: Tensor, edge_index: Tensor, kinds: Tensor) -> Tensor:
            return self.conv(x, edge_index, kinds).relu()

    kinds = torch.randint(0, 2, (EDGE_INDEX.shape[1],))
    text = both(Relations(), torch.randn(N, 8), EDGE_INDEX, kinds)
    assert "full" not in text and "add_out" not in text and "relu=True" in text


def test_edge_conv_keeps_no_edge_value() -> None:
    conv = EdgeConv(nn.Sequential(nn.Linear(16, 8), nn.ReLU(), nn.Linear(8, 8)))
    text = both(conv, torch.randn(N, 8), EDGE_INDEX)
    assert "edge_linear(" in text and " message(" not in text


class ByType(nn.Module):
    """Rows by the matrix of their type, then to their neighbours."""

    def __init__(self) -> None:
        super().__init__()
        self.by_type = HeteroLinear(8, 6, 3, bias=False)

    def forward(self, x: Tensor, kinds: Tensor, edge_index: Tensor) -> Tensor:
        made = self.by_type(x, kinds)
        return torch.zeros_like(made).index_add(0, edge_index[1], made[edge_index[0]])


@pytest.mark.parametrize("order", ["sorted", "mixed", "one"])
def test_rows_by_type(order: str) -> None:
    kinds = torch.randint(0, 3, (N,))
    kinds = kinds.sort().values if order == "sorted" else kinds * 0 + 1 if order == "one" else kinds
    assert "typed(" in both(ByType(), torch.randn(N, 8), kinds, EDGE_INDEX)


@pytest.mark.parametrize("heads", [0, 3])
@pytest.mark.parametrize("most", [1, 64, 1000], ids=["every row differs", "ranges", "one range"])
def test_ranges(heads: int, most: int) -> None:
    rows = torch.arange(200) // most % 4
    types = rows if heads == 0 else (rows.view(-1, 1) + torch.arange(heads)) % 4
    x, weight = torch.randn(*types.shape, 5), torch.randn(4, 5, 7)
    want = torch.einsum("...k,...kn->...n", x, weight[types])
    ranges = TypeRanges(types)
    assert (ranges.types is None) == (most > 1)
    for start, stop in [(0, 200), (0, 64), (63, 65), (150, 200), (3, 3)]:
        out = torch.empty_like(want[start:stop])
        got = typed(x[start:stop], pack(weight), ranges, start, stop, out)
        torch.testing.assert_close(got, want[start:stop])
        assert got is out or ranges.types is not None
