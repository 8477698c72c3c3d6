"""The scaling benchmark: a row for each size and number of threads, and a slope that is known beforehand."""

from __future__ import annotations

import json
import math
from pathlib import Path

import measure
import pytest
import scaling


def test_slope_of_known_powers() -> None:
    edges = [1e6, 3e6, 1e7, 1e8]
    assert scaling.slope([(e, 2e-8 * e) for e in edges]) == pytest.approx(1.0)
    assert scaling.slope([(e, 5.0 * e**1.25) for e in edges]) == pytest.approx(1.25)
    assert math.isnan(scaling.slope([(1e6, 1.0), (1e6, 2.0)]))


def test_one_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(measure, "RESULTS", tmp_path)
    arguments = scaling.parse(["--log2-nodes", "8", "--width", "8", "--threads", "1", "2", "--repeat", "2", "--save"])
    monkeypatch.setattr(scaling, "PROBE_BYTES", 1 << 20)
    rows = scaling.run_all(arguments, scaling.sources(arguments))
    record = json.loads(next(tmp_path.glob("*-scaling.json")).read_text())
    assert record["rows"] == rows
    one, two = rows
    assert (one["threads"], two["threads"]) == (1, 2) and one["edges"] == two["edges"] == 16 * 256
    assert one["rounds"] == two["rounds"] == 2 and "speed_up" not in one
    assert two["speed_up"] == pytest.approx(one["seconds"] / two["seconds"])
    assert two["rows_speed_up"] == pytest.approx(two["rows"] / one["rows"])
    assert two["edges_per_second"] == pytest.approx(16 * 256 / two["seconds"])
    assert len(scaling.panels(rows)) == 3
    assert "not measured" not in capsys.readouterr().out


def test_the_whole_range_by_default() -> None:
    edges = [16 * source.num_nodes for source in scaling.sources(scaling.parse([]))]
    assert edges[0] == 16 << 16 and edges[-1] == pytest.approx(100e6, rel=0.01) and edges == sorted(edges)
