"""The benchmarked models equal PyG's full batch, their peers can take them, and their graphs add up."""

from __future__ import annotations

import argparse
import importlib
from pathlib import Path

import pytest
import torch
from torch.utils._pytree import tree_leaves

import pyg_fullgraph as fg
from benchmarks.baselines import full_batch
from benchmarks.models import (
    EDGE_TYPES,
    HAS_INFERENCE,
    MODELS,
    NODE_TYPES,
    TAKES_MATRIX,
    Setting,
    build_inputs,
    build_model,
    num_edges,
    typed_rmat,
)
from pyg_fullgraph.graph.generate import rmat


@pytest.fixture
def whole_model(monkeypatch: pytest.MonkeyPatch):
    """The benchmark as a module; its siblings are imported as where it is run as a file."""
    monkeypatch.syspath_prepend(Path(__file__).parents[2] / "benchmarks")
    return importlib.import_module("whole_model")


@pytest.mark.parametrize("name", ["transformer", "gen", "rgcn", "hgt"])  # the others are models of PyG
def test_equals_full_batch(name: str) -> None:
    setting = Setting(name, log2_nodes=6, degree=4, width=16)
    model, inputs = build_model(setting), build_inputs(setting)
    expected = tree_leaves(full_batch(model, *inputs))
    got = tree_leaves(fg.compile(model, verify="off")(*inputs))
    assert len(expected) == (len(NODE_TYPES) if name == "hgt" else 1)
    for ours, theirs in zip(got, expected, strict=True):
        assert theirs.shape[1] == 16
        assert float((ours - theirs).abs().max()) <= 1e-5 * float(theirs.abs().max())


def test_types_lose_no_node_and_no_edge() -> None:
    sizes, edges = typed_rmat(8, 5, seed=3)
    assert sum(sizes.values()) == 256 and list(edges) == EDGE_TYPES
    start = dict(zip(sizes, torch.tensor([0, *sizes.values()]).cumsum(0).tolist()))
    back = [e + torch.tensor([[start[source]], [start[target]]]) for (source, _, target), e in edges.items()]
    for (source, _, target), e in edges.items():
        assert int(e[0].max()) < sizes[source] and int(e[1].max()) < sizes[target] and int(e.min()) >= 0
    together, whole = torch.cat(back, dim=1), rmat(8, 5, seed=3)
    assert sorted(map(tuple, together.t().tolist())) == sorted(map(tuple, whole.t().tolist()))


def test_settings_scale_the_inputs() -> None:
    for name in ("sage", "rgcn", "hgt"):
        inputs = build_inputs(Setting(name, log2_nodes=7, degree=3, width=8))
        assert num_edges(inputs) == 3 * 128
        rows = tree_leaves(inputs[0])
        assert sum(x.size(0) for x in rows) == 128 and all(x.size(1) == 8 for x in rows)


def test_peers_are_those_that_can_take_the_model(whole_model) -> None:
    arguments = argparse.Namespace(no_layer_wise=False, no_matrix=False)
    for name in MODELS:
        peers = whole_model.peer_names(arguments, name)
        assert peers[:2] == [whole_model.OURS, whole_model.FULL]
        assert (whole_model.CSR in peers) == (name in TAKES_MATRIX)
        assert any("inference()" in peer for peer in peers) == (name in HAS_INFERENCE)
        assert hasattr(build_model(Setting(name, 5, 2, 8)), "inference") == (name in HAS_INFERENCE)
    assert len(whole_model.peer_names(argparse.Namespace(no_layer_wise=True, no_matrix=False), "sage")) == 3
    assert len(whole_model.peer_names(argparse.Namespace(no_layer_wise=True, no_matrix=True), "sage")) == 2


@pytest.mark.parametrize("name", sorted(TAKES_MATRIX))
def test_matrix_peer_runs(name: str, whole_model) -> None:
    """On a graph without duplicates and self-loops a matrix gives what an edge list gives."""
    setting = Setting(name, log2_nodes=5, degree=3, width=8)
    model, (x, edge_index) = build_model(setting), build_inputs(setting)
    edge_index = torch.unique(edge_index[:, edge_index[0] != edge_index[1]], dim=1)
    out = whole_model.prepare(whole_model.CSR, model, (x, edge_index))()
    assert whole_model.relative_difference(out, full_batch(model, x, edge_index)) < 1e-5


def test_command_line(whole_model) -> None:
    arguments = whole_model.parse(["--models", "hgt", "edgeconv", "--width", "64"])
    assert arguments.models == ["hgt", "edgeconv"] and arguments.width == 64
    with pytest.raises(SystemExit):
        whole_model.parse(["--models", "alexnet"])
