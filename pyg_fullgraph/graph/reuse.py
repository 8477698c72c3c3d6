"""How often a walk over the edges of a graph reads a row that a cache no longer holds: measured on samples."""

from __future__ import annotations

import numpy as np
from torch import Tensor


def misses(src: Tensor, num_src: int, rows: int, samples: int = 3) -> float:
    """Returns the share of reads that miss a cache of `rows` rows when destinations are visited in order.

    By Denning's working-set model ("The working set model for program behavior", 1968): a window of so many edges that
    it reads `rows` distinct rows is what the cache remembers, and new rows per edge at its end are the misses.
    ``samples`` windows, evenly spaced, are counted exactly; nothing else is assumed of the graph.

    Args:
        src: ``[E]``, the source of every edge, by destination.
        num_src: the number of source nodes.
        rows: how many rows the cache holds, at least 1.
        samples: windows to count, at least 1.
    """
    edges = src.numel()
    if edges == 0 or num_src <= rows:
        return min(1.0, _distinct(src, num_src) / edges) if edges else 0.0
    found, counted, half = 0, 0, max(rows // 2, 1)
    for number in range(samples):
        start = number * edges // samples
        while True:  # twice as long until it fills the cache
            stop = min(start + 2 * half, edges)
            start = max(0, stop - 2 * half)
            if _distinct(src[start:stop], num_src) >= rows or stop - start >= edges:
                break
            half = min(2 * half, (edges + 1) // 2)
        middle = (start + stop) // 2
        found += _distinct(src[start:stop], num_src) - _distinct(src[start:middle], num_src)
        counted += stop - middle
    return found / counted


def _distinct(index: Tensor, size: int) -> int:
    seen = np.zeros(size, bool)
    seen[index.numpy()] = True
    return int(np.count_nonzero(seen))
