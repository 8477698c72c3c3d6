"""Where the values at the cuts live: one small interface, and its two first implementations.

The executor allocates a table, writes rows of it, and reads or gathers rows of it. It never assumes that a table is
memory: a file (`MappedHome`) serves as well, and another device or other ranks can take its place behind the same few
methods.
"""

from __future__ import annotations

import errno
import math
import mmap
import os
import shutil
import tempfile
from typing import Protocol

import torch
from torch import Tensor

from pyg_fullgraph.errors import InputError, SpaceError
from pyg_fullgraph.ops.memory import empty
from pyg_fullgraph.runtime.spare import Spare


class Table(Protocol):
    """A value stored whole: `rows` rows of `tail` columns."""

    def destination(self, start: int, stop: int) -> Tensor:
        """Where rows [start, stop) are to be computed: the table's own memory, or a staging buffer."""

    def write(self, start: int, block: Tensor) -> None:
        """Store a block of rows from `start` on; free where `block` is the table's own `destination`."""

    def write_at(self, index: Tensor, block: Tensor) -> None:
        """Store rows at the positions `index` (each at most once)."""

    def read(self, start: int, stop: int) -> Tensor:
        """Rows [start, stop), not to be modified."""

    def gather(self, index: Tensor) -> tuple[Tensor, Tensor]:
        """A tensor and an index into it that together hold the rows at `index`, without a copy where possible."""

    def part(self, start: int, stop: int) -> Table:
        """Rows [start, stop) as a table of their own, in the same place."""

    def whole(self) -> Tensor:
        """All rows as one tensor, for operators that have no block form."""


class Home(Protocol):
    """Allocates tables and gives them back."""

    def allocate(self, rows: int, tail: tuple[int, ...], dtype: torch.dtype) -> Table:
        """A table of undefined content."""

    def scratch(self, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        """A tensor of undefined content in memory, whatever the home is, for one thread and superstep."""

    def adopt(self, tensor: Tensor) -> Table:
        """A table over rows that exist already."""

    def close(self) -> None:
        """Give back everything that outlives the tables."""


class TensorTable:
    """A table over one tensor that the process can address: memory, or a mapped file."""

    def __init__(self, tensor: Tensor) -> None:
        self.tensor = tensor

    def destination(self, start: int, stop: int) -> Tensor:
        return self.tensor[start:stop]

    def write(self, start: int, block: Tensor) -> None:
        own = self.tensor
        place = own.data_ptr() + start * own.stride(0) * own.element_size()
        if block.data_ptr() != place or block.stride() != own.stride():
            own[start : start + block.shape[0]].copy_(block)

    def write_at(self, index: Tensor, block: Tensor) -> None:
        self.tensor.index_copy_(0, index.long(), block)

    def read(self, start: int, stop: int) -> Tensor:
        return self.tensor[start:stop]

    def gather(self, index: Tensor) -> tuple[Tensor, Tensor]:
        return self.tensor, index

    def part(self, start: int, stop: int) -> TensorTable:
        return TensorTable(self.tensor[start:stop])

    def whole(self) -> Tensor:
        return self.tensor


class MemoryHome:
    """Tables in the process's memory.

    Args:
        device: whose memory.
        spare: on the processor, what earlier tables left behind.
    """

    def __init__(self, device: torch.device | str = "cpu", spare: Spare | None = None) -> None:
        self.device = torch.device(device)
        self.spare = spare if self.device.type == "cpu" else None

    def allocate(self, rows: int, tail: tuple[int, ...], dtype: torch.dtype) -> TensorTable:
        return TensorTable(self.scratch((rows, *tail), dtype))

    def scratch(self, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        return empty(shape, dtype, self.device) if self.spare is None else self.spare.empty(shape, dtype)

    def adopt(self, tensor: Tensor) -> TensorTable:
        return TensorTable(tensor)

    def close(self) -> None:
        if self.spare is not None:
            self.spare.settle()


class MappedHome:
    """Tables in memory-mapped files, which the operating system writes out and reads back as memory gets short.

    Args:
        folder: where the files are made; the system's temporary folder if None. Each file is unlinked at once, so
            nothing is left behind, whatever happens.
    """

    def __init__(self, folder: str | os.PathLike[str] | None = None) -> None:
        self.folder = folder

    def allocate(self, rows: int, tail: tuple[int, ...], dtype: torch.dtype) -> TensorTable:
        count = rows * math.prod(tail)
        if count == 0:
            return TensorTable(torch.empty((rows, *tail), dtype=dtype))
        size, folder = count * dtype.itemsize, str(self.folder or tempfile.gettempdir())
        try:
            handle, path = tempfile.mkstemp(prefix="pyg_fullgraph_", dir=self.folder)
            try:
                os.unlink(path)  # the file lives as long as its memory: a killed process leaves none
                reserve(handle, size)
                memory = mmap.mmap(handle, size)
            finally:
                os.close(handle)
        except OSError as error:
            raise SpaceError(
                f"home='mapped' needs {size:,} bytes more in {folder}, where {free_bytes(folder):,} are free "
                f"({error.strerror or error}). Free some space, or set TMPDIR to a folder on a larger disk."
            ) from error
        return TensorTable(torch.frombuffer(memory, dtype=dtype).view(rows, *tail))

    def scratch(self, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        return torch.empty(shape, dtype=dtype)

    def adopt(self, tensor: Tensor) -> TensorTable:
        return TensorTable(tensor)

    def close(self) -> None:
        return None


def reserve(handle: int, size: int) -> None:
    """Make a file of this size whose every byte has its place on the disk: writing to it cannot fail later.

    Raises:
        OSError: there is not so much space.
    """
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(handle, 0, size)
        return
    if os.fstatvfs(handle).f_bavail * os.fstatvfs(handle).f_frsize < size:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    os.ftruncate(handle, size)


def free_bytes(folder: str | os.PathLike[str]) -> int:
    """How much a user can still write to the disk of a folder; 0 where that is not told."""
    try:
        return shutil.disk_usage(folder).free
    except OSError:
        return 0


def make_home(name: str, device: torch.device, spare: Spare | None = None) -> Home:
    """The home named `memory` or `mapped`; the first makes its tables of `spare` memory where there is such.

    Raises:
        InputError: there is no such home, or it cannot serve the device.
    """
    if name == "memory":
        return MemoryHome(device, spare)
    if name == "mapped":
        if device.type != "cpu":
            raise InputError(f"home='mapped' keeps values in files that only a CPU can address, not {device}")
        return MappedHome()
    raise InputError(f"home={name!r}: there are 'memory' and 'mapped'.")
