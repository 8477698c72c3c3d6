"""Every failure names the first bad edge, the valid range and a remedy."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from pyg_fullgraph.errors import GraphError
from pyg_fullgraph.graph.validate import check_edge_index, check_endpoints, check_nodes
from tests.graphs import nasty


@nasty()
def test_nasty_graphs_are_valid(num_nodes: int, edge_index: Tensor) -> None:
    check_edge_index(edge_index, num_nodes)
    check_edge_index(edge_index.int(), num_nodes, num_nodes + 3)


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(-2, 6), st.integers(-2, 6)), max_size=12))
def test_accepts_exactly_what_is_in_range(edges: list[tuple[int, int]]) -> None:
    edge_index = torch.tensor(edges, dtype=torch.int64).view(-1, 2).t()
    bad = [e for e, (src, dst) in enumerate(edges) if not (0 <= src < 4 and 0 <= dst < 5)]
    if not bad:
        check_edge_index(edge_index, 4, 5)
        return
    with pytest.raises(GraphError, match=f"Edge {bad[0]} of 'edge_index' goes from "):
        check_edge_index(edge_index, 4, 5)


@pytest.mark.parametrize(
    ("edge_index", "match"),
    [
        pytest.param([[0, 1]], r"must be a torch.Tensor of shape \[2, E\] \(got builtins.list\)", id="list"),
        pytest.param(torch.zeros(3, 4, dtype=torch.long), r"must have shape \[2, E\] \(got \[3, 4\]\)", id="rows"),
        pytest.param(torch.zeros(9, 2, dtype=torch.long), r"looks transposed: pass edge_index.t\(\)", id="transposed"),
        pytest.param(torch.zeros(2, 4), r"must be int64 or int32 \(got torch.float32\).*\.long\(\)", id="float"),
        pytest.param(torch.zeros(2, 4, dtype=torch.bool), "must be int64 or int32", id="bool"),
        pytest.param(torch.tensor([[0], [-1]]), "Negative numbers usually mark padding", id="negative"),
        pytest.param(
            torch.tensor([[0, 7, 9], [1, 1, 1]]),
            r"Edge 1 .* from 7 to 1; its source 7 does not exist: the 5 source nodes are numbered 0 to 4\. "
            r"1 more of 3 edges are .*edges need 10, there are 5",
            id="too_large",
        ),
    ],
)
def test_errors(edge_index: Tensor, match: str) -> None:
    with pytest.raises(GraphError, match=match):
        check_edge_index(edge_index, 5)


def test_two_node_types_hint_at_swapped_rows() -> None:
    with pytest.raises(GraphError, match=r"its destination 7 does not exist.*not swapped"):
        check_edge_index(torch.tensor([[0, 1], [1, 7]]), 9, 3)


def test_no_nodes() -> None:
    with pytest.raises(GraphError, match="there are no source nodes"):
        check_edge_index(torch.tensor([[0], [0]]), 0)


def test_number_of_edges() -> None:
    with pytest.raises(GraphError, match="holds 1 edges, but 4 were expected"):
        check_edge_index(torch.tensor([[0], [0]]), 1, num_edges=4)


def test_endpoints() -> None:
    with pytest.raises(GraphError, match=r"two vectors of one length \(got \[2\] and \[3\]\)"):
        check_endpoints(torch.zeros(2, dtype=torch.long), torch.zeros(3, dtype=torch.long), 1, 1)
    with pytest.raises(GraphError, match="at least 0"):
        check_endpoints(torch.zeros(0, dtype=torch.long), torch.zeros(0, dtype=torch.long), -1, 1)
    with pytest.raises(GraphError, match="Move both to one device"):
        check_endpoints(torch.zeros(2, dtype=torch.long), torch.zeros(2, dtype=torch.long, device="meta"), 1, 1)


def test_nodes() -> None:
    check_nodes(torch.tensor([0, 4]), 5)
    with pytest.raises(GraphError, match=r"'nodes' asks for node -1 \(entry 2\)"):
        check_nodes(torch.tensor([0, 4, -1]), 5)
    with pytest.raises(GraphError, match="vector of node numbers"):
        check_nodes(torch.tensor([[0]]), 5)
    with pytest.raises(GraphError, match="int64 or int32"):
        check_nodes(torch.tensor([0.5]), 5)
