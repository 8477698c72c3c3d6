"""The machine's rates: plausible, measured once, and read between the measured row sizes."""

from __future__ import annotations

import pytest
import torch

from pyg_fullgraph.ops import backend
from pyg_fullgraph.plan import BlockCost, Machine, StepCost, measure_machine
from pyg_fullgraph.plan.machine import ROW_BYTES

RATES = Machine(2, 20e9, ((64, 4e9), (256, 8e9), (1024, 10e9)), 100e9, 10e9, 1e9, 1e5)


@pytest.mark.parametrize(
    ("row_bytes", "expected"),
    [(4, 0.25e9), (32, 2e9), (64, 4e9), (160, 6e9), (256, 8e9), (640, 9e9), (1024, 10e9), (8192, 10e9)],
)
def test_rates_between_measured_sizes(row_bytes: int, expected: float) -> None:
    assert RATES.gather_rate(row_bytes) == pytest.approx(expected)


@pytest.mark.skipif(backend.load()[0] is None, reason="the probes are part of the C++ kernels")
def test_rates_are_measured_once() -> None:
    before, random = torch.get_num_threads(), torch.get_rng_state()
    measure_machine.cache_clear()
    found = measure_machine(1)
    assert found is not None
    assert found is measure_machine(1)
    assert torch.get_num_threads() == before
    assert torch.equal(torch.get_rng_state(), random)  # the caller's random numbers stay what they were
    assert tuple(row for row, _ in found.gathered) == ROW_BYTES
    for rate in (found.sequential, *(rate for _, rate in found.gathered)):
        assert 1e7 < rate < 1e13  # bytes per second of any memory, caches included
    assert 1e8 < found.products < 1e14
    assert 1e6 < found.exponentials < 1e13 and 1e6 < found.elements < 1e13 and 1e2 < found.calls < 1e8


def test_without_kernels_there_are_no_rates(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backend, "load", lambda: (None, "not built"))
    assert measure_machine.__wrapped__(1) is None


def test_predicted_seconds() -> None:
    block = BlockCost(
        "N", 10, gathered=8_000_400, read=1_000_000, written=999_600, flops=10**6, fetches=((256, 31250),)
    )
    expected = 8_000_000 / 8e9 + 2_000_000 / 20e9 + 10**6 / 100e9
    assert block.seconds(RATES) == pytest.approx(expected)
    assert StepCost((block, block), 0, 0).seconds(RATES) == pytest.approx(2 * expected)


@pytest.mark.parametrize("more", ["read", "written", "flops", "elements", "exponentials", "calls"])
def test_more_work_takes_longer(more: str) -> None:
    least = {"gathered": 0, "read": 100, "written": 100, "flops": 100, "elements": 1, "exponentials": 1, "calls": 1}
    cost = BlockCost("N", 1, **least).seconds(RATES)
    assert BlockCost("N", 1, **{**least, more: 1000}).seconds(RATES) > cost
