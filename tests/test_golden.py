"""The golden texts are of the cases there are, are read as they were written, and tell a lost fusion."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch_geometric.nn as gnn

from pyg_fullgraph.passes import cut
from tests import texts as golden
from tests.passes.programs import EDGE_INDEX, X, optimised
from tests.test_exactness import EXACT
from tests.texts import FOLDER, Golden, text_of

FAMILIES = sorted({case.kind for case in EXACT})


@pytest.mark.parametrize("family", FAMILIES)
def test_every_exact_case_has_a_text(family: str) -> None:
    """In the order of the table; where another version is installed they are read, but not compared."""
    _, texts = golden.read(family)
    assert list(texts) == [case.id for case in EXACT if case.kind == family]
    assert all(texts.values())


def test_no_file_is_of_no_family() -> None:
    assert sorted(file.name for file in FOLDER.iterdir()) == [f"{family}.txt" for family in FAMILIES]


def test_compared_with_these_versions() -> None:
    made_with = {golden.read(family)[0] for family in FAMILIES}
    assert len(made_with) == 1
    if made_with != {golden.versions()}:
        pytest.skip(f"the golden texts are of {made_with.pop()}, here is {golden.versions()}")


#: A pass -> a layer whose text it changes.
FUSIONS = {
    "softmax": lambda: gnn.GATConv(16, 8, heads=2),
    "hoist": lambda: gnn.EdgeConv(gnn.Linear(32, 8)),
    "fuse": lambda: gnn.GCNConv(16, 8),
    "reductions": lambda: gnn.SAGEConv(16, 8, aggr=["mean", "max"]),
    "messages": lambda: gnn.ResGatedGraphConv(16, 16),
    "mean": lambda: gnn.SAGEConv(16, 8),
    "narrow": lambda: gnn.SAGEConv(16, 4),
}


@pytest.mark.parametrize("name", FUSIONS)
def test_a_lost_fusion_is_told(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(golden, "FOLDER", tmp_path)
    texts = []
    for skip in ((), (name,)):
        program = optimised(FUSIONS[name]().eval(), X, EDGE_INDEX, skip=skip)
        texts.append(text_of(program, cut(program)))
    update = Golden(update=True)
    update.check("conv", "Layer", texts[0])
    update.write(["Other", "Layer"])
    Golden(update=False).check("conv", "Layer", texts[0])
    with pytest.raises(AssertionError, match=r"Layer runs otherwise than tests/golden/conv.txt says"):
        Golden(update=False).check("conv", "Layer", texts[1])


def test_an_update_keeps_what_did_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(golden, "FOLDER", tmp_path)
    for cases in ({"b": "0 N: mm -> f32[N, 8]", "gone": "x"}, {"a": "0 N: add -> nothing\n1 N: mm -> nothing"}):
        update = Golden(update=True)
        for name, text in cases.items():
            update.check("conv", name, text)
        update.write(["a", "b"] if "a" in cases else ["gone", "b"])
    assert list(golden.read("conv")[1]) == ["a", "b"]
    checked = Golden(update=False)
    checked.check("conv", "b", "0 N: mm -> f32[N, 8]")
    checked.check("conv", "a", "0 N: add -> nothing\n1 N: mm -> nothing")
    with pytest.raises(AssertionError, match="new runs otherwise"):
        checked.check("conv", "new", "0 N: mm -> f32[N, 8]")


def test_texts_of_other_versions_are_not_compared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(golden, "FOLDER", tmp_path)
    (tmp_path / "conv.txt").write_text("# torch 1.0, torch_geometric 2.8\n\n[a]\n0 N: mm -> nothing\n")
    Golden(update=False).check("conv", "a", "another")
