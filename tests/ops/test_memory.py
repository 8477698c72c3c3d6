"""Large fresh tensors ask for huge pages, and all are what `torch.empty` gives otherwise."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest
import torch

from pyg_fullgraph.ops.memory import empty

CPU = torch.device("cpu")


def flags_at(address: int) -> set[str]:
    """The flags of the mapping that holds an address (Linux)."""
    inside = False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        if span := re.match(r"([0-9a-f]+)-([0-9a-f]+) ", line):
            inside = int(span[1], 16) <= address < int(span[2], 16)
        elif inside and line.startswith("VmFlags:"):
            return set(line.split()[1:])
    raise AssertionError(f"no mapping holds {address:#x}")


@pytest.mark.parametrize("shape", [(0,), (3, 0), (5,), (4096, 1024), (1 << 20, 16)], ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
def test_shape_type_and_use(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    tensor = empty(shape, dtype, CPU)
    assert (tuple(tensor.shape), tensor.dtype, tensor.device) == (shape, dtype, CPU)
    assert tensor.is_contiguous()
    tensor.fill_(1.5)
    assert bool((tensor == 1.5).all())


@pytest.mark.skipif(
    not Path("/sys/kernel/mm/transparent_hugepage/enabled").exists(), reason="this system has no huge pages"
)
@pytest.mark.skipif(sys.platform != "linux", reason="the hint is Linux's")
def test_a_large_tensor_asks_for_huge_pages() -> None:
    large = empty((64 << 20,), torch.uint8, CPU)
    assert "hg" in flags_at(large.data_ptr() + large.nbytes // 2)
