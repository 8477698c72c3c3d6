"""What does it cost to begin: the import, the first call, and a call on a small graph?

    python benchmarks/startup.py --models sage gat --log2-nodes 8 16

Three tables. *Import*: seconds until `torch_geometric` is there, and until it and all public names of
`pyg_fullgraph` are, in fresh processes. *First call*: where its seconds go, each model in a fresh process, since
what torch imports for its first trace counts too: trace; plan (raising, passes, cuts, the text of the blocks);
structure (checks of the indices, sorting the edges, what depends on them alone); run; verification (with its own
run on a part of the graph); "later" is a call afterwards. *Small graphs*: a warm call against PyG's own forward,
two layers on a random graph with as many nodes and edges as Cora, ten calls of one and ten of the other in turn.
"""

from __future__ import annotations

import argparse
import functools
import multiprocessing
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import torch
from graphs import Source
from measure import announce, print_table, save_result, time_interleaved
from models import MODELS, Setting, build_inputs, build_model
from torch_geometric.nn.models import GAT, GCN, GraphSAGE

import pyg_fullgraph as fg
from pyg_fullgraph import engine as engines
from pyg_fullgraph.graph.generate import uniform

PYG = "torch_geometric"
OURS = "torch_geometric, all names of pyg_fullgraph"
ALONE = "pyg_fullgraph, no name of it"
IMPORTS = {
    PYG: "import torch_geometric",
    OURS: "import torch_geometric, pyg_fullgraph as fg; [getattr(fg, name) for name in fg.__all__]",
    ALONE: "import pyg_fullgraph",
}
_TIMED = "import sys, time; a = time.perf_counter(), time.process_time(); {}; print(\
time.perf_counter() - a[0], time.process_time() - a[1], len(sys.modules))"

STAGES = ("trace", "plan", "structure", "run", "verification", "other")
CORA_NODES, CORA_EDGES, CORA_COLUMNS, CLASSES = 2708, 10556, 1433, 7
IN_A_ROW = 10
SMALL = {"gcn": GCN, "sage": GraphSAGE, "gat": functools.partial(GAT, heads=4)}


def measure_imports(repeat: int) -> list[dict[str, Any]]:
    """Medians of ``repeat`` fresh processes each, in rounds; the round before them compiles the files, as pip does."""
    runs: dict[str, list[list[float]]] = {name: [] for name in IMPORTS}
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"}
    for _ in range(1 + repeat):
        for name, statement in IMPORTS.items():
            command = [sys.executable, "-c", _TIMED.format(statement)]
            out = subprocess.run(command, capture_output=True, text=True, check=True, env=environment).stdout
            runs[name].append([float(part) for part in out.split()])
    medians = {name: [statistics.median(column) for column in zip(*rows[1:])] for name, rows in runs.items()}
    base = medians[PYG]
    return [
        {
            "import": name,
            "seconds": seconds,
            "processor_seconds": processor,
            "modules": int(modules),
            "times_pyg": processor / base[1],
        }
        for name, (seconds, processor, modules) in medians.items()
    ]


class Stages:
    """Seconds of each stage of a first call; a stage inside another counts as that one."""

    def __init__(self) -> None:
        self.seconds = dict.fromkeys(STAGES, 0.0)
        self._inside = False

    def watch(self, owner: Any, name: str, stage: str) -> None:
        """Times every call of ``owner.name``."""
        function = getattr(owner, name)

        @functools.wraps(function)
        def timed(*args: Any, **kwargs: Any) -> Any:
            if self._inside:
                return function(*args, **kwargs)
            self._inside, start = True, time.perf_counter()
            try:
                return function(*args, **kwargs)
            finally:
                self._inside = False
                self.seconds[stage] += time.perf_counter() - start

        setattr(owner, name, timed)

    def watch_engine(self) -> None:
        """Times what an engine calls, for the rest of the process."""
        self.watch(engines, "trace", "trace")
        for name in ("raise_program", "optimise", "cut", "Compiled"):
            self.watch(engines, name, "plan")
        self.watch(engines.Engine, "_structure", "structure")
        self.watch(engines.Run, "run", "run")
        self.watch(engines.Engine, "_verify", "verification")


def first_call(setting: Setting, sender: Any) -> None:
    """What runs in a fresh process: a first call, taken apart, and a later one."""
    inputs, model = build_inputs(setting), build_model(setting)
    engine, stages = fg.compile(model), Stages()
    stages.watch_engine()
    start, processor = time.perf_counter(), time.process_time()
    engine(*inputs)
    total, processor = time.perf_counter() - start, time.process_time() - processor
    parts = dict(stages.seconds)
    parts["other"] = total - sum(parts.values())
    start = time.perf_counter()
    engine(*inputs)
    later = time.perf_counter() - start
    again, start = fg.compile(build_model(setting)), time.perf_counter()
    again(*inputs)
    next_engine = time.perf_counter() - start
    sender.send({"first": total, "processor_seconds": processor, **parts, "later": later, "next_engine": next_engine})


