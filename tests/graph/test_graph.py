"""`Graph`, run eagerly, against torch_geometric, element by element: values, gradients, constructors, errors."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
import torch_geometric.nn as gnn
from torch import Tensor
from torch_geometric import EdgeIndex
from torch_geometric.data import Data, HeteroData
from torch_geometric.nn import aggr
from torch_geometric.utils import scatter, softmax, to_scipy_sparse_matrix

from pyg_fullgraph.errors import GraphError
from pyg_fullgraph.graph import Graph
from tests.graphs import NASTY, nasty

BASIC = ["sum", "mean", "max", "min", "mul"]
ALL = [*BASIC, "var", "std"]


def close(ours: Tensor, theirs: Tensor, tolerance: float = 1e-6) -> None:
    assert ours.shape == theirs.shape and ours.dtype == theirs.dtype
    if theirs.numel():
        scale = float(theirs.abs().max()) or 1.0
        assert float((ours - theirs).abs().max()) <= tolerance * scale


def pyg_reduce(e: Tensor, index: Tensor, rows: int, reduce: str) -> Tensor:
    if reduce in ("var", "std"):
        module = aggr.VarAggregation() if reduce == "var" else aggr.StdAggregation()
        return module(e, index, dim_size=rows, dim=0)
    return scatter(e, index, 0, rows, reduce)


def small_bipartite(dtype: torch.dtype = torch.int64) -> tuple[Tensor, int, int]:
    """Seven sources, four destinations; the last of each has no edge."""
    return torch.tensor([[0, 5, 5, 3, 0, 1], [2, 2, 0, 1, 2, 2]], dtype=dtype), 7, 4


@nasty()
@pytest.mark.parametrize("width", [(), (1,), (5,), (2, 3)], ids=str)
def test_node_to_edge(num_nodes: int, edge_index: Tensor, width: tuple[int, ...]) -> None:
    g, x = Graph(edge_index, num_nodes), torch.randn(num_nodes, *width)
    assert torch.equal(g.src(x), x[edge_index[0]])
    assert torch.equal(g.dst(x), x[edge_index[1]])


@nasty()
@pytest.mark.parametrize("reduce", ALL)
def test_edge_to_node(num_nodes: int, edge_index: Tensor, reduce: str) -> None:
    g, e = Graph(edge_index, num_nodes), torch.randn(edge_index.size(1), 3, dtype=torch.float64)
    theirs = pyg_reduce(e, edge_index[1], num_nodes, reduce)
    close(g.reduce(e, reduce), theirs, 1e-12)
    close(getattr(g, reduce)(e), theirs, 1e-12)


@nasty()
def test_softmax_and_degree(num_nodes: int, edge_index: Tensor) -> None:
    g, e = Graph(edge_index, num_nodes), torch.randn(edge_index.size(1), 3)
    close(g.softmax(e), softmax(e, edge_index[1], num_nodes=num_nodes))
    assert torch.equal(g.degree(), torch.bincount(edge_index[1], minlength=num_nodes))


@nasty()
@pytest.mark.parametrize("reduce", [*ALL, "softmax"])
def test_gradients_equal_pyg(num_nodes: int, edge_index: Tensor, reduce: str) -> None:
    g = Graph(edge_index, num_nodes)
    ours = torch.randn(edge_index.size(1), 3, dtype=torch.float64).round(decimals=1).requires_grad_()  # with ties
    theirs = ours.detach().clone().requires_grad_()
    if reduce == "softmax":
        got, expected = g.softmax(ours), softmax(theirs, edge_index[1], num_nodes=num_nodes)
    else:
        got, expected = g.reduce(ours, reduce), pyg_reduce(theirs, edge_index[1], num_nodes, reduce)
    close(got.detach(), expected.detach(), 1e-12)
    weight = torch.randn_like(got)
    (got * weight).sum().backward()
    (expected * weight).sum().backward()
    assert ours.grad is not None and theirs.grad is not None
    close(ours.grad, theirs.grad, 1e-10)


def test_gradient_through_endpoints() -> None:
    num_nodes, edge_index = NASTY["mixed"]
    g, x = Graph(edge_index, num_nodes), torch.randn(num_nodes, 4, requires_grad=True)
    weight = torch.randn(edge_index.size(1), 4)
    (g.src(x) * weight + g.dst(x)).sum().backward()
    expected = torch.zeros(num_nodes, 4).index_add_(0, edge_index[0], weight)
    expected.index_add_(0, edge_index[1], torch.ones_like(weight))
    assert x.grad is not None
    close(x.grad, expected)


@pytest.mark.parametrize("dtype", [torch.int32, torch.int64])
@pytest.mark.parametrize("reduce", BASIC)
def test_bipartite(dtype: torch.dtype, reduce: str) -> None:
    edge_index, num_src, num_dst = small_bipartite(dtype)
    g = Graph(edge_index, (num_src, num_dst))
    x, y = torch.randn(num_src, 2), torch.randn(num_dst, 2)
    message = x[edge_index[0].long()] + y[edge_index[1].long()]
    assert torch.equal(g.src(x) + g.dst(y), message)
    close(g.reduce(message, reduce), scatter(message, edge_index[1].long(), 0, num_dst, reduce))
    wanted = message.clone().requires_grad_()
    close(g.reduce(wanted, reduce).detach(), g.reduce(message, reduce))
    assert "7 -> 4 nodes, 6 edges" in repr(g)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("reduce", [*BASIC, "softmax"])
def test_half_types(dtype: torch.dtype, reduce: str) -> None:
    num_nodes, edge_index = NASTY["random"]
    g, e = Graph(edge_index, num_nodes), torch.randn(edge_index.size(1), 3).to(dtype)
    word = g.softmax if reduce == "softmax" else lambda value: g.reduce(value, reduce)
    expected = word(e.double()).to(dtype)
    close(word(e), expected, 0.02)
    close(word(e.clone().requires_grad_()).detach(), expected, 0.02)


def test_integer_edge_values() -> None:
    num_nodes, edge_index = NASTY["duplicates"]
    g, ones = Graph(edge_index, num_nodes), torch.ones(edge_index.size(1), dtype=torch.int64)
    assert torch.equal(g.sum(ones), g.degree())


def test_strided_rows() -> None:
    num_nodes, edge_index = NASTY["mixed"]
    g, wide = Graph(edge_index.t().contiguous().t(), num_nodes), torch.randn(edge_index.size(1), 8)
    close(g.sum(wide[:, ::2]), scatter(wide[:, ::2], edge_index[1], 0, num_nodes))
    close(g.softmax(wide.t()[:4].t()), softmax(wide[:, :4], edge_index[1], num_nodes=num_nodes))


# Layers from scratch, against PyG's ----------------------------------------------------------------


def gcn(g: Graph, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    scale = (g.degree() + 1).to(x.dtype).rsqrt().view(-1, 1)
    h = scale * (x @ weight)
    return scale * (g.sum(g.src(h)) + h) + bias


def gat(g: Graph, x: Tensor, weight: Tensor, a_src: Tensor, a_dst: Tensor) -> Tensor:
    h = (x @ weight).view(-1, *a_src.shape)  # [N, H, C]
    score = F.leaky_relu(g.src((h * a_src).sum(-1)) + g.dst((h * a_dst).sum(-1)), 0.2)
    return g.sum(g.softmax(score).unsqueeze(-1) * g.src(h)).flatten(1)


def sage(g: Graph, x: Tensor, near: Tensor, own: Tensor, bias: Tensor) -> Tensor:
    return g.mean(g.src(x)) @ near + x @ own + bias


def without_loops(edge_index: Tensor) -> Tensor:
    return edge_index[:, edge_index[0] != edge_index[1]]


Twin = tuple[torch.nn.Module, Callable[..., Tensor], list[Tensor]]


def twins() -> dict[str, Callable[[], Twin]]:
    def gcn_twin() -> Twin:
        conv = gnn.GCNConv(6, 4)
        return conv, gcn, [conv.lin.weight.detach().t().clone(), torch.zeros(4)]

    def gat_twin() -> Twin:
        conv = gnn.GATConv(6, 3, heads=2, add_self_loops=False, bias=False)
        heads = [conv.att_src[0].detach().clone(), conv.att_dst[0].detach().clone()]
        return conv, gat, [conv.lin.weight.detach().t().clone(), *heads]

    def sage_twin() -> Twin:
        conv = gnn.SAGEConv(6, 4)
        weights = [conv.lin_l.weight.detach().t().clone(), conv.lin_r.weight.detach().t().clone()]
        return conv, sage, [*weights, conv.lin_l.bias.detach().clone()]

    return {"gcn": gcn_twin, "gat": gat_twin, "sage": sage_twin}


@pytest.mark.parametrize("name", list(twins()))
@pytest.mark.parametrize("graph", [name for name in NASTY if name != "empty"])
def test_layers_from_scratch(name: str, graph: str) -> None:
    num_nodes, edge_index = NASTY[graph]
    edge_index = without_loops(edge_index) if name == "gcn" else edge_index
    conv, function, weights = twins()[name]()
    x, g = torch.randn(num_nodes, 6), Graph(edge_index, num_nodes)
    expected = conv(x, edge_index)
    close(function(g, x, *weights), expected.detach(), 1e-5)  # by the kernels

    weights = [weight.requires_grad_() for weight in weights]
    ours, theirs = x.clone().requires_grad_(), x.clone().requires_grad_()
    got, expected = function(g, ours, *weights), conv(theirs, edge_index)
    close(got.detach(), expected.detach(), 1e-5)
    goal = torch.randn_like(expected)
    ((got - goal) ** 2).sum().backward()
    ((expected - goal) ** 2).sum().backward()
    assert ours.grad is not None and theirs.grad is not None
    close(ours.grad, theirs.grad, 1e-4)
    own = conv.lin_l.weight if name == "sage" else conv.lin.weight
    assert weights[0].grad is not None and own.grad is not None
    close(weights[0].grad.t(), own.grad, 1e-4)


def test_a_training_step_learns() -> None:
    num_nodes, edge_index = NASTY["random"]
    g, x, y = Graph(edge_index, num_nodes), torch.randn(num_nodes, 6), torch.arange(num_nodes) % 3
    weights = [(0.5 * torch.randn(6, 3)).requires_grad_(), torch.zeros(3, requires_grad=True)]
    optimizer = torch.optim.Adam(weights, lr=0.05)
    losses = []
    for _ in range(30):
        loss = F.cross_entropy(gcn(g, x, *weights), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.95 * losses[0]


@pytest.mark.parametrize("grad", [False, True])
def test_under_torch_compile(grad: bool) -> None:
    """Dynamo records the vocabulary's operators, and plain ones where a gradient is wanted."""
    num_nodes, edge_index = NASTY["mixed"]
    g, x = Graph(edge_index, num_nodes), torch.randn(num_nodes, 6)
    weights = [torch.randn(6, 4), torch.randn(2, 2), torch.randn(2, 2)]
    compiled = torch.compile(gat, backend="aot_eager", fullgraph=True)
    ours, theirs = x.clone().requires_grad_(grad), x.clone().requires_grad_(grad)
    got, expected = compiled(g, ours, *weights), gat(g, theirs, *weights)
    close(got.detach(), expected.detach(), 1e-5)
    if grad:
        got.sum().backward()
        expected.sum().backward()
        assert ours.grad is not None and theirs.grad is not None
        close(ours.grad, theirs.grad, 1e-4)


