"""gather_reduce and segment_reduce against their definitions."""

from __future__ import annotations

import pytest
import torch

from pyg_fullgraph import ops
from pyg_fullgraph.errors import OperatorError
from pyg_fullgraph.ops import reference

from .conftest import DTYPES, WIDTHS, Case, assert_close, hub_case, indices, same_bits, short

REDUCTIONS = ["sum", "mean", "max", "min", "mul"]


def near_one(case: Case, *shape: int, dtype: torch.dtype) -> torch.Tensor:
    """Values whose products over thousands of edges stay finite."""
    return (1 + 1e-4 * case.normal(*shape, dtype=torch.float64)).to(dtype)


@pytest.mark.parametrize("reduce", REDUCTIONS)
@pytest.mark.parametrize("dtype", DTYPES, ids=short)
def test_gather_reduce(case, reduce, dtype, each_isa):
    make = near_one if reduce == "mul" else Case.normal
    x = make(case, case.nodes, 4, 5, dtype=dtype)
    scalar, head = make(case, case.edges, dtype=dtype), make(case, case.edges, 4, dtype=dtype)
    for weight in (None, scalar, head):
        # The oracle is the definition in float64, rounded once.
        wide = None if weight is None else weight.double()
        expected = reference.gather_reduce(x.double(), case.src, case.rowptr, wide, reduce).to(dtype)
        for isa in each_isa():
            for src in indices(case.src, isa):
                got = ops.gather_reduce(x, src, case.rowptr, weight, reduce, threads=2)
                assert_close(got, expected, scale=20 if reduce == "mul" else 1)


@pytest.mark.parametrize("width", [*WIDTHS, 2, 7, 603])
@pytest.mark.parametrize("dtype", DTYPES, ids=short)
def test_every_width(width, dtype, each_isa):
    case = Case(40, [3, 0, 20, 1, 64, 7])
    x, weight = case.normal(40, width, dtype=dtype), case.normal(case.edges, dtype=dtype)
    per_column = case.normal(case.edges, width, dtype=dtype)
    for reduce in ("sum", "mean", "max"):
        for w in (None, weight, per_column) if reduce == "sum" else (None, per_column):
            wide = None if w is None else w.double()
            expected = reference.gather_reduce(x.double(), case.src, case.rowptr, wide, reduce).to(dtype)
            for _ in each_isa():
                assert_close(ops.gather_reduce(x, case.src.int(), case.rowptr, w, reduce), expected)


@pytest.mark.parametrize("heads,channels", [(1, 32), (2, 3), (3, 16), (4, 32), (5, 7), (8, 8), (8, 1), (10, 64)])
@pytest.mark.parametrize("dtype", DTYPES, ids=short)
def test_head_weights(heads, channels, dtype, each_isa):
    case = Case(40, [3, 0, 20, 1, 64, 7])
    x, weight = case.normal(40, heads, channels, dtype=dtype), case.normal(case.edges, heads, dtype=dtype)
    for reduce in ("sum", "mean", "min"):
        wide = reference.gather_reduce(x.double(), case.src, case.rowptr, weight.double(), reduce)
        for _ in each_isa():
            got = ops.gather_reduce(x, case.src, case.rowptr, weight, reduce)
            assert_close(got, wide.to(dtype))


@pytest.mark.parametrize("reduce", REDUCTIONS)
@pytest.mark.parametrize("dtype", DTYPES, ids=short)
def test_segment_reduce(case, reduce, dtype, each_isa):
    value = (near_one if reduce == "mul" else Case.normal)(case, case.edges, 2, 9, dtype=dtype)
    expected = reference.segment_reduce(value.double(), case.rowptr, reduce).to(dtype)
    for _ in each_isa():
        got = ops.segment_reduce(value, case.rowptr, reduce, threads=2)
        assert_close(got, expected, scale=20 if reduce == "mul" else 1)


@pytest.mark.parametrize("dtype", [torch.int32, torch.int64], ids=short)
def test_integers_by_the_reference(dtype):
    value, rowptr = torch.tensor([3, 4, 9], dtype=dtype), torch.tensor([0, 2, 2, 3])
    assert ops.segment_reduce(value, rowptr, "sum").tolist() == [7, 0, 9]
    assert ops.segment_reduce(value, rowptr, "mean").tolist() == [3, 0, 9]
    assert ops.segment_reduce(value, rowptr, "mul").tolist() == [12, 1, 9]


@pytest.mark.parametrize("reduce", REDUCTIONS)
def test_nan_and_infinity(reduce, each_isa):
    inf, nan = torch.inf, torch.nan
    column = torch.tensor([1.0, nan, 2.0, -inf, -inf, inf, 3.0, nan, 4.0, 5.0, nan])
    x, rowptr = column[:, None].repeat(1, 35), torch.tensor([0, 3, 5, 7, 10, 11])
    expected = reference.segment_reduce(x, rowptr, reduce)
    src = torch.arange(11)
    for _ in each_isa():
        torch.testing.assert_close(ops.segment_reduce(x, rowptr, reduce), expected, equal_nan=True)
        torch.testing.assert_close(ops.gather_reduce(x, src, rowptr, None, reduce), expected, equal_nan=True)


