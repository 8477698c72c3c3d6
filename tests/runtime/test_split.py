"""Rows with more edges than a tile: the same result, in bounded memory."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
import torch_geometric.nn as gnn
from torch import Tensor
from torch_geometric.utils import scatter, softmax

from pyg_fullgraph.engine import Engine
from pyg_fullgraph.plan import blocks
from pyg_fullgraph.runtime import hubs

N, E = 60, 900
X = torch.randn(N, 16, generator=torch.Generator().manual_seed(0))
EDGE_ATTR = torch.randn(E, 3, generator=torch.Generator().manual_seed(1))


def hub_graph() -> Tensor:
    """Two hubs, one of them the last node with edges, among small rows and isolated nodes."""
    generator = torch.Generator().manual_seed(2)
    edge_index = torch.randint(0, N - 5, (2, E), generator=generator)
    edge_index[1, :400] = 3
    edge_index[1, 400:700] = N - 6
    return edge_index


EDGES = hub_graph()


class Own(gnn.MessagePassing):
    """A message function that matches no kernel, with any aggregation."""

    def __init__(self, aggr) -> None:
        super().__init__(aggr=aggr)
        self.lin = torch.nn.Linear(35, 8)

    def forward(self, x: Tensor, edge_index: Tensor, edge_attr: Tensor) -> Tensor:
        return self.propagate(edge_index, x=x, edge_attr=edge_attr)

    def message(self, x_i: Tensor, x_j: Tensor, edge_attr: Tensor) -> Tensor:
        return torch.tanh(self.lin(torch.cat([x_i * x_j, x_j, edge_attr], dim=-1)))


class TwoSoftmaxes(torch.nn.Module):
    """Attention on attention: what the second softmax reads depends on the first one's result."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = torch.nn.Linear(32, 1), torch.nn.Linear(17, 1)

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        row, col = edge_index
        ends = torch.cat([x[row] * x[col], x[col]], -1)
        first = softmax(self.one(ends).tanh(), col, num_nodes=x.size(0))
        middle = scatter(first * x[row].sin(), col, 0, x.size(0), "sum")
        second = softmax(self.two(torch.cat([middle[col] * x[row], first], -1)), col, num_nodes=x.size(0))
        return scatter(second * x[row].cos() * middle[col], col, 0, x.size(0), "sum")


