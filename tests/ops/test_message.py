"""message, message_reduce and softmax_reduce against their definitions."""

from __future__ import annotations

from itertools import combinations

import pytest
import torch
from torch_geometric.nn.aggr import SoftmaxAggregation
from torch_geometric.utils import scatter

from pyg_fullgraph import ops
from pyg_fullgraph.errors import OperatorError
from pyg_fullgraph.ops import reference

from .conftest import DTYPES, WIDTHS, Case, assert_close, hub_case, indices, same_bits, short

NAMES = ("sum", "mean", "max", "min", "square_sum", "square_mean")
VARIANTS = {
    "source": {},
    "dst": {"dst": True},
    "edge_relu": {"edge": True, "activation": "relu"},
    "all_leaky": {"dst": True, "edge": True, "activation": "leaky_relu", "negative_slope": 0.3},
    "dst_relu_shift": {"dst": True, "activation": "relu", "shift": 0.25},
}


def problem(case: Case, variant: str, *columns: int, dtype: torch.dtype, src: bool = True):
    """The source rows (or, without src, edge rows) and the options of a variant."""
    options = dict(VARIANTS[variant])
    x = case.normal(case.nodes if src else case.edges, *columns, dtype=dtype)
    if "dst" in options:
        options["dst"] = case.normal(case.rows, *columns, dtype=dtype)
    if "edge" in options:
        options["edge"] = case.normal(case.edges, *columns, dtype=dtype)
    return x, options


def every_option(options, weight=False):
    """The options as the definitions want them, in float64."""
    given = {"dst": None, "edge": None, "activation": "none", "negative_slope": 0.0, "shift": 0.0} | options
    if weight is not False:
        given["weight"] = weight
    return {name: value.double() if isinstance(value, torch.Tensor) else value for name, value in given.items()}


def oracle(x, src, rowptr, options):
    """The messages in float64, rounded once."""
    return reference.message(x.double(), src, rowptr, **every_option(options)).to(x.dtype)


def reduce_oracle(x, src, rowptr, names, options, weight=None):
    """The reductions in float64, rounded once."""
    wide = reference.message_reduce(x.double(), src, rowptr, names, **every_option(options, weight))
    return [each.to(x.dtype) for each in wide]


def softmax_oracle(x, src, rowptr, scale, options):
    """The softmax aggregation in float64, rounded once."""
    scale = torch.as_tensor(scale, dtype=torch.float64)
    return reference.softmax_reduce(x.double(), src, rowptr, scale, **every_option(options)).to(x.dtype)


def assert_all_close(got, expected):
    """Every tensor close to its oracle."""
    assert isinstance(got, tuple) and len(got) == len(expected)
    for a, b in zip(got, expected):
        assert_close(a, b)


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("dtype", DTYPES, ids=short)
def test_every_graph(case, variant, dtype, each_isa):
    x, options = problem(case, variant, 3, 7, dtype=dtype)
    messages = oracle(x, case.src, case.rowptr, options)
    reduced = reduce_oracle(x, case.src, case.rowptr, NAMES, options)
    softmax = softmax_oracle(x, case.src, case.rowptr, 0.7, options)
    for isa in each_isa():
        for src in indices(case.src, isa):
            assert_close(ops.message(x, src, case.rowptr, threads=2, **options), messages)
            assert_all_close(ops.message_reduce(x, src, case.rowptr, NAMES, threads=2, **options), reduced)
            assert_close(ops.softmax_reduce(x, src, case.rowptr, 0.7, threads=2, **options), softmax)


