"""Products with bias, addend and ReLU in the store, by head, and of messages that are reduced."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch

from pyg_fullgraph.errors import OperatorError
from pyg_fullgraph.ops import backend, reference, trusted
from pyg_fullgraph.ops.linear import edge_linear, linear, linear_of_heads, pack

DTYPES = [torch.float32, torch.float64]
TOLERANCE = {torch.float32: 1e-5, torch.float64: 1e-12}
#: Rows, inner index and columns around the kernels' tiles (6 and 12 rows, 16 and 32 columns) and passes (256 and more).
SHAPES = [(0, 3, 4), (1, 1, 1), (5, 3, 7), (6, 16, 16), (13, 300, 33), (97, 1100, 20), (200, 0, 5), (50, 8, 0)]


@pytest.fixture(params=["baseline", "avx2", "avx512"])
def isa(request: pytest.FixtureRequest, extension: Any) -> Iterator[str]:
    """Each instruction set of this processor."""
    if request.param not in extension.isas():
        pytest.skip(f"no {request.param} here")
    before = extension.isa()
    extension.set_isa(request.param)
    yield request.param
    extension.set_isa(before)


def close(got: torch.Tensor, want: torch.Tensor) -> None:
    assert got.shape == want.shape and got.dtype == want.dtype
    if want.numel():
        scale = want.double().abs().max().clamp(min=1.0)
        assert ((got.double() - want.double()).abs() / scale).max() <= TOLERANCE[got.dtype]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("turned", [False, True], ids=["rows", "columns"])
def test_linear(isa: str, shape: tuple[int, int, int], dtype: torch.dtype, turned: bool) -> None:
    rows, inner, columns = shape
    x = torch.randn(rows, inner + 3, dtype=dtype)[:, 1 : inner + 1]  # rows with gaps
    matrix = torch.randn(columns, inner, dtype=dtype).t() if turned else torch.randn(inner, columns, dtype=dtype)
    bias, add = torch.randn(columns, dtype=dtype), torch.randn(rows, columns, dtype=dtype)
    packed = pack(matrix)
    close(linear(x, packed), x @ matrix)
    close(linear(x, packed, bias, relu=True), (x @ matrix + bias).relu())
    out = torch.full((rows, columns + 2), 7.0, dtype=dtype)
    linear(x, packed, bias, add, out=out[:, 1:-1], threads=2)
    close(out[:, 1:-1].contiguous(), x @ matrix + bias + add)
    assert bool((out[:, [0, -1]] == 7).all())  # nothing beside it is written
    target = add.clone()
    assert linear(x, packed, None, target, out=target) is target  # in place
    close(target, x @ matrix + add)


def test_a_row_has_the_same_bits_wherever_it_lies(isa: str) -> None:
    x, matrix, bias = torch.randn(300, 700), pack(torch.randn(700, 45)), torch.randn(45)
    whole = linear(x, matrix, bias, threads=1)
    assert torch.equal(whole, linear(x, matrix, bias, threads=3))
    for start, stop in [(0, 1), (1, 9), (17, 300), (299, 300)]:
        if matrix.packed is not None:  # torch's products promise no such thing
            assert torch.equal(whole[start:stop], linear(x[start:stop], matrix, bias))


@pytest.mark.parametrize("dtype", [*DTYPES, torch.float16], ids=str)
def test_linear_of_heads(isa: str, dtype: torch.dtype) -> None:
    x, given = torch.randn(37, 3, 20).to(dtype), torch.randn(5, 20, 9).to(dtype)
    which = torch.tensor([4, 0, 4])
    want = torch.stack([x[:, head] @ given[number] for head, number in enumerate(which.tolist())], 1)
    got = linear_of_heads(x, pack(given), which)
    assert got.dtype == dtype
    torch.testing.assert_close(got, want)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("reduce", ["sum", "mean", "max", "min"])
@pytest.mark.parametrize("degrees", [[0, 0], [3, 0, 1, 500, 0, 96, 96, 5], [1] * 200], ids=["none", "hub", "ones"])
def test_edge_linear(isa: str, reduce: str, degrees: list[int], dtype: torch.dtype) -> None:
    rowptr = torch.tensor([0, *degrees]).cumsum(0) + 4  # edge numbers count from the first
    edges, width, columns = sum(degrees), 19, 35
    x, src = torch.randn(30, width, dtype=dtype), torch.randint(0, 30, (edges,), dtype=torch.int32)
    dst, matrix = torch.randn(len(degrees), width, dtype=dtype), torch.randn(width, columns, dtype=dtype)
    bias = torch.randn(columns, dtype=dtype)
    edge = torch.randn(edges, width, dtype=dtype)
    for options in ({"dst": dst, "activation": "relu"}, {"edge": edge}, {}):
        message = trusted.message(x, src, rowptr, **options)
        for relu in (False, True):
            product = message @ matrix + bias
            want = reference.segment_reduce(product.relu() if relu else product, rowptr - 4, reduce)
            close(edge_linear(x, src, rowptr, pack(matrix), reduce, bias=bias, relu=relu, threads=2, **options), want)


def test_nan_is_not_lost(isa: str) -> None:
    x = torch.tensor([[float("nan"), 1.0], [1.0, 2.0], [3.0, -5.0]])
    matrix = pack(torch.eye(2))
    assert linear(x, matrix, relu=True).isnan().sum() >= 1
    rowptr, src = torch.tensor([0, 3]), torch.tensor([1, 0, 2])
    assert edge_linear(x, src, rowptr, matrix, "max").isnan().any()


def test_wrong_arguments_are_told() -> None:
    matrix = pack(torch.ones(3, 4))
    for call in (
        lambda: pack(torch.ones(3)),
        lambda: linear(torch.ones(2, 5), matrix),
        lambda: linear(torch.ones(2, 3), matrix, torch.ones(5)),
        lambda: linear(torch.ones(2, 3), matrix, None, torch.ones(3, 4)),
        lambda: linear(torch.ones(2, 3), matrix, out=torch.ones(2, 5)),
        lambda: edge_linear(torch.ones(2, 3), None, torch.tensor([0, 2]), matrix, "mul"),
    ):
        with pytest.raises(OperatorError):
            call()


def test_types_that_the_kernel_does_not_serve() -> None:
    for dtype in (torch.bfloat16, torch.complex64):
        x, matrix = torch.ones(3, 2, dtype=dtype), torch.ones(2, 4, dtype=dtype)
        packed = pack(matrix)
        assert packed.packed is None
        assert torch.equal(linear(x, packed, torch.ones(4, dtype=dtype)), x @ matrix + 1)


def test_another_instruction_set_refuses_a_packed_matrix() -> None:
    module = backend.load().module
    if module is None or module.isas()[-1] != "avx512":
        pytest.skip("needs two panels")
    packed = pack(torch.ones(3, 4))
    wrong = replace(packed, panel=packed.panel // 2)
    with pytest.raises(ValueError, match="instruction set"):
        linear(torch.ones(2, 3), wrong)
