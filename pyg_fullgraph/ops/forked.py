"""In a forked process: torch's operators on one thread, kernels and row blocks on threads of their own.

GNU OpenMP, on which torch's operators and the kernels share their work, keeps a pool of threads for every thread that
called it. A fork copies the notes about that pool and none of its threads, so that the first shared operator of the
child waits for ever. Whether there was one cannot be asked: a child is taken to have one inside of every call of ours,
and altogether where the parent had used kernels (`backend`).
"""

from __future__ import annotations

import functools
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import ParamSpec, TypeVar

import torch

P = ParamSpec("P")
T = TypeVar("T")

_forked = False
_given: ContextVar[int] = ContextVar("torch's threads around a call in a forked process", default=0)


def is_forked() -> bool:
    """Whether this process is the child of one that had imported this module."""
    return _forked


def num_threads() -> int:
    """How many threads may share a call where the user names no number: torch's."""
    return _given.get() or torch.get_num_threads()


def survives_fork(function: Callable[P, T]) -> Callable[P, T]:
    """The function, which in a forked process has torch's operators run on one thread."""

    @functools.wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> T:
        if not _forked or _given.get():
            return function(*args, **kwargs)
        with _one_torch_thread():
            return function(*args, **kwargs)

    return call


def lock_whole_at_fork() -> threading.RLock:
    """A lock that no other thread holds when this process is forked: nobody in the child would give it back."""
    lock = threading.RLock()
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(before=lock.acquire, after_in_parent=lock.release, after_in_child=lock.release)
    return lock


@contextmanager
def _one_torch_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    token = _given.set(before)
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
        _given.reset(token)


def _in_child() -> None:
    global _forked
    _forked = True


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_in_child)