@pytest.mark.parametrize("width", [*WIDTHS, 2, 5, 7, 9, 513, 1030])
@pytest.mark.parametrize("dtype", DTYPES, ids=short)
def test_every_width(width, dtype, each_isa):
    case = Case(40, [3, 0, 20, 1, 64, 7])
    for variant in ("dst", "all_leaky"):
        x, options = problem(case, variant, width, dtype=dtype)
        messages = oracle(x, case.src, case.rowptr, options)
        reduced = reduce_oracle(x, case.src, case.rowptr, NAMES, options)
        scale = case.normal(width)
        softmax = softmax_oracle(x, case.src, case.rowptr, scale, options)
        for _ in each_isa():
            assert_close(ops.message(x, case.src, case.rowptr, **options), messages)
            assert_all_close(ops.message_reduce(x, case.src, case.rowptr, NAMES, **options), reduced)
            assert_close(ops.softmax_reduce(x, case.src, case.rowptr, scale, **options), softmax)


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=short)
def test_without_source_rows_edges_read_their_own(case, variant, dtype, each_isa):
    x, options = problem(case, variant, 10, dtype=dtype, src=False)
    messages = oracle(x, None, case.rowptr, options)
    reduced = reduce_oracle(x, None, case.rowptr, NAMES, options)
    softmax = softmax_oracle(x, None, case.rowptr, 1.5, options)
    for _ in each_isa():
        assert_close(ops.message(x, None, case.rowptr, **options), messages)
        assert_all_close(ops.message_reduce(x, None, case.rowptr, NAMES, **options), reduced)
        assert_close(ops.softmax_reduce(x, None, case.rowptr, 1.5, **options), softmax)


SUBSETS = [names for size in (1, 2, 3) for names in combinations(NAMES, size)]


@pytest.mark.parametrize("names", SUBSETS, ids=",".join)
def test_every_subset_in_any_order(names, each_isa):
    case = hub_case()
    x, options = problem(case, "dst", 11, dtype=torch.float32)
    order = names[::-1]
    expected = reduce_oracle(x, case.src, case.rowptr, order, options)
    for _ in each_isa():
        assert_all_close(ops.message_reduce(x, case.src, case.rowptr, order, **options), expected)


@pytest.mark.parametrize("dtype", DTYPES, ids=short)
@pytest.mark.parametrize("width", [1, 6, 40])
def test_weights(dtype, width, each_isa):
    case = hub_case()
    x, options = problem(case, "dst_relu_shift", width, dtype=dtype)
    weight = case.normal(case.edges, dtype=dtype)
    expected = reduce_oracle(x, case.src, case.rowptr, NAMES, options, weight)
    for _ in each_isa():
        got = ops.message_reduce(x, case.src, case.rowptr, NAMES, weight=weight, threads=2, **options)
        assert_all_close(got, expected)


@pytest.mark.parametrize("shape", [(), (1,), (5,), (4, 1), (4, 5), (1, 5)], ids=str)
@pytest.mark.parametrize("scale_type", [torch.float32, torch.float64, torch.bfloat16, torch.int64], ids=short)
def test_scales_broadcast(shape, scale_type):
    case = Case(40, [3, 0, 20, 1])
    x, options = problem(case, "dst", 4, 5, dtype=torch.float32)
    scale = (3 * case.normal(*shape)).to(scale_type)
    expected = softmax_oracle(x, case.src, case.rowptr, scale, options)
    assert_close(ops.softmax_reduce(x, case.src, case.rowptr, scale, **options), expected)


@pytest.mark.parametrize("scale", [0.0, 1.0, -2.0, 30.0])
def test_softmax_is_torch_geometrics(scale):
    case = Case(40, [3, 0, 20, 1, 64])
    x, dst = case.normal(40, 16), reference.rows_of_edges(case.rowptr)
    message = x[case.src].relu() + 1e-7
    expected = SoftmaxAggregation(scale)(message, dst, dim_size=case.rows)
    got = ops.softmax_reduce(x, case.src, case.rowptr, scale, activation="relu", shift=1e-7)
    assert_close(got, expected.detach())


def test_reductions_are_torch_geometrics():
    case = Case(40, [3, 0, 20, 1, 64])
    x, dst = case.normal(40, 16), reference.rows_of_edges(case.rowptr)
    got = ops.message_reduce(x, case.src, case.rowptr, ("sum", "mean", "max", "min"), activation="relu")
    for reduce, each in zip(("sum", "mean", "max", "min"), got):
        assert_close(each, scatter(x[case.src].relu(), dst, 0, case.rows, reduce))


