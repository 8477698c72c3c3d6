"""The one interface to the values at the cuts, the same for both homes."""

from __future__ import annotations

import errno

import pytest
import torch

from pyg_fullgraph.errors import SpaceError
from pyg_fullgraph.runtime import make_home
from pyg_fullgraph.runtime.home import MappedHome


@pytest.fixture(params=["memory", "mapped"])
def table(request):
    home = make_home(request.param, torch.device("cpu"))
    yield home.allocate(10, (3,), torch.float32)
    home.close()


def fill(table) -> torch.Tensor:
    rows = torch.arange(30, dtype=torch.float32).view(10, 3)
    table.write(0, rows[:4])
    table.destination(4, 7).copy_(rows[4:7])
    table.write(4, table.destination(4, 7))
    table.write_at(torch.tensor([9, 7, 8], dtype=torch.int32), rows[[9, 7, 8]])
    return rows


def test_rows_come_back(table) -> None:
    rows = fill(table)
    assert torch.equal(table.whole(), rows)
    assert torch.equal(table.read(2, 9), rows[2:9])


def test_gather(table) -> None:
    rows = fill(table)
    index = torch.tensor([9, 0, 0, 5], dtype=torch.int32)
    base, at = table.gather(index)
    assert torch.equal(base[at.long()], rows[index.long()])


def test_a_part_is_in_the_same_place(table) -> None:
    rows = fill(table)
    part = table.part(3, 8)
    assert torch.equal(part.whole(), rows[3:8])
    part.write(1, rows[:2])
    assert torch.equal(table.read(4, 6), rows[:2])


@pytest.mark.parametrize("kind", ["memory", "mapped"])
def test_empty_table(kind: str) -> None:
    assert make_home(kind, torch.device("cpu")).allocate(0, (3,), torch.float32).whole().shape == (0, 3)


def test_unknown_home_is_named() -> None:
    with pytest.raises(ValueError, match="'memory' and 'mapped'"):
        make_home("disk", torch.device("cpu"))


def test_mapped_needs_a_cpu() -> None:
    with pytest.raises(ValueError, match="CPU"):
        make_home("mapped", torch.device("cuda"))


def test_a_full_disk_is_told_before_any_work(monkeypatch, tmp_path) -> None:
    def full(_handle: int, _start: int, _size: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("os.posix_fallocate", full)
    with pytest.raises(SpaceError, match=r"home='mapped' needs 4,000 bytes more in .* are free"):
        MappedHome(tmp_path).allocate(100, (10,), torch.float32)
    assert list(tmp_path.iterdir()) == []


def test_mapped_files_are_reserved_and_have_no_name(tmp_path) -> None:
    table = MappedHome(tmp_path).allocate(1000, (7,), torch.float16)
    assert list(tmp_path.iterdir()) == []  # a killed process leaves nothing
    table.whole().fill_(3)
    assert table.whole().shape == (1000, 7) and bool((table.whole() == 3).all())
