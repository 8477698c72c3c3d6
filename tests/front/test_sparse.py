"""Sparse adjacency matrices in place of edge_index.

What forward makes of a matrix is captured as it is (the tests with `Engine`). Where that cannot be, and for a
`SparseTensor` without its package, layers are handed edges: exact where PyG gives a matrix the meaning of edges, else
refused (the tests with `NoMatrices`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch_geometric.data import Data
from torch_geometric.nn import (
    APPNP,
    GATConv,
    GCNConv,
    GINConv,
    GraphConv,
    LEConv,
    MessagePassing,
    SAGEConv,
    SGConv,
    TAGConv,
    TransformerConv,
)
from torch_geometric.nn.models import GCN, GraphSAGE
from torch_geometric.utils import coalesce, remove_self_loops

from pyg_fullgraph.engine import Engine
from pyg_fullgraph.errors import CaptureError, InputError
from pyg_fullgraph.front.run import Options, prepare, run
from pyg_fullgraph.front.sparse import read_adjacency
from tests.front.front_doubles import COLUMNS, NUM_NODES, NoMatrices

LAYOUTS = ("coo", "csr", "csc")


def edges(loops: bool = False) -> Tensor:
    """A coalesced random graph, without self-loops unless asked for."""
    found = coalesce(torch.randint(0, NUM_NODES, (2, 150), generator=torch.Generator().manual_seed(3)))
    found = remove_self_loops(found)[0]
    return coalesce(torch.cat([found, torch.tensor([[1, 4], [1, 4]])], dim=1)) if loops else found


def matrix(edge_index: Tensor, value: Tensor, layout: str) -> Tensor:
    """adj_t, row = destination."""
    coo = torch.sparse_coo_tensor(edge_index.flip(0), value, (NUM_NODES, NUM_NODES)).coalesce()
    return {"coo": coo, "csr": coo.to_sparse_csr(), "csc": coo.to_sparse_csc()}[layout]


def infer(model: torch.nn.Module, *args: Any, **options: Any) -> Any:
    return run(model, args, {}, Options(**options), NoMatrices)


def exact(model: torch.nn.Module, *args: Any, expected: Any = None, **options: Any) -> None:
    """By the engine, with everything verified, what forward itself gives."""
    with torch.no_grad():
        expected = model(*args) if expected is None else expected
    close(run(model, args, {}, Options(verify="always", **options), Engine), expected)


def close(ours: Tensor, theirs: Tensor) -> None:
    """The sums run in another order in PyG's sparse product."""
    assert ours.shape == theirs.shape
    assert (ours - theirs).abs().max() <= 1e-5 * theirs.abs().max()


