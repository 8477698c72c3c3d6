"""Does another order of the nodes pay? From measured reuse, for a given number of calls."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

#: Seconds per gathered byte that come on top where a row is not in the second-level cache, and where not in the last
#: one either; both threads of a 2-core EPYC Milan at work. Fitted to 40 sums on 9 graphs (docs/log.md).
SECOND_LEVEL_MISS, LAST_LEVEL_MISS = 43e-12, 75e-12
#: Seconds per byte of rows copied in another order to fresh memory (page faults are most of it), and per edge and node
#: to compute reverse Cuthill-McKee; same place.
COPY, PER_EDGE, PER_NODE = 0.6e-9, 0.15e-6, 1e-6
#: Share of what an order could save at most that it is expected to save. On the fitted graphs that had no good order as
#: given it was 30 to 100 %; on an R-MAT graph, which has none to find, it was nothing.
EXPECTED = 0.5


@dataclass(frozen=True)
class Reuse:
    """Shares of gathered rows that miss the second-level and the last-level cache (`graph.reuse.misses`)."""

    second: float
    last: float

    def seconds_more(self, other: Reuse, gathered: int) -> float:
        """How much longer gathering so many bytes takes than with `other`."""
        each = SECOND_LEVEL_MISS * (self.second - other.second) + LAST_LEVEL_MISS * (self.last - other.last)
        return gathered * each


@dataclass(frozen=True)
class Work:
    """What a call does that an order of the nodes could change.

    Args:
        gathered: bytes of rows gathered by a call.
        copied: bytes of the inputs and outputs that have one row per node.
        row_bytes: of a gathered row.
        edges, nodes: of the graph.
        calls: expected on this graph.
    """

    gathered: int
    copied: int
    row_bytes: int
    edges: int
    nodes: int
    calls: int

    @property
    def cost(self) -> float:
        """Predicted seconds to compute an order."""
        return PER_EDGE * self.edges + PER_NODE * self.nodes

    def gain(self, saved: float) -> float:
        """Seconds gained over all calls if each saves `saved` seconds of gathering."""
        return self.calls * (saved - COPY * self.copied)


def cache_rows(row_bytes: int) -> tuple[int, int]:
    """How many rows of so many bytes the second-level and the last-level cache hold, at least one."""
    second, last = cache_bytes()
    return max(second // max(row_bytes, 1), 1), max(last // max(row_bytes, 1), 1)


def cache_bytes() -> tuple[int, int]:
    """Sizes of the second-level and the last-level cache as Linux tells them; elsewhere what is usual."""
    found: dict[int, int] = {}
    for index in Path("/sys/devices/system/cpu/cpu0/cache").glob("index*"):
        try:
            level, size = (index / "level").read_text().strip(), (index / "size").read_text().strip()
        except OSError:
            continue
        if level.isdigit() and size.endswith("K") and size[:-1].isdigit():
            found[int(level)] = int(size[:-1]) << 10
    last = max((level for level in found if level > 2), default=0)
    return found.get(2, 512 << 10), found.get(last, 32 << 20)
