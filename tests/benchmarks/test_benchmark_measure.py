"""The measuring tools measure what is known beforehand."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from benchmarks import measure

linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
MIB = 2**20


def build_hungry(size: int) -> Callable[[], Tensor]:
    """Holds twice ``size`` MiB for a moment and returns ``size`` MiB."""
    return lambda: torch.ones(size * MIB // 4) + torch.ones(size * MIB // 4)


@linux
def test_peak_of_a_known_allocation() -> None:
    peak = measure.peak_extra_memory(build_hungry(64))
    assert torch.equal(peak.out[:3], torch.full((3,), 2.0)) and peak.seconds > 0
    assert peak.result == 64 * MIB
    assert 120 * MIB < peak.extra < 220 * MIB


@linux
def test_peak_forgets_what_was_before() -> None:
    torch.ones(200 * MIB // 4)
    assert measure.peak_extra_memory(lambda: torch.ones(10 * MIB // 4)).extra < 30 * MIB


@linux
def test_what_a_run_leaves_behind_is_paid_for_by_the_next() -> None:
    measure.start_clean()
    before, left = measure.resident_bytes(), []
    extra = [
        measure.peak_extra_memory(lambda: left.append(torch.ones(32 * MIB // 4)), before=before).extra for _ in range(3)
    ]
    assert [round(each / (32 * MIB)) for each in extra] == [1, 2, 3]


def test_nothing_is_collected_between_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measure.gc, "collect", lambda *_: pytest.fail("a collection"))
    measure.time_interleaved({"a": lambda: time.sleep(measure.SHORT)}, repeat=2)
    measure.seconds_of(lambda: None)
    if sys.platform.startswith("linux"):
        measure.peak_extra_memory(lambda: None)


def test_interleaved_order_and_counts() -> None:
    calls: list[str] = []
    peers = {
        "a": lambda: (calls.append("a"), time.sleep(measure.SHORT)),
        "b": lambda: (calls.append("b"), time.sleep(0.01)),
    }
    timings = measure.time_interleaved(peers, repeat=2)
    assert calls == ["a", "b"] * 3
    assert len(timings["a"].seconds) == 2
    assert timings["b"].median >= 0.01
    assert measure.Timing(2.0, ()).median == 2.0
    assert measure.Timing(9.0, (1.0, 3.0, 2.0)).median == 2.0


def test_a_short_run_is_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measure, "SHORT", 0.1)  # on a busy machine a short sleep may be a long one
    calls: list[int] = []
    seconds = measure.seconds_of(lambda: (calls.append(1), time.sleep(0.01)))
    assert len(calls) > 2 and seconds == pytest.approx(0.01, rel=0.9)


def test_a_budget_leaves_one_round_to_the_slow() -> None:
    """Seconds are those that the runs return; 0.5 of the fast one's budget is spent before."""
    seconds = {"fast": iter([1.0, 1.0, 3.0, 3.0, 1.0]), "slow": iter([50.0])}
    peers = {name: (lambda given=given: next(given)) for name, given in seconds.items()}
    runs = measure.take_rounds(peers, repeat=5, budget=9.0, spent={"fast": 0.5, "slow": 48.0})
    assert runs == {"fast": [1.0, 1.0, 3.0, 3.0], "slow": [50.0]}


def test_bandwidth_is_plausible() -> None:
    assert 1e8 < measure.measured_bandwidth(1 << 22, repeat=2) < 1e13


def test_a_busy_machine_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "getloadavg", lambda: (0.0, 0.0, 0.0))
    assert measure.busy() is None
    monkeypatch.setattr(os, "getloadavg", lambda: (1000.0, 0.0, 0.0))
    assert "neither seconds nor ratios" in str(measure.busy())


def test_results_are_dated_and_never_overwritten(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measure, "RESULTS", tmp_path)
    first = measure.save_result("question", {"size": 3}, [{"peer": "a", "seconds": 0.5}])
    second = measure.save_result("question", {"size": 4}, [])
    assert measure.save_result("question", {"size": 4}, [{"peer": "b"}], second) == second
    assert json.loads(second.read_text())["rows"] == [{"peer": "b"}]
    assert first != second
    record = json.loads(first.read_text())
    assert record["rows"] == [{"peer": "a", "seconds": 0.5}]
    assert record["machine"]["torch"] == torch.__version__
    assert first.name.endswith("-question.json")
    assert len(list(tmp_path.iterdir())) == 2