@pytest.mark.parametrize("width", [1, 6, 33])
@pytest.mark.parametrize("degree", [5, 5000], ids=["row", "hub"])
def test_nan_and_infinity_in_reductions(width, degree, each_isa):
    """A NaN, infinities of both signs, and rows of nothing but one infinity, among common values."""
    inf, nan = torch.inf, torch.nan
    case = Case(6 * degree, [degree] * 6)
    x = case.normal(6 * degree, width)
    x[3] = nan
    x[degree + 1] = inf
    x[2 * degree + 2] = -inf
    x[3 * degree + 1], x[3 * degree + 4] = inf, -inf
    x[4 * degree : 5 * degree] = -inf
    x[6 * degree - 1] = nan
    for names in (NAMES, ("max",), ("sum",), ("min",)):
        for activation in ("none", "relu", "leaky_relu"):
            options = {"activation": activation, "negative_slope": 0.5}
            expected = reduce_oracle(x, None, case.rowptr, names, options)
            for _ in each_isa():
                got = ops.message_reduce(x, None, case.rowptr, names, **options)
                for a, b in zip(got, expected):
                    torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-3, equal_nan=True)


@pytest.mark.parametrize("degree", [7, 9000], ids=["row", "hub"])
def test_extreme_scores(degree, each_isa):
    """Scores beyond float32's exponent, rising so that every tile has a new maximum, infinities and NaN."""
    inf, nan = torch.inf, torch.nan
    case = Case(6 * degree, [degree] * 6)
    x = case.normal(6 * degree, 9)
    x[:degree] = torch.linspace(-500, 500, degree)[:, None]
    x[degree : 2 * degree] = torch.linspace(80, -3e4, degree)[:, None]
    x[2 * degree + 1] = inf
    x[3 * degree + 3] = nan
    x[4 * degree : 5 * degree] *= 1e20
    x[5 * degree :] = -inf
    expected = softmax_oracle(x, None, case.rowptr, 2.0, {})
    for _ in each_isa():
        got = ops.softmax_reduce(x, None, case.rowptr, 2.0)
        torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-5, equal_nan=True)


@pytest.mark.parametrize("first", [-3e38, 3e38])
def test_overflowing_scores_are_nan(first, each_isa):
    x = torch.full((3, 9), 1.0)
    x[0] = first
    expected = reference.softmax_reduce(x, None, torch.tensor([0, 3]), torch.tensor(10.0), **every_option({}))
    for _ in each_isa():
        got = ops.softmax_reduce(x, None, torch.tensor([0, 3]), 10.0)
        torch.testing.assert_close(got, expected, equal_nan=True)


def all_of_them(x, src, rowptr, options, **more):
    """Every operator's results, in one tuple."""
    weight = torch.linspace(-1, 2, src.shape[0]).to(x.dtype)
    return (
        ops.message(x, src, rowptr, **options, **more),
        *ops.message_reduce(x, src, rowptr, NAMES, **options, **more),
        *ops.message_reduce(x, src, rowptr, ("max",), weight=weight, **options, **more),
        *ops.message_reduce(x, src, rowptr, ("sum",), **options, **more),
        ops.softmax_reduce(x, src, rowptr, 0.9, **options, **more),
    )


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("dtype", DTYPES, ids=short)
def test_bits_do_not_depend_on_threads_or_pool(variant, dtype, extension):
    case = hub_case()
    x, options = problem(case, variant, 37, dtype=dtype)
    first = all_of_them(x, case.src, case.rowptr, options, threads=1)
    try:
        for own in (False, True):
            extension.set_own_workers(own)
            for threads in (1, 2, 3):
                again = all_of_them(x, case.src, case.rowptr, options, threads=threads)
                assert all(same_bits(a, b) for a, b in zip(first, again))
    finally:
        extension.set_own_workers(False)


def test_row_blocks_give_the_bits_of_the_whole():
    case = hub_case()
    x, options = problem(case, "all_leaky", 20, dtype=torch.float32)
    whole = ops.message(x, case.src, case.rowptr, **options)
    reduced = ops.message_reduce(x, case.src, case.rowptr, NAMES, **options)
    softmax = ops.softmax_reduce(x, case.src, case.rowptr, 0.9, **options)
    for r0, r1 in [(0, 2), (2, 3), (3, 6), (6, 7)]:
        e0, e1 = int(case.rowptr[r0]), int(case.rowptr[r1])
        some = options | {"dst": options["dst"][r0:r1], "edge": options["edge"][e0:e1]}
        block = (x, case.src[e0:e1], case.rowptr[r0 : r1 + 1])
        assert same_bits(ops.message(*block, **some), whole[e0:e1])
        for a, b in zip(ops.message_reduce(*block, NAMES, **some), reduced):
            assert same_bits(a, b[r0:r1])
        assert same_bits(ops.softmax_reduce(*block, 0.9, **some), softmax[r0:r1])


