"""csr against torch's stable sort."""

from __future__ import annotations

import pytest
import torch

from pyg_fullgraph import ops
from pyg_fullgraph.errors import GraphError, OperatorError
from pyg_fullgraph.ops import backend, reference, sort

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


@pytest.mark.parametrize("dtype", [torch.int32, torch.int64], ids=short)
@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize(
    "edges,rows,tile", [(0, 3, 1), (7, 1, 2), (1000, 50, 64), (100000, 700, 40000), (90000, 2, 90000)]
)
@pytest.mark.parametrize("served", ["kernels", "reference"])
def test_in_tiles_as_whole(dtype, threads, edges, rows, tile, served, monkeypatch):
    if served == "reference":
        monkeypatch.setattr(sort, "load", lambda: backend.Extension(None, "for this test"))
    index = torch.randint(rows, (edges,), generator=torch.Generator().manual_seed(0)).to(dtype)
    counts = torch.zeros(rows, dtype=torch.int64)
    for part in index.split(tile):
        sort.count_rows(part, counts, threads=threads)
    rowptr, perm = reference.csr(index, rows)
    assert torch.equal(counts, rowptr.diff())
    start = rowptr[:-1].clone()
    places = torch.cat([sort.place_rows(part, start, threads=threads) for part in index.split(tile)])
    assert torch.equal(places[perm.long()], torch.arange(edges)) and torch.equal(start, rowptr[1:])


@pytest.mark.parametrize("call", [sort.count_rows, sort.place_rows])
@pytest.mark.parametrize("bad", [-1, 10, 2**40])
def test_a_tile_out_of_range_writes_nothing(call, bad):
    rows = torch.arange(10)
    with pytest.raises(GraphError, match=f"edge 1 has index {bad}; valid: 0 to 9"):
        call(torch.tensor([3, bad]), rows)
    assert torch.equal(rows, torch.arange(10))


@pytest.mark.parametrize("call", [sort.count_rows, sort.place_rows])
@pytest.mark.parametrize(
    "index,rows",
    [
        (torch.zeros(3), torch.zeros(4, dtype=torch.int64)),
        (torch.zeros(3, 1, dtype=torch.int64), torch.zeros(4, dtype=torch.int64)),
        (torch.zeros(3, dtype=torch.int64), torch.zeros(4, dtype=torch.int32)),
        (torch.zeros(3, dtype=torch.int64), torch.zeros(8, dtype=torch.int64)[::2]),
        (torch.zeros(3, dtype=torch.int64), torch._neg_view(torch.zeros(4, dtype=torch.int64))),
        (torch.zeros(3, dtype=torch.int64), torch.zeros(4, dtype=torch.int64, device="meta")),
        (torch.zeros(3, dtype=torch.int64, device="meta"), torch.zeros(4, dtype=torch.int64)),
    ],
)
def test_tiles_of_a_wrong_kind(call, index, rows):
    with pytest.raises(OperatorError, match="_rows: `"):
        call(index, rows)


def test_tiles_that_are_views():
    whole = torch.tensor([[1, 0, 3, 1], [2, 2, 0, 1]])
    for index in (whole[0, ::2], whole.t()[:, 1], torch._neg_view(-whole[0])):
        counts = torch.zeros(4, dtype=torch.int64)
        sort.count_rows(index, counts)
        assert counts.tolist() == torch.bincount(index, minlength=4).tolist()
