"""Row blocks: as many rows as keep a block's values in cache, fewer where the rows have many in-edges."""

from __future__ import annotations

import torch
from torch import Tensor

from pyg_fullgraph.ir import BlockProgram, Program, Stage
from pyg_fullgraph.ir.fused import FUSED
from pyg_fullgraph.ir.work import FLOPS_PER_BYTE, product_flops

Bounds = tuple[tuple[int, int], ...]
Blocks = list[tuple[int, int, Bounds]]

#: Bytes of row values and of edge values that one thread's block may hold. Measured (docs/log.md): below about 1 MiB
#: the calls cost more than the cache saves.
ROW_BYTES = 4 << 20
EDGE_BYTES = 4 << 20
MIN_ROWS, MAX_ROWS = 64, 16_384
FEWEST = 16  # at least so many blocks, for threads to share, unless there is too little to do in each:
SMALLEST = 4 << 20  # bytes that a block touches; below, calling its operators costs more than sharing them gives
MAX_EDGES = 1 << 20  # of fused kernels, which hold no edge values: only so that threads finish together


def block_widths(program: Program, block: BlockProgram) -> tuple[int, int]:
    """Bytes that a block holds per row, and per in-edge, if nothing is freed early."""
    rows = sum(
        program[name].row_bytes for name, context in block.order if context is None and not program[name].is_pool
    )
    edges = sum(program[name].row_bytes for name, context in block.order if context is not None)
    edges += sum(
        program[ref].row_bytes
        for name, context in block.order
        if context is not None
        for ref in program[name].refs()
        if program[ref].op == "input" and program[ref].stage is Stage.DATA
    )
    return rows, edges


def edge_limit(program: Program, block: BlockProgram) -> int:
    """How many edges a block holds at a time; a row with more of them is run in tiles of so many."""
    _rows, edge_bytes = block_widths(program, block)
    return max(min(MAX_EDGES, EDGE_BYTES // edge_bytes) if edge_bytes else MAX_EDGES, 1)


def cut_blocks(program: Program, block: BlockProgram, rows: int, rowptrs: list[Tensor]) -> Blocks:
    """The blocks of one block program; the same for any number of threads, so that results are too.

    Args:
        program, block: what a block computes.
        rows: how many rows there are.
        rowptrs: int64 [rows + 1 or more] of every aggregation.

    Returns:
        (first row, one past the last, (first edge, one past the last) of every aggregation) for each block.
    """
    edges = max((int(rowptr[rows]) for rowptr in rowptrs), default=0)
    most = _most_rows(program, block, rows, edges)
    cuts = _cut_rows(rows, most, rowptrs, edge_limit(program, block))
    bounds = [rowptr[torch.tensor(cuts)].tolist() for rowptr in rowptrs]
    return [(cuts[i], cuts[i + 1], tuple((bound[i], bound[i + 1]) for bound in bounds)) for i in range(len(cuts) - 1)]


def likely_blocks(program: Program, block: BlockProgram, rows: int, edges: int) -> int:
    """About how many blocks there will be, by the numbers of rows and edges alone."""
    if rows == 0:
        return 0
    return max(-(-rows // _most_rows(program, block, rows, edges)), edges // edge_limit(program, block))


def _most_rows(program: Program, block: BlockProgram, rows: int, edges: int) -> int:
    """The most rows of a block."""
    row_bytes, _ = block_widths(program, block)
    most = max(MIN_ROWS, min(MAX_ROWS, ROW_BYTES // max(row_bytes, 1)))
    shared = max(min(FEWEST, _work(program, block, rows, edges) // SMALLEST), 1)
    return min(most, max(-(-rows // shared), MIN_ROWS))


def _work(program: Program, block: BlockProgram, rows: int, edges: int) -> int:
    """Bytes that all blocks touch, each value and operand counted at every use, and their products as bytes."""
    total = 0
    for name, context in block.order:
        value = program[name]
        reads = sum(program[ref].row_bytes for ref in value.refs() if program[ref].stage > Stage.PARAM)
        count = rows if context is None and value.op not in FUSED else edges
        total += count * (value.row_bytes + reads + product_flops(program, value) // FLOPS_PER_BYTE)
    return total


def _cut_rows(rows: int, most: int, rowptrs: list[Tensor], edges: int) -> list[int]:
    if not rowptrs:
        return [*range(0, rows, most), rows]
    total = rowptrs[0][: rows + 1]
    for rowptr in rowptrs[1:]:
        total = total + rowptr[: rows + 1]
    cuts, row = [0], 0
    while row < rows:
        limit = int(torch.searchsorted(total, total[row] + edges, right=True)) - 1
        row = min(rows, row + most, max(limit, row + 1))
        cuts.append(row)
    return cuts
