"""What the machine can do, measured: the rates that turn predicted bytes and operations into predicted seconds."""

from __future__ import annotations

import functools
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from pyg_fullgraph.ops import backend
from pyg_fullgraph.ops.linear import linear, pack

#: The row sizes whose reads are measured (bytes), the size of the array they lie in, and how much one probe reads.
ROW_BYTES = (64, 256, 1024)
ARRAY_BYTES, READ_BYTES = 1 << 27, 1 << 26
PRODUCT = (1024, 128)  # rows and columns of a product that is timed: about a block of a usual layer
ELEMENTS = 512 * 128  # of an element-wise operation that is timed


@dataclass(frozen=True)
class Machine:
    """Rates of one machine with so many threads.

    A roofline model (Williams, Waterman and Patterson, CACM 2009) with one more roof: reads of random rows.

    Args:
        threads: that share the rates below.
        sequential: bytes per second of STREAM's triad.
        gathered: (row size in bytes, bytes per second) of random rows, by growing size.
        products: floating point operations per second of float32 matrix products, one per thread at a time.
        elements: element-wise operations per second on a block in the caches.
        exponentials: exponentials per second, beside the element-wise operation that each is.
        calls: calls of operators per second, each on next to nothing.
    """

    threads: int
    sequential: float
    gathered: tuple[tuple[int, float], ...]
    products: float
    elements: float = math.inf
    exponentials: float = math.inf
    calls: float = math.inf

    def gather_rate(self, row_bytes: float) -> float:
        """Bytes per second at which random rows of this size are read, between measured sizes by interpolation."""
        (low, rate), *rest = self.gathered
        if row_bytes <= low:  # a line is fetched whole
            return rate * max(row_bytes, 1) / low
        for high, above in rest:
            if row_bytes <= high:
                return rate + (above - rate) * (row_bytes - low) / (high - low)
            low, rate = high, above
        return rate


@functools.cache
def measure_machine(threads: int) -> Machine | None:
    """The rates of this machine, measured once per process in about a second; None without the C++ kernels.

    It takes 384 MiB while it runs: three arrays beyond the caches.

    Args:
        threads: how many threads share the work.
    """
    module, _reason = backend.load()
    if module is None:
        return None
    reads = {row: module.probe_rows(row, ARRAY_BYTES, READ_BYTES // row, threads) for row in ROW_BYTES}
    triad = module.probe_triad(3 * ARRAY_BYTES, threads)
    rates = [rate * threads for rate in _rates()]
    return Machine(threads, triad, tuple(reads.items()), *rates)


def _rates() -> tuple[float, float, float, float]:
    """Of one thread, per second: operations of products, element-wise ones, exponentials, calls."""
    rows, width = PRODUCT
    # Ones: random numbers would move the caller's generator.
    a, b, out, small = (
        torch.ones(shape, dtype=torch.float32, device="cpu")
        for shape in ((rows, width), (width, width), (rows, width), (ELEMENTS,))
    )
    made, one, matrix = torch.ones_like(small), torch.ones(1, 1, dtype=torch.float32, device="cpu"), pack(b)
    tiny = pack(one)
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.no_grad():
            product = _seconds(lambda: linear(a, matrix, out=out, threads=1))
            element = _seconds(lambda: torch.add(small, small, out=made)) / ELEMENTS
            exponential = _seconds(lambda: torch.exp(small, out=made)) / ELEMENTS
            call = _seconds(lambda: linear(one, tiny, threads=1))
    finally:
        torch.set_num_threads(before)
    return 2 * rows * width * width / product, 1 / element, 1 / exponential, 1 / call


def _seconds(run: Callable[[], Any], runs: int = 20) -> float:
    """Of the fastest of some runs."""
    seconds = []
    for _ in range(runs):
        start = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - start)
    return min(seconds)
