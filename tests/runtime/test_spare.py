"""Memory that one tensor leaves to the next: never lent twice, never kept beyond its limit, and peaks stay."""

from __future__ import annotations

import gc
import mmap
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch_geometric.nn import GAT, GCN, PNA, GraphSAGE

import pyg_fullgraph as fg
from pyg_fullgraph.runtime import spare
from pyg_fullgraph.runtime.spare import LIMIT, SMALLEST, Spare

pytestmark = pytest.mark.skipif(not hasattr(mmap, "MAP_PRIVATE"), reason="the system has no private pages")

F32 = torch.float32
ROWS = SMALLEST // 64  # of 16 float32: exactly the smallest that is lent


def test_the_next_tensor_lies_where_the_last_one_was_but_for_its_views() -> None:
    memory = Spare()
    first = memory.empty((ROWS, 16), F32)
    place, row = first.data_ptr(), first[3].fill_(7.0)
    del first
    other = memory.empty((ROWS, 16), F32).zero_()
    assert other.data_ptr() != place
    assert row.tolist() == [7.0] * 16
    del row
    assert memory.empty((ROWS, 16), F32).data_ptr() == place


@pytest.mark.parametrize("dtype", [torch.bool, torch.bfloat16, torch.float16, torch.int64, torch.complex64], ids=str)
def test_types_and_shapes(dtype: torch.dtype) -> None:
    tensor = Spare().empty((3, SMALLEST, 1), dtype)
    assert tensor.shape == (3, SMALLEST, 1)
    assert tensor.dtype is dtype
    assert tensor.is_contiguous()
    assert torch.equal(tensor.fill_(1), torch.ones(3, SMALLEST, 1, dtype=dtype))


def test_a_result_is_the_callers_and_what_was_not_used_goes() -> None:
    memory = Spare()
    result, other = memory.empty((ROWS, 16), F32).fill_(5.0), memory.empty((2 * ROWS, 16), F32)
    del other
    memory.settle()
    assert memory.nbytes == 2 * SMALLEST
    again = memory.empty((ROWS, 16), F32).zero_()
    assert result.eq(5.0).all()
    del result, again
    memory.settle()
    assert memory.nbytes == SMALLEST  # of this call


def test_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    memory = Spare()
    monkeypatch.setattr(spare, "LIMIT", 3 * SMALLEST)
    many = [memory.empty((ROWS, 16), F32) for _ in range(5)]
    many.clear()
    memory.settle()
    assert memory.nbytes == 3 * SMALLEST
    assert memory.empty((ROWS - 1, 16), F32).untyped_storage().resizable()  # the allocator's
    assert memory.empty((4 * ROWS, 16), F32).untyped_storage().resizable()
    assert LIMIT == 32 << 20


def test_where_there_are_no_pages_the_allocator_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: Any, **__: Any) -> None:
        raise OSError("no memory")

    memory = Spare()
    memory.empty((ROWS, 16), F32)
    monkeypatch.setattr(mmap, "mmap", refused)
    assert memory.empty((2 * ROWS, 16), F32).shape == (2 * ROWS, 16)


NODES = 4096
MODELS: dict[str, Callable[[], nn.Module]] = {
    "sage": lambda: GraphSAGE(64, 64, 3, 64),
    "gcn": lambda: GCN(64, 64, 3, 64),
    "gat": lambda: GAT(64, 64, 3, 64, heads=4),
    "pna": lambda: PNA(64, 64, 2, 64, aggregators=["mean", "max"], scalers=["identity"], deg=torch.tensor([0, 9, 9])),
}


@pytest.mark.parametrize("name", MODELS)
def test_the_hundredth_call_asks_for_no_more_than_the_second(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Counted are the bytes asked from the system, not resident ones, which other tests change."""
    asked: list[int] = []

    class Counted(mmap.mmap):
        def __new__(cls, handle: int, size: int, **options: Any) -> Counted:
            asked.append(size)
            return super().__new__(cls, handle, size, **options)

    engine = fg.Engine(MODELS[name]().eval(), verify="off", threads=1)
    x, edge_index = torch.randn(NODES, 64), torch.randint(0, NODES, (2, 2 * NODES))
    result: Tensor = engine(x, edge_index)
    kept = result.clone()
    monkeypatch.setattr(spare.mmap, "mmap", Counted)
    gc.disable()
    try:
        most, waits = [], []
        for _ in range(99):
            asked.clear()
            del result
            result = engine(x, edge_index)
            most.append(sum(asked))
            waits.append(engine._spare.nbytes)
        assert len(set(waits)) == 1
        assert max(most[1:]) <= most[0]
        assert max(most) <= result.nbytes  # the result's place: all else is there
        assert torch.equal(result, kept)
    finally:
        gc.enable()
