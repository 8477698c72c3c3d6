"""How fast and how lean is a whole model on a whole graph, against PyG's own ways to run it, and DGL?

    python benchmarks/whole_model.py --models sage gat --log2-nodes 16 18 --degree 3 16 --real github_social --save

Three-layer models (`models.py`), 128 columns wide. Every peer (`peers.py`) has a process of its own, so that one that
runs out of memory gives a row that says so and the run goes on. It runs the model on a tiny graph (imports, tracing),
then ten times on the graph for the peak extra memory of the first, the second and the tenth call, all over the size
before the first, then in rounds with the others for the seconds: the median counts. Between calls nothing collects
garbage or gives pages back. A slow peer takes part in as many rounds as fit into ``--budget``, at least in one.
The difference is the largest to PyG's full batch (to ours where that has none), over the largest output magnitude.
"""

from __future__ import annotations

import argparse
import math
import tempfile
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from apart import Apart, ApartError
from baselines import has_sampler
from graphs import Source, add_graph_arguments, sources
from measure import Timing, announce, measured_bandwidth, mib, print_table, result_path, save_result, take_rounds
from models import LAYERS, MODELS, Setting, takes_graph
from peers import CSR_DIFFERS, PEERS, Runner, why_not
from plots import Panel, save_plot
from torch import Tensor
from torch.utils._pytree import tree_leaves

#: Which later calls' memory is measured, each where its calls take no more than a part of the budget.
LATER = {"second": 2, "tenth": 10}
LATER_SHARE = 1 / 2


@dataclass
class Entry:
    """A peer in a run: its process, what is known of it, and why it is out, if it is."""

    key: str
    output: Path
    process: Apart | None = None
    record: dict[str, Any] = field(default_factory=dict)
    seconds: list[float] = field(default_factory=list)
    failed: str = ""

    def call(self, method: str, *arguments: Any) -> Any:
        """Calls a method of the peer's `Runner`; a failure puts it out."""
        if self.failed or self.process is None:
            return None
        try:
            return self.process.call(method, *arguments)
        except ApartError as error:
            self.failed = str(error)
            return None

    def timed(self) -> float:
        """Seconds of one call, none left if there is no such call."""
        seconds = self.call("timed")
        return math.inf if seconds is None else float(seconds)


def enter(key: str, setting: Setting, budget: float, folder: Path, stack: ExitStack) -> Entry:
    """Starts a peer and measures the memory that it needs."""
    entry = Entry(key, folder / f"{key}.pt", failed=why_not(key, setting.model))
    if not entry.failed and not takes_graph(setting.model, setting.source):
        entry.failed = "the model knows no types of nodes"
    if entry.failed:
        return entry
    try:
        entry.process = stack.enter_context(Apart(Runner, key, setting, budget))
    except ApartError as error:
        entry.failed = str(error)
        return entry
    entry.record = entry.call("first", entry.output) or {}
    for name, number in LATER.items():
        if entry.record and (number - 1) * entry.record["first_call_seconds"] < LATER_SHARE * budget:
            entry.record[f"extra_bytes_{name}"] = entry.call("later", number)
    return entry


def run_setting(
    setting: Setting, keys: list[str], repeat: int, budget: float, bandwidth: float
) -> list[dict[str, Any]]:
    """Measures all peers on one model and graph; one record for each."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        entries = [enter(key, setting, budget, folder, stack) for key in keys]
        able = {entry.key: entry for entry in entries if not entry.failed}
        spent = {key: entry.record["first_call_seconds"] for key, entry in able.items()}
        rounds = take_rounds({key: entry.timed for key, entry in able.items()}, repeat, budget, spent)
        for key, entry in able.items():
            entry.seconds = [seconds for seconds in rounds[key] if seconds < math.inf]
        moved = able["ours"].call("traffic") if "ours" in able else None
        compare(entries)
    rows = [to_row(setting, entry, able.get("ours")) for entry in entries]
    for row in rows:
        if row["peer"] == "ours" and moved is not None and "seconds" in row:
            row |= {"bytes_moved": moved, "bandwidth_share": moved / row["seconds"] / bandwidth}
    return rows


def compare(entries: list[Entry]) -> None:
    """Adds to every record how far the peer's output is from the reference."""
    reference = next((e for key in ("full", "ours") for e in entries if e.key == key and e.output.exists()), None)
    if reference is None:
        return
    expected = _load(reference.output)
    for entry in entries:
        if entry.output.exists() and entry is not reference:
            entry.record["difference"] = relative_difference(_load(entry.output), expected)
            entry.record["difference_from"] = reference.key


def _load(path: Path) -> list[Tensor]:
    leaves: list[Tensor] = torch.load(path, weights_only=True, mmap=True)
    return leaves


def relative_difference(out: Any, reference: Any) -> float:
    """The largest absolute difference over the largest magnitude of the reference, of the worst output tensor."""
    pairs = zip(tree_leaves(out), tree_leaves(reference), strict=True)
    return max(float((a - b).abs().max() / b.abs().max().clamp(min=1e-30)) for a, b in pairs if b.numel())


