"""A fingerprint tells contents, and nothing else: not where a tensor lies, nor how."""

from __future__ import annotations

import gc
import weakref

import pytest
import torch
from torch import Tensor

from pyg_fullgraph.graph.contents import fingerprint, fingerprints

LARGE = 3_000_001  # so that there are many chunks, and one that is not full


def layouts(tensor: Tensor) -> dict[str, Tensor]:
    """The same numbers in other places of memory, and with other strides."""
    wider = torch.full((tensor.size(0), tensor.size(1) + 7), 5, dtype=tensor.dtype)
    wider[:, 3:-4] = tensor
    every_other = torch.zeros((tensor.size(0), 2 * tensor.size(1)), dtype=tensor.dtype)
    every_other[:, ::2] = tensor
    return {
        "copy": tensor.clone(),
        "transposed": tensor.t().contiguous().t(),
        "columns": wider[:, 3:-4],
        "every other": every_other[:, ::2],
        "flipped": tensor.flip(1).contiguous().flip(1),
    }


@pytest.mark.parametrize("dtype", [torch.int64, torch.int32, torch.int16, torch.uint8, torch.bool])
@pytest.mark.parametrize("count", [0, 1, 100, LARGE])
def test_the_same_for_every_layout_and_number_of_threads(dtype: torch.dtype, count: int) -> None:
    tensor = torch.randint(0, 2, (2, count)).to(dtype)
    expected = fingerprint(tensor, threads=1)
    assert len(expected) == 16
    for threads in (1, 2, 3):
        assert fingerprint(tensor, threads) == expected
    for name, other in layouts(tensor).items():
        assert fingerprint(other) == expected, name


@pytest.mark.parametrize("shape", [(2, 50), (2, LARGE), (LARGE,), (30, 40, 50)])
def test_every_entry_counts(shape: tuple[int, ...]) -> None:
    tensor = torch.randint(0, 1000, shape)
    before = fingerprint(tensor)
    flat = tensor.view(-1)
    for place in (0, 1, flat.numel() // 2 - 1, flat.numel() // 2, flat.numel() - 1):
        flat[place] += 1
        assert fingerprint(tensor) != before
        flat[place] -= 1
    assert fingerprint(tensor) == before
    assert fingerprint(flat.roll(1).view(shape)) != before


def test_several_tensors_at_once() -> None:
    tensors = [torch.arange(3), torch.randint(0, 9, (2, LARGE)), torch.zeros(0, dtype=torch.int64), torch.ones(4) > 0]
    assert fingerprints(tensors, threads=2) == [fingerprint(tensor) for tensor in tensors]
    assert fingerprints([]) == []


def test_the_threads_remember_nothing() -> None:
    gc.disable()
    try:
        tensor = torch.randint(0, 9, (2, LARGE))
        storage = weakref.ref(tensor.untyped_storage())
        for _ in range(5):
            fingerprint(tensor, threads=3)
        del tensor
        assert storage() is None
    finally:
        gc.enable()