def measure_first_calls(models: list[str], sizes: list[int], degree: int, width: int) -> list[dict[str, Any]]:
    """One fresh process for each model and size."""
    context, rows = multiprocessing.get_context("spawn"), []
    for model in models:
        for log2_nodes in sizes:
            receiver, sender = context.Pipe(duplex=False)
            setting = Setting(model, Source(log2_nodes, degree), width)
            child = context.Process(target=first_call, args=(setting, sender))
            child.start()
            sender.close()
            try:
                rows.append({"model": model, "log2_nodes": log2_nodes, **receiver.recv()})
            finally:
                child.join()
    return rows


def measure_small(repeat: int) -> list[dict[str, Any]]:
    """Warm calls of an engine and of the model itself, in turn."""
    edge_index, rows = uniform(CORA_NODES, CORA_EDGES), []
    for columns in (64, CORA_COLUMNS):
        x = torch.randn(CORA_NODES, columns, generator=torch.Generator().manual_seed(0))
        for hidden in (16, 64):
            for name, build in SMALL.items():
                torch.manual_seed(0)
                model = build(columns, hidden, 2, CLASSES).eval()
                rows.append(
                    {"model": name, "columns": columns, "hidden": hidden, **_warm(model, x, edge_index, repeat)}
                )
    return rows


@torch.no_grad()
def _warm(model: torch.nn.Module, x: torch.Tensor, edge_index: torch.Tensor, repeat: int) -> dict[str, float]:
    """Seconds of a call: medians of rounds of ten in a row, and ours over PyG's.

    In a row, as users call; strictly in turn each peer disturbs the other (docs/log.md).
    """
    engine = fg.compile(model)

    def calls(run: Callable[..., Any]) -> Callable[[], None]:
        return lambda: [run(x, edge_index) for _ in range(IN_A_ROW)].clear()

    timings = time_interleaved({"ours": calls(engine), "pyg": calls(model)}, repeat)
    ours, pyg = (timings[peer].median / IN_A_ROW for peer in ("ours", "pyg"))
    return {"ours": ours, "pyg": pyg, "ours_over_pyg": ours / pyg}


def _print(imports: list[dict[str, Any]], first: list[dict[str, Any]], small: list[dict[str, Any]]) -> None:
    """The three tables."""
    if imports:
        print("\nimport")
        header = ["what", "seconds", "processor", "modules", "x PyG (processor)"]
        keys = ("seconds", "processor_seconds")
        cells = [[row["import"], *(f"{row[key]:.3f}" for key in keys), str(row["modules"])] for row in imports]
        print_table(header, [[*cell, f"{row['times_pyg']:.3f}"] for cell, row in zip(cells, imports)])
    if first:
        print("\nfirst call, seconds")
        keys = ("first", "processor_seconds", *STAGES, "later", "next_engine")
        header = ["model", "log2 nodes", "first call", "processor", *STAGES, "later", "next engine's"]
        print_table(
            header, [[row["model"], str(row["log2_nodes"]), *(f"{row[key]:.3f}" for key in keys)] for row in first]
        )
    if small:
        print(f"\nsmall graphs: {CORA_NODES:,} nodes, {CORA_EDGES:,} edges, two layers, milliseconds of a warm call")
        cells = [
            [
                row["model"],
                str(row["columns"]),
                str(row["hidden"]),
                f"{row['ours'] * 1e3:.2f}",
                f"{row['pyg'] * 1e3:.2f}",
            ]
            for row in small
        ]
        header = ["model", "columns", "hidden", "ours", "PyG's forward", "ours / PyG"]
        print_table(header, [[*cell, f"{row['ours_over_pyg']:.2f}"] for cell, row in zip(cells, small)])


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="*", choices=MODELS, default=["sage", "gat", "pna", "hgt"])
    parser.add_argument("--log2-nodes", type=int, nargs="*", default=[8, 16], help="of the first calls")
    parser.add_argument("--degree", type=int, default=16, help="mean in-degree of the first calls")
    parser.add_argument("--width", type=int, default=128, help="columns of the first calls")
    parser.add_argument("--repeat-import", type=int, default=5, help="fresh processes; 0 leaves this table out")
    parser.add_argument("--repeat-small", type=int, default=7, help="rounds of warm calls; 0 leaves this table out")
    parser.add_argument("--save", action="store_true", help="write a dated file under benchmarks/results")
    return parser.parse_args(argv)


def main() -> None:
    """Runs the benchmark."""
    arguments, warning = parse(), announce()
    imports = measure_imports(arguments.repeat_import) if arguments.repeat_import else []
    first = measure_first_calls(arguments.models, arguments.log2_nodes, arguments.degree, arguments.width)
    small = measure_small(arguments.repeat_small) if arguments.repeat_small else []
    _print(imports, first, small)
    if arguments.save:
        rows = [*imports, *first, *small]
        print(f"\nwritten: {save_result('startup', {**vars(arguments), 'warning': warning}, rows)}")


if __name__ == "__main__":
    main()
