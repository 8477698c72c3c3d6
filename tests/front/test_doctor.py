"""The doctor's report: it is complete, and it does not call a wrong result well."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch_geometric.data import Data

from pyg_fullgraph.front import doctor


def eager(model: torch.nn.Module, data: Data) -> Tensor:
    with torch.no_grad():
        return model(data.x, data.edge_index)


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "SCALE", 6)


def test_right_results_are_well() -> None:
    lines: list[str] = []
    assert doctor.examine(eager, lines.append)
    text = "\n".join(lines)
    assert "64 nodes" in text and text.count(": exact;") == 2
    assert text.endswith("all is well")


@pytest.mark.parametrize("error", [1e-3, float("nan")], ids=["off", "NaN"])
def test_wrong_results_are_called_wrong(error: float) -> None:
    lines: list[str] = []
    assert not doctor.examine(lambda model, data: eager(model, data) + error, lines.append)
    assert "WRONG" in lines[-1] and any("WRONG (allowed" in line for line in lines)


def test_versions_tell_what_is_absent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "PACKAGES", ("torch", "no_such_package"))
    found = doctor.versions()
    assert found["torch"] == torch.__version__
    assert found["no_such_package"] == "not installed"


def test_slow_kernels_come_with_their_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    described: dict[str, Any] = {
        "backend": "python",
        "reason": "no compiler",
        "isa": None,
        "threads": 2,
        "isas": [],
    }
    monkeypatch.setattr(doctor.ops, "kernels", lambda: described)
    found = doctor.kernels()
    assert list(found) == ["serving", "because", "threads"]
    assert found["because"] == "no compiler"


@pytest.mark.parametrize("busy", [False, True])
def test_times_on_a_busy_machine_are_called_doubtful(busy: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "_load", lambda: 1000.0 if busy else 0.0)
    lines: list[str] = []
    doctor.examine(eager, lines.append)
    assert any("these times and ratios mean little" in line for line in lines) == busy
