"""`misses` against a cache of the same size that is simulated read by read."""

from __future__ import annotations

from collections import OrderedDict

import pytest
import torch
from torch import Tensor

from pyg_fullgraph import ops
from pyg_fullgraph.graph.generate import grid, rmat, uniform
from pyg_fullgraph.graph.reuse import misses


def simulated(src: Tensor, rows: int) -> float:
    """Share of reads that miss a cache which forgets the least recently used row, after a first quarter to warm it."""
    held: OrderedDict[int, None] = OrderedDict()
    missed, skipped = 0, src.numel() // 4
    for number, row in enumerate(src.tolist()):
        if row not in held and number >= skipped:
            missed += 1
        held[row] = None
        held.move_to_end(row)
        if len(held) > rows:
            held.popitem(last=False)
    return missed / (src.numel() - skipped)


def by_destination(edge_index: Tensor, num_nodes: int) -> Tensor:
    return edge_index[0][ops.csr(edge_index[1], num_nodes)[1]]


def shuffled(edge_index: Tensor, num_nodes: int) -> Tensor:
    return torch.randperm(num_nodes, generator=torch.Generator().manual_seed(0))[edge_index]


GRAPHS = {
    "grid": (grid(64, 64), 4096),
    "grid-shuffled": (shuffled(grid(64, 64), 4096), 4096),
    "uniform": (uniform(4096, 40_000), 4096),
    "rmat": (rmat(12, 16), 4096),
}


@pytest.mark.parametrize("rows", [64, 400, 1000])
@pytest.mark.parametrize("graph", GRAPHS)
def test_as_a_simulated_cache(graph: str, rows: int) -> None:
    edge_index, num_nodes = GRAPHS[graph]
    src = by_destination(edge_index, num_nodes)
    assert misses(src, num_nodes, rows, samples=8) == pytest.approx(simulated(src, rows), abs=0.12)


def test_a_cache_that_holds_all_rows_reads_each_once() -> None:
    src = by_destination(*GRAPHS["rmat"])
    assert misses(src, 4096, 5000) == src.unique().numel() / src.numel()


def test_nothing_to_read() -> None:
    assert misses(torch.zeros(0, dtype=torch.int64), 5, 2) == 0.0


def test_one_edge() -> None:
    assert misses(torch.tensor([3]), 5, 1) == 1.0
