"""Seconds and peak memory of one call, measured in this process."""

from __future__ import annotations

import ctypes
import gc
import statistics
import sys
import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Generic, TypeVar

T = TypeVar("T")

_STATUS = Path("/proc/self/status")
_CLEAR_REFS = Path("/proc/self/clear_refs")
_SAMPLE_SECONDS = 0.001


@dataclass(frozen=True)
class Measured(Generic[T]):
    """What a repeated call returned, took and needed.

    Args:
        value: what the last call returned.
        first: seconds of the first call, with all one-time work.
        seconds: median seconds of the calls after it.
        peak: bytes by which the process grew at most during any of the calls, results included;
            -1 where the system does not tell.
    """

    value: T
    first: float
    seconds: float
    peak: int


class PeakMemory(AbstractContextManager["PeakMemory"]):
    """Measures by how many bytes the resident memory of this process grows inside a `with` block, at most.

    On Linux the kernel keeps the peak itself (`VmHWM`, reset through `clear_refs`), so nothing is missed.
    Where it may not be reset, a thread samples the resident size every millisecond. Elsewhere `bytes` is -1.
    Memory that the allocator kept from earlier work is given back first, so that using it again counts.
    """

    def __init__(self) -> None:
        self.bytes = -1
        self._base = 0
        self._sampler: _Sampler | None = None

    def __enter__(self) -> PeakMemory:
        gc.collect()
        _give_back_free_memory()
        if _STATUS.exists():
            if not _reset_peak():
                self._sampler = _Sampler()
                self._sampler.start()
            self._base = _status("VmRSS")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if _STATUS.exists():
            peak = self._sampler.finish() if self._sampler else _status("VmHWM")
            self.bytes = max(peak - self._base, 0)


class _Sampler(threading.Thread):
    """Samples the resident size until it is told to finish."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self._done = threading.Event()
        self._peak = 0

    def run(self) -> None:
        """Sample."""
        while not self._done.wait(_SAMPLE_SECONDS):
            self._peak = max(self._peak, _status("VmRSS"))

    def finish(self) -> int:
        """Stop, and return the largest resident size seen, in bytes."""
        self._done.set()
        self.join()
        return max(self._peak, _status("VmRSS"))


def measure(call: Callable[[], T], *, repeat: int = 3) -> Measured[T]:
    """Call once, with all its one-time work, then `repeat` times more; see `Measured`.

    Args:
        call: what to measure; it takes nothing and returns its result.
        repeat: number of timed calls after the first, at least 1.
    """
    seconds = []
    value: T | None = None
    peak = -1
    for _ in range(repeat + 1):
        value = None  # or the result of the call before would be in the base of this one
        with PeakMemory() as memory:
            start = time.perf_counter()
            value = call()
            seconds.append(time.perf_counter() - start)
        peak = max(peak, memory.bytes)
    assert value is not None
    return Measured(value, seconds[0], statistics.median(seconds[1:]), peak)


def _status(key: str) -> int:
    """One size of this process in bytes, as the kernel's status page has it."""
    for line in _STATUS.read_text().splitlines():
        if line.startswith(key + ":"):
            return int(line.split()[1]) * 1024
    return 0


def _reset_peak() -> bool:
    """Set the kernel's peak of this process back to its present size, and say whether that was allowed."""
    try:
        _CLEAR_REFS.write_text("5")
    except OSError:
        return False
    return True


def _give_back_free_memory() -> None:
    """Return the heap's free pages to the system, where the C library can (glibc)."""
    if sys.platform != "linux":
        return
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
