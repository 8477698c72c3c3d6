"""How much faster is this tree than another one, model by model, in one interleaved run?

    git worktree add ../before COMMIT && cp -p pyg_fullgraph/_C*.so ../before/pyg_fullgraph/
    python benchmarks/versus.py ../before --models hgt pna edgeconv gcn-cora --log2-nodes 16 --rounds 15 --threads 2

Each tree has a process of its own with the same inputs and weights; both make their first calls, then take turns, a
warm call each (a short call is repeated for a fifth of a second). What counts is the median over the rounds of the
ratio of the two calls of a round, of processor seconds and of seconds on the clock: a disturbance that lasts longer
than a round meets both. ``gcn-cora`` is a GCN of two layers, 16 columns wide, on a graph of Cora's size with 1,433
random features. ``--predicted`` adds, for this tree, measured over predicted seconds: of the call, and of its worst
superstep.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
SHORT = 0.2  # seconds that a timed run takes at least, by repetition
CORA = "gcn-cora"


def main() -> None:
    """Runs the comparison, or one side of it."""
    if sys.argv[1:2] == ["--side"]:
        serve(json.loads(sys.argv[2]))
        return
    arguments = parse()
    print(
        f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores; {arguments.threads} threads; ratios are other / this"
    )
    print(
        f"{'model':12} {'cpu ratio':>10} {'clock ratio':>12} {'this cpu s':>11} {'other cpu s':>12} {'difference':>11}"
    )
    for model in arguments.models:
        print(line(model, arguments), flush=True)


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("other", type=Path, help="the tree to compare with: a checkout whose extension is built")
    parser.add_argument(
        "--models", nargs="+", default=["hgt", "pna", "edgeconv", CORA], help=f"of models.py, or {CORA}"
    )
    parser.add_argument("--log2-nodes", type=float, default=16, help="base-2 logarithm of the R-MAT graph's nodes")
    parser.add_argument("--degree", type=int, default=16, help="its mean in-degree")
    parser.add_argument("--rounds", type=int, default=15, help="timed rounds")
    parser.add_argument("--threads", type=int, default=1, help="torch threads of each side")
    parser.add_argument("--predicted", action="store_true", help="compare with the cost model as well")
    return parser.parse_args()


def line(model: str, arguments: argparse.Namespace) -> str:
    """Measures one model; a line of the table."""
    settings = {"model": model, "nodes": arguments.log2_nodes, "degree": arguments.degree, "threads": arguments.threads}
    this, other = Side(HERE.parent, settings), Side(arguments.other.resolve(), settings)
    try:
        rounds = [(this.ask("run"), other.ask("run")) for _ in range(arguments.rounds)]
        cpu, clock = (statistics.median(b[i] / a[i] for a, b in rounds) for i in (0, 1))
        mine, theirs = (statistics.median(pair[i][0] for pair in rounds) for i in (0, 1))
        difference = abs(this.ask("sum") - other.ask("sum")) / max(abs(other.ask("sum")), 1e-30)
        text = f"{model:12} {cpu:12.2f} {clock:12.2f} {mine:12.4f} {theirs:12.4f} {difference:12.1e}"
        return text + (f"  measured / predicted: {this.ask('predicted')}" if arguments.predicted else "")
    finally:
        this.close()
        other.close()


class Side:
    """A process that runs one tree's engine."""

    def __init__(self, tree: Path, settings: dict[str, Any]) -> None:
        path = os.pathsep.join([str(tree), str(HERE)])
        environment = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": str(settings["threads"])}
        command = [sys.executable, str(HERE / "versus.py"), "--side", json.dumps({**settings, "tree": str(tree)})]
        pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        self._process = subprocess.Popen(command, env=environment, **pipes)
        self.ask("ready")

    def ask(self, what: str) -> Any:
        """Sends a request and waits for its answer."""
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(what + "\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        if not answer:
            raise SystemExit(f"a side ended with exit code {self._process.wait()}")
        return json.loads(answer)

    def close(self) -> None:
        """Ends the process."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()


def serve(settings: dict[str, Any]) -> None:
    """One side: answers requests until its input ends."""
    import torch

    import pyg_fullgraph

    if Path(pyg_fullgraph.__file__).resolve().parent.parent != Path(settings["tree"]):
        raise SystemExit(f"imported {pyg_fullgraph.__file__}, not that of {settings['tree']}")
    torch.set_num_threads(settings["threads"])
    model, inputs = build(settings)
    engine = pyg_fullgraph.compile(model, verify="off")
    for _ in range(3):
        out = engine(*inputs)
    seconds = _timed(engine, inputs, 1)[1]
    repeat = max(round(SHORT / max(seconds, 1e-6)), 1)
    for request in sys.stdin:
        what = request.strip()
        answer: Any = None
        if what == "run":
            answer = _timed(engine, inputs, repeat)
        elif what == "sum":
            leaves = torch.utils._pytree.tree_leaves(out)
            answer = sum(float(leaf.double().abs().sum()) for leaf in leaves)
        elif what == "predicted":
            answer = _predicted(engine, inputs)
        print(json.dumps(answer), flush=True)


def build(settings: dict[str, Any]) -> tuple[Any, tuple[Any, ...]]:
    """The model and its arguments."""
    import torch
    from graphs import Source
    from models import Setting, build_inputs, build_model
    from torch_geometric.nn.models import GCN

    if settings["model"] != CORA:
        setting = Setting(settings["model"], Source(settings["nodes"], settings["degree"]))
        return build_model(setting), build_inputs(setting)
    torch.manual_seed(0)
    half = torch.randint(0, 2708, (2, 5278))
    return GCN(1433, 16, 2, 7).eval(), (torch.rand(2708, 1433), torch.cat([half, half.flip(0)], 1))


def _timed(engine: Any, inputs: tuple[Any, ...], repeat: int) -> tuple[float, float]:
    """Processor seconds and seconds of one call."""
    cpu, clock = time.process_time(), time.perf_counter()
    for _ in range(repeat):
        engine(*inputs)
    return (time.process_time() - cpu) / repeat, (time.perf_counter() - clock) / repeat


def _predicted(engine: Any, inputs: tuple[Any, ...], calls: int = 5) -> str:
    """Measured over predicted seconds: of the fastest of some calls, and of its worst superstep."""
    engine.explain(*inputs)  # measures the machine
    reports = []
    for _ in range(calls):
        engine(*inputs)
        reports.append(engine.explain(*inputs))
    report = min(reports, key=lambda each: sum(each.measured))
    predicted = [cost.seconds(report.machine) for cost in report.costs]
    steps = [(real / likely, number) for number, (real, likely) in enumerate(zip(report.measured, predicted)) if likely]
    worst, number = max(steps)
    return f"{sum(report.measured) / sum(predicted):.2f}, superstep {number} {worst:.2f}"


if __name__ == "__main__":
    main()
