"""Every form of a graph gives the same edges as the list it was made from."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
import scipy.sparse
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch_geometric.data import Data, HeteroData
from torch_geometric.edge_index import EdgeIndex
from torch_geometric.transforms import ToSparseTensor

from pyg_fullgraph.errors import GraphError
from pyg_fullgraph.graph import Edges, to_edges
from pyg_fullgraph.graph.convert import is_sparse_adjacency
from tests.graphs import nasty

pytestmark = pytest.mark.filterwarnings("ignore:Sparse")


class FakeSparseTensor:
    """The interface of ``torch_sparse.SparseTensor`` that matters here (the package is not a dependency)."""

    def __init__(self, row: Tensor, col: Tensor, value: Tensor | None, sizes: tuple[int, int]) -> None:
        self._coo, self._sizes = (row, col, value), sizes

    def coo(self) -> tuple[Tensor, Tensor, Tensor | None]:
        return self._coo

    def sparse_sizes(self) -> tuple[int, int]:
        return self._sizes


def bag(edges: Edges) -> Counter:
    """The edges with their values, without their order."""
    value = [None] * edges.edge_index.size(1) if edges.value is None else edges.value.tolist()
    return Counter(zip(edges.edge_index[0].tolist(), edges.edge_index[1].tolist(), map(str, value)))


def expected(edge_index: Tensor, value: Tensor | None) -> Counter:
    return bag(Edges(edge_index, value, None))


def adjacency(layout: str, edge_index: Tensor, value: Tensor, num_src: int, num_dst: int) -> Any:
    """The transposed adjacency matrix (row = destination) in one of the forms."""
    src, dst = edge_index
    if layout == "SparseTensor":
        return FakeSparseTensor(dst, src, value, (num_dst, num_src))
    if layout == "coo":
        return torch.sparse_coo_tensor(edge_index.flip(0), value, (num_dst, num_src))
    # torch converts no duplicates, so the compressed forms are put together by hand.
    outer, inner, count = (dst, src, num_dst) if layout == "csr" else (src, dst, num_src)
    order = torch.argsort(outer * max(num_src, num_dst) + inner, stable=True)
    pointer = torch.cat([torch.zeros(1, dtype=torch.long), torch.bincount(outer, minlength=count).cumsum(0)])
    build = torch.sparse_csr_tensor if layout == "csr" else torch.sparse_csc_tensor
    return build(pointer, inner[order], value[order], (num_dst, num_src), check_invariants=False)


LAYOUTS = ("coo", "csr", "csc", "SparseTensor")


@nasty()
@pytest.mark.parametrize("layout", LAYOUTS)
def test_adjacency(num_nodes: int, edge_index: Tensor, layout: str) -> None:
    value = torch.arange(1.0, edge_index.size(1) + 1)
    edges = to_edges(adjacency(layout, edge_index, value, num_nodes, num_nodes))
    assert bag(edges) == expected(edge_index, value)
    assert edges.size == (num_nodes, num_nodes)


@settings(deadline=None, max_examples=40)
@given(st.data(), st.sampled_from(LAYOUTS), st.booleans())
def test_adjacency_of_two_types(data: st.DataObject, layout: str, transposed: bool) -> None:
    num_src, num_dst = data.draw(st.integers(1, 6)), data.draw(st.integers(1, 6))
    edge = st.tuples(st.integers(0, num_src - 1), st.integers(0, num_dst - 1))
    edge_index = torch.tensor(data.draw(st.lists(edge, max_size=15)), dtype=torch.int64).view(-1, 2).t()
    value = torch.arange(1.0, edge_index.size(1) + 1)
    edges = to_edges(adjacency(layout, edge_index, value, num_src, num_dst), transposed=transposed)
    if transposed:
        assert bag(edges) == expected(edge_index, value)
        assert edges.size == (num_src, num_dst)
    else:
        assert bag(edges) == expected(edge_index.flip(0), value)
        assert edges.size == (num_dst, num_src)


def test_values_with_columns() -> None:
    index, value = torch.tensor([[1, 0], [2, 1]]), torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    edges = to_edges(torch.sparse_coo_tensor(index, value, (3, 3, 2)))
    assert edges.edge_index.tolist() == [[2, 1], [1, 0]]
    assert torch.equal(edges.value, value)


@pytest.mark.parametrize("form", ["coo", "csr", "csc", "lil", "dok"])
@pytest.mark.parametrize("transposed", [None, True, False])
def test_scipy(form: str, transposed: bool | None) -> None:
    """PyG reads the rows of a SciPy matrix as sources; ``adj_t`` says otherwise."""
    matrix = scipy.sparse.coo_matrix(([1.0, 2.0, 3.0], ([0, 0, 2], [1, 2, 3])), shape=(3, 4)).asformat(form)
    edges = to_edges(matrix, transposed=transposed)
    rows_are_sources = expected(torch.tensor([[0, 0, 2], [1, 2, 3]]), torch.tensor([1.0, 2.0, 3.0]))
    if transposed:
        assert bag(edges) == expected(torch.tensor([[1, 2, 3], [0, 0, 2]]), torch.tensor([1.0, 2.0, 3.0]))
        assert edges.size == (4, 3)
    else:
        assert bag(edges) == rows_are_sources
        assert edges.size == (3, 4)


@nasty()
def test_edge_list_and_edge_index(num_nodes: int, edge_index: Tensor) -> None:
    plain = to_edges(edge_index)
    assert plain.edge_index is edge_index
    assert (plain.value, plain.size) == (None, None)
    wrapped = to_edges(EdgeIndex(edge_index, sparse_size=(num_nodes, num_nodes)))
    assert type(wrapped.edge_index) is Tensor
    assert torch.equal(wrapped.edge_index, edge_index)
    assert wrapped.size == (num_nodes, num_nodes)
    assert to_edges(EdgeIndex(edge_index)).size is None


def test_data() -> None:
    edge_index, weight, attr = torch.tensor([[0, 1], [1, 2]]), torch.rand(2), torch.rand(2, 3)
    data = Data(edge_index=edge_index, num_nodes=5)
    assert to_edges(data) == Edges(edge_index, None, (5, 5))
    data.edge_attr = attr
    assert to_edges(data).value is attr
    data.edge_weight = weight
    assert to_edges(data).value is weight


@pytest.mark.parametrize("layout", [torch.sparse_csr, torch.sparse_coo])
def test_data_with_adj_t_of_pyg(layout: torch.layout) -> None:
    edge_index, weight = torch.tensor([[0, 1, 4, 4], [1, 2, 0, 1]]), torch.tensor([1.0, 2.0, 3.0, 4.0])
    data = Data(edge_index=edge_index, edge_weight=weight, num_nodes=5)
    converted = ToSparseTensor(attr="edge_weight", layout=layout)(data.clone())
    edges = to_edges(converted)
    assert bag(edges) == expected(edge_index, weight)
    assert edges.size == (5, 5)


def test_scipy_in_adj_t_is_transposed() -> None:
    data = Data(adj_t=scipy.sparse.csr_matrix(([1.0], ([0], [2])), shape=(3, 3)), num_nodes=3)
    assert to_edges(data).edge_index.tolist() == [[2], [0]]


def test_errors_teach() -> None:
    with pytest.raises(GraphError, match=r"'edge_index' is a builtins.str, which is not a graph.*Pass edge_index"):
        to_edges("graph")
    with pytest.raises(GraphError, match="neither 'edge_index' nor 'adj_t'"):
        to_edges(Data(x=torch.ones(3, 1)))
    with pytest.raises(GraphError, match="two sparse dimensions"):
        to_edges(torch.zeros(2, 2, 2).to_sparse())
    with pytest.raises(GraphError, match="int64 or int32"):
        to_edges(torch.zeros(2, 4))
    with pytest.raises(GraphError, match="holds blocks"):
        to_edges(torch.eye(4).to_sparse_bsr((2, 2)))
    with pytest.raises(GraphError, match="several edge types"):
        to_edges(HeteroData({("a", "to", "b"): {"edge_index": torch.zeros(2, 1, dtype=torch.long)}}))


def test_is_sparse_adjacency() -> None:
    assert is_sparse_adjacency(torch.eye(3).to_sparse_csr())
    assert not is_sparse_adjacency(torch.zeros(2, 4, dtype=torch.long))
    assert not is_sparse_adjacency(EdgeIndex(torch.zeros(2, 4, dtype=torch.long)))
