"""The graphs of the benchmarks have the sizes that were asked for, and the command line finds the real ones."""

from __future__ import annotations

import argparse

import pytest
import torch

from benchmarks import graphs
from pyg_fullgraph.graph.generate import rmat
from tests.graphs import data_folder


def chosen(*words: str) -> list[graphs.Source]:
    parser = argparse.ArgumentParser()
    graphs.add_graph_arguments(parser, log2_nodes=12)
    return graphs.sources(parser.parse_args(words))


def test_rmat_of_any_size() -> None:
    whole = graphs.edges_of(graphs.Source(6, 5, seed=2))
    assert torch.equal(whole.edge_index, rmat(6, 5, seed=2)) and whole.num_nodes == 64
    between = graphs.edges_of(graphs.Source(6.5, 5, seed=2))
    assert between.num_nodes == 91 and between.edge_index.shape == (2, 5 * 91)
    assert torch.equal(between.edge_index, rmat(7, 5, seed=2)[:, : 5 * 91] % 91)


def test_command_line(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(graphs.DATA_VARIABLE, str(tmp_path))
    (tmp_path / "one.npz").write_bytes(b"12")
    (tmp_path / "het_two.npz").write_bytes(b"1")
    assert chosen() == [graphs.Source(12, 16)]
    assert chosen("--real", "one") == [graphs.Source(real="one")]
    sizes = [graphs.Source(size, degree) for degree in (3, 45) for size in (4, 5.5)]
    assert chosen("--log2-nodes", "4", "5.5", "--degree", "3", "45") == sizes
    assert graphs.Source(real="het_two").hetero and not graphs.Source(real="one").hetero
    with pytest.raises(SystemExit, match=r"No such real graph: three. At hand: het_two, one."):
        chosen("--real", "one", "three")


@pytest.mark.skipif(data_folder() is None, reason="no folder of real graphs: set PYG_FULLGRAPH_DATA")
def test_real_graphs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(graphs.DATA_VARIABLE, str(data_folder()))
    cora = graphs.edges_of(graphs.Source(real="cora"))
    assert cora.num_nodes == 2708 and int(cora.edge_index.max()) < 2708
    sizes, edges = graphs.typed_edges_of(graphs.Source(real="het_imdb"))
    for (source, name, target), edge_index in edges.items():
        assert int(edge_index[0].max()) < sizes[source] and int(edge_index[1].max()) < sizes[target]
        if not name.startswith("rev_"):
            assert torch.equal(edges[target, f"rev_{name}", source], edge_index.flip(0))
