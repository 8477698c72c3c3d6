"""Row blocks cover all rows once, in order, and stay within their limits."""

from __future__ import annotations

import itertools

import pytest
import sympy
import torch

from pyg_fullgraph.ir import BlockProgram, Program, Ref, Stage, Value
from pyg_fullgraph.plan import blocks, cut_blocks

N = sympy.Symbol("u0")


def block_of(width: int) -> tuple[Program, BlockProgram]:
    value = Value("h", "aten", (), {}, (N, width), torch.float32, Stage.DATA)
    return Program({"h": value}, None), BlockProgram(N, (("h", None),), ("h",))


def rowptr_of(degrees: list[int]) -> torch.Tensor:
    return torch.tensor([0, *degrees]).cumsum(0)


@pytest.mark.parametrize("rows", [1, 2, 255, 256, 257, 5000, 100_000])
@pytest.mark.parametrize("width", [1, 128, 100_000])
def test_rows_are_covered_once(rows: int, width: int) -> None:
    rowptr = rowptr_of([row % 5 for row in range(rows)])
    found = cut_blocks(*block_of(width), rows, [rowptr])
    assert found[0][0] == 0
    assert found[-1][1] == rows
    assert all(left[1] == right[0] for left, right in itertools.pairwise(found))
    for start, stop, bounds in found:
        assert 0 < stop - start <= blocks.MAX_ROWS
        assert bounds == ((int(rowptr[start]), int(rowptr[stop])),)


def test_a_hub_has_a_block_of_its_own(monkeypatch) -> None:
    monkeypatch.setattr(blocks, "MAX_EDGES", 100)
    degrees = [1] * 40 + [5000] + [1] * 40
    found = cut_blocks(*block_of(4), len(degrees), [rowptr_of(degrees)])
    hub = next(item for item in found if item[0] <= 40 < item[1])
    assert hub[1] - hub[0] == 1
    assert all(bounds[0][1] - bounds[0][0] <= 100 for start, _, bounds in found if start != 40)


def test_without_aggregation() -> None:
    found = cut_blocks(*block_of(4), 1000, [])
    assert sum(stop - start for start, stop, _ in found) == 1000
    assert all(bounds == () for _, _, bounds in found)


def test_little_work_is_one_block_and_much_is_shared() -> None:
    few = cut_blocks(*block_of(4), 2000, [rowptr_of([3] * 2000)])
    assert len(few) == 1
    rows = blocks.FEWEST * blocks.SMALLEST // (4 * 64) + 1
    assert len(cut_blocks(*block_of(64), rows, [rowptr_of([3] * rows)])) >= blocks.FEWEST
    between = cut_blocks(*block_of(64), rows // 4, [])
    assert len(between) == blocks.FEWEST // 4
    assert max(stop - start for start, stop, _ in between) - min(stop - start for start, stop, _ in between) <= 4


@pytest.mark.parametrize(("operator", "expected"), [(torch.ops.aten.mm.default, 6), (torch.ops.aten.add.Tensor, 1)])
def test_a_product_counts_as_work(operator, expected: int) -> None:
    x = Value("x", "input", ("x",), {}, (N, 512), torch.float32, Stage.DATA)
    w = Value("w", "param", ("w",), {}, (512, 512), torch.float32, Stage.PARAM)
    y = Value("y", "aten", (Ref("x"), Ref("w")), {}, (N, 512), torch.float32, Stage.DATA, operator)
    program, block = Program({"x": x, "w": w, "y": y}, None), BlockProgram(N, (("y", None),), ("y",))
    assert len(cut_blocks(program, block, 512, [])) == expected
    assert len(cut_blocks(program, block, 64, [])) == 1
