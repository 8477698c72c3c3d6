"""What the machine can do, measured: the rates that turn predicted bytes and operations into predicted seconds."""

from __future__ import annotations

import functools
import time
from dataclasses import dataclass

import torch

from pyg_fullgraph.ops import backend

#: The row sizes whose reads are measured (bytes), the size of the array they lie in, and how much one probe reads.
ROW_BYTES = (64, 256, 1024)
ARRAY_BYTES, READ_BYTES = 1 << 27, 1 << 26
PRODUCT = (1024, 128)  # rows and columns of a product that is timed: about a block of a usual layer


@dataclass(frozen=True)
class Machine:
    """Rates of one machine with so many threads.

    A roofline model (Williams, Waterman and Patterson, CACM 2009) with one more roof: reads of random rows.

    Args:
        threads: that share the rates below.
        sequential: bytes per second of STREAM's triad.
        gathered: (row size in bytes, bytes per second) of random rows, by growing size.
        products: floating point operations per second of float32 matrix products, one per thread at a time.
    """

    threads: int
    sequential: float
    gathered: tuple[tuple[int, float], ...]
    products: float

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
    return Machine(threads, triad, tuple(reads.items()), _product_rate() * threads)


def _product_rate(runs: int = 20) -> float:
    """Floating point operations per second of one thread."""
    rows, width = PRODUCT
    # Ones: random numbers would move the caller's generator.
    a, b, out = (
        torch.ones(shape, dtype=torch.float32, device="cpu") for shape in ((rows, width), (width, width), (rows, width))
    )
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        seconds = []
        for _ in range(runs):
            start = time.perf_counter()
            torch.mm(a, b, out=out)
            seconds.append(time.perf_counter() - start)
    finally:
        torch.set_num_threads(before)
    return 2 * rows * width * width / min(seconds)