# What it is made of --------------------------------------------------------------------------------


def test_constructors_agree() -> None:
    num_nodes, edge_index = NASTY["path"]
    x = torch.randn(num_nodes, 2)
    expected = Graph(edge_index, num_nodes).sum(x[edge_index[0]])
    data = Data(edge_index=edge_index, num_nodes=num_nodes)
    matrix = to_scipy_sparse_matrix(edge_index, num_nodes=num_nodes)
    adj_t = torch.sparse_coo_tensor(edge_index.flip(0), torch.ones(edge_index.size(1)), (num_nodes, num_nodes))
    for g in (
        Graph.from_edges(edge_index[0], edge_index[1], num_nodes),
        Graph(EdgeIndex(edge_index, sparse_size=(num_nodes, num_nodes))),
        Graph(data),
        Graph(matrix),
        Graph(adj_t.to_sparse_csr()),
    ):
        assert not g.bipartite and (g.num_nodes, g.num_edges) == (num_nodes, edge_index.size(1))
        close(g.sum(g.src(x)), expected)
    assert Graph(data).edge_index is edge_index


def test_from_hetero() -> None:
    edge_index, num_src, num_dst = small_bipartite()
    data = HeteroData()
    data["author"].x = torch.randn(num_src, 2)
    data["paper"].num_nodes = num_dst
    data["author", "writes", "paper"].edge_index = edge_index
    data["paper", "cites", "paper"].edge_index = torch.tensor([[0, 3], [3, 3]])
    graphs = Graph.from_hetero(data)
    writes, cites = graphs["author", "writes", "paper"], graphs["paper", "cites", "paper"]
    assert writes.bipartite and (writes.num_src, writes.num_dst) == (num_src, num_dst)
    assert not cites.bipartite and cites.num_nodes == num_dst
    assert torch.equal(writes.degree(), torch.tensor([1, 1, 4, 0]))
    with pytest.raises(GraphError, match=r"data\['author', 'writes', 'paper'\].edge_index"):
        edge_index[1, 3] = num_dst
        Graph.from_hetero(data)


