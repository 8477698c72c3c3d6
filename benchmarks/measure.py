"""Fair measurements: interleaved medians, peak extra memory, bandwidth, dated results.

Nothing collects garbage, gives pages back or warms up between two runs: what a run leaves behind is paid for by the
next, as by a user. A process starts clean once (`start_clean`), whatever it is to measure.
"""

from __future__ import annotations

import ctypes
import gc
import json
import math
import os
import platform
import statistics
import subprocess
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from torch.utils._pytree import tree_leaves

RESULTS = Path(__file__).parent / "results"
SHORT = 0.005  # seconds of a run below which it is repeated


@dataclass(frozen=True)
class Timing:
    """Seconds of several runs of one thing.

    Attributes:
        first: seconds of the first run, with all that happens once (tracing, structure, page faults).
        seconds: the later runs.
    """

    first: float
    seconds: tuple[float, ...]

    @property
    def median(self) -> float:
        """The median of the later runs; of the first one where there is no other."""
        return statistics.median(self.seconds) if self.seconds else self.first

    @property
    def spread(self) -> float:
        """Largest over smallest of the later runs: how quiet the machine was."""
        return max(self.seconds) / min(self.seconds) if self.seconds else 1.0


def time_interleaved(
    peers: Mapping[str, Callable[[], Any]], repeat: int = 5, budget: float = math.inf
) -> dict[str, Timing]:
    """Times the first run of every peer, then ``repeat`` rounds, so that a disturbance of the machine meets all of
    them.

    Args:
        peers: name -> what to run. Their results are dropped at once.
        repeat: the number of rounds after the first.
        budget: as for `take_rounds`.
    """
    runs = {name: lambda run=run: seconds_of(run) for name, run in peers.items()}
    first = {name: _seconds(run, 1) for name, run in peers.items()}
    later = take_rounds(runs, repeat, budget, first)
    return {name: Timing(first[name], tuple(later[name])) for name in peers}


def take_rounds(
    peers: Mapping[str, Callable[[], float]], repeat: int, budget: float, spent: Mapping[str, float]
) -> dict[str, list[float]]:
    """Runs every peer in rounds; one that is slow takes part in the first round and in as many others as fit.

    Args:
        peers: name -> one run, which returns its seconds.
        repeat: the number of rounds.
        budget: seconds of each peer; a run that would go beyond it, if it took as long as the last one, is left out,
            but for the first.
        spent: seconds of its budget that each peer has used before.
    """
    runs: dict[str, list[float]] = {name: [] for name in peers}
    used = dict(spent)
    for _ in range(repeat):
        for name, run in peers.items():
            if runs[name] and used[name] + runs[name][-1] > budget:
                continue
            seconds = run()
            runs[name].append(seconds)
            used[name] += seconds
    return runs


def seconds_of(run: Callable[[], Any]) -> float:
    """Seconds of one run; the result is dropped.

    A short run is repeated, and the mean of the others counts: else it pays for the caches that the peer before it
    left behind.
    """
    seconds = _seconds(run, 1)
    return seconds if seconds >= SHORT else _seconds(run, math.ceil(SHORT / max(seconds, 1e-6)))


def _seconds(run: Callable[[], Any], times: int) -> float:
    start = time.perf_counter()
    for _ in range(times):
        run()
    return (time.perf_counter() - start) / times


def resident_bytes(pid: int | str = "self") -> int:
    """Bytes of a process (this one, if not said otherwise) that are in memory now (Linux: ``VmRSS``)."""
    return _status(pid, "VmRSS")


def peak_resident_bytes(pid: int | str = "self") -> int:
    """The largest resident size of a process since :func:`reset_peak` (Linux: ``VmHWM``)."""
    return _status(pid, "VmHWM")


def reset_peak(pid: int | str = "self") -> bool:
    """Makes the kernel forget the peak resident size; false where it cannot (not Linux, or no permission)."""
    try:
        Path(f"/proc/{pid}/clear_refs").write_text("5")
    except OSError:
        return False
    return True


@dataclass(frozen=True)
class Peak:
    """A call's memory and time.

    Attributes:
        extra: bytes of the highest resident size over the size before the call, the result included.
        result: bytes of the tensors that the call returned.
        seconds: of the call.
        out: what it returned.
    """

    extra: int
    result: int
    seconds: float
    out: Any


def start_clean() -> None:
    """Once before the first run of a process: its preparation's garbage and free pages are not that run's."""
    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # where it is glibc
    if trim is not None:
        trim(0)


def peak_extra_memory(run: Callable[[], Any], *, before: int | None = None, pid: int | str = "self") -> Peak:
    """Measures the peak extra memory of ``run()``.

    Args:
        run: what to measure.
        before: the resident size to compare with, that before the first of several runs; the size now if not given.
        pid: the process that does the work, if it is another one.

    Raises:
        RuntimeError: where the kernel does not report a peak (anything but Linux).
    """
    if not reset_peak(pid):
        raise RuntimeError(
            "This system reports no peak memory: writing 5 to /proc/self/clear_refs failed (Linux only)."
        )
    before = resident_bytes(pid) if before is None else before
    start = time.perf_counter()
    out = run()
    seconds = time.perf_counter() - start
    extra = max(0, peak_resident_bytes(pid) - before)
    result = sum(t.numel() * t.element_size() for t in tree_leaves(out) if torch.is_tensor(t))
    return Peak(extra, result, seconds, out)


