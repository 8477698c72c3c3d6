"""Generated graphs: sizes, ranges, seeds, and the shape that each is for."""

from __future__ import annotations

import pytest
import torch

from pyg_fullgraph.errors import GraphError
from pyg_fullgraph.graph import generate
from pyg_fullgraph.graph.generate import community, grid, hub, path, ring, rmat, uniform


@pytest.mark.parametrize("scale", [0, 1, 6, 12])
def test_rmat_size_range_and_seed(scale: int) -> None:
    edges = rmat(scale, 8, seed=3)
    assert edges.shape == (2, 8 << scale)
    assert int(edges.min()) >= 0
    assert int(edges.max()) < 1 << scale
    assert torch.equal(edges, rmat(scale, 8, seed=3))
    if scale > 1:
        assert not torch.equal(edges, rmat(scale, 8, seed=4))


def test_rmat_quadrants_follow_the_probabilities() -> None:
    """Each bit of (source, destination) is one independent draw, so all have the same distribution."""
    edges = rmat(10, 64, shuffle=False)
    for bit in range(10):
        pair = (edges[0] >> bit & 1) * 2 + (edges[1] >> bit & 1)
        share = torch.bincount(pair, minlength=4) / pair.numel()
        assert torch.allclose(share, torch.tensor([0.57, 0.19, 0.19, 0.05]), atol=0.01)


def test_rmat_shuffle_renumbers_only() -> None:
    degree = torch.bincount(rmat(9, 8)[1], minlength=512).sort().values
    assert int(degree[-1]) > 10 * 8  # a heavy tail
    assert int(torch.bincount(rmat(9, 8)[1], minlength=512).argmax()) != 0
    assert int(torch.bincount(rmat(9, 8, shuffle=False)[1], minlength=512).argmax()) == 0


def test_rmat_in_chunks_fills_everything(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(generate, "_CHUNK", 100)
    edges = rmat(7, 5, shuffle=False)
    assert edges.shape == (2, 640)
    assert int(edges.max()) < 128


def test_rmat_errors() -> None:
    for wrong in ({"scale": -1}, {"scale": 3, "degree": -1}, {"scale": 3, "probabilities": (0.6, 0.3, 0.3)}):
        with pytest.raises(GraphError, match="R-MAT needs"):
            rmat(**wrong)


@pytest.mark.parametrize("num_nodes", [0, 1, 2, 50, 3000])
def test_community_is_a_simple_symmetric_graph(num_nodes: int) -> None:
    graph = community(num_nodes, 4, 5, degree=6.0, seed=1)
    assert graph.x.shape == (num_nodes, 5)
    assert graph.y.shape == (num_nodes,)
    pairs = set(map(tuple, graph.edge_index.t().tolist()))
    assert len(pairs) == graph.edge_index.size(1)
    assert all((dst, src) in pairs and src != dst for src, dst in pairs)
    again = community(num_nodes, 4, 5, degree=6.0, seed=1)
    assert torch.equal(graph.edge_index, again.edge_index)
    assert torch.equal(graph.x, again.x)


def test_community_edges_stay_inside() -> None:
    y = (graph := community(4000, 5, mixing=0.25)).y
    inside = float((y[graph.edge_index[0]] == y[graph.edge_index[1]]).double().mean())
    assert 0.75 < inside < 0.85  # 1 - mixing, plus the mixed edges that hit the own community
    degree = torch.bincount(graph.edge_index[1], minlength=4000)
    assert 10 < float(degree.double().mean()) < 12.5
    assert int(degree.max()) > 5 * float(degree.double().mean())


def test_community_errors() -> None:
    with pytest.raises(GraphError, match="0 <= mixing <= 1"):
        community(10, mixing=1.5)


def test_small_shapes() -> None:
    assert hub(4).tolist() == [[1, 2, 3], [0, 0, 0]]
    assert hub(4, inward=False).tolist() == [[0, 0, 0], [1, 2, 3]]
    assert path(4).tolist() == [[0, 1, 2], [1, 2, 3]]
    assert path(0).shape == path(1).shape == (2, 0)
    assert ring(3, 2).tolist() == [[2, 0, 1, 1, 2, 0], [0, 1, 2, 0, 1, 2]]
    assert sorted(map(tuple, grid(2, 2).t().tolist())) == [
        (0, 1), (0, 2), (1, 0), (1, 3), (2, 0), (2, 3), (3, 1), (3, 2),
    ]  # fmt: skip
    assert uniform(5, 20).shape == (2, 20)
    assert uniform(0, 20).shape == (2, 0)
