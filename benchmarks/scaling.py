"""Does time grow linearly with edges, and do two threads give what memory allows?

    python benchmarks/scaling.py --save

A model (GraphSAGE, 3 layers of 64 columns) on R-MAT graphs of mean degree 16, from 1 M to 100 M edges. Every size and
number of threads has a fresh process; those of one size run in turn, median of the rounds. Beside the speed-up of the
threads stand those of what memory gives to as many threads: STREAM's triad, and reads of random rows as wide as the
model's from an array as large as its features (`roofline.py`). The slope is that of a line through log(seconds) over
log(edges): 1 is linear.
"""

from __future__ import annotations

import argparse
import math
from contextlib import ExitStack
from typing import Any

import torch
from apart import Apart, ApartError
from graphs import Source, add_graph_arguments, sources
from measure import Timing, announce, available_bytes, mib, print_table, result_path, save_result, take_rounds
from models import LAYERS, MODELS, Setting
from peers import Runner
from plots import Panel, save_plot
from roofline import measure_triad, random_row_bandwidth

LOG2_NODES = [16.0, 17.0, 18.0, 19.0, 20.0, 21.0, 22.0, 22.585]  # at degree 16: 1.05 M to 100.7 M edges
PROBE_BYTES = 1 << 29  # of the triad's arrays, and of what is read of random rows
#: Bytes that a process holds, at its peak too, for each edge at mean degree 16 and 64 columns, to decide whether two
#: processes fit side by side. 116 were seen at 2^20 nodes, libraries included.
BYTES_PER_EDGE = 120


class Sized:
    """One size and number of threads, in its process."""

    def __init__(self, setting: Setting) -> None:
        self._runner = Runner("ours", setting, 0.0)

    def first(self) -> dict[str, Any]:
        """The record of the first call on the graph."""
        return self._runner.first(None)

    def timed(self) -> float:
        """Seconds of a later call."""
        return self._runner.timed()

    def rates(self, row_bytes: int, size: int, probe_bytes: int) -> dict[str, float]:
        """Bytes per second of the triad and of random rows with this process's threads."""
        threads = torch.get_num_threads()
        triad = measure_triad(probe_bytes, [threads])[0]["gb_per_s"] * 1e9
        return {"triad": triad, "rows": random_row_bandwidth(row_bytes, size, threads, probe_bytes)}


def measure_size(setting: Setting, threads: list[int], repeat: int, budget: float) -> list[dict[str, Any]]:
    """One size with each number of threads; side by side and in turn if memory allows, else one after another."""
    edges = setting.source.degree * setting.source.num_nodes
    beside = len(threads) * edges * BYTES_PER_EDGE * setting.width / 64 < 0.8 * available_bytes()
    groups = [threads] if beside else [[count] for count in threads]
    rows = []
    for group in groups:
        with ExitStack() as stack:
            rows += _measure_group(setting, group, repeat, budget, stack)
    for row in rows:
        row["in_turn"] = beside
    return rows


def _measure_group(
    setting: Setting, threads: list[int], repeat: int, budget: float, stack: ExitStack
) -> list[dict[str, Any]]:
    """Processes that are there at the same time."""
    row_bytes = setting.width * 4
    rows: dict[str, dict[str, Any]] = {}
    alive: dict[str, Apart] = {}
    for count in threads:
        row: dict[str, Any] = {"model": setting.model, "graph": setting.source.title, "threads": count}
        rows[str(count)] = row
        try:
            process = stack.enter_context(Apart(Sized, setting, threads=count))
            row |= process.call("first")
            row |= process.call("rates", row_bytes, row["nodes"] * row_bytes, PROBE_BYTES)
            alive[str(count)] = process
        except ApartError as error:
            row["failed"] = str(error)
    runs = {name: lambda process=process: float(process.call("timed")) for name, process in alive.items()}
    spent = {name: rows[name]["first_call_seconds"] for name in alive}
    try:
        found = take_rounds(runs, repeat, budget, spent)
    except ApartError as error:
        found = {}
        for name in alive:
            rows[name]["failed"] = str(error)
    for name, seconds in found.items():
        timing, row = Timing(0.0, tuple(seconds)), rows[name]
        row |= {"seconds": timing.median, "spread": timing.spread, "rounds": len(seconds)}
        row["edges_per_second"] = row["edges"] / timing.median
    return list(rows.values())


def add_speed_ups(rows: list[dict[str, Any]]) -> None:
    """Adds to the rows of one size what their threads give over the fewest threads: the model, and memory."""
    base = min(rows, key=lambda row: row["threads"])
    for row in rows:
        if row is not base and "seconds" in row and "seconds" in base:
            row["speed_up"] = base["seconds"] / row["seconds"]
            row["triad_speed_up"] = row["triad"] / base["triad"]
            row["rows_speed_up"] = row["rows"] / base["rows"]


def slope(points: list[tuple[float, float]]) -> float:
    """The slope of the least-squares line through the logarithms of ``(x, y)``; NaN of fewer than two points."""
    if len({x for x, _ in points}) < 2:
        return math.nan
    x, y = torch.tensor(points, dtype=torch.float64).log().t()
    x = x - x.mean()
    return float((x * y).sum() / (x * x).sum())


