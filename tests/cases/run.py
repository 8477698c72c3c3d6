"""Run the cases with the versions that are installed, and write what became of each.

    python -m tests.cases.run RESULTS [--every K --first I] [--only PART]

RESULTS gets one JSON object per line, the versions first, and is only added to: cases that it has are not run again, so
that a run that was stopped goes on. A case is

    exact     captured, and equal to the model's own forward on every graph it was tried on, in blocks of five rows
    refused   an error of the package before any result
    wrong     another result, in silence or found by verification
    failed    an error that is none of the package's
    absent    this version of torch_geometric has no such class or option, or its own forward fails

`scripts/version-matrix` runs this in environments of many versions.
"""

from __future__ import annotations

import argparse
import json
import platform
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from pyg_fullgraph import ops
from pyg_fullgraph.engine import Engine
from pyg_fullgraph.errors import FullGraphError, FullGraphMismatch
from pyg_fullgraph.plan import blocks
from tests.cases.case import Case, module_of, replay_graph
from tests.cases.table import ALL
from tests.graphs import NASTY
from tests.test_exactness import AmplifiedRounding, assert_exact, forward

STATUSES = ("exact", "refused", "wrong", "failed", "absent")
GRAPHS = {"replay": replay_graph(), "mixed": NASTY["mixed"]}
PACKAGES = ("torch", "torch_geometric", "numpy", "scipy")


def main() -> None:
    """Run them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", type=Path, help="file of JSON lines, added to")
    parser.add_argument("--every", type=int, default=1, help="run every K-th case only")
    parser.add_argument("--first", type=int, default=0, help="from this one on")
    parser.add_argument("--only", default="", help="run cases whose id holds this")
    asked = parser.parse_args()
    done = {line.get("id") for line in read(asked.results)}
    with asked.results.open("a") as file:
        write(file, {"versions": versions()})
        for case in ALL[asked.first :: asked.every]:
            if asked.only in case.id and case.id not in done:
                write(file, {"id": case.id, "started": True})
                status, why = outcome(case)
                write(file, {"id": case.id, "status": status, "why": why, "expected": case.status})
                print(f"{status:8} {case.id} {why if status != 'exact' else ''}", flush=True)


def write(file: Any, line: dict[str, Any]) -> None:
    """One line, at once on disk: the next case may kill the process."""
    file.write(json.dumps(line) + "\n")
    file.flush()


def read(results: Path) -> list[dict[str, Any]]:
    """What is there already; a case that was begun but has no outcome does not count as done."""
    if not results.exists():
        return []
    lines = [json.loads(line) for line in results.read_text().splitlines() if line.strip()]
    return [line for line in lines if "started" not in line]


def versions() -> dict[str, str]:
    """What the run runs on."""
    found = {"python": platform.python_version(), "kernels": ops.kernels()["backend"]}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = ""
    return found


def outcome(case: Case) -> tuple[str, str]:
    """The status of a case here, and why it is not exact."""
    try:
        module = module_of(case)
        if forward(module_of(case), case.make_inputs(GRAPHS["replay"])) is None:
            return "absent", "its own forward fails here"
    except Exception as error:  # nothing of the package has run yet
        return "absent", _short(error)
    try:
        with small_blocks():
            compare(case, module)
    except (FullGraphMismatch, AssertionError) as error:
        return "wrong", _short(error)
    except FullGraphError as error:
        return "refused", _short(error)
    except Exception as error:
        return "failed", _short(error)
    return "exact", ""


def compare(case: Case, module: torch.nn.Module) -> None:
    """As `tests.test_exactness` does, on two graphs.

    Raises:
        AssertionError: a result differs.
    """
    engine = Engine(module, verify="off", threads=1)
    for name, graph in GRAPHS.items():
        inputs = case.make_inputs(graph)
        own = module_of(case) if case.keeps else module
        expected = forward(own, inputs)
        if expected is not None:
            got = engine(*inputs[0], **inputs[1])
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", AmplifiedRounding)
                assert_exact(f"on {name}", own, inputs, expected, got)


@contextmanager
def small_blocks() -> Iterator[None]:
    """Blocks of at most five rows, so that every operator is run on parts of its rows."""
    names = {"MIN_ROWS": 1, "MAX_ROWS": 5, "SMALLEST": 1}
    before = {name: getattr(blocks, name) for name in names}
    try:
        for name, value in names.items():
            setattr(blocks, name, value)
        yield
    finally:
        for name, value in before.items():
            setattr(blocks, name, value)


def _short(error: BaseException) -> str:
    """The kind of an error, and the beginning of what it says."""
    return " ".join(f"{type(error).__name__}: {error}".split())[:300]


if __name__ == "__main__":
    main()
