"""`CSR` against naive Python, element by element."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from pyg_fullgraph.errors import GraphError
from pyg_fullgraph.graph import CSR
from pyg_fullgraph.graph import csr as csr_module
from tests.graphs import NASTY, nasty


@st.composite
def edge_lists(draw: st.DrawFn) -> tuple[int, int, list[tuple[int, int]]]:
    """Source and destination counts, and edges between them."""
    num_src = draw(st.integers(1, 12))
    num_dst = draw(st.integers(1, 12))
    edge = st.tuples(st.integers(0, num_src - 1), st.integers(0, num_dst - 1))
    return num_src, num_dst, draw(st.lists(edge, max_size=40))


def as_tensor(edges: list[tuple[int, int]], dtype: torch.dtype = torch.int64) -> Tensor:
    return torch.tensor(edges, dtype=dtype).view(-1, 2).t()


def rows_of(graph: CSR) -> list[list[tuple[int, int]]]:
    """(source, original edge) of every destination's in-edges."""
    pointer = (graph.rowptr - graph.rowptr[0]).tolist()
    pairs = list(zip(graph.src.tolist(), graph.perm.tolist()))
    return [pairs[start:stop] for start, stop in pairwise(pointer)]


def naive_rows(edges: list[tuple[int, int]], num_dst: int) -> list[list[tuple[int, int]]]:
    rows: list[list[tuple[int, int]]] = [[] for _ in range(num_dst)]
    for number, (src, dst) in enumerate(edges):
        rows[dst].append((src, number))
    return rows


@settings(deadline=None, max_examples=60)
@given(edge_lists(), st.sampled_from([torch.int32, torch.int64]))
def test_from_edges_equals_naive(case: tuple[int, int, list[tuple[int, int]]], dtype: torch.dtype) -> None:
    num_src, num_dst, edges = case
    src, dst = as_tensor(edges, dtype)
    graph = CSR.from_edges(src, dst, num_src, num_dst)
    assert rows_of(graph) == naive_rows(edges, num_dst)
    assert graph.rowptr.dtype == torch.int64
    assert graph.src.dtype == torch.int32
    assert graph.degree().tolist() == [len(row) for row in naive_rows(edges, num_dst)]


@nasty()
def test_nasty_rows(num_nodes: int, edge_index: Tensor) -> None:
    graph = CSR.from_edges(edge_index[0], edge_index[1], num_nodes)
    assert rows_of(graph) == naive_rows(list(map(tuple, edge_index.t().tolist())), num_nodes)
    assert torch.equal(graph.edge_index(), edge_index[:, graph.perm.long()])
    assert graph.num_edges == edge_index.size(1)


@nasty()
def test_edge_values_and_back(num_nodes: int, edge_index: Tensor) -> None:
    graph = CSR.from_edges(edge_index[0], edge_index[1], num_nodes)
    value = torch.arange(edge_index.size(1) * 2).view(-1, 2)
    sorted_value = graph.edge_values(value)
    assert torch.equal(sorted_value, value[graph.perm.long()])
    assert torch.equal(graph.original_order(sorted_value), value)


