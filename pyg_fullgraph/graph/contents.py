"""Fingerprints of what integer tensors hold: what is kept with a graph is kept with its contents.

An identity and a version would be cheaper and not enough: writes through NumPy, DLPack, `.data`, a storage or shared
memory change neither. XXH3 with 128 bits reads as fast as memory gives, so it is asked at every call. It is no
cryptographic hash: two graphs that somebody made to have one fingerprint would be taken for the same.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from typing import Any

import numpy as np
import xxhash
from torch import Tensor

from pyg_fullgraph.ops.forked import num_threads

_CHUNK = 1 << 20  # bytes that are read in one go; a larger tensor is the fingerprint of its chunks'
_LEAST_PER_THREAD = 4 << 20  # bytes, below which a thread costs more than it saves


def fingerprint(tensor: Tensor, threads: int | None = None) -> bytes:
    """16 bytes that tell whether two tensors of one shape and type hold the same numbers, wherever they lie.

    Args:
        tensor: integers or booleans of any shape, strides and device.
        threads: to read with; torch's number of threads if None.
    """
    return fingerprints([tensor], threads)[0]


def fingerprints(tensors: Sequence[Tensor], threads: int | None = None) -> list[bytes]:
    """`fingerprint` of each tensor, all of them read at once.

    Args:
        tensors, threads: see `fingerprint`.
    """
    parts = [_parts(tensor) for tensor in tensors]
    flat = [part for each in parts for part in each]
    total = sum(part.nbytes for part in flat)
    digests = _digests(flat, min(threads or num_threads(), total // _LEAST_PER_THREAD))
    found, at = [], 0
    for each in parts:
        own, at = digests[at : at + len(each)], at + len(each)
        found.append(own[0] if len(own) == 1 else xxhash.xxh3_128_digest(b"".join(own)))
    return found


def _parts(tensor: Tensor) -> list[Tensor]:
    """A tensor in chunks that depend on its shape and type alone, none of them copied here."""
    if tensor.nbytes <= _CHUNK:
        return [tensor]
    size = _CHUNK // tensor.element_size()
    rows = tensor.unbind(0) if tensor.dim() == 2 and tensor.size(0) == 2 else (tensor,)  # one of edges may be a slice
    return [part for row in rows for part in row.reshape(-1).split(size)]


def _digest(part: Tensor) -> bytes:
    part = part.resolve_neg() if part.is_neg() else part  # the memory of such a view holds other values
    array: Any = np.ascontiguousarray(part.cpu().numpy())  # of another layout it copies ten times as fast as torch
    digest: bytes = xxhash.xxh3_128_digest(array)
    return digest


def _digests(parts: list[Tensor], threads: int) -> list[bytes]:
    """The digest of each part; xxhash lets other threads run while it reads."""
    if threads <= 1:
        return [_digest(part) for part in parts]
    digests, work, lock = [b""] * len(parts), list(enumerate(parts)), threading.Lock()

    def read() -> None:
        while True:
            with lock:
                if not work:
                    return
                number, part = work.pop()
            digests[number] = _digest(part)
            del part  # or a thread that sleeps would keep the user's tensor

    helpers = [_POOL.get(threads - 1).submit(read) for _ in range(threads - 1)]
    try:
        read()
    finally:
        work.clear()
        wait([helper for helper in helpers if not helper.cancel()])
    for helper in helpers:
        if not helper.cancelled():
            helper.result()
    return digests


class _Pool:
    """The threads that read; started at the first large tensor. A forked process has none of its parent's."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._pool: ThreadPoolExecutor | None = None
        self._size = 0

    def get(self, count: int) -> ThreadPoolExecutor:
        """A pool of at least `count` threads."""
        with self._lock:
            if self._pool is None or self._size < count:
                self._pool, self._size = ThreadPoolExecutor(count, thread_name_prefix="pyg_fullgraph_read"), count
            return self._pool


_POOL = _Pool()


def _forget_threads() -> None:
    global _POOL
    _POOL = _Pool()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_threads)
