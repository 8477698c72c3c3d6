"""The baselines do what they claim: exact where they say so, inexact where PyG itself is."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch_geometric.nn.models import GAT, GCN, GIN, GraphSAGE

from benchmarks.baselines import (
    InEdges,
    csr_adjacency,
    full_batch,
    full_batch_csr,
    layer_wise,
    sample_block,
    sampled_epoch,
    sorted_edge_index,
)
from pyg_fullgraph.graph.generate import rmat
from tests.graphs import nasty

NODES = 1 << 9


@pytest.fixture(scope="module")
def graph() -> tuple[Tensor, Tensor]:
    return torch.randn(NODES, 16), rmat(9, 8, seed=1)


def distance(out: Tensor, reference: Tensor) -> float:
    return float((out - reference).abs().max() / reference.abs().max())


@pytest.mark.parametrize("kind", [GraphSAGE, GIN, GAT], ids=lambda kind: kind.__name__)
@pytest.mark.parametrize("batch_size", [64, 500, 4096])
def test_layer_wise_is_exact(kind: type, batch_size: int, graph: tuple[Tensor, Tensor]) -> None:
    model = kind(16, 16, 3, 8).eval()
    out = layer_wise(model, *graph, batch_size=batch_size)
    assert distance(out, full_batch(model, *graph)) < 1e-5


def test_layer_wise_gcn_differs_as_in_pyg(graph: tuple[Tensor, Tensor]) -> None:
    """PyG normalises by degrees within the batch: another result, which depends on the batch size."""
    model = GCN(16, 16, 3, 8).eval()
    small, large = (layer_wise(model, *graph, batch_size=size) for size in (32, 256))
    assert distance(small, full_batch(model, *graph)) > 1e-2
    assert distance(small, large) > 1e-2


def test_csr_is_exact_with_duplicates(graph: tuple[Tensor, Tensor]) -> None:
    x, edge_index = graph
    assert torch.unique(edge_index, dim=1).size(1) < edge_index.size(1)
    adj_t = csr_adjacency(edge_index, NODES)
    for kind in (GraphSAGE, GIN):
        model = kind(16, 16, 2, 8).eval()
        assert distance(full_batch_csr(model, x, adj_t), full_batch(model, x, edge_index)) < 1e-5


def test_edge_index_is_exact_and_sorted(graph: tuple[Tensor, Tensor]) -> None:
    x, edge_index = graph
    ordered = sorted_edge_index(edge_index, NODES)
    key = ordered.as_tensor()[1] * NODES + ordered.as_tensor()[0]
    assert ordered.is_sorted_by_col and torch.equal(key, (edge_index[1] * NODES + edge_index[0]).sort().values)
    for kind in (GraphSAGE, GIN, GAT, GCN):
        model = kind(16, 16, 2, 8).eval()
        assert distance(full_batch(model, x, ordered), full_batch(model, x, edge_index)) < 1e-5


@nasty(skip=("empty",))
def test_all_in_edges(num_nodes: int, edge_index: Tensor) -> None:
    edges = InEdges(edge_index, num_nodes)
    nodes = torch.arange(num_nodes - 1, -1, -2)
    source, row = edges.all_of(nodes)
    expected = [(s, k) for k, node in enumerate(nodes.tolist()) for s, d in edge_index.t().tolist() if d == node]
    assert list(zip(source.tolist(), row.tolist())) == expected


@nasty(skip=("empty",))
@pytest.mark.parametrize("fan_out", [1, 3, 1000])
def test_sampling_is_without_replacement(num_nodes: int, edge_index: Tensor, fan_out: int) -> None:
    """With edge numbers for sources: no edge comes twice, and all come if the fan-out allows."""
    edges = InEdges(edge_index, num_nodes)
    edges.src = torch.arange(edge_index.size(1))
    picked, row = edges.sample_of(torch.arange(num_nodes), fan_out, torch.Generator().manual_seed(0))
    assert picked.unique().numel() == picked.numel()
    degree = torch.bincount(edge_index[1], minlength=num_nodes)
    assert torch.equal(torch.bincount(row, minlength=num_nodes), degree.clamp(max=fan_out))
    assert torch.equal(edge_index[1].sort().values[picked], row)


def test_sampling_is_uniform() -> None:
    edges = InEdges(torch.stack([torch.arange(10), torch.zeros(10, dtype=torch.long)]), 10)
    generator = torch.Generator().manual_seed(0)
    picked = torch.cat([edges.sample_of(torch.tensor([0]), 3, generator)[0] for _ in range(4000)])
    assert torch.allclose(torch.bincount(picked, minlength=10) / 4000, torch.full((10,), 0.3), atol=0.03)


def test_sampling_everything_is_exact(graph: tuple[Tensor, Tensor]) -> None:
    x, edge_index = graph
    model = GraphSAGE(16, 16, 3, 8).eval()
    seeds = torch.randperm(NODES)[:40]
    edges = InEdges(edge_index, NODES)
    nodes, block = sample_block(edges, seeds, (10**6,) * 3, torch.Generator())
    assert torch.equal(nodes[:40], seeds)
    assert distance(full_batch(model, x[nodes], block)[:40], full_batch(model, x, edge_index)[seeds]) < 1e-5


def test_sampled_epoch_counts(graph: tuple[Tensor, Tensor]) -> None:
    epoch = sampled_epoch(GraphSAGE(16, 16, 3, 8).eval(), *graph, batch_size=100, timed_batches=2)
    assert (epoch.batches, epoch.timed) == (6, 2)
    assert epoch.seconds > 0
    assert 100 <= epoch.nodes_per_batch <= NODES
