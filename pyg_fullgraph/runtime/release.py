"""A failed call lets go of its tables, however long somebody keeps the error."""

from __future__ import annotations

import traceback
from contextlib import ContextDecorator
from typing import Any

from pyg_fullgraph.capture.where import is_machinery


class released(ContextDecorator):
    """Empties the frames that an error has passed through on its way out of the block, or of the decorated function.

    An error keeps its traceback, that the frames, and these every variable: all tables of the call, for as long as
    anybody keeps the error (a notebook keeps the last one). The lines of the traceback remain. Frames of the user's
    own code keep their variables, which a debugger may want to see.
    """

    def __enter__(self) -> released:
        return self

    def __exit__(self, kind: Any, error: BaseException | None, where: Any) -> None:
        if error is not None:
            _release(error)


def _release(error: BaseException) -> None:
    seen: set[int] = set()
    errors: list[BaseException | None] = [error]
    while errors:
        each = errors.pop()
        if each is None or id(each) in seen:
            continue
        seen.add(id(each))
        errors += [each.__cause__, each.__context__]
        for frame, _ in traceback.walk_tb(each.__traceback__):
            if is_machinery(frame.f_code.co_filename):
                try:
                    frame.clear()
                except RuntimeError:  # it runs still: the error came from further in
                    continue