class Relations(torch.nn.Module):
    """Two lists of edges into the same rows: only one of them has a hub."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = Own("sum"), Own("max")

    def forward(self, x: Tensor, edge_index: Tensor, other_edge_index: Tensor, edge_attr: Tensor) -> Tensor:
        attr = edge_attr[: other_edge_index.size(1)]
        return self.one(x, edge_index, edge_attr) + self.two(x, other_edge_index, attr)


def network(*widths: int) -> torch.nn.Sequential:
    return torch.nn.Sequential(torch.nn.Linear(widths[0], widths[1]), torch.nn.ReLU(), torch.nn.Linear(*widths[1:]))


CASES = {
    **{f"own {aggr}": (lambda aggr=aggr: Own(aggr), True) for aggr in ("sum", "mean", "max", "min", "mul", "median")},
    "own, several": (lambda: Own(["sum", "mean", "max", "std"]), True),
    "own, softmax": (lambda: Own("softmax"), True),
    "EdgeConv": (lambda: gnn.EdgeConv(network(32, 12, 8)), False),
    "PNA, a network before": (
        lambda: gnn.PNAConv(16, 8, ["mean", "std", "max"], ["identity"], torch.tensor([1, 2, 3]), 3, pre_layers=2), True
    ),
    "GAT, edge attributes": (lambda: gnn.GATConv(16, 8, 40, edge_dim=3, add_self_loops=False), True),
    "GATv2, edge attributes": (lambda: gnn.GATv2Conv(16, 8, 2, edge_dim=3, add_self_loops=False), True),
    "Transformer, edge attributes": (lambda: gnn.TransformerConv(16, 8, 2, edge_dim=3), True),
    "SuperGAT": (lambda: gnn.SuperGATConv(16, 8, 2, add_self_loops=False), False),
    "GEN, edge attributes": (lambda: gnn.GENConv(16, 8, "softmax", edge_dim=3), True),
    "ResGated": (lambda: gnn.ResGatedGraphConv(16, 8), False),
    "NN": (lambda: gnn.NNConv(16, 4, torch.nn.Linear(3, 64)), True),
    "PointTransformer": (lambda: gnn.PointTransformerConv(16, 8), False),
    "two softmaxes": (TwoSoftmaxes, False),
}  # fmt: skip


@pytest.fixture
def tiny_tiles(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """Blocks hold a few edges only; the tiles that run are noted."""
    seen: list[int] = []
    original = hubs.tiles

    def noted(bounds: tuple[int, int], size: int) -> Iterator[tuple[int, int]]:
        for first, last in original(bounds, size):
            seen.append(last - first)
            assert last - first <= size
            yield first, last

    monkeypatch.setattr(blocks, "EDGE_BYTES", 1 << 13)
    monkeypatch.setattr(hubs, "tiles", noted)
    yield seen


def arguments(name: str, attributes: bool) -> tuple[Tensor, ...]:
    if name == "PointTransformer":
        return X, X[:, :3].contiguous(), EDGES
    return (X, EDGES, EDGE_ATTR) if attributes else (X, EDGES)


@pytest.mark.parametrize("name", CASES)
def test_hubs_are_exact(name: str, tiny_tiles: list[int]) -> None:
    build, attributes = CASES[name]
    torch.manual_seed(0)
    module = build().eval()
    args = arguments(name, attributes)
    if name == "own median":  # PyG's own median fails on rows without edges
        args = (X, torch.cat([EDGES, torch.arange(N).expand(2, -1)], 1), torch.cat([EDGE_ATTR, EDGE_ATTR[:N]]))
    with torch.no_grad():
        expected = module(*args)
    engine = Engine(module, verify="off", threads=2)
    got = engine(*args)
    torch.testing.assert_close(got, expected, rtol=0, atol=2e-5 * float(expected.abs().max()))
    assert torch.equal(got, Engine(module, verify="off", threads=1)(*args))
    if name != "own median":  # which needs all edges of a row at once
        assert len(tiny_tiles) > 10


def test_stored_softmax_of_a_hub(tiny_tiles: list[int]) -> None:
    conv = gnn.TransformerConv(16, 8, heads=2, edge_dim=3).eval()
    with torch.no_grad():
        out, (edges, alpha) = conv(X, EDGES, EDGE_ATTR, return_attention_weights=True)
    got, (got_edges, got_alpha) = Engine(conv, verify="off")(X, EDGES, EDGE_ATTR, return_attention_weights=True)
    torch.testing.assert_close(got, out, rtol=0, atol=1e-5 * float(out.abs().max()))
    torch.testing.assert_close(got_alpha, alpha, rtol=0, atol=1e-6)
    assert torch.equal(got_edges, edges)


def test_one_of_two_relations_has_a_hub(tiny_tiles: list[int]) -> None:
    module = Relations().eval()
    other = torch.stack([torch.arange(20), torch.arange(20) + 3])
    with torch.no_grad():
        expected = module(X, EDGES, other, EDGE_ATTR)
    got = Engine(module, verify="off")(X, EDGES, other, EDGE_ATTR)
    torch.testing.assert_close(got, expected, rtol=0, atol=1e-5 * float(expected.abs().max()))
    assert len(tiny_tiles) > 10


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16], ids=["float64", "bfloat16"])
def test_types(dtype: torch.dtype, tiny_tiles: list[int]) -> None:
    module = Own("mean").eval().to(dtype)
    args = X.to(dtype), EDGES, EDGE_ATTR.to(dtype)
    with torch.no_grad():
        expected = module(*args)
    got = Engine(module, verify="off")(*args)
    assert got.dtype == dtype
    tolerance = 1e-10 if dtype == torch.float64 else 2e-2
    torch.testing.assert_close(got, expected, rtol=0, atol=tolerance * float(expected.abs().max()))


def test_no_edge_and_few_edges_do_not_need_tiles(tiny_tiles: list[int]) -> None:
    module = Own("sum").eval()
    for edges in (torch.empty(2, 0, dtype=torch.long), EDGES[:, 700:705]):
        attr = EDGE_ATTR[: edges.size(1)]
        with torch.no_grad():
            expected = module(X, edges, attr)
        torch.testing.assert_close(Engine(module, verify="off")(X, edges, attr), expected)
    assert not tiny_tiles
