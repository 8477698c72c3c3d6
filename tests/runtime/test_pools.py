"""Totals over blocks: in the order of the rows, whatever order the blocks end in, from rows that are overwritten."""

from __future__ import annotations

import itertools

import pytest
import torch

from pyg_fullgraph.runtime.pools import GroupPool

BLOCKS = [(0, 4), (4, 8), (8, 12)]


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))), ids=str)
@pytest.mark.parametrize("alone", [False, True], ids=["shared", "a row a group"])
@pytest.mark.parametrize("reduce", ["sum", "mean", "max", "min", "mul"])
def test_groups_take_rows_out_of_scratch(reduce: str, alone: bool, order: tuple[int, ...]) -> None:
    """A thread hands over rows that lie in its scratch, and computes its next block there."""
    rows = torch.randn(12, 3, dtype=torch.float64)
    index = torch.arange(12) if alone else torch.arange(12) % 5 // 2 + torch.arange(12) // 6
    groups = int(index.max()) + 1
    pool = GroupPool(groups, (3,), torch.float64, rows.device, reduce)
    scratch = torch.empty(4, 3, dtype=torch.float64)
    for number in order:
        start, stop = BLOCKS[number]
        pool.add(start, stop, index[start:stop], scratch.copy_(rows[start:stop]))
    name = {"sum": "sum", "mean": "mean", "max": "amax", "min": "amin", "mul": "prod"}[reduce]
    expected = torch.zeros(groups, 3, dtype=torch.float64) + (reduce == "mul")
    expected.scatter_reduce_(0, index.view(-1, 1).expand(-1, 3), rows, name, include_self=False)
    torch.testing.assert_close(pool.result(), expected)
