"""What another order is predicted to gain, in seconds worked out by hand."""

from __future__ import annotations

import pytest

from pyg_fullgraph.plan.locality import (
    COPY,
    LAST_LEVEL_MISS,
    PER_EDGE,
    PER_NODE,
    SECOND_LEVEL_MISS,
    Reuse,
    Work,
    cache_bytes,
    cache_rows,
)

WORK = Work(gathered=10**9, copied=10**8, row_bytes=512, edges=10**6, nodes=10**5, calls=10)


def test_misses_cost_time() -> None:
    more = Reuse(1.0, 0.5).seconds_more(Reuse(0.5, 0.25), WORK.gathered)
    assert more == pytest.approx(1e9 * (0.5 * SECOND_LEVEL_MISS + 0.25 * LAST_LEVEL_MISS))
    assert Reuse(0.5, 0.5).seconds_more(Reuse(0.5, 0.5), WORK.gathered) == 0


def test_every_call_pays_for_its_copies() -> None:
    assert WORK.gain(1.0) == pytest.approx(10 * (1.0 - 1e8 * COPY))
    assert WORK.gain(0.0) < 0


def test_an_order_is_computed_once() -> None:
    assert WORK.cost == pytest.approx(1e6 * PER_EDGE + 1e5 * PER_NODE)


def test_a_cache_holds_at_least_a_row() -> None:
    second, last = cache_bytes()
    assert cache_rows(512) == (second // 512, last // 512)
    assert cache_rows(1 << 40) == (1, 1)
    assert cache_rows(0) == (second, last)
