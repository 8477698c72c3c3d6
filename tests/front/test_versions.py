"""Versions that were never tried are told: once at the first call, and by doctor."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
import torch
from torch_geometric.nn import GCNConv

from pyg_fullgraph.engine import Engine
from pyg_fullgraph.front import doctor, versions

PAGE = Path(__file__).parents[2] / "docs" / "versions.md"


@pytest.fixture(autouse=True)
def untold() -> None:
    versions.tell_untried.cache_clear()


@pytest.mark.parametrize(
    "package,whole,told",
    [
        ("torch", "2.6.0+cu124", False),
        ("torch", "2.13.0+cpu", False),
        ("torch", "2.99.0.dev20270101", True),
        ("torch", "3.0", True),
        ("torch_geometric", "2.8.1", False),
        ("torch_geometric", "2.80.1", True),
        ("numpy", "1.25.2", True),
        ("Python", "4.0.0", True),
        ("numpy", "", False),
    ],
)
def test_the_first_two_numbers_decide(package: str, whole: str, told: bool) -> None:
    found = versions.untried({package: whole})
    assert len(found) == told
    if told:
        assert found[0].startswith(f"{package} {whole} was never tried") and versions.TRIED[package][0] in found[0]


def test_told_once_at_the_first_call(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setitem(versions.TRIED, "torch", ("1.0",))
    x, edge_index = torch.randn(6, 4), torch.tensor([[0, 1, 2, 3, 4, 5, 0], [1, 2, 3, 4, 5, 0, 2]])
    with caplog.at_level(logging.WARNING, "pyg_fullgraph"):
        for _ in range(2):
            Engine(GCNConv(4, 3).eval())(x, edge_index)
    told = [record.getMessage() for record in caplog.records if "never tried" in record.getMessage()]
    assert len(told) == 1 and f"torch {torch.__version__}" in told[0] and "doctor" in told[0]


def test_doctor_tells(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(versions.TRIED, "torch", ("1.0",))
    monkeypatch.setattr(doctor, "self_test", lambda inference: [])
    shown: list[str] = []
    doctor.examine(lambda *_: None, shown.append)
    assert any("note: torch" in line and "never tried" in line for line in shown)


def test_what_is_tried_is_in_the_documentation() -> None:
    rows = [line for line in PAGE.read_text().splitlines() if line.startswith("| ")]
    for package, tried in versions.TRIED.items():
        for number in tried:
            assert any(f" {number}" in row for row in rows), f"{package} {number} is not in {PAGE.name}"
