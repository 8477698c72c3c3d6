"""Progress of a run: a tqdm bar over supersteps and rows, or nothing."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tqdm import tqdm


class Progress:
    """Counts rows done over all supersteps.

    Args:
        show: True for a tqdm bar with an ETA, as PyG's `progress_bar=True`.
        supersteps: how many there will be, for the bar's description.
    """

    def __init__(self, show: bool, supersteps: int) -> None:
        self.show, self.supersteps = show, supersteps
        self.lock = threading.Lock()
        self.bar: Any = None

    @contextmanager
    def superstep(self, number: int, rows: int) -> Iterator[None]:
        """One superstep over `rows` rows."""
        if not self.show:
            yield
            return
        text = f"Superstep {number + 1}/{self.supersteps}"
        with tqdm(total=rows, desc=text, unit="row", unit_scale=True) as self.bar:
            yield
        self.bar = None

    def rows(self, count: int) -> None:
        """Tell that `count` rows are done; called from any thread."""
        if self.bar is not None:
            with self.lock:
                self.bar.update(count)
