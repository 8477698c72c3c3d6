"""Products of half types in float32, where the processor has none of their own."""

from __future__ import annotations

import copy
from unittest import mock

import pytest
import torch
import torch_geometric.nn as gnn

from pyg_fullgraph.engine import Engine
from pyg_fullgraph.passes import halves

from .programs import EDGE_INDEX, NODES, X, optimised, values

DEGREES = torch.tensor([0, 1, 2])
MODELS = {
    "sage": lambda: gnn.GraphSAGE(16, 32, 2, 7),
    "gat": lambda: gnn.GAT(16, 32, 2, 7, heads=4),
    "pna": lambda: gnn.PNA(16, 32, 2, 7, aggregators=["mean", "max"], scalers=["identity"], deg=DEGREES),
    "transformer": lambda: gnn.Sequential("x, e", [(gnn.TransformerConv(16, 8, 2), "x, e -> x")]),
}


@pytest.fixture(params=[torch.bfloat16, torch.float16], ids=str)
def kind(request) -> torch.dtype:
    return request.param


def products(program) -> list:
    return [value for word in ("mm", "addmm", "bmm") for value in values(program, word)]


@pytest.mark.parametrize("name", MODELS)
def test_products_are_of_float32_and_as_exact_as_torch(name: str, kind: torch.dtype) -> None:
    torch.manual_seed(0)
    model = MODELS[name]().eval()
    with torch.no_grad():
        expected = copy.deepcopy(model).to(kind).float()(X.to(kind).float(), EDGE_INDEX)
        half = copy.deepcopy(model).to(kind)
        theirs = (half(X.to(kind), EDGE_INDEX).float() - expected).abs().max()
    with mock.patch.object(halves, "slow_types", lambda: [kind]):
        program = optimised(half, X.to(kind), EDGE_INDEX)
        assert products(program) and {value.dtype for value in products(program)} == {torch.float32}
        got = Engine(half)(X.to(kind), EDGE_INDEX)
    assert got.dtype == kind and got.shape[0] == NODES
    assert (got.float() - expected).abs().max() <= 1.5 * theirs + 1e-3


def test_nothing_changes_where_the_processor_has_such_products(kind: torch.dtype) -> None:
    half = gnn.GCN(16, 32, 2, 7).eval().to(kind)
    with mock.patch.object(halves, "slow_types", list):
        assert {value.dtype for value in products(optimised(half, X.to(kind), EDGE_INDEX))} == {kind}


def test_float32_is_left_alone() -> None:
    assert not values(optimised(gnn.GCN(16, 32, 2, 7).eval(), X, EDGE_INDEX), "_to_copy")


def test_a_weight_is_converted_once() -> None:
    kind = torch.bfloat16
    model = gnn.RGCNConv(16, 8, num_relations=3).eval().to(kind)
    types = torch.randint(0, 3, (EDGE_INDEX.shape[1],), generator=torch.Generator().manual_seed(0))
    with mock.patch.object(halves, "slow_types", lambda: [kind]):
        program = optimised(model, X.to(kind), EDGE_INDEX, types)
    converted = [value.refs()[0] for value in values(program, "_to_copy") if value.dtype == torch.float32]
    assert converted and len(converted) == len(set(converted))


@pytest.mark.parametrize("relations", [1, 3])
def test_a_product_is_not_added_onto_another_type(kind: torch.dtype, relations: int) -> None:
    """PyG's RGCNConv sums products of half types onto zeros in float32, for which torch has no single operator."""
    conv = gnn.RGCNConv(16, 8, num_relations=relations).eval().to(kind)
    types = torch.randint(0, relations, (EDGE_INDEX.shape[1],), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = conv(X.to(kind), EDGE_INDEX, types)
    got = Engine(conv)(X.to(kind), EDGE_INDEX, types)
    assert got.dtype == expected.dtype
    assert (got.float() - expected.float()).abs().max() <= 5e-2 * expected.abs().max()