@pytest.mark.parametrize("width", [1, 3, 15, 64])
def test_strided_in_and_out(width):
    case = Case(60, [i % 9 for i in range(50)])

    def spread(x):
        wide = torch.full((x.shape[0], width + 7), torch.nan)
        wide[:, 2 : 2 + width] = x
        return wide[:, 2 : 2 + width]

    def into(rows):
        wide = torch.full((rows, width + 3), 7.0)
        return wide, wide[:, 1 : 1 + width]

    x, options = problem(case, "all_leaky", width, dtype=torch.float32)
    strided = {name: spread(value) if isinstance(value, torch.Tensor) else value for name, value in options.items()}
    src = case.src.repeat_interleave(2)[::2]
    weight = case.normal(case.edges)
    given = (spread(x), src, case.rowptr)

    wide, out = into(case.edges)
    assert ops.message(*given, out=out, **strided) is out
    assert_close(out, oracle(x, src, case.rowptr, options))
    assert (wide[:, 0] == 7).all() and (wide[:, 1 + width :] == 7).all()

    pairs = [into(case.rows) for _ in NAMES]
    outs = [out for _, out in pairs]
    weights = weight.repeat_interleave(2)[::2]
    got = ops.message_reduce(*given, NAMES, weight=weights, outs=outs, **strided)
    assert all(a is b for a, b in zip(got, outs))
    assert_all_close(got, reduce_oracle(x, src, case.rowptr, NAMES, options, weight))
    assert all((wide[:, 0] == 7).all() and (wide[:, 1 + width :] == 7).all() for wide, _ in pairs)

    wide, out = into(case.rows)
    assert ops.softmax_reduce(*given, 0.5, out=out, **strided) is out
    assert_close(out, softmax_oracle(x, src, case.rowptr, 0.5, options))
    assert (wide[:, 0] == 7).all() and (wide[:, 1 + width :] == 7).all()

    transposed = x.t().contiguous().t()
    assert_close(ops.message(transposed, src, case.rowptr, **options), oracle(x, src, case.rowptr, options))


@pytest.mark.parametrize("activation", ["none", "relu", "leaky_relu"])
def test_message_is_exact(activation, each_isa):
    """Not even the sign of a zero differs from torch."""
    case = Case(40, [3, 0, 20, 1])
    x = case.normal(40, 19)
    x[::3] = -0.0
    options = {"activation": activation, "negative_slope": 0.3}
    expected = reference.message(x, case.src, case.rowptr, dst=None, edge=None, shift=0.0, **options)
    for _ in each_isa():
        got = ops.message(x, case.src, case.rowptr, **options)
        assert torch.equal(got, expected)
        assert activation == "relu" or same_bits(got, expected)


def test_one_dimension_and_zero_width():
    case = Case(8, [2, 0, 3])
    x, options = problem(case, "all_leaky", dtype=torch.float32)
    assert_close(ops.message(x, case.src, case.rowptr, **options), oracle(x, case.src, case.rowptr, options))
    expected = reduce_oracle(x, case.src, case.rowptr, NAMES, options)
    assert_all_close(ops.message_reduce(x, case.src, case.rowptr, NAMES, **options), expected)
    expected = softmax_oracle(x, case.src, case.rowptr, 2.0, options)
    assert_close(ops.softmax_reduce(x, case.src, case.rowptr, 2.0, **options), expected)
    empty = torch.empty(8, 0)
    assert ops.message(empty, case.src, case.rowptr).shape == (5, 0)
    assert ops.message_reduce(empty, case.src, case.rowptr, ("max",))[0].shape == (3, 0)
    assert ops.softmax_reduce(empty, case.src, case.rowptr, 1.0).shape == (3, 0)


def test_other_types_by_the_reference():
    case = Case(8, [2, 0, 3])
    x = torch.arange(24).reshape(8, 3)
    assert torch.equal(ops.message(x, case.src, case.rowptr), x[case.src])
    mixed = ops.message(x.float(), case.src, case.rowptr, dst=torch.ones(3, 3, dtype=torch.float64))
    assert mixed.dtype == torch.float32 and torch.equal(mixed, x[case.src].float() + 1)
    own = ops.message(x[:5], None, case.rowptr)
    assert torch.equal(own, x[:5]) and own.data_ptr() != x.data_ptr()
    out = torch.empty(5, 3, dtype=torch.int64)
    assert ops.message(x, case.src, case.rowptr, out=out) is out and torch.equal(out, x[case.src])