def to_row(setting: Setting, entry: Entry, ours: Entry | None) -> dict[str, Any]:
    """One peer's record; ratios are peer over ours."""
    source = setting.source
    row = {"model": setting.model, "width": setting.width, **asdict(source), "graph": source.title}
    row |= {"peer": entry.key, "name": PEERS[entry.key].name}
    row |= entry.record
    if entry.failed:
        row["failed"] = entry.failed
    if not entry.seconds:
        return row
    timing = Timing(entry.record["first_call_seconds"], tuple(entry.seconds))
    row |= {"seconds": timing.median, "spread": timing.spread, "rounds": len(entry.seconds)}
    if ours is not None and ours.seconds:
        row["times_ours"] = timing.median / Timing(0.0, tuple(ours.seconds)).median
        if entry.record.get("extra_bytes") is not None:
            row["memory_times_ours"] = entry.record["extra_bytes"] / max(ours.record["extra_bytes"], 1)
    return row


HEADER = ["model", "graph", "peer", "seconds", "x ours", "rounds", "spread"]
HEADER += ["first call", "extra memory", "x ours", *(f"{name} call's" for name in LATER), "difference"]


def cells(row: dict[str, Any]) -> list[str]:
    """A line of the table."""

    def show(key: str, form: str = ".2f") -> str:
        return "-" if row.get(key) is None else format(row[key], form)

    return [
        row["model"],
        row["graph"],
        row["name"],
        "none" if "failed" in row else show("seconds", ".3f"),
        show("times_ours"),
        show("rounds", "d"),
        show("spread"),
        show("first_call_seconds", ".3f"),
        "-" if row.get("extra_bytes") is None else mib(row["extra_bytes"]),
        show("memory_times_ours"),
        *("-" if row.get(key) is None else mib(row[key]) for key in (f"extra_bytes_{name}" for name in LATER)),
        show("difference", ".1e"),
    ]


def footnotes(rows: list[dict[str, Any]]) -> list[str]:
    """What the table has no room for, each said once."""
    notes: dict[str, None] = {}
    for row in rows:
        where = f"{row['model']}, {row['graph']}, {row['name']}"
        if "failed" in row:
            measured = "not measured" if "seconds" not in row else f"only {row['rounds']} rounds"
            notes[f"{where}: {measured}: {row['failed']}"] = None
        elif row.get("note"):
            notes[f"{where}: {row['note']}"] = None
        if "bytes_moved" in row:
            share = f"{row['bandwidth_share']:.0%} of the triad's bandwidth"
            notes[f"{where}: moved {mib(row['bytes_moved'])}, {share}"] = None
        if row["peer"] == "csr" and (row.get("difference") or 0.0) > 1e-4:
            notes[f"{row['name']}: {CSR_DIFFERS}"] = None
    return list(notes)


def panels(rows: list[dict[str, Any]]) -> list[Panel]:
    """One panel per model and kind of graph: seconds over edges, a line for each peer."""
    found: dict[str, dict[str, list[tuple[float, float]]]] = {}
    for row in rows:
        if "seconds" in row:
            kind = row["real"] or f"R-MAT, degree {row['degree']}"
            lines = found.setdefault(f"{row['model']}, {kind}", {})
            lines.setdefault(row["name"], []).append((row["edges"], row["seconds"]))
    return [Panel(title, lines) for title, lines in found.items()]


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", choices=MODELS, default=["sage", "gcn", "gat"], help="models to run")
    parser.add_argument("--peers", nargs="+", choices=PEERS, default=list(PEERS), help="who takes part (peers.py)")
    add_graph_arguments(parser)
    parser.add_argument("--width", type=int, default=128, help="columns of features, hidden layers and output")
    parser.add_argument("--repeat", type=int, default=5, help="timed rounds after the first call")
    parser.add_argument("--budget", type=float, default=120.0, help="seconds of each peer per model and graph")
    parser.add_argument("--threads", type=int, default=None, help="torch threads (default: torch's own)")
    parser.add_argument("--save", action="store_true", help="write a dated file and a plot under benchmarks/results")
    return parser.parse_args(argv)


def run_all(arguments: argparse.Namespace, graphs: list[Source], bandwidth: float) -> list[dict[str, Any]]:
    """Every model on every graph, the file written again after each, then the table, its footnotes and the plot."""
    rows: list[dict[str, Any]] = []
    path = result_path("whole-model") if arguments.save else None
    settings = {**vars(arguments), "bandwidth_bytes_per_second": bandwidth, "layers": LAYERS}
    for source in graphs:
        for model in arguments.models:
            print(f"{model} on {source.title} ...", flush=True)
            setting = Setting(model, source, arguments.width)
            rows += run_setting(setting, arguments.peers, arguments.repeat, arguments.budget, bandwidth)
            if path is not None:
                save_result("whole-model", settings, rows, path)
    print(f"\n{LAYERS} layers x {arguments.width} columns; x ours: times what fg.compile takes")
    print_table(HEADER, [cells(row) for row in rows], left=3)
    print("\n".join(["", *footnotes(rows)]))
    if path is not None:
        title = f"Whole models, {LAYERS} layers x {arguments.width} columns, {torch.get_num_threads()} threads"
        print(f"\nwritten: {path}\n{save_plot(path, title, 'edges', 'seconds', panels(rows))}")
    return rows


def main() -> None:
    """Runs the benchmark."""
    arguments = parse()
    graphs = sources(arguments)
    arguments.warning = announce(arguments.threads)
    bandwidth = measured_bandwidth()
    print(f"memory bandwidth (triad): {bandwidth / 1e9:.1f} GB/s; sampler: {'installed' if has_sampler() else 'none'}")
    run_all(arguments, graphs, bandwidth)


if __name__ == "__main__":
    main()