@pytest.mark.parametrize("dtype", DTYPES, ids=short)
@pytest.mark.parametrize("reduce", REDUCTIONS)
def test_bits_do_not_depend_on_threads_or_pool(dtype, reduce, extension):
    case = hub_case()
    x, weight = near_one(case, case.nodes, 4, 9, dtype=dtype), near_one(case, case.edges, 4, dtype=dtype)
    first = ops.gather_reduce(x, case.src, case.rowptr, weight, reduce, threads=1)
    try:
        for own in (False, True):
            extension.set_own_workers(own)
            for threads in (1, 2, 3):
                again = ops.gather_reduce(x, case.src, case.rowptr, weight, reduce, threads=threads)
                assert same_bits(first, again)
    finally:
        extension.set_own_workers(False)


@pytest.mark.parametrize("width", [1, 5, 64, 130, 700])
def test_strided_in_and_out(width):
    case = Case(60, [i % 9 for i in range(50)])
    wide, into = case.normal(60, width + 7), torch.full((50, width + 3), 7.0)
    x, out = wide[:, 2 : 2 + width], into[:, 1 : 1 + width]
    expected = reference.gather_reduce(x, case.src, case.rowptr, None, "mean")
    assert ops.gather_reduce(x, case.src, case.rowptr, None, "mean", out=out) is out
    assert_close(out, expected)
    assert (into[:, 0] == 7).all() and (into[:, 1 + width :] == 7).all()
    transposed = case.normal(width, 60).t()
    expected = reference.gather_reduce(transposed, case.src, case.rowptr, None, "sum")
    assert_close(ops.gather_reduce(transposed, case.src, case.rowptr), expected)


def test_every_second_index_and_weight():
    case = Case(20, [5, 0, 9])
    src, weight = case.src.repeat_interleave(2)[::2], case.normal(14).repeat_interleave(2)[::2]
    x = case.normal(20, 6)
    expected = reference.gather_reduce(x, src, case.rowptr, weight, "sum")
    assert_close(ops.gather_reduce(x, src, case.rowptr, weight), expected)


@pytest.mark.parametrize("reduce", REDUCTIONS)
def test_row_blocks_give_the_bits_of_the_whole(reduce):
    case = hub_case()
    x, weight = near_one(case, 50, 20, dtype=torch.float32), near_one(case, case.edges, dtype=torch.float32)
    whole = ops.gather_reduce(x, case.src, case.rowptr, weight, reduce)
    for r0, r1 in [(0, 2), (2, 3), (3, 6), (6, 7)]:
        e0, e1 = int(case.rowptr[r0]), int(case.rowptr[r1])
        block = ops.gather_reduce(x, case.src[e0:e1], case.rowptr[r0 : r1 + 1], weight[e0:e1], reduce)
        assert same_bits(block, whole[r0:r1])


def test_one_dimension_and_zero_width():
    case = Case(8, [2, 0, 3])
    x = case.normal(8)
    assert_close(
        ops.gather_reduce(x, case.src, case.rowptr),
        reference.gather_reduce(x, case.src, case.rowptr, None, "sum"),
    )
    assert ops.gather_reduce(torch.empty(8, 0), case.src, case.rowptr).shape == (3, 0)


def test_mixed_types_follow_torch():
    case = Case(8, [2, 0, 3])
    x, weight = case.normal(8, 3), case.normal(5, dtype=torch.float64)
    got = ops.gather_reduce(x, case.src, case.rowptr, weight)
    assert got.dtype == torch.float64
    assert_close(got, reference.gather_reduce(x, case.src, case.rowptr, weight, "sum"))


def test_gradients_reach_the_inputs():
    case = Case(8, [2, 0, 3])
    x, weight = case.normal(8, 3).requires_grad_(), case.normal(5).requires_grad_()
    ops.gather_reduce(x, case.src, case.rowptr, weight).sum().backward()
    assert x.grad is not None and weight.grad is not None
    assert_close(weight.grad, x.detach()[case.src].sum(1))


@pytest.mark.parametrize(
    "change,message",
    [
        ({"reduce": "median"}, "`reduce` is 'median'; valid: sum, mean, max, min, mul"),
        ({"rowptr": torch.tensor([0, 2], dtype=torch.int32)}, "`rowptr` is a tensor of shape .*int64"),
        ({"rowptr": torch.tensor([0, 2, 4])}, r"`src` is .*E = rowptr\[-1\] - rowptr\[0\] = 4 - 0 = 4"),
        ({"src": torch.zeros(5)}, "`src` is .* valid: an int32 or int64 tensor"),
        ({"weight": torch.zeros(4)}, r"`weight` is .*\[E\] = \[5\] or \[E, H\] = \[5, 2\]"),
        ({"out": torch.zeros(2, 3)}, r"`out` is .*\[2, 2\]"),
        ({"x": torch.tensor(1.0)}, r"`x` is .*\[N, ...\]"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_errors_name_the_argument(change, message):
    arguments = {
        "x": torch.zeros(3, 2),
        "src": torch.zeros(5, dtype=torch.int64),
        "rowptr": torch.tensor([0, 2, 5]),
    }
    with pytest.raises(OperatorError, match=message):
        ops.gather_reduce(**{**arguments, **change})
