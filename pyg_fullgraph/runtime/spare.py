"""Memory that one table leaves to the next, in this call or a later one of the same engine."""

from __future__ import annotations

import math
import mmap
import weakref
from collections import deque

import torch
from torch import Tensor

from pyg_fullgraph.ops.forked import lock_whole_at_fork
from pyg_fullgraph.ops.memory import empty, in_huge_pages

#: Bytes of a tensor below which the allocator serves as well.
SMALLEST = 64 << 10
#: Bytes that may wait for a next tensor, what is more goes back to the system; and of a tensor above which the
#: allocator (glibc) asks the system for each by itself.
LIMIT = 32 << 20

_LOCK = lock_whole_at_fork()


class Spare:
    """Pages asked from the system once, for tensors of which one follows another.

    The allocator cuts blocks of a few MiB so that the next of the same size does not fit where the last one was (glibc
    before 2.38, `posix_memalign`): the peak of a call was up to four times what is alive in it, and another one in
    every call. Pages of their own for every tensor are cleared anew each time, which costs half of a small call.

    Memory comes back when the last tensor that shares it is gone, whoever has it: nothing is lent twice. A result is
    still lent at the end of the call: its memory is the caller's from then on, and goes with it. What waits holds no
    tensor, only pages, at most `LIMIT` bytes that the last call used, and goes with the engine. The storage of what is
    lent cannot grow, as that of a tensor over a NumPy array.
    """

    def __init__(self) -> None:
        self._free: list[mmap.mmap] = []
        self._lent: dict[int, tuple[weakref.ref[memoryview], mmap.mmap]] = {}
        self._gone: deque[weakref.ref[memoryview]] = deque()
        self._used: set[int] = set()

    @property
    def nbytes(self) -> int:
        """Bytes that wait."""
        return sum(map(len, self._free))

    def empty(self, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        """A tensor of undefined content in the processor's memory.

        Args:
            shape, dtype: of the tensor.
        """
        count = math.prod(shape)
        size = count * dtype.itemsize
        pages = self._take(size) if SMALLEST <= size <= LIMIT and hasattr(mmap, "MAP_PRIVATE") else None
        if pages is None:
            return empty(shape, dtype, torch.device("cpu"))
        view = memoryview(pages)
        lent = weakref.ref(view, self._gone.append)  # no Python code runs there, in which an interrupt would be lost
        with _LOCK:
            self._lent[id(lent)] = lent, pages
            self._used.add(id(pages))
        return torch.frombuffer(view, dtype=dtype, count=count).view(shape)

    def settle(self) -> None:
        """The end of a call: what it did not use is given back to the system, and what is lent is forgotten."""
        with _LOCK:
            self._collect()
            self._lent.clear()
            self._free = [pages for pages in self._free if id(pages) in self._used]
            self._used.clear()

    def _collect(self) -> None:
        while self._gone:
            _, pages = self._lent.pop(id(self._gone.popleft()), (None, None))
            if pages is not None and self.nbytes + len(pages) <= LIMIT:
                self._free.append(pages)

    def _take(self, size: int) -> mmap.mmap | None:
        """Pages for so many bytes: the fewest that wait, where these are few enough; None where there are none."""
        with _LOCK:
            self._collect()
            fitting = [pages for pages in self._free if size <= len(pages) <= size + size // 4]
            if fitting:
                found = min(fitting, key=len)
                self._free = [pages for pages in self._free if pages is not found]
                return found
        try:
            made = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        except OSError:  # the allocator says better what is missing
            with _LOCK:
                self._free.clear()
            return None
        in_huge_pages(torch.frombuffer(made, dtype=torch.uint8))
        return made
