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


def build_dying() -> Callable[[], Tensor]:
    os._exit(3)


def build_failing() -> Callable[[], Tensor]:
    raise ValueError("no such graph")


@linux
def test_peak_of_a_known_allocation() -> None:
    peak = measure.peak_extra_memory(build_hungry(64))
    assert peak.result == 64 * MIB
    assert 120 * MIB < peak.extra < 220 * MIB


@linux
def test_peak_forgets_what_was_before() -> None:
    torch.ones(200 * MIB // 4)
    assert measure.peak_extra_memory(lambda: torch.ones(10 * MIB // 4)).extra < 30 * MIB


@linux
def test_peak_apart() -> None:
    peaks = measure.peak_extra_memory_apart(build_hungry, 32, runs=2)
    assert [peak.result for peak in peaks] == [32 * MIB] * 2
    assert 60 * MIB < peaks[1].extra < 110 * MIB


@linux
def test_peak_apart_tells_what_went_wrong() -> None:
    with pytest.raises(RuntimeError, match=r"ValueError: no such graph"):
        measure.peak_extra_memory_apart(build_failing)
    with pytest.raises(RuntimeError, match=r"died \(exit code 3"):
        measure.peak_extra_memory_apart(build_dying)


def test_interleaved_order_and_counts() -> None:
    calls: list[str] = []
    peers = {"a": lambda: calls.append("a"), "b": lambda: (calls.append("b"), time.sleep(0.01))}
    timings = measure.time_interleaved(peers, repeat=2)
    assert calls == ["a", "b"] * 3
    assert len(timings["a"].seconds) == 2
    assert timings["b"].median >= 0.01
    assert measure.Timing(2.0, ()).median == 2.0
    assert measure.Timing(9.0, (1.0, 3.0, 2.0)).median == 2.0


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
    assert first != second
    record = json.loads(first.read_text())
    assert record["rows"] == [{"peer": "a", "seconds": 0.5}]
    assert record["machine"]["torch"] == torch.__version__
    assert first.name.endswith("-question.json")
    assert len(list(tmp_path.iterdir())) == 2
