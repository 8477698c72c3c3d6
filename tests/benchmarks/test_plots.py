"""A plot has a panel for each question and a line or bar for each peer; where matplotlib is absent that is said."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import plots
import pytest

LINES = plots.Panel(
    "growing", {"ours": [(8, 2.0), (4, 1.0)], "peer": [(4, 3.0)]}, {"the machine": [(4, 0.5), (8, 0.5)]}
)
BARS = plots.Panel("one size", {"ours": [(4, 1.0)], "another": [(4, 3.25)], "absent": []})


def test_plot_is_drawn(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="the plots need matplotlib: pip install 'pyg_fullgraph[bench]'")
    told = plots.save_plot(tmp_path / "run.json", "Title", "edges", "seconds", [LINES, BARS, plots.Panel("empty", {})])
    assert told == f"drawn: {tmp_path / 'run.svg'}"
    svg = (tmp_path / "run.svg").read_text()
    texts = {line.strip().removeprefix("<!-- ").removesuffix(" -->") for line in svg.splitlines() if "<!-- " in line}
    assert texts >= {
        "Title",
        "growing",
        "one size",
        "edges",
        "seconds",
        "ours",
        "peer",
        "another",
        "the machine",
        "3.25",
    }
    assert "empty" not in texts and "absent" not in texts


def test_without_matplotlib_says_how_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert "pip install 'pyg_fullgraph[bench]'" in plots.save_plot(tmp_path / "run.json", "", "", "", [LINES])
    assert not list(tmp_path.iterdir())