def test_reverse() -> None:
    edge_index, num_src, num_dst = small_bipartite()
    g, y = Graph(edge_index, (num_src, num_dst)), torch.randn(num_dst, 2)
    back = g.reverse()
    assert (back.num_src, back.num_dst) == (num_dst, num_src)
    close(back.sum(back.src(y)), scatter(y[edge_index[1]], edge_index[0], 0, num_src))


def test_edges_changed_in_place_are_sorted_again() -> None:
    num_nodes, edge_index = NASTY["path"]
    edge_index = edge_index.clone()
    g, e = Graph(edge_index, num_nodes), torch.randn(edge_index.size(1), 2)
    g.sum(e)
    edge_index[1] = 3
    close(g.sum(e)[3], e.sum(0), 1e-5)
    x = torch.randn(num_nodes, 2)
    for row, word in ((1, lambda: g.sum(e)), (1, lambda: g.dst(x)), (0, lambda: g.src(x))):
        edge_index[row, 7] = 10**9
        with pytest.raises(GraphError, match="Edge 7"):
            word()
        edge_index[row, 7] = 0
        assert word().shape[1:] == (2,)


def test_sorted_once_and_not_pickled() -> None:
    num_nodes, edge_index = NASTY["path"]
    g = Graph(edge_index, num_nodes)
    assert g.csr is g.csr
    for twin in (copy.deepcopy(g), pickle.loads(pickle.dumps(g))):
        assert twin._csr is None
        assert torch.equal(twin.edge_index, edge_index) and twin.num_nodes == num_nodes
    assert g.to("cpu") is g


