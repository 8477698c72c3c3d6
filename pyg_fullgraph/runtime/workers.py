"""Threads that stay: blocks of one superstep after another run on them, and on the thread that waits for them."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import Any

import torch


class Workers:
    """The threads of one engine; started at the first use, gone with the engine.

    Starting two threads takes 0.3 ms, handing work to one that waits 0.07 ms (docs/log.md): as long as a whole
    superstep on a small graph.
    """

    def __init__(self) -> None:
        self._pool: ThreadPoolExecutor | None = None
        self._size = 0
        self._process = 0

    def run(self, work: Callable[[], None], count: int, stop: Callable[[], None] = lambda: None) -> None:
        """Run `work` on `count` threads at once, of which the caller's is one; the first error is raised.

        Returns when none of them works any more, an interrupt included.

        Args:
            work: what each thread runs.
            count: how many.
            stop: called at the first error, the user's interrupt among them, to have the others end soon.
        """
        task = _Task(work, stop)
        helpers: list[Future[None]] = []
        try:
            try:
                for _ in range(count - 1):
                    helpers.append(self._threads(count - 1).submit(task))
                task()
            finally:
                _wait(helpers, stop)
            while helpers:
                _result(helpers.pop(0))
        finally:  # an error keeps this frame, and a future its error
            helpers.clear()
            task.work = None

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


class _Task:
    """Work that is forgotten when its call returns, whatever a thread that was asked to share it remembers."""

    def __init__(self, work: Callable[[], None], stop: Callable[[], None]) -> None:
        self.work: Callable[[], None] | None = work
        self.stop = stop

    def __call__(self) -> None:
        work = self.work
        if work is None:
            return
        try:
            work()
        except BaseException:
            self.stop()
            raise


def _wait(helpers: list[Future[None]], stop: Callable[[], None]) -> None:
    """Until none of them works, however often the user interrupts; those that have not begun have nothing to do."""
    begun = [helper for helper in helpers if not helper.cancel()]
    try:
        wait(begun)
    except BaseException:
        stop()
        _wait(begun, stop)
        raise


def _result(helper: Future[None]) -> None:
    """Raises the error of a helper, if there was one."""
    try:
        if not helper.cancelled():
            helper.result()
    finally:
        del helper  # an error keeps this frame


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