@nasty()
@pytest.mark.parametrize("share", [0.0, 0.4, 1.0])
def test_rows_view(num_nodes: int, edge_index: Tensor, share: float) -> None:
    graph = CSR.from_edges(edge_index[0], edge_index[1], num_nodes)
    start, stop = int(num_nodes * share * 0.5), num_nodes - int(num_nodes * share * 0.3)
    part = graph.rows(start, stop)
    assert rows_of(part) == rows_of(graph)[start:stop]
    assert rows_of(part.rows(0, part.num_dst // 2)) == rows_of(graph)[start:stop][: part.num_dst // 2]
    assert torch.equal(part.dst().long() + start, graph.dst().long()[int(graph.rowptr[start]) :][: part.num_edges])
    if part.num_edges > 0:
        assert part.src.untyped_storage().data_ptr() == graph.src.untyped_storage().data_ptr()


@nasty()
def test_reverse(num_nodes: int, edge_index: Tensor) -> None:
    graph = CSR.from_edges(edge_index[0], edge_index[1], num_nodes)
    reverse = graph.reverse()
    edges = list(map(tuple, edge_index.t().tolist()))
    expected = [sorted((dst, e) for e, (src, dst) in enumerate(edges) if src == node) for node in range(num_nodes)]
    assert rows_of(reverse) == expected


def test_reverse_of_two_node_types() -> None:
    graph = CSR.from_edges(torch.tensor([3, 0, 3]), torch.tensor([1, 0, 0]), 5, 2)
    reverse = graph.reverse()
    assert (reverse.num_src, reverse.num_dst) == (2, 5)
    assert rows_of(reverse) == [[(0, 1)], [], [], [(0, 2), (1, 0)], []]


@settings(deadline=None, max_examples=60)
@given(edge_lists(), st.data())
def test_subgraph_rows_equals_naive(case: tuple[int, int, list[tuple[int, int]]], data: st.DataObject) -> None:
    num_src, num_dst, edges = case
    nodes = data.draw(st.lists(st.integers(0, num_dst - 1), max_size=15))
    src, dst = as_tensor(edges)
    part = CSR.from_edges(src, dst, num_src, num_dst).subgraph_rows(torch.tensor(nodes, dtype=torch.int64))
    rows = naive_rows(edges, num_dst)
    assert rows_of(part) == [rows[node] for node in nodes]
    assert (part.num_src, part.num_dst) == (num_src, len(nodes))


def test_subgraph_rows_of_a_view() -> None:
    num_nodes, edge_index = NASTY["random"]
    view = CSR.from_edges(edge_index[0], edge_index[1], num_nodes).rows(50, 150)
    nodes = torch.tensor([99, 0, 7, 7])
    assert rows_of(view.subgraph_rows(nodes)) == [rows_of(view)[node] for node in nodes.tolist()]


def naive_k_hop(
    num_nodes: int, edges: list[tuple[int, int]], nodes: list[int], hops: int
) -> tuple[list[int], list[int]]:
    order = sorted(set(nodes))
    counts = [len(order)]
    frontier = set(order)
    for _ in range(hops):
        frontier = {src for src, dst in edges if dst in frontier} - set(order)
        order += sorted(frontier)
        counts.append(len(order))
    return order, counts


@settings(deadline=None, max_examples=80)
@given(edge_lists(), st.integers(0, 4), st.data())
def test_k_hop_equals_naive(case: tuple[int, int, list[tuple[int, int]]], hops: int, data: st.DataObject) -> None:
    num_nodes = max(case[:2])
    nodes = data.draw(st.lists(st.integers(0, num_nodes - 1), max_size=6))
    src, dst = as_tensor(case[2])
    graph = CSR.from_edges(src, dst, num_nodes)
    found = graph.k_hop(torch.tensor(nodes, dtype=torch.int64), hops)
    order, counts = naive_k_hop(num_nodes, case[2], nodes, hops)
    assert found.nodes.tolist() == order
    assert list(found.counts) == counts
    assert found.nodes[found.position].tolist() == nodes


@nasty()
@pytest.mark.parametrize("step", [1, 7, 1 << 22])
def test_k_hop_in_steps(num_nodes: int, edge_index: Tensor, step: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(csr_module, "EDGES_PER_STEP", step)
    graph = CSR.from_edges(edge_index[0], edge_index[1], num_nodes)
    nodes = list(range(0, num_nodes, 6))
    found = graph.k_hop(torch.tensor(nodes, dtype=torch.int64), 3)
    order, counts = naive_k_hop(num_nodes, list(map(tuple, edge_index.t().tolist())), nodes, 3)
    assert found.nodes.tolist() == order
    assert list(found.counts) == counts


@nasty(skip=("empty",))
def test_k_hop_and_subgraph_reproduce_propagation(num_nodes: int, edge_index: Tensor) -> None:
    """Two rounds of summation on the restricted graph equal the same rows of the whole graph."""
    graph = CSR.from_edges(edge_index[0], edge_index[1], num_nodes)
    asked = torch.tensor([num_nodes - 1, 0, num_nodes - 1])
    found = graph.k_hop(asked, 2)
    x = torch.arange(1.0, num_nodes + 1, dtype=torch.float64)

    def propagate(g: CSR, value: Tensor) -> Tensor:
        return torch.zeros(g.num_dst, dtype=value.dtype).index_add_(0, g.dst().long(), value[g.src.long()])

    value = x[found.nodes]
    for hop in (1, 0):
        rows = found.nodes[: found.counts[hop]]
        value = propagate(graph.subgraph_rows(rows, found.nodes[: found.counts[hop + 1]]), value)
    assert torch.equal(value[found.position], propagate(graph, propagate(graph, x))[asked])


def test_k_hop_takes_a_mask() -> None:
    num_nodes, edge_index = NASTY["path"]
    graph = CSR.from_edges(edge_index[0], edge_index[1], num_nodes)
    mask = torch.zeros(num_nodes, dtype=torch.bool)
    mask[[4, 20]] = True
    found = graph.k_hop(mask, 1)
    assert found.nodes.tolist() == [4, 20, 3, 19]
    assert found.position.tolist() == [0, 1]


def test_errors_teach() -> None:
    num_nodes, edge_index = NASTY["path"]
    graph = CSR.from_edges(edge_index[0], edge_index[1], num_nodes)
    with pytest.raises(GraphError, match=r"asks for node 25 \(entry 1\).*numbered 0 to 24"):
        graph.k_hop(torch.tensor([3, 25]), 1)
    with pytest.raises(GraphError, match=r"mask must have shape \[25\]"):
        graph.k_hop(torch.ones(4, dtype=torch.bool), 1)
    with pytest.raises(GraphError, match="at least 0"):
        graph.k_hop(torch.tensor([3]), -1)
    with pytest.raises(GraphError, match="one node type"):
        CSR.from_edges(edge_index[0], edge_index[1], num_nodes, num_nodes + 1).k_hop(torch.tensor([3]), 1)
    with pytest.raises(GraphError, match="Source 6 of a kept edge is not among"):
        graph.subgraph_rows(torch.tensor([7]), torch.tensor([7]))
    with pytest.raises(GraphError, match="Rows 3 to 26 do not exist"):
        graph.rows(3, 26)
    with pytest.raises(GraphError, match="Edge values have 3 rows, but the graph has 24 edges"):
        graph.edge_values(torch.ones(3))
    with pytest.raises(GraphError, match=r"Edge 1 of 'data.edge_index' goes from 1 to 9"):
        CSR.from_edges(torch.tensor([0, 1]), torch.tensor([0, 9]), 3, name="data.edge_index")


def test_sizes_and_text() -> None:
    num_nodes, edge_index = NASTY["random"]
    graph = CSR.from_edges(edge_index[0], edge_index[1], num_nodes)
    tensors = (graph.rowptr, graph.src, graph.perm)
    assert graph.nbytes == sum(t.numel() * t.element_size() for t in tensors)
    assert repr(graph).startswith("CSR(200 nodes, 1,500 edges, mean degree 7.5")
    assert "5 -> 2 nodes" in repr(CSR.from_edges(torch.tensor([4]), torch.tensor([1]), 5, 2))


def test_strided_edges() -> None:
    """Edges as columns of a [E, 2] array, the form of many files."""
    num_nodes, edge_index = NASTY["mixed"]
    pairs = edge_index.t().contiguous()
    graph = CSR.from_edges(pairs[:, 0], pairs[:, 1], num_nodes)
    assert rows_of(graph) == rows_of(CSR.from_edges(edge_index[0], edge_index[1], num_nodes))
