"""The benchmarked models equal PyG's full batch, their peers can take them, and their graphs add up."""

from __future__ import annotations

import pytest
import torch
from torch.utils._pytree import tree_leaves

import pyg_fullgraph as fg
from benchmarks.baselines import full_batch
from benchmarks.graphs import Source
from benchmarks.models import (
    EDGE_TYPES,
    HAS_INFERENCE,
    MODELS,
    NODE_TYPES,
    Setting,
    build_inputs,
    build_model,
    num_edges,
    num_nodes,
    tiny_inputs,
    typed,
)
from pyg_fullgraph.graph.generate import rmat


@pytest.mark.parametrize("name", ["transformer", "gen", "rgcn", "hgt"])  # the others are models of PyG
def test_equals_full_batch(name: str) -> None:
    setting = Setting(name, Source(6, 4), 16)
    model, inputs = build_model(setting), build_inputs(setting)
    expected = tree_leaves(full_batch(model, *inputs))
    got = tree_leaves(fg.compile(model, verify="off")(*inputs))
    assert len(expected) == (len(NODE_TYPES) if name == "hgt" else 1)
    for ours, theirs in zip(got, expected, strict=True):
        assert theirs.shape[1] == 16
        assert float((ours - theirs).abs().max()) <= 1e-5 * float(theirs.abs().max())


def test_types_lose_no_node_and_no_edge() -> None:
    whole = rmat(8, 5, seed=3)
    sizes, edges = typed(whole, 256)
    assert sum(sizes.values()) == 256 and list(edges) == EDGE_TYPES
    start = dict(zip(sizes, torch.tensor([0, *sizes.values()]).cumsum(0).tolist()))
    back = [e + torch.tensor([[start[source]], [start[target]]]) for (source, _, target), e in edges.items()]
    for (source, _, target), e in edges.items():
        assert int(e[0].max()) < sizes[source] and int(e[1].max()) < sizes[target] and int(e.min()) >= 0
    together = torch.cat(back, dim=1)
    assert sorted(map(tuple, together.t().tolist())) == sorted(map(tuple, whole.t().tolist()))


def test_settings_scale_the_inputs() -> None:
    for name in ("sage", "rgcn", "hgt"):
        inputs = build_inputs(Setting(name, Source(7, 3), 8))
        assert num_edges(inputs) == 3 * 128 and num_nodes(inputs) == 128
        rows = tree_leaves(inputs[0])
        assert sum(x.size(0) for x in rows) == 128 and all(x.size(1) == 8 for x in rows)


@pytest.mark.parametrize("name", MODELS)
def test_tiny_inputs_fit_the_model(name: str) -> None:
    setting = Setting(name, Source(5, 2), 8)
    model = build_model(setting)
    assert hasattr(model, "inference") == (name in HAS_INFERENCE)
    out, tiny = full_batch(model, *tiny_inputs(setting)), tiny_inputs(setting)
    assert [x.shape for x in tree_leaves(out)] == [x.shape for x in tree_leaves(tiny[0])]