def measured_bandwidth(size: int = 1 << 26, repeat: int = 5) -> float:
    """Measures memory bandwidth in bytes per second with STREAM's triad ``a = b + s * c`` on all threads.

    Counted are 3 arrays: two read, one written (the read for ownership of the written one is not counted, as
    in STREAM; McCalpin, "Memory Bandwidth and Machine Balance in Current High Performance Computers", 1995).
    The best run counts.

    Args:
        size: float32 elements per array; three arrays must be well beyond the last-level cache.
        repeat: the number of runs.
    """
    b, c, a = torch.ones(size), torch.ones(size), torch.empty(size)
    seconds = []
    for _ in range(repeat + 1):
        start = time.perf_counter()
        torch.add(b, c, alpha=3.0, out=a)
        seconds.append(time.perf_counter() - start)
    return 3 * 4 * size / min(seconds[1:])


def machine() -> dict[str, str | int | float]:
    """The machine, the versions and the commit: what a number needs to mean something later."""
    return {
        "date": datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
        "cpu": _cpu_name(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else (os.cpu_count() or 0),
        "threads": torch.get_num_threads(),
        "load": round(os.getloadavg()[0], 2),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "torch": torch.__version__,
        "torch_geometric": _version("torch_geometric"),
        "pyg_fullgraph": _version("pyg_fullgraph"),
        "commit": _commit(),
    }


def busy() -> str | None:
    """A warning where other work shares the machine, else ``None``; ask before the benchmark makes load.

    Interleaving does not cancel other work out: on two cores at a load of 9, PyG's full batch of GraphSAGE on
    4,096 nodes took 0.4 to 1.6 s, alone in its process, against 0.06 s on a quieter one. Code with many short
    parallel regions probably suffers most, as each waits for its slowest thread; that was not measured.
    """
    load, cores = os.getloadavg()[0], int(machine()["cores"])
    if load <= 0.5 * max(cores, 1):
        return None
    return (
        f"WARNING: the machine is busy (load {load:.1f} on {cores} cores): other work slows the peers "
        "unequally, so neither seconds nor ratios of this run may be quoted."
    )


def announce(threads: int | None = None) -> str | None:
    """Sets torch's threads, if any number is given, prints the machine, and returns the warning of `busy`, printed."""
    if threads is not None:
        torch.set_num_threads(threads)
    warning = busy()
    print("; ".join(f"{key} {value}" for key, value in machine().items()))
    if warning is not None:
        print(warning)
    return warning


def result_path(question: str) -> Path:
    """A file for the result of a run that begins: ``results/DATE-QUESTION.json``, numbered if it exists."""
    RESULTS.mkdir(parents=True, exist_ok=True)
    stem = f"{datetime.now(timezone.utc):%Y-%m-%d}-{question}"
    path = RESULTS / f"{stem}.json"
    number = 2
    while path.exists():
        path = RESULTS / f"{stem}-{number}.json"
        number += 1
    return path


def save_result(
    question: str, settings: Mapping[str, Any], rows: list[dict[str, Any]], path: Path | None = None
) -> Path:
    """Writes one dated result file and returns its path.

    Args:
        question: the benchmark's name.
        settings: the arguments of the run.
        rows: one record per line of the printed table.
        path: of `result_path`, to write the file of this run again with more rows; a new one if not given.
    """
    path = path or result_path(question)
    record = {"question": question, "machine": machine(), "settings": dict(settings), "rows": rows}
    aside = path.with_suffix(".tmp")
    aside.write_text(json.dumps(record, indent=1) + "\n")
    aside.replace(path)
    return path


def print_table(header: list[str], rows: list[list[str]], left: int = 1) -> None:
    """Prints a table with aligned columns: the first ``left`` to the left, the others to the right."""
    widths = [max(len(row[i]) for row in [header, *rows]) for i in range(len(header))]
    for row in [header, ["-" * width for width in widths], *rows]:
        cells = [
            cell.ljust(width) if i < left else cell.rjust(width) for i, (cell, width) in enumerate(zip(row, widths))
        ]
        print("  ".join(cells).rstrip())


def mib(size: float) -> str:
    """Bytes in words."""
    return f"{size / 2**30:.2f} GiB" if size >= 2**30 else f"{size / 2**20:.1f} MiB"


def _status(pid: int | str, field: str) -> int:
    """One size of ``/proc/PID/status`` in bytes."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1]) * 1024
    raise RuntimeError(f"/proc/{pid}/status has no {field}")


def available_bytes() -> int:
    """Bytes of memory that this machine can still give out (Linux); all of it where it does not say."""
    info = Path("/proc/meminfo")
    for line in info.read_text().splitlines() if info.exists() else ():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _cpu_name() -> str:
    """The processor's name."""
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or "unknown"


def _version(package: str) -> str:
    """The installed version of a package, for a checkout that was not installed: ``source``."""
    try:
        return version(package)
    except PackageNotFoundError:
        return "source"


def _commit() -> str:
    """The commit of this checkout, with a plus sign where files differ from it."""
    try:
        here = Path(__file__).parent
        name = subprocess.run(
            ["git", "rev-parse", "--short", "HEAD"], cwd=here, capture_output=True, text=True, check=True
        ).stdout.strip()
        changed = subprocess.run(
            ["git", "status", "--porcelain"], cwd=here, capture_output=True, text=True
        ).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "none"
    return f"{name}+" if changed else name
