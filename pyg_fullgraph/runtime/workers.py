"""Threads that stay: blocks of one superstep after another run on them, and on the thread that waits for them."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from typing import Any

import torch


class Workers:
    """The threads of one engine; started at the first use, gone with the engine.

    Starting two threads takes 0.3 ms, handing work to one that waits 0.1 ms (docs/log.md): as long as a whole
    superstep on a small graph.
    """

    def __init__(self) -> None:
        self._pool: ThreadPoolExecutor | None = None
        self._size = 0
        self._process = 0

    def run(self, work: Callable[[], None], count: int) -> None:
        """Run `work` on `count` threads at once, of which the caller's is one; the first error is raised.

        Returns when none of them works any more.
        """
        helpers = [self._threads(count - 1).submit(work) for _ in range(count - 1)]
        try:
            work()
        finally:
            for helper in helpers:
                helper.cancel()  # not begun yet, as another call keeps its thread: there is nothing left to do
            wait(helpers)
        for helper in helpers:
            if not helper.cancelled():
                helper.result()

    def _threads(self, count: int) -> ThreadPoolExecutor:
        """A pool of at least `count` threads. A forked process has none of its parent's threads."""
        if self._pool is None or self._size < count or self._process != os.getpid():
            self._pool = ThreadPoolExecutor(count, thread_name_prefix="pyg_fullgraph")
            self._size, self._process = count, os.getpid()
        return self._pool

    def __deepcopy__(self, memo: dict[int, Any]) -> Workers:
        return Workers()

    def __reduce__(self) -> tuple[type, tuple[()]]:
        return (Workers, ())


@contextlib.contextmanager
def as_on_any_thread() -> Iterator[None]:
    """What a block may depend on is the same on all threads: no gradients, no autocast, one thread per operator.

    Autocast belongs to the caller's thread, and the program has its casts. A product's bits depend on how many threads
    share it. The number of threads is left at one: torch hands it to threads started from now on.
    """
    torch.set_num_threads(1)
    with contextlib.ExitStack() as stack:
        stack.enter_context(torch.no_grad())
        for kind in ("cpu", "cuda"):
            if torch.is_autocast_enabled(kind):
                stack.enter_context(torch.autocast(kind, enabled=False))
        yield