def test_inference_mode() -> None:
    num_nodes, edge_index = NASTY["path"]
    with torch.inference_mode():
        g = Graph(edge_index.clone(), num_nodes)
        x = torch.randn(num_nodes, 2)
        close(g.sum(g.src(x)), scatter(x[edge_index[0]], edge_index[1], 0, num_nodes))


@pytest.mark.parametrize(
    ("call", "match"),
    [
        (lambda g: g.src(torch.ones(24, 2)), r"src takes one row per node: .* must be 25, got a tensor \[24, 2\]"),
        (lambda g: g.dst(torch.ones(())), r"dst takes one row per node"),
        (lambda g: g.max(torch.ones(25)), r"max takes one row per edge: .* must be 24"),
        (lambda g: g.softmax(torch.ones(25)), "softmax takes one row per edge"),
        (lambda g: g.reduce(torch.ones(24), "median"), "no reduction 'median'; there are sum, mean, max"),
        (lambda g: Graph(g.edge_index), r"A Tensor does not tell how many nodes there are. Pass Graph\(edge_index"),
        (lambda g: Graph(g.edge_index, 24), "Edge 23 .*its destination 24 does not exist"),
        (lambda g: Graph(g.edge_index.t(), 25), r"pass edge_index.t\(\).contiguous"),
        (lambda g: Graph(g.edge_index, (25, 26)).num_nodes, "25 source nodes to 26 other nodes"),
        (lambda g: Graph.from_edges(g.edge_index[0], g.edge_index[1, :3], 25), r"one length \(got \[24\] and \[3\]"),
    ],
    ids=range(10),
)
def test_errors_teach(call: Callable[[Graph], object], match: str) -> None:
    num_nodes, edge_index = NASTY["path"]
    with pytest.raises(GraphError, match=match):
        call(Graph(edge_index, num_nodes))
