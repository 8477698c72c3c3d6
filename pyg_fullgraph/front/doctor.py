"""`pyg-fullgraph doctor`: what is installed, which kernels serve and why, and whether the results are right
here."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch_geometric.data import Data
from torch_geometric.nn.models import GAT, GCN

from pyg_fullgraph import ops
from pyg_fullgraph.front.versions import untried
from pyg_fullgraph.graph.generate import rmat

PACKAGES = ("pyg_fullgraph", "torch", "torch_geometric", "numpy", "pyg_lib", "torch_sparse", "torch_scatter")
SCALE, DEGREE, COLUMNS = 13, 12, 64
#: The promise for float32: the largest difference, as a fraction of the largest magnitude.
EXACT = 1e-5


@dataclass(frozen=True)
class Check:
    """One model of the self-test.

    Attributes:
        name: of the model.
        error: the largest difference to PyG's forward, as a fraction of the largest magnitude.
        seconds: the fastest of three runs here, after a first one.
        reference: the same for a full-batch forward of PyG, in seconds.
    """

    name: str
    error: float
    seconds: float
    reference: float

    @property
    def exact(self) -> bool:
        """Whether the promise is kept."""
        return self.error <= EXACT

    def __str__(self) -> str:
        verdict = "exact" if self.exact else f"WRONG (allowed {EXACT:.0e})"
        return (
            f"{self.name:<4} largest difference to PyG's forward {self.error:.1e}: {verdict}; "
            f"{1e3 * self.seconds:.1f} ms, PyG full batch {1e3 * self.reference:.1f} ms "
            f"({self.reference / max(self.seconds, 1e-9):.1f} times)"
        )


def versions() -> dict[str, str]:
    """Returns the versions of what matters; ``not installed`` where something is not."""
    found = {"python": platform.python_version()}
    return found | {package: installed(package) for package in PACKAGES}


def installed(package: str) -> str:
    """Returns the version of a package, or ``not installed``."""
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def machine() -> dict[str, str]:
    """Returns what the machine offers."""
    return {
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "processor": _processor(),
        "cores": f"{_cores()} usable, torch uses {torch.get_num_threads()} threads",
        "cuda": torch.cuda.get_device_name() if torch.cuda.is_available() else "none",
    }


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    if info.is_file():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or "unknown"


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _load() -> float:
    """How many processes wanted to run during the last minute; 0 where the system does not tell."""
    return os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0


def kernels() -> dict[str, str]:
    """Returns which kernels serve, as text; the reason comes first where the fast ones do not."""
    described = ops.kernels()
    names = {"cpp": "C++ kernels", "python": "the reference operators in plain torch (slow)"}
    found = {"serving": names.get(described["backend"], described["backend"])}
    if described.get("reason"):
        found["because"] = described["reason"]
    for key, value in described.items():
        if key not in ("backend", "reason") and value not in (None, [], ""):
            found[key] = ", ".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)
    return found


def self_test(inference: Callable[..., Any]) -> list[Check]:
    """Runs a GCN and a GAT over a small R-MAT graph, here and by PyG's own forward.

    Args:
        inference: ``inference(model, data)``.
    """
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2**SCALE, COLUMNS, generator=generator)
    data = Data(x=x, edge_index=rmat(SCALE, DEGREE))
    torch.manual_seed(0)
    models = {"GCN": GCN(COLUMNS, COLUMNS, 2, 16), "GAT": GAT(COLUMNS, COLUMNS, 2, 16, heads=4)}
    return [_check(name, model.eval(), data, inference) for name, model in models.items()]


def _check(name: str, model: torch.nn.Module, data: Data, inference: Callable[..., Any]) -> Check:
    """One model, here and by PyG, timed alike; the first call of either, which may trace, does not count."""
    with torch.no_grad():
        theirs, reference = _best(lambda: model(data.x, data.edge_index))
    ours, seconds = _best(lambda: inference(model, data))
    return Check(name, _error(ours, theirs), seconds, reference)


def _best(call: Callable[[], Tensor]) -> tuple[Tensor, float]:
    """The result of a call, and the shortest of three times after a first one: others may be at work, too."""
    result = call()
    seconds = []
    for _ in range(3):
        start = time.perf_counter()
        result = call()
        seconds.append(time.perf_counter() - start)
    return result, min(seconds)


def _error(ours: Tensor, theirs: Tensor) -> float:
    """The largest difference as a fraction of the largest magnitude; infinite for NaN."""
    difference = float((ours - theirs).abs().max().nan_to_num(nan=float("inf")))
    return difference / max(float(theirs.abs().max()), 1e-30)


def examine(inference: Callable[..., Any], show: Callable[[str], Any] = print) -> bool:
    """Prints the whole report; returns whether the self-test was exact."""
    for title, facts in (("versions", versions()), ("machine", machine()), ("kernels", kernels())):
        show(f"\n{title}")
        for key, value in facts.items():
            show(f"  {key:<16} {value}")
    for text in untried():
        show(f"  note: {text}")
    show(f"\nself-test: R-MAT, {2**SCALE:,} nodes, {DEGREE * 2**SCALE:,} edges, {COLUMNS} columns")
    checks = self_test(inference)
    for check in checks:
        show(f"  {check}")
    load = _load()
    if load > _cores() + 1:
        show(
            f"  the machine is busy (load {load:.1f} on {_cores()} cores): threads that wait for each other "
            "slow PyG down more than us, so these times and ratios mean little"
        )
    fine = all(check.exact for check in checks)
    show("\nall is well" if fine else "\nresults are WRONG on this machine: please report this whole text")
    return fine
