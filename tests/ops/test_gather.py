"""gather and repeat against their definitions."""

from __future__ import annotations

import pytest
import torch

from pyg_fullgraph import ops
from pyg_fullgraph.errors import OperatorError
from pyg_fullgraph.ops import reference

from .conftest import WIDTHS, Case, indices, short

TYPES = [torch.float32, torch.float64, torch.bfloat16, torch.int64, torch.int16, torch.bool, torch.complex64]


@pytest.mark.parametrize("dtype", TYPES, ids=short)
def test_every_graph(case, dtype, each_isa):
    x = (2 * case.normal(case.nodes, 3, 2)).round().to(dtype)
    y = (2 * case.normal(case.rows, 3, 2)).round().to(dtype)
    for isa in each_isa():
        for src in indices(case.src, isa):
            assert torch.equal(ops.gather(x, src, threads=2), reference.gather(x, src))
        assert torch.equal(ops.repeat(y, case.rowptr, threads=2), reference.repeat(y, case.rowptr))


@pytest.mark.parametrize("width", [*WIDTHS, 5, 7, 13, 24, 33, 47, 63, 65])
def test_every_width(width, each_isa):
    case = Case(40, [3, 0, 20, 1, 64, 7])
    for dtype in (torch.int8, torch.float16, torch.float32):
        x = (50 * case.normal(40, width)).to(dtype)
        for _ in each_isa():
            assert torch.equal(ops.gather(x, case.src), x[case.src])
            assert torch.equal(ops.repeat(x[:6], case.rowptr), reference.repeat(x[:6], case.rowptr))


def test_strided_in_and_out():
    case = Case(40, [3, 0, 20, 1])
    wide, into = case.normal(40, 30), torch.full((24, 20), 7.0)
    x, out = wide[:, 3:14], into[:, 2:13]
    assert ops.gather(x, case.src, out=out) is out
    assert torch.equal(out, x[case.src])
    ops.repeat(x[:4], case.rowptr, out=out)
    assert torch.equal(out, reference.repeat(x[:4], case.rowptr))
    assert (into[:, :2] == 7).all() and (into[:, 13:] == 7).all()
    assert torch.equal(ops.gather(wide.t().contiguous().t(), case.src), wide[case.src])


def test_row_slice_of_rowptr():
    case = Case(9, [2, 5, 0, 3])
    x = case.normal(2, 4)
    assert torch.equal(ops.repeat(x, case.rowptr[1:4]), reference.repeat(x, case.rowptr[1:4]))
    assert ops.repeat(x, case.rowptr[1:4]).shape == (5, 4)


def test_gradients_reach_the_input():
    x = torch.randn(4, 3, requires_grad=True)
    ops.gather(x, torch.tensor([1, 1, 3])).sum().backward()
    assert x.grad is not None and x.grad[:, 0].tolist() == [0, 2, 0, 1]


@pytest.mark.parametrize(
    "call,message",
    [
        (lambda: ops.gather(torch.zeros(3, 2), torch.zeros(4)), "gather: `index` is .* int32 or int64"),
        (
            lambda: ops.gather(torch.zeros(3, 2), torch.zeros(4, dtype=torch.int64), out=torch.zeros(3, 2)),
            "`out` is",
        ),
        (lambda: ops.repeat(torch.zeros(3, 2), torch.tensor([0, 1])), r"repeat: `x` is .*with B = 1"),
    ],
    ids=["index", "out", "rows"],
)
def test_errors_name_the_argument(call, message):
    with pytest.raises(OperatorError, match=message):
        call()
