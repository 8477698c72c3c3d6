"""A home of tables that hands out only the rows that are fetched, as a halo, a tile or a device would."""

from __future__ import annotations

import torch
from torch import Tensor

from pyg_fullgraph.runtime.home import MemoryHome, TensorTable


class CompactTable(TensorTable):
    """Fetches get a copy of the rows they name, each once, and numbers of these."""

    def gather(self, index: Tensor) -> tuple[Tensor, Tensor]:
        rows, position = torch.unique(index.long(), return_inverse=True)
        return self.tensor.index_select(0, rows), position.to(index.dtype)

    def part(self, start: int, stop: int) -> CompactTable:
        return CompactTable(self.tensor[start:stop])


class CompactHome(MemoryHome):
    """Tables in memory, fetched from as above."""

    def allocate(self, rows: int, tail: tuple[int, ...], dtype: torch.dtype) -> CompactTable:
        return CompactTable(super().allocate(rows, tail, dtype).tensor)

    def adopt(self, tensor: Tensor) -> CompactTable:
        return CompactTable(tensor)
