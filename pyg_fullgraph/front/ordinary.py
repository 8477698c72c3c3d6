"""While an engine runs, the fast layers inside its model are ordinary ones: no engine starts another."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_INSIDE: ContextVar[bool] = ContextVar("inside an engine of pyg_fullgraph", default=False)


@contextmanager
def ordinary_layers() -> Iterator[None]:
    """Has all layers that run inside the block run their own forward."""
    token = _INSIDE.set(True)
    try:
        yield
    finally:
        _INSIDE.reset(token)


def inside_an_engine() -> bool:
    """Whether an engine is running, in this thread."""
    return _INSIDE.get()
