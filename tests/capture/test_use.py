"""Which arguments of a program on graphs have rows: read from its operators, never from sizes alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from pyg_fullgraph.capture.signature import Signature, bind
from pyg_fullgraph.errors import GraphError
from pyg_fullgraph.graph import Graph
from pyg_fullgraph.nn.function import as_module


def graph(nodes: int, edges: int, seed: int = 0) -> Graph:
    generator = torch.Generator().manual_seed(seed)
    return Graph(torch.randint(0, nodes, (2, edges), generator=generator), nodes)


def dims_of(function: Callable[..., Any], *args: Any, **more: Any) -> dict[str, tuple[int | str, ...]]:
    signature = signature_of(function, *args, **more)
    return {leaf.name: leaf.dims for leaf in signature.leaves}


def signature_of(function: Callable[..., Any], *args: Any, **more: Any) -> Signature:
    return bind(as_module(function), args, {}, **more)[0]


def program(g: Graph, x: Tensor, e: Tensor, w: Tensor, b: Tensor) -> Tensor:
    return g.sum(g.src(x @ w + b) * e) + x


@pytest.mark.parametrize(("nodes", "edges"), [(20, 50), (8, 50), (20, 8), (8, 8), (50, 50)])
def test_rows_by_use(nodes: int, edges: int) -> None:
    args = (torch.randn(nodes, 8), torch.randn(edges, 8), torch.randn(8, 8), torch.randn(8))
    assert dims_of(program, graph(nodes, edges), *args) == {
        "g_edge_index": (2, "E"),
        "g_nodes": ("N",),
        "x": ("N", 8),
        "e": ("E", 8),
        "w": (8, 8),
        "b": (8,),
    }


def test_a_table_is_not_tied_to_nodes() -> None:
    def lookup(g: Graph, types: Tensor, table: Tensor) -> Tensor:
        return g.max(g.src(table[types]))

    dims = dims_of(lookup, graph(9, 30), torch.zeros(9, dtype=torch.long), torch.randn(9, 4))
    assert dims["types"] == ("N",) and dims["table"] == (9, 4)


def two(left: Graph, right: Graph, x: Tensor, y: Tensor) -> Tensor:
    return left.sum(left.src(x)) + right.mean(right.src(y))


@pytest.mark.parametrize(("sources", "nodes"), [(5, 9), (9, 9)])
def test_spaces_that_the_program_equates_are_one(sources: int, nodes: int) -> None:
    left = Graph(torch.zeros(2, 20, dtype=torch.long), (sources, nodes))
    dims = dims_of(two, left, graph(nodes, 20), torch.randn(sources, 4), torch.randn(nodes, 4))
    assert dims["x"] == ("N:left:src", 4)
    assert dims["y"] == ("N:left:dst", 4) == (dims["right_nodes"][0], 4)
    assert dims["left_edge_index"] == (2, "E:left") and dims["right_edge_index"] == (2, "E:right")


def test_keys_name_the_spaces() -> None:
    def typed(graphs: dict[tuple[str, str, str], Graph], x: dict[str, Tensor]) -> Tensor:
        (g,) = graphs.values()
        return g.sum(g.src(x["a"]))

    g = Graph(torch.zeros(2, 3, dtype=torch.long), (4, 5))
    dims = dims_of(typed, {("a", "to", "b"): g}, {"a": torch.randn(4, 2)})
    assert dims["x_a"] == ("N:a", 2) and (2, "E:a__to__b") in dims.values() and ("N:b",) in dims.values()


def test_what_the_user_says_counts() -> None:
    args = (torch.randn(20, 8), torch.randn(50, 8), torch.randn(8, 8), torch.randn(8))
    dims = dims_of(program, graph(20, 50), *args, dims={"x": (20, 8)})
    assert dims["x"] == (20, 8)


def test_an_earlier_call_decides_while_it_fits() -> None:
    args = (torch.randn(20, 8), torch.randn(50, 8), torch.randn(8, 8), torch.randn(8))
    first = signature_of(program, graph(20, 50), *args)
    small = (torch.randn(1, 8), torch.randn(8, 8), torch.randn(8, 8), torch.randn(8))
    assert not signature_of(program, graph(1, 1), small[0], small[0], *small[2:]).decided
    again = signature_of(program, graph(1, 8), *small, like=first)
    assert again.key == first.key and again.decided


def test_wrong_rows_are_named_with_numbers() -> None:
    args = (torch.randn(19, 8), torch.randn(50, 8), torch.randn(8, 8), torch.randn(8))
    with pytest.raises(GraphError, match=r"src takes one row per node: the first axis must be 20, got a tensor \[19"):
        signature_of(program, graph(20, 50), *args)


def test_a_program_that_cannot_be_run_on_fakes_is_left_to_the_trace() -> None:
    def decides(g: Graph, x: Tensor) -> Tensor:
        return g.sum(g.src(x)) if bool(x.sum() > 0) else x

    assert dims_of(decides, graph(9, 30), torch.randn(9, 4))["x"] == ("N", 4)