LAYERS: dict[str, Callable[[], torch.nn.Module]] = {
    "GCNConv": lambda: GCNConv(COLUMNS, 3),
    "GCNConv without norm": lambda: GCNConv(COLUMNS, 3, normalize=False),
    "GraphConv": lambda: GraphConv(COLUMNS, 3),
    "TAGConv": lambda: TAGConv(COLUMNS, 3, K=2),
    "SGConv": lambda: SGConv(COLUMNS, 3, K=2),
    "APPNP": lambda: APPNP(3, 0.1),
    "LEConv": lambda: LEConv(COLUMNS, 3),
    "GATConv": lambda: GATConv(COLUMNS, 3, heads=2),
    "TransformerConv": lambda: TransformerConv(COLUMNS, 3),
}
UNWEIGHTED: dict[str, Callable[[], torch.nn.Module]] = {
    "SAGEConv": lambda: SAGEConv(COLUMNS, 3),
    "GINConv": lambda: GINConv(torch.nn.Linear(COLUMNS, 3)),
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("weighted", [False, True], ids=["ones", "weights"])
@pytest.mark.parametrize("layer", [*LAYERS, *UNWEIGHTED])
def test_layers_equal_pyg_given_the_matrix(layer: str, weighted: bool, layout: str) -> None:
    model = {**LAYERS, **UNWEIGHTED}[layer]().eval()
    edge_index = edges()
    value = torch.rand(edge_index.size(1)) + 0.5 if weighted else torch.ones(edge_index.size(1))
    adj_t = matrix(edge_index, value, layout)
    x = torch.randn(NUM_NODES, COLUMNS)
    if weighted and layer in UNWEIGHTED:
        with pytest.raises(InputError, match=f"{layer} multiplies by the values .*takes no 'edge_weight'"):
            prepare(model, (x, adj_t), {}, as_edges=True)
        return
    with torch.no_grad():  # many of PyG's own layers refuse CSC
        expected = model(x, adj_t.to_sparse_csr() if layout == "csc" else adj_t)
    close(infer(model, x, adj_t), expected)
    close(infer(model, Data(x=x, adj_t=adj_t)), expected)


@pytest.mark.parametrize("layout", ["coo", "csr"])
@pytest.mark.parametrize("layer", [*LAYERS, *UNWEIGHTED])
def test_layers_are_captured_on_the_matrix(layer: str, layout: str) -> None:
    """Weights and self-loops; attention with self-loops goes by edges."""
    model, edge_index = {**LAYERS, **UNWEIGHTED}[layer]().eval(), edges(loops=True)
    exact(model, torch.randn(NUM_NODES, COLUMNS), matrix(edge_index, torch.rand(edge_index.size(1)) + 0.5, layout))


class Multiplies(torch.nn.Module):
    """Features and matrices by any name, at any place."""

    def __init__(self, forward: Callable[..., Tensor]) -> None:
        super().__init__()
        self.w, self.forward = torch.nn.Parameter(torch.randn(COLUMNS, 4)), forward.__get__(self)


def by_x_adj(self: Any, x: Tensor, adj: Tensor) -> Tensor:
    return torch.spmm(adj, torch.mm(x, self.w))


def by_sparse_mm(self: Any, x: Tensor, adj: Tensor) -> Tensor:
    return torch.sparse.mm(adj, torch.sparse.mm(x, self.w))


def by_other_names(self: Any, feat: Tensor, laplacian: Tensor) -> Tensor:
    return laplacian.matmul(feat @ self.w)


def by_adj_first(self: Any, adj: Tensor, x: Tensor) -> Tensor:
    return adj @ (x @ self.w)


def by_both(self: Any, x: Tensor, edge_index: Tensor, adj: Tensor) -> Tensor:
    h = x @ self.w
    return adj @ h + torch.zeros_like(h).index_add(0, edge_index[1], h[edge_index[0]])


def by_list(self: Any, x: Tensor, adjs: list[Tensor]) -> Tensor:
    return torch.stack([adj @ (x @ self.w) for adj in adjs]).sum(0)


def by_data(self: Any, data: Data) -> Tensor:
    return data.adj_t @ (data.x @ self.w) + data.other.t() @ (data.x @ self.w)


def call_of(name: str) -> tuple[Callable[..., Tensor], tuple[Any, ...], tuple[Any, ...]]:
    """A forward, the arguments of `inference`, and those of the forward."""
    x, edge_index = torch.randn(NUM_NODES, COLUMNS), edges()
    adj = matrix(edge_index, torch.rand(edge_index.size(1)), "coo")
    few = torch.where(torch.rand(x.shape) < 0.3, x, 0.0).to_sparse()
    return {
        "x, adj": (by_x_adj, (x, adj), (x, adj)),
        "the other way round": (by_x_adj, (adj, x), (x, adj)),
        "csr": (by_x_adj, (x, adj.to_sparse_csr()), (x, adj)),
        "sparse features": (by_x_adj, (few, adj), (few, adj)),
        "sparse features, sparse.mm": (by_sparse_mm, (few, adj), (few, adj)),
        "dense features, sparse.mm": (by_sparse_mm, (x, adj), (x, adj)),
        "other names": (by_other_names, (x, adj), (x, adj)),
        "adj first": (by_adj_first, (x, adj), (adj, x)),
        "edges and a matrix": (by_both, (x, edge_index, adj), (x, edge_index, adj)),
        "list": (by_list, (x, [adj, adj.to_sparse_csr()]), (x, [adj, adj])),
        "of data": (by_x_adj, (Data(x=x, adj=adj),), (x, adj)),
        "whole data": (by_data, (Data(x=x, adj_t=adj, other=adj.to_sparse_csr()),) * 1, ()),
    }[name]


CALLS = ["x, adj", "the other way round", "csr", "sparse features", "sparse features, sparse.mm", "adj first", "list"]
CALLS += ["dense features, sparse.mm", "other names", "edges and a matrix", "of data", "whole data"]


@pytest.mark.parametrize("name", CALLS)
def test_a_forward_that_multiplies(name: str) -> None:
    function, given, taken = call_of(name)
    model = Multiplies(function).eval()
    with torch.no_grad():
        expected = model(*(taken or given))
    exact(model, *given, expected=expected)


def test_neither_captured_nor_edges() -> None:
    """One message, about forward's own line; and its own result where that was asked for."""
    model = Multiplies(lambda self, x, adj: adj @ adj @ (x @ self.w)).eval()
    _, given, _ = call_of("x, adj")
    with pytest.raises(CaptureError, match=r"product with another sparse matrix.*test_sparse.py"):
        exact(model, *given)
    exact(model, *given, fallback="eager")


class TakesAdjT(torch.nn.Module):
    """The style of the OGB examples."""

    def __init__(self) -> None:
        super().__init__()
        self.convs = torch.nn.ModuleList([GCNConv(COLUMNS, 8), GraphConv(8, 3)])

    def forward(self, x: Tensor, adj_t: Any) -> Tensor:
        return self.convs[1](self.convs[0](x, adj_t).relu(), adj_t)


@pytest.mark.parametrize("layout", ["coo", "csr"])
def test_forward_x_adj_t(layout: str) -> None:
    model = TakesAdjT().eval()
    edge_index = edges()
    adj_t = matrix(edge_index, torch.rand(edge_index.size(1)), layout)
    x = torch.randn(NUM_NODES, COLUMNS)
    expected = model(x, adj_t).detach()
    close(infer(model, Data(x=x, adj_t=adj_t)), expected)
    close(infer(model, Data(x=x, edge_index=edge_index[:, :3], adj_t=adj_t)), expected)
    close(infer(model, Data(x=x, edge_index=edge_index)), model(x, edge_index).detach())


def test_basic_gnn_with_adj_t() -> None:
    edge_index = edges()
    adj_t = matrix(edge_index, torch.rand(edge_index.size(1)), "csr")
    x = torch.randn(NUM_NODES, COLUMNS)
    model = GCN(COLUMNS, 8, 2, 3).eval()
    close(infer(model, Data(x=x, adj_t=adj_t)), model(x, adj_t).detach())


def test_forward_data_with_adj_t() -> None:
    class Net(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = GCNConv(COLUMNS, 3)

        def forward(self, data: Data) -> Tensor:
            return self.conv(data.x, data.adj_t)

    model = Net().eval()
    edge_index = edges()
    data = Data(x=torch.randn(NUM_NODES, COLUMNS), adj_t=matrix(edge_index, torch.rand(edge_index.size(1)), "csr"))
    expected = model(data).detach()
    close(infer(model, data), expected)
    assert data.adj_t.layout == torch.sparse_csr


def test_the_model_is_left_without_hooks() -> None:
    model = TakesAdjT().eval()
    edge_index = edges()
    infer(model, torch.randn(NUM_NODES, COLUMNS), matrix(edge_index, torch.rand(edge_index.size(1)), "csr"))
    assert not any(module._forward_pre_hooks for module in model.modules())


def test_explicit_weights_win_over_values() -> None:
    class Net(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = GraphConv(COLUMNS, 3)

        def forward(self, x: Tensor, adj_t: Any, edge_weight: Tensor) -> Tensor:
            return self.conv(x, adj_t, edge_weight)

    model = Net().eval()
    edge_index = edges()
    adj_t = matrix(edge_index, torch.rand(edge_index.size(1)), "csr")
    x, weight = torch.randn(NUM_NODES, COLUMNS), torch.rand(edge_index.size(1))
    order = read_adjacency(adj_t, "adj_t").edge_index
    found = run(model, (x, adj_t), {"edge_weight": weight}, Options(verify=False), NoMatrices)
    close(found, model(x, order, weight).detach())


@pytest.mark.parametrize("kind", ["coo", "csr"])
def test_self_loops_under_gcn_norm_are_refused(kind: str) -> None:
    edge_index = edges(loops=True)
    adj_t = matrix(edge_index, torch.ones(edge_index.size(1)), kind)
    x = torch.randn(NUM_NODES, COLUMNS)
    with pytest.raises(InputError, match=r"has 2 self-loops, and GCNConv 'convs.0' adds its own"):
        prepare(GCN(COLUMNS, 8, 2, 3).eval(), (x, adj_t), {}, as_edges=True)
    with pytest.raises(CaptureError, match="no matrices here"):  # the first reason is the one to tell
        infer(GCN(COLUMNS, 8, 2, 3).eval(), x, adj_t)
    exact(GCN(COLUMNS, 8, 2, 3).eval(), x, adj_t)
    for model in (
        GraphSAGE(COLUMNS, 8, 2, 3).eval(),
        GATConv(COLUMNS, 3).eval(),
        GCNConv(COLUMNS, 3, normalize=False).eval(),
    ):
        close(infer(model, x, adj_t), model(x, adj_t).detach())


def test_uncoalesced_matrices_are_refused() -> None:
    adj_t = torch.sparse_coo_tensor(torch.tensor([[0, 0], [1, 1]]), torch.ones(2), (NUM_NODES, NUM_NODES))
    x = torch.randn(NUM_NODES, COLUMNS)
    with pytest.raises(InputError, match=r"duplicate entries.*coalesce\(\)"):
        prepare(GraphConv(COLUMNS, 3).eval(), (x, adj_t), {}, as_edges=True)
    exact(GraphConv(COLUMNS, 3).eval(), x, adj_t)


class SparseTensor:
    """As much of torch_sparse.SparseTensor as is asked for, without the package."""

    def __init__(self, row: Tensor, col: Tensor, value: Tensor | None, sparse_sizes: tuple[int, int]) -> None:
        self._parts, self._sizes = (row, col, value), sparse_sizes

    def coo(self) -> tuple[Tensor, Tensor, Tensor | None]:
        return self._parts

    def sparse_sizes(self) -> tuple[int, int]:
        return self._sizes


@pytest.mark.parametrize("weighted", [False, True], ids=["no values", "values"])
@pytest.mark.parametrize("layer", [*LAYERS, *UNWEIGHTED])
def test_sparse_tensor_values_weight_or_are_dropped(layer: str, weighted: bool) -> None:
    """PyG's own path needs torch-sparse; its meaning is edge_weight=value, and no weights for SAGE and
    GIN."""
    model = {**LAYERS, **UNWEIGHTED}[layer]().eval()
    edge_index = edges()
    value = torch.rand(edge_index.size(1)) if weighted else None
    adj_t = SparseTensor(edge_index[1], edge_index[0], value, (NUM_NODES, NUM_NODES))
    x = torch.randn(NUM_NODES, COLUMNS)
    with torch.no_grad():
        weightless = layer in UNWEIGHTED or layer in ("GATConv", "TransformerConv")
        expected = model(x, edge_index) if weightless else model(x, edge_index, value)
    assert torch.equal(infer(model, x, adj_t, verify=False), expected)


def test_a_layer_with_values_hidden_in_its_message_is_refused() -> None:
    class Hidden(MessagePassing):
        def forward(self, x: Tensor, edge_index: Any) -> Tensor:
            return self.propagate(edge_index, x=x)

        def message(self, x_j: Tensor, edge_weight: Tensor) -> Tensor:
            return edge_weight.view(-1, 1) * x_j

    edge_index = edges()
    adj_t = matrix(edge_index, torch.ones(edge_index.size(1)), "csr")
    x = torch.randn(NUM_NODES, COLUMNS)
    with pytest.raises(InputError, match="Hidden multiplies by the values"):
        prepare(Hidden().eval(), (x, adj_t), {}, as_edges=True)


def test_scipy_matrices(data: Data) -> None:
    scipy = pytest.importorskip("scipy.sparse")
    edge_index = edges()
    value = torch.rand(edge_index.size(1))
    weighted = scipy.coo_matrix((value.numpy(), edge_index.numpy()), shape=(NUM_NODES, NUM_NODES))
    model = GCN(COLUMNS, 8, 2, 3).eval()
    assert torch.equal(infer(model, data.x, weighted), model(data.x, edge_index, edge_weight=value).detach())
    with pytest.raises(InputError, match="takes no 'edge_weight'"):
        infer(TakesAdjT().eval(), data.x, weighted)
