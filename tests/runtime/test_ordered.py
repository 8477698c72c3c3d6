"""Forwards that look at where nodes stand, and some that only seem to: computed in another order, or kept as they are.

Every result is compared with the model's own forward, element by element. Sums of a row keep the order of the given
edges; sums over all nodes do not, so those may be rounded otherwise.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
import torch_geometric
import torch_geometric.nn as pyg
from torch import Tensor

from pyg_fullgraph.capture.raising import raise_program
from pyg_fullgraph.capture.signature import bind
from pyg_fullgraph.capture.trace import trace
from pyg_fullgraph.engine import Engine
from pyg_fullgraph.graph.generate import grid
from pyg_fullgraph.runtime.ordered import Orders

N = 100
_RANDOM = torch.Generator().manual_seed(2)
EDGES = torch.randperm(N, generator=_RANDOM)[grid(10, 10)]
X = torch.randn(N, 8, generator=_RANDOM)
WEIGHT = torch.rand(EDGES.size(1), generator=_RANDOM)
BATCH = torch.randint(4, (N,), generator=_RANDOM)
NUMBERS = torch.randperm(N, generator=_RANDOM)
MASK = torch.rand(N, generator=_RANDOM) > 0.5
TABLE = torch.randn(N, 8, generator=_RANDOM)
PAIRS = torch.stack([torch.randint(60, (200,), generator=_RANDOM), torch.randint(40, (200,), generator=_RANDOM)])

Forward = Callable[..., Any]


class Uses(torch.nn.Module):
    """One convolution, and what a forward does besides."""

    def __init__(self, body: Forward) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.body = pyg.GCNConv(8, 8), body
        self.table = torch.nn.Embedding.from_pretrained(TABLE)
        self.register_buffer("mask", MASK)

    def forward(self, x: Tensor, edge_index: Tensor, other: Tensor | None = None) -> Any:
        return self.body(self, x, edge_index) if other is None else self.body(self, x, edge_index, other)


def added(x: Tensor, index: Tensor, rows: Tensor) -> Tensor:
    return torch.zeros_like(x).index_add(0, index, rows)


def positions(x: Tensor) -> Tensor:
    return torch.arange(x.size(0))


#: Name -> what forward does, and the arguments beside x and edges.
KEPT: dict[str, tuple[Any, ...]] = {
    "parameter-of-N-rows": (lambda m, x, e: m.conv(x + m.table.weight, e),),
    "table-looked-up-by-edges": (lambda m, x, e: m.conv(x, e) + added(x, e[1], m.table(e[0])),),
    "buffer-of-N-rows": (lambda m, x, e: m.conv(torch.where(m.mask[:, None], x, -x), e),),
    "constant-rows": (lambda m, x, e: m.conv(x, e)[torch.tensor([3, 7])],),
    "first-row": (lambda m, x, e: m.conv(x - x[0], e),),
    "last-row": (lambda m, x, e: m.conv(x - x[-1:], e),),
    "roll": (lambda m, x, e: m.conv(x.roll(1, 0), e),),
    "cumsum": (lambda m, x, e: m.conv(x.cumsum(0) / 50, e),),
    "cumsum-of-ones": (lambda m, x, e: m.conv(x * torch.ones_like(x).cumsum(0) / 50, e),),
    "max-and-where": (lambda m, x, e: m.conv(x, e).max(0),),
    "topk": (lambda m, x, e: m.conv(x, e)[:, 0].topk(3)[1],),
    "median": (lambda m, x, e: x - m.conv(x, e).median(0)[0],),
    "arange-as-value": (lambda m, x, e: m.conv(x * positions(x)[:, None], e),),
    "arange-halved": (lambda m, x, e: m.conv(x, e)[positions(x) // 2],),
    "arange-backwards": (lambda m, x, e: m.conv(x, e) + x[torch.arange(x.size(0) - 1, -1, -1)],),
    "tril": (lambda m, x, e: m.conv(x, e) + torch.ones(x.size(0), x.size(0)).tril() @ x,),
    "edges-to-later-nodes": (lambda m, x, e: m.conv(x, e[:, e[0] < e[1]]),),
    "parity-of-numbers": (lambda m, x, e: m.conv(x, e, (e[0] % 2).float()),),
    "one-number": (lambda m, x, e: m.conv(x, e, (e[0] == 5).float()),),
    "numbers-added-up": (lambda m, x, e: added(positions(x), e[1], e[0]),),
    "pairs-of-neighbouring-rows": (lambda m, x, e: m.conv(x, e).view(-1, 2, 8).sum(1),),
    "columns-into-rows": (lambda m, x, e: m.conv(x, e).t().reshape(x.size(0), 8),),
    "convolution-over-rows": (lambda m, x, e: F.avg_pool1d(m.conv(x, e).t()[None], 3, 1, 1)[0].t(),),
    "all-pairs": (lambda m, x, e: torch.softmax(m.conv(x, e) @ x.t(), 1) @ x,),
    "first-graph": (lambda m, x, e, b: m.conv(x * (b == b[0])[:, None], e), BATCH),
    "where-graphs-begin": (lambda m, x, e, b: m.conv(x, e)[1:] * (b[1:] != b[:-1])[:, None], BATCH),
    "last-of-a-graph": (lambda m, x, e, b: torch.zeros(4, 8).index_copy(0, b, m.conv(x, e)), BATCH),
    "mask-picks": (lambda m, x, e, k: m.conv(x, e)[k], MASK),
    "numbers-as-index-and-value": (lambda m, x, e, n: m.conv(x, e)[n] + m.table(n), NUMBERS),
    "negative-numbers": (lambda m, x, e, n: m.conv(x, e)[n], torch.tensor([3, -1])),
}
ORDERED: dict[str, tuple[Any, ...]] = {
    "edge-weight": (lambda m, x, e, w: m.conv(x, e, w), WEIGHT),
    "cumsum-over-edges": (lambda m, x, e: added(x, e[1], x[e[0]].cumsum(0) / 50),),
    "position-of-edges": (lambda m, x, e: added(x, e[1], x[e[0]] * torch.arange(e.size(1))[:, None] / 50),),
    "last-edge-wins": (lambda m, x, e: m.conv(x, e).index_copy(0, e[1], x[e[0]]),),
    "ends-returned": (lambda m, x, e: (m.conv(x, e), e, e[0], e.flip(0), positions(x)),),
    "rows-of-edges-returned": (lambda m, x, e: (x[e[0]] * m.conv(x, e)[e[1]], torch.cat([x, x[e[0]]])),),
    "other-shapes": (lambda m, x, e: (m.conv(x, e).t(), torch.stack([x, x]), {"n": x.size(0), "all": [x.sum(0)]}),),
    "largest-column": (lambda m, x, e: m.conv(x, e).max(1),),
    "statistics-of-all": (lambda m, x, e: (x - x.mean(0)) / m.conv(x, e).std(0),),
    "products-over-all": (lambda m, x, e: m.conv(x, e) @ (x.t() @ x),),
    "pool": (lambda m, x, e, b: x + pyg.global_mean_pool(m.conv(x, e), b)[b], BATCH),
    "mask": (lambda m, x, e, k: (m.conv(x * k[:, None], e), k), MASK),
    "asked-nodes": (lambda m, x, e, n: m.conv(x, e)[n], torch.tensor([3, 7, 3])),
    "nodes-of-nodes": (lambda m, x, e, n: m.conv(x, e)[n] + added(x, n, x), NUMBERS),
    "pairs-of-nodes": (lambda m, x, e, p: (m.conv(x, e)[p[0]] * x[p[1]]).sum(1), EDGES[:, :9].clone()),
    "sparse-matrix": (
        lambda m, x, e: torch.sparse.mm(torch.sparse_coo_tensor(e, torch.ones(e.size(1)), (x.size(0),) * 2), x),
    ),
}


def same(got: Any, expected: Any) -> None:
    """Floats within 1e-5 of the largest magnitude, everything else equal, in containers of the same shape."""
    if isinstance(expected, Tensor):
        assert (got.shape, got.dtype) == (expected.shape, expected.dtype)
        atol = 1e-5 * float(expected.abs().max()) if expected.is_floating_point() else 0
        torch.testing.assert_close(got, expected, rtol=0, atol=atol)
    elif isinstance(expected, dict):
        assert got.keys() == expected.keys()
        same(tuple(got.values()), tuple(expected.values()))
    elif isinstance(expected, list | tuple):
        for left, right in zip(got, expected, strict=True):
            same(left, right)
    else:
        assert got == expected


def ordered(module: torch.nn.Module, *args: Any) -> bool:
    """Compares two calls with forward; tells whether the nodes ran in another order."""
    engine = Engine(module, verify="off", order="rcm")
    with torch.no_grad():
        expected = module(*args)
    same(engine(*args), expected)
    same(engine(*args), expected)
    (note,) = (note for note in engine.notes if note.startswith("order='rcm'"))
    return "kept the given order" not in note


@pytest.mark.parametrize("name", KEPT)
def test_where_nodes_stand_matters(name: str) -> None:
    body, *others = KEPT[name]
    assert not ordered(Uses(body).eval(), X, EDGES, *others)


@pytest.mark.parametrize("name", ORDERED)
def test_where_nodes_stand_does_not_matter(name: str) -> None:
    body, *others = ORDERED[name]
    assert ordered(Uses(body).eval(), X, EDGES, *others)


@pytest.mark.parametrize("kind", ["same", "equal-sizes", "two-sizes"])
def test_bipartite(kind: str) -> None:
    torch.manual_seed(0)
    conv = pyg.GATConv((8, 8), 8, add_self_loops=False).eval()
    x = {"same": (X, X), "equal-sizes": (X, TABLE), "two-sizes": (X[:60], X[60:])}[kind]
    assert ordered(conv, x, PAIRS if kind == "two-sizes" else EDGES)


class Stacked(torch.nn.Module):
    """Returns its edge list twice, on a new dimension or one below the other."""

    def __init__(self, join: Callable[[list[Tensor]], Tensor]) -> None:
        super().__init__()
        self.conv, self.join = pyg.SAGEConv((8, 8), 8), join

    def forward(self, x: tuple[Tensor, Tensor], edge_index: Tensor) -> Any:
        return self.conv(x, edge_index), self.join([edge_index, edge_index])


@pytest.mark.parametrize(
    ("join", "known"),
    [(torch.stack, False), (torch.cat, False), (lambda both: torch.cat(both, dim=1), True)],
    ids=["stack", "below", "beside"],
)
def test_edge_lists_between_two_kinds_are_joined(join: Callable[[list[Tensor]], Tensor], known: bool) -> None:
    torch.manual_seed(0)
    assert ordered(Stacked(join).eval(), (X[:60], X[60:]), PAIRS) == known


def test_multigraph_with_loops() -> None:
    edges = torch.tensor([[0, 0, 0, 4, 4, 2], [1, 1, 1, 4, 4, 0]])
    assert ordered(Uses(ORDERED["edge-weight"][0]).eval(), X[:7], edges, WEIGHT[:6])


@pytest.mark.parametrize("sort", [None, "row", "col"])
def test_edge_index_class(sort: str | None) -> None:
    edges = torch_geometric.EdgeIndex(EDGES, sparse_size=(N, N))
    edges = edges if sort is None else edges.sort_by(sort).values
    assert ordered(pyg.GCN(8, 8, 2).eval(), X, edges)


@pytest.mark.parametrize("layout", ["strided", "one-row", "bfloat16", "three-dimensions"])
def test_layouts_of_features(layout: str) -> None:
    bodies: dict[str, Forward] = {
        "bfloat16": lambda m, x, e: (m.conv(x.float(), e), x),
        "three-dimensions": lambda m, x, e: (m.conv(x.flatten(1), e), x.transpose(1, 2)),
    }
    x = {
        "strided": X.t().contiguous().t(),
        "one-row": X[:1].expand(N, 8),
        "bfloat16": X.bfloat16(),
        "three-dimensions": X.view(N, 2, 4),
    }[layout]
    body = bodies.get(layout, lambda m, x, e: (m.conv(x, e), x))
    assert ordered(Uses(body).eval(), x, EDGES)


def test_another_device_keeps_the_given_order() -> None:
    """No kernel runs: only the decision is asked for, of arguments that lie elsewhere."""
    model = pyg.GCN(8, 8, 2).eval()
    signature, tensors = bind(model, (X, EDGES), {})
    orders = Orders(raise_program(trace(model, signature)))
    elsewhere = {name: tensor.to("meta") for name, tensor in zip(signature.names, tensors, strict=True)}
    arrangement, note = orders.choose("rcm", 1, elsewhere, list)
    assert arrangement is None
    assert "on the CPU only" in note
