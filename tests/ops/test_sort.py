"""csr against torch's stable sort."""

from __future__ import annotations

import pytest
import torch

from pyg_fullgraph import ops
from pyg_fullgraph.errors import GraphError, OperatorError
from pyg_fullgraph.ops import reference

from .conftest import short


@pytest.mark.parametrize("dtype", [torch.int32, torch.int64], ids=short)
@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize(
    "edges,rows",
    [
        (0, 0),
        (0, 5),
        (1, 1),
        (1000, 1),
        (1000, 7),
        (1000, 100000),
        (200000, 3),
        (200000, 40000),
        (100000, 3000000),
    ],
)
def test_is_the_stable_order(dtype, threads, edges, rows):
    index = torch.randint(max(rows, 1), (edges,), generator=torch.Generator().manual_seed(0)).to(dtype)
    rowptr, perm = ops.csr(index, rows, threads=threads)
    expected_rowptr, expected_perm = reference.csr(index, rows)
    assert rowptr.dtype == torch.int64 and perm.dtype == dtype
    assert torch.equal(rowptr, expected_rowptr)
    assert torch.equal(perm, expected_perm)


def test_skewed_and_strided():
    random = torch.Generator().manual_seed(0)
    index = (torch.rand(300000, generator=random) ** 8 * 30000).long()[::2]
    for got, expected in zip(ops.csr(index, 30000), reference.csr(index, 30000)):
        assert torch.equal(got, expected)


@pytest.mark.parametrize("bad", [-1, 10, 2**40])
def test_out_of_range_names_the_first_edge(bad):
    index = torch.tensor([3, 9, bad, 0, bad])
    with pytest.raises(GraphError, match=f"edge 2 has index {bad}; valid: 0 to 9"):
        ops.csr(index, 10)


def test_wrong_type():
    with pytest.raises(OperatorError, match="csr: `index` is"):
        ops.csr(torch.zeros(3), 4)
