"""Edges sorted tile by tile are in the stable order."""

from __future__ import annotations

import pytest
import torch

from pyg_fullgraph.errors import GraphError
from pyg_fullgraph.runtime import tiles
from pyg_fullgraph.runtime.in_edges import sort_edges

from .loops import loops

EDGES = torch.tensor([[0, 4, 3, 2, 3, 0, 5, 0], [1, 4, 1, 0, 2, 1, 1, 1]])


@pytest.mark.parametrize("tile", [1, 3, 1 << 16])
@pytest.mark.parametrize("edges", [EDGES, EDGES[:, :1], EDGES[:, :0], EDGES.int().long().flip(0)])
def test_is_the_stable_order(tile: int, edges: torch.Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tiles, "TILE", tile)
    kept = edges[:, edges[0] != edges[1]]
    source, target = torch.cat([kept, torch.arange(6).repeat(2, 1)], 1)
    order = torch.sort(target, stable=True).indices
    made = loops(edges, 6)
    found = sort_edges(made.tiles, "target", 6, {"source": torch.int32, "far": None}, True)
    assert found.perm is not None and found.perm.dtype is torch.int32
    assert torch.equal(found.perm.long(), order) and found.num_edges == order.numel()
    assert torch.equal(found.values["source"], source[order].int())
    assert torch.equal(found.values["far"], target[order] + (1 << 33))
    assert torch.equal(found.rowptr.diff(), target.bincount(minlength=6)) and found.rowptr[0] == 0
    assert found.largest == int(target.bincount().max())
    assert len(found.tensors()) == 4 and not found.whole


def test_an_order_that_nobody_asks_for_is_not_kept() -> None:
    made = loops(EDGES, 6)
    found = sort_edges(made.tiles, "target", 6, {}, False)
    assert found.perm is None and len(found.tensors()) == 1


def test_destinations_are_checked() -> None:
    made = loops(EDGES, 6)
    with pytest.raises(GraphError, match="has index 5"):
        sort_edges(made.tiles, "target", 5, {}, False)