def test_gradients_reach_the_inputs():
    case = Case(8, [2, 0, 3])
    x, dst = case.normal(8, 3).requires_grad_(), case.normal(3, 3).requires_grad_()
    scale = torch.tensor(0.5, requires_grad=True)
    total = ops.message(x, case.src, case.rowptr, dst=dst).sum()
    total = total + sum(each.sum() for each in ops.message_reduce(x, case.src, case.rowptr, ("mean", "max"), dst=dst))
    total = total + ops.softmax_reduce(x.detach(), case.src, case.rowptr, scale).sum()
    total.backward()
    assert x.grad is not None and dst.grad is not None
    assert scale.grad is not None and float(scale.grad) != 0


GIVEN = {"x": torch.zeros(3, 2), "src": torch.zeros(5, dtype=torch.int64), "rowptr": torch.tensor([0, 2, 5])}
BAD = [
    ({"x": torch.tensor(1.0)}, r"`x` is .*\[N, ...\]"),
    ({"src": torch.zeros(5)}, "`src` is .* valid: an int32 or int64 tensor"),
    ({"rowptr": torch.tensor([0, 2], dtype=torch.int32)}, "`rowptr` is a tensor of shape .*int64"),
    ({"rowptr": torch.tensor([0, 2, 4])}, r"`src` is .*E = rowptr\[-1\] - rowptr\[0\] = 4 - 0 = 4"),
    ({"src": None}, r"`x` is .*E = rowptr\[-1\] - rowptr\[0\] = 5 - 0 = 5"),
    ({"dst": torch.zeros(3, 2)}, r"`dst` is .*\[B, ...\] = \[2, 2\]"),
    ({"edge": torch.zeros(5, 3)}, r"`edge` is .*\[E, ...\] = \[5, 2\]"),
    ({"activation": "tanh"}, "`activation` is 'tanh'; valid: none, relu, leaky_relu"),
]
BAD_REDUCE = [
    ({"reduces": ("sum", "median")}, r"`reduces` is \('sum', 'median'\); valid: .*out of sum, mean, max, min, square_"),
    ({"reduces": ("sum", "sum")}, "`reduces` is .* distinct"),
    ({"reduces": ()}, r"`reduces` is \(\)"),
    ({"reduces": "sum"}, "`reduces` is 'sum'; valid: a tuple"),
    ({"weight": torch.zeros(4)}, r"`weight` is .*\[E\] = \[5\]"),
    ({"outs": [torch.zeros(2, 2)] * 2}, "`outs` is 2 tensors; valid: one for each of the 1 reductions"),
    ({"outs": [torch.zeros(2, 3)]}, r"`out` is .*\[2, 2\]"),
]
BAD_SOFTMAX = [
    ({"scale": torch.zeros(3)}, r"`scale` is .*broadcasts to x's columns \[2\]"),
    ({"scale": torch.zeros(2, 2)}, "`scale` is "),
    ({"out": torch.zeros(3, 2)}, r"`out` is .*\[2, 2\]"),
]


def first_name(value):
    """A test's id: the argument that is wrong."""
    return next(iter(value)) if isinstance(value, dict) else ""


@pytest.mark.parametrize("change,message", [*BAD, ({"out": torch.zeros(5, 3)}, r"`out` is .*\[5, 2\]")], ids=first_name)
def test_message_names_the_argument(change, message):
    with pytest.raises(OperatorError, match=f"message: {message}"):
        ops.message(**{**GIVEN, **change})


@pytest.mark.parametrize("change,message", BAD + BAD_REDUCE, ids=first_name)
def test_message_reduce_names_the_argument(change, message):
    with pytest.raises(OperatorError, match=f"message_reduce: {message}"):
        ops.message_reduce(**{**GIVEN, "reduces": ("sum",), **change})


@pytest.mark.parametrize("change,message", BAD + BAD_SOFTMAX, ids=first_name)
def test_softmax_reduce_names_the_argument(change, message):
    with pytest.raises(OperatorError, match=f"softmax_reduce: {message}"):
        ops.softmax_reduce(**{**GIVEN, "scale": 1.0, **change})
