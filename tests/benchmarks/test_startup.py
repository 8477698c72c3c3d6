"""The start-up benchmark takes a first call apart, and what it reports adds up."""

from __future__ import annotations

import importlib
import multiprocessing
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch_geometric.nn.models import GCN

from benchmarks.graphs import Source
from benchmarks.models import Setting


@pytest.fixture
def startup(monkeypatch: pytest.MonkeyPatch):
    """The benchmark as a module; its siblings are imported as where it is run as a file."""
    monkeypatch.syspath_prepend(Path(__file__).parents[2] / "benchmarks")
    return importlib.import_module("startup")


def test_a_stage_inside_another_counts_once(startup) -> None:
    owner = SimpleNamespace(inner=lambda: time.sleep(0.02) or 1)
    owner.outer = lambda: time.sleep(0.02) or owner.inner() + 1
    stages = startup.Stages()
    stages.watch(owner, "inner", "run")
    stages.watch(owner, "outer", "verification")
    assert owner.outer() == 2
    assert stages.seconds["run"] == 0
    assert stages.seconds["verification"] >= 0.04
    assert owner.inner() == 1
    assert stages.seconds["run"] >= 0.02


def test_the_parts_of_a_first_call_add_up(startup) -> None:
    receiver, sender = multiprocessing.Pipe(duplex=False)
    context = multiprocessing.get_context("spawn")
    child = context.Process(target=startup.first_call, args=(Setting("sage", Source(6, 4), 16), sender))
    child.start()
    sender.close()
    try:
        row = receiver.recv()
    finally:
        child.join(60)
    assert sum(row[stage] for stage in startup.STAGES) == pytest.approx(row["first"])
    assert all(row[stage] > 0 for stage in startup.STAGES)
    assert row["trace"] > row["later"]


def test_small_graphs_compare_the_same_result(startup) -> None:
    torch.manual_seed(0)
    model, x, edge_index = GCN(8, 8, 2, 3).eval(), torch.randn(40, 8), torch.randint(0, 40, (2, 90))
    row = startup._warm(model, x, edge_index, 1)
    assert row["ours"] > 0
    assert row["ours_over_pyg"] == row["ours"] / row["pyg"]


def test_an_import_is_timed_in_its_own_process(startup, monkeypatch) -> None:
    monkeypatch.setattr(startup, "IMPORTS", {startup.PYG: "import json", startup.OURS: "import time; time.sleep(0.2)"})
    first, second = startup.measure_imports(1)
    assert (first["import"], first["times_pyg"]) == (startup.PYG, 1)
    assert second["seconds"] >= 0.2 > first["seconds"]
