"""torch logs its own stack at every operator that fails in a trace; the error that follows says it to users."""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Iterator
from typing import Any

import torch

_LOGGER = "torch._subclasses.fake_tensor"
_TEXT = "failed while attempting to run meta for"


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep such lines of this thread's trace from being logged."""
    here, logger = threading.get_ident(), logging.getLogger(_LOGGER)

    def wanted(record: logging.LogRecord) -> bool:
        return record.thread != here or _TEXT not in str(record.msg)

    def printed(*args: Any, **kwargs: Any) -> None:
        if threading.get_ident() != here or "FX-traced Module" not in str(args[:1]):
            print(*args, **kwargs)

    names = vars(torch.fx.graph_module)  # a traced module prints where in its text it failed
    before = names.get("print", print)
    logger.addFilter(wanted)
    names["print"] = printed
    try:
        yield
    finally:
        names["print"] = before
        logger.removeFilter(wanted)
