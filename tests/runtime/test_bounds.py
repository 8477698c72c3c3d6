"""Bounds of indices, read where they come from, and exactly where that says too little."""

from __future__ import annotations

import pytest
import torch

from pyg_fullgraph.runtime import tiles

from .loops import loops

EDGES = torch.tensor([[0, 4, 9, 2, 3], [1, 4, 9, 0, 2]])  # 9 is in a self-loop only


@pytest.mark.parametrize("tile", [2, 1 << 16])
def test_bounds_are_exact_where_they_have_to_be(tile: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tiles, "TILE", tile)
    structure = loops(EDGES, 6)
    bounds = structure.bounds
    assert bounds.exact("row") == (0, 9) and bounds.exact("source") == (0, 5)
    assert bounds.within("source", 0, 6) and not bounds.within("source", 0, 5) and not bounds.within("row", 0, 9)
    assert bounds.fit("target", torch.int32) and not bounds.fit("far", torch.int32)


def test_what_arguments_say_is_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tiles, "TILE", 2)
    structure = loops(EDGES, 10)
    monkeypatch.setattr(tiles.Tiles, "_mask", None)  # nothing is kept by a mask
    assert structure.bounds.within("source", 0, 10) and structure.bounds.within("target", 0, 10)


def test_no_entries_are_within_anything() -> None:
    empty, one = loops(EDGES[:, :0], 0), loops(EDGES[:, :0], 1)
    assert empty.bounds.within("source", 0, 0) and empty.bounds.within("row", 3, 3)
    assert not one.bounds.within("source", 0, 0)


def test_written_values_have_other_bounds() -> None:
    structure = loops(EDGES, 6)
    assert structure.bounds.exact("row") == (0, 9)
    structure.values["row"] = EDGES[0].clamp(max=3)
    structure.bounds.forget()
    assert structure.bounds.exact("row") == (0, 3)
