"""Fresh tensors for results, in huge pages where they are large."""

from __future__ import annotations

import ctypes
import sys

import torch
from torch import Tensor

_HUGE_PAGE, _MADV_HUGEPAGE = 2 << 20, 14


def empty(shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    """A tensor of undefined content; in 2 MiB pages where it is large and Linux gives them."""
    return in_huge_pages(torch.empty(shape, dtype=dtype, device=device))


def in_huge_pages(tensor: Tensor) -> Tensor:
    """The same tensor, whose pages that were not written yet are asked to be of 2 MiB where it is large.

    The first write of a fresh page is a fault, and every read of a random row looks its page up: both are far fewer
    with large pages. A hint only: where it is not taken, nothing changes but the time.
    """
    if tensor.device.type == "cpu" and sys.platform == "linux" and tensor.nbytes >= 4 * _HUGE_PAGE:
        start = -(-tensor.data_ptr() // _HUGE_PAGE) * _HUGE_PAGE
        length = (tensor.data_ptr() + tensor.nbytes - start) // _HUGE_PAGE * _HUGE_PAGE
        ctypes.CDLL(None).madvise(ctypes.c_void_p(start), ctypes.c_size_t(length), _MADV_HUGEPAGE)
    return tensor
