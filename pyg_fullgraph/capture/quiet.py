"""torch logs its own stack at every operator that fails in a trace; the error that follows says it to users."""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Iterator

_LOGGER = "torch._subclasses.fake_tensor"
_TEXT = "failed while attempting to run meta for"


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep such lines of this thread's trace from being logged."""
    here, logger = threading.get_ident(), logging.getLogger(_LOGGER)

    def wanted(record: logging.LogRecord) -> bool:
        return record.thread != here or _TEXT not in str(record.msg)

    logger.addFilter(wanted)
    try:
        yield
    finally:
        logger.removeFilter(wanted)
