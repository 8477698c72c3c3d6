"""The plots of the benchmarks: one SVG file per run, of one panel per question; matplotlib is optional."""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

MISSING = "no plot was drawn: matplotlib is not installed (pip install 'pyg_fullgraph[bench]')"

Points = Sequence[tuple[float, float]]


@dataclass(frozen=True)
class Panel:
    """One panel, with lines if any has two points, else with bars.

    Attributes:
        title: above it.
        lines: name -> its points ``(x, y)``; both axes are logarithmic.
        dashed: lines to compare with, such as what the machine allows.
    """

    title: str
    lines: Mapping[str, Points]
    dashed: Mapping[str, Points] = field(default_factory=dict)


def save_plot(path: Path, title: str, x_label: str, y_label: str, panels: Sequence[Panel]) -> str:
    """Draws the panels beside and below one another into an SVG file beside a result file.

    Args:
        path: of the result file; the plot has the same name.
        title: above all.
        x_label: of every panel with lines.
        y_label: of every panel.
        panels: those without any point are left out.

    Returns:
        A sentence: where the plot is, or why there is none.
    """
    if importlib.util.find_spec("matplotlib") is None:
        return MISSING
    panels = [panel for panel in panels if any(panel.lines.values())]
    if not panels:
        return "no plot was drawn: nothing was measured"
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    columns = min(3, len(panels))
    rows = math.ceil(len(panels) / columns)
    figure = Figure(figsize=(5.2 * columns, 3.6 * rows + 0.9), layout="constrained")
    FigureCanvasSVG(figure)
    figure.suptitle(title)
    names = list(dict.fromkeys(name for panel in panels for name in [*panel.lines, *panel.dashed]))
    colours = {name: f"C{number % 10}" for number, name in enumerate(names)}
    for number, panel in enumerate(panels):
        axes = figure.add_subplot(rows, columns, number + 1)
        axes.set_title(panel.title, fontsize="medium")
        if any(len(points) > 1 for points in panel.lines.values()):
            _draw_lines(axes, panel, colours, x_label, y_label)
        else:
            _draw_bars(axes, panel, colours, y_label)
    figure.legend(*_legend(figure), loc="outside lower center", ncols=3, fontsize="small")
    target = path.with_suffix(".svg")
    figure.savefig(target, metadata={"Date": None})
    return f"drawn: {target}"


def _draw_lines(axes: Any, panel: Panel, colours: Mapping[str, str], x_label: str, y_label: str) -> None:
    for number, (name, points) in enumerate(panel.lines.items()):
        style = {"marker": "osD^vP*Xd<>h"[number % 12], "markersize": 4}
        axes.plot(*zip(*sorted(points)), label=name, color=colours[name], **style) if points else None
    for name, points in panel.dashed.items():
        axes.plot(*zip(*sorted(points)), label=name, color=colours[name], linestyle="--")
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlabel(x_label)
    axes.set_ylabel(y_label)
    axes.grid(True, which="both", alpha=0.2)


def _draw_bars(axes: Any, panel: Panel, colours: Mapping[str, str], y_label: str) -> None:
    bars = {name: points[0][1] for name, points in panel.lines.items() if points}
    drawn = axes.barh(list(bars), list(bars.values()), color=[colours[name] for name in bars])
    axes.bar_label(drawn, fmt="%.3g", padding=2, fontsize="small")
    axes.invert_yaxis()
    axes.set_xscale("log")
    axes.margins(x=0.15)
    axes.set_xlabel(y_label)


def _legend(figure: Any) -> tuple[list[Any], list[str]]:
    """One entry for every name, whichever panels have it; bars carry their names themselves."""
    found: dict[str, Any] = {}
    for axes in figure.axes:
        for handle, label in zip(*axes.get_legend_handles_labels()):
            found.setdefault(label, handle)
    return list(found.values()), list(found)