def slopes(rows: list[dict[str, Any]]) -> dict[int, float]:
    """The slope for each number of threads."""
    counts = sorted({row["threads"] for row in rows})
    timed = [row for row in rows if "seconds" in row]
    return {n: slope([(row["edges"], row["seconds"]) for row in timed if row["threads"] == n]) for n in counts}


HEADER = ["graph", "edges", "threads", "seconds", "rounds", "spread", "first call", "extra memory", "M edges/s"]
HEADER += ["speed-up", "triad's", "random rows'", "triad GB/s", "rows GB/s"]


def cells(row: dict[str, Any]) -> list[str]:
    """A line of the table."""

    def show(key: str, form: str = ".2f", unit: float = 1.0) -> str:
        return "-" if key not in row else format(row[key] / unit, form)

    return [
        row["graph"],
        f"{row['edges']:,}" if "edges" in row else "-",
        str(row["threads"]),
        show("seconds", ".3f"),
        str(row.get("rounds", "-")),
        show("spread"),
        show("first_call_seconds", ".3f"),
        mib(row["extra_bytes"]) if "extra_bytes" in row else "-",
        show("edges_per_second", ".1f", 1e6),
        show("speed_up"),
        show("triad_speed_up"),
        show("rows_speed_up"),
        show("triad", ".1f", 1e9),
        show("rows", ".1f", 1e9),
    ]


def panels(rows: list[dict[str, Any]]) -> list[Panel]:
    """Seconds over edges beside a line of slope 1, edges per second, and the speed-ups of threads."""
    timed = [row for row in rows if "seconds" in row]
    time_lines: dict[str, list[tuple[float, float]]] = {}
    rate_lines: dict[str, list[tuple[float, float]]] = {}
    gains: dict[str, list[tuple[float, float]]] = {}
    for row in timed:
        name = f"{row['threads']} thread{'s' if row['threads'] > 1 else ''}"
        time_lines.setdefault(name, []).append((row["edges"], row["seconds"]))
        rate_lines.setdefault(name, []).append((row["edges"], row["edges_per_second"]))
        if "speed_up" in row:
            keys = {"speed_up": "model", "triad_speed_up": "triad", "rows_speed_up": "random rows"}
            for key, what in keys.items():
                gains.setdefault(f"{what}, {name}", []).append((row["edges"], row[key]))
    first, last = min(timed, key=lambda row: row["edges"]), max(timed, key=lambda row: row["edges"])
    start = (first["edges"], first["seconds"])
    linear = {"linear": [start, (last["edges"], start[1] * last["edges"] / start[0])]}
    return [
        Panel("seconds", time_lines, linear),
        Panel("edges per second", rate_lines),
        Panel("speed-up over the fewest threads", gains),
    ]


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_graph_arguments(parser)
    parser.add_argument("--model", choices=sorted(set(MODELS) - {"hgt"}), default="sage")
    parser.add_argument("--width", type=int, default=64, help="columns of features, hidden layers and output")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2], help="numbers of threads")
    parser.add_argument("--repeat", type=int, default=5, help="timed rounds after the first call")
    parser.add_argument("--budget", type=float, default=240.0, help="seconds for each process's calls")
    parser.add_argument("--save", action="store_true", help="write a dated file and a plot under benchmarks/results")
    arguments = parser.parse_args(argv)
    if arguments.log2_nodes is None and not arguments.real:
        arguments.log2_nodes = LOG2_NODES
    return arguments


def run_all(arguments: argparse.Namespace, graphs: list[Source]) -> list[dict[str, Any]]:
    """Every size, the file written again after each, then the table, the slopes and the plot."""
    rows: list[dict[str, Any]] = []
    path = result_path("scaling") if arguments.save else None
    for source in graphs:
        print(f"{arguments.model} on {source.title} ...", flush=True)
        setting = Setting(arguments.model, source, arguments.width)
        found = measure_size(setting, arguments.threads, arguments.repeat, arguments.budget)
        add_speed_ups(found)
        rows += found
        if path is not None:
            settings = {**vars(arguments), "slopes": {str(n): value for n, value in slopes(rows).items()}}
            save_result("scaling", settings, rows, path)
    print(f"\n{arguments.model}, {LAYERS} layers x {arguments.width} columns")
    print_table(HEADER, [cells(row) for row in rows])
    for row in rows:
        if "failed" in row:
            print(f"{row['graph']}, {row['threads']} threads: not measured: {row['failed']}")
    for count, value in slopes(rows).items():
        print(f"{count} threads: seconds grow as edges to the power of {value:.3f}")
    if path is not None:
        title = f"{arguments.model}, {LAYERS} layers x {arguments.width} columns"
        drawn = save_plot(path, title, "edges", "", panels(rows) if any("seconds" in row for row in rows) else [])
        print(f"written: {path}\n{drawn}")
    return rows


def main() -> None:
    """Runs the benchmark."""
    arguments = parse()
    graphs = sources(arguments)
    arguments.warning = announce()
    run_all(arguments, graphs)


if __name__ == "__main__":
    main()
