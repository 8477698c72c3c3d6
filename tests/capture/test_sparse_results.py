"""Forwards that return sparse matrices: the same matrix comes back, or a CaptureError; the process stays alive."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch_geometric import utils

import pyg_fullgraph as fg
from pyg_fullgraph.errors import CaptureError

N, E = 7, 7  # as many edges as nodes: nothing may be told apart by its size
GENERATOR = torch.Generator().manual_seed(1)
EDGES = torch.unique(torch.randint(0, N, (2, 40), generator=GENERATOR), dim=1)[:, 3 : 3 + E]
X = torch.randn(N, 3, generator=GENERATOR)


def adjacency(x: Tensor, edge_index: Tensor) -> Tensor:
    return torch.sparse_coo_tensor(edge_index, x[edge_index[0], 0], (x.size(0), x.size(0)))


def compressed(x: Tensor, edge_index: Tensor, make: Any) -> Tensor:
    bounds = torch.zeros(x.size(0) + 1, dtype=torch.long)
    bounds[1:] = utils.degree(edge_index[0], x.size(0), torch.long).cumsum(0)
    return make(bounds, edge_index[1], x[edge_index[0], 0], (x.size(0), x.size(0)))


def same(got: Any, want: Any) -> None:
    assert type(got) is type(want)
    if isinstance(want, dict):
        assert list(got) == list(want)
        got, want = list(got.values()), list(want.values())
    if isinstance(want, (tuple, list)):
        assert len(got) == len(want)
        for a, b in zip(got, want, strict=True):
            same(a, b)
        return
    assert (got.layout, got.dtype, got.shape) == (want.layout, want.dtype, want.shape)
    if want.layout == torch.sparse_coo:
        assert got.sparse_dim() == want.sparse_dim()
    dense = [t if t.layout == torch.strided else t.to_dense() for t in (got, want)]
    assert torch.allclose(*dense, rtol=1e-5, atol=1e-6)


FORMS: dict[str, Callable[[Tensor, Tensor], Any]] = {
    "alone": adjacency,
    "coalesced": lambda x, e: adjacency(x, e).coalesce(),
    "beside a product": lambda x, e: (adjacency(x, e) @ x, adjacency(x, e)),
    "in a dict": lambda x, e: {"adj": adjacency(x, e), "x": x + 1},
    "in a list": lambda x, e: [adjacency(x, e), [adjacency(x, e).t(), x]],
    "transposed": lambda x, e: adjacency(x, e).t(),
    "scaled": lambda x, e: 2 * adjacency(x, e),
    "sum of two": lambda x, e: adjacency(x, e) + adjacency(x, e).t(),
    "row sums": lambda x, e: torch.sparse.sum(adjacency(x, e), dim=1),
    "softmax": lambda x, e: torch.sparse.softmax(adjacency(x, e), dim=1),
    "csr": lambda x, e: compressed(x, e, torch.sparse_csr_tensor),
    "csc": lambda x, e: compressed(x, e, torch.sparse_csc_tensor),
    "csr transposed": lambda x, e: compressed(x, e, torch.sparse_csr_tensor).t(),
    "csr of coo": lambda x, e: adjacency(x, e).to_sparse_csr(),
    "csc of coo": lambda x, e: adjacency(x, e).to_sparse_csc(),
    "values in columns": lambda x, e: torch.sparse_coo_tensor(e, x[e[0]], (x.size(0), x.size(0), 3)),
}


@pytest.mark.parametrize("form", FORMS)
def test_comes_back(form: str) -> None:
    engine = fg.compile(FORMS[form])
    same(engine(X, EDGES), FORMS[form](X, EDGES))
    assert engine.verification is not None and engine.verification.how == "subgraph"
    x, edges = torch.cat([X, X + 1]), torch.cat([EDGES, EDGES[:, :4] + N, EDGES[:, :2] + 3], dim=1)
    edges = torch.unique(edges, dim=1)
    same(engine(x, edges), FORMS[form](x, edges))


@pytest.mark.parametrize("name", ["coo", "csr", "csc"])
def test_of_torch_geometric(name: str) -> None:
    function = getattr(utils, f"to_torch_{name}_tensor")
    same(fg.compile(function)(EDGES), function(EDGES))
    weight = torch.rand(E)
    same(fg.compile(function)(EDGES, weight, size=(N, N)), function(EDGES, weight, size=(N, N)))


def test_rows_asked_for() -> None:
    def both(x: Tensor, edge_index: Tensor) -> tuple[Tensor, Tensor]:
        return x * 2, compressed(x, edge_index, torch.sparse_csr_tensor)

    nodes, want = torch.tensor([5, 0, 2]), both(X, EDGES)
    got = fg.compile(both)(X, EDGES, nodes=nodes)
    assert torch.equal(got[0], want[0][nodes]) and got[1].layout == torch.sparse_csr
    assert torch.equal(got[1].to_dense(), want[1].to_dense()[nodes])


def test_order_is_kept() -> None:
    engine = fg.compile(adjacency, order="rcm")
    same(engine(X, EDGES), adjacency(X, EDGES))
    assert "a sparse matrix is returned" in " ".join(engine.notes)


class Product(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, a: Tensor, b: Tensor) -> Tensor:
        return a @ b


@torch.jit.script
def scripted(a: Tensor, b: Tensor) -> Tensor:
    return torch.mm(a, b)


def written(x: Tensor, edge_index: Tensor) -> Tensor:
    y = x.new_zeros(x.size(0), x.size(0))
    y[:] = adjacency(x, edge_index)
    return y


BEHIND: dict[str, Callable[[Tensor, Tensor], Any]] = {
    "autograd": lambda x, e: Product.apply(adjacency(x, e), x),
    "parameter": lambda x, e: torch.nn.Parameter(adjacency(x, e), requires_grad=False) @ x,
    "operator by name": lambda x, e: torch.ops.aten.mm(adjacency(x, e), x),
    "overload by name": lambda x, e: torch.ops.aten.mm.default(adjacency(x, e), x),
    "script": lambda x, e: scripted(adjacency(x, e), x),
    "subclass": lambda x, e: torch.Tensor._make_subclass(torch.nn.Parameter, adjacency(x, e)) @ x,  # type: ignore[attr-defined]
    "vmap": lambda x, e: torch.vmap(lambda row: row.sum())(adjacency(x, e)),
    "stack": lambda x, e: torch.stack([adjacency(x, e)] * 2),
    "written": written,
    "list": lambda x, e: list(adjacency(x, e)),
}


@pytest.mark.parametrize("way", BEHIND)
def test_no_way_into_the_kernels_of_torch(way: str) -> None:
    """What bypasses Python's functions of torch gets the right result, or an error of ours."""
    try:
        got = fg.compile(BEHIND[way])(X, EDGES)
    except CaptureError as error:
        assert "sparse matrix" in str(error) or way == "vmap"
        return
    same(got, BEHIND[way](X, EDGES))
