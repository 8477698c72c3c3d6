"""Peak memory and seconds, against allocations of known size."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import pytest
import torch

from pyg_fullgraph.front import measure as module
from pyg_fullgraph.front.measure import PeakMemory, measure

MIB = 2**20
linux_only = pytest.mark.skipif(sys.platform != "linux", reason="peak memory is read from Linux's /proc")


@linux_only
@pytest.mark.parametrize("allowed", [True, False], ids=["kernel's peak", "sampled"])
def test_peak_sees_memory_that_was_freed_again(allowed: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if not allowed:
        monkeypatch.setattr(module, "_reset_peak", lambda: False)
    with PeakMemory() as memory:
        temporary = torch.ones(64 * MIB // 4)
        time.sleep(0.02)
        del temporary
    assert 60 * MIB < memory.bytes < 80 * MIB


@linux_only
def test_peak_is_extra_to_what_was_there() -> None:
    kept = torch.ones(64 * MIB // 4)
    with PeakMemory() as memory:
        pass
    assert memory.bytes < 8 * MIB
    assert kept.numel() == 16 * MIB


@linux_only
def test_peak_of_repeated_calls_counts_one_result_only() -> None:
    run = measure(lambda: torch.ones(64 * MIB // 4), repeat=3)
    assert 60 * MIB < run.peak < 80 * MIB


def test_first_call_is_apart_from_the_median() -> None:
    pauses = iter([0.3, 0.0, 0.1, 0.0])

    def call() -> int:
        time.sleep(next(pauses))
        return 7

    run = measure(call, repeat=3)
    assert run.value == 7
    assert run.first >= 0.3
    assert run.seconds < 0.1


def test_unknown_where_the_system_does_not_tell(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(module, "_STATUS", tmp_path / "absent")
    assert measure(lambda: 1, repeat=1).peak == -1
