"""The attentions and segment_softmax against their definitions."""

from __future__ import annotations

import pytest
import torch
import torch_geometric

from pyg_fullgraph import ops
from pyg_fullgraph.errors import OperatorError
from pyg_fullgraph.ops import reference

from .conftest import DTYPES, Case, assert_close, hub_case, indices, same_bits, short

HEADS = [(1, 1), (1, 64), (2, 5), (3, 16), (4, 32), (5, 3), (8, 8), (8, 16), (17, 4), (40, 1)]
KINDS = ["explicit", "additive", "additive_edge", "gatv2", "gatv2_edge", "dot"]


def problem(case: Case, kind: str, heads: int, channels: int, dtype: torch.dtype):
    """The operator, its definition, the value and what follows (src, rowptr)."""

    def rand(*shape):
        return case.normal(*shape, dtype=dtype)

    value, n, b, e, c = rand(case.nodes, heads, channels), case.nodes, case.rows, case.edges, channels
    if kind == "explicit":
        return ops.attention, reference.attention, value, [rand(e, heads)]
    if kind.startswith("additive"):
        edge = rand(e, heads) if kind.endswith("edge") else None
        rest = [rand(n, heads), rand(b, heads), edge, 0.2]
        return ops.attention_additive, reference.attention_additive, value, rest
    if kind.startswith("gatv2"):
        edge = rand(e, heads, c) if kind.endswith("edge") else None
        rest = [rand(n, heads, c), rand(b, heads, c), rand(heads, c), edge, 0.1]
        return ops.attention_gatv2, reference.attention_gatv2, value, rest
    return ops.attention_dot, reference.attention_dot, value, [rand(n, heads, c), rand(b, heads, c), c**-0.5]


def in_double(arguments):
    """The same arguments in float64."""
    return [a.double() if isinstance(a, torch.Tensor) and a.is_floating_point() else a for a in arguments]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", DTYPES, ids=short)
def test_every_graph(case, kind, dtype, each_isa):
    operator, definition, value, rest = problem(case, kind, 4, 6, dtype)
    expected = definition(value.double(), case.src, case.rowptr, *in_double(rest)).to(dtype)
    for isa in each_isa():
        for src in indices(case.src, isa):
            assert_close(operator(value, src, case.rowptr, *rest, threads=2), expected, scale=3)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("heads,channels", HEADS)
def test_every_shape(kind, heads, channels, each_isa):
    case = Case(40, [3, 0, 20, 1, 64, 7, 16])
    for dtype in (torch.float32, torch.float64):
        operator, definition, value, rest = problem(case, kind, heads, channels, dtype)
        expected = definition(value.double(), case.src, case.rowptr, *in_double(rest)).to(dtype)
        for _ in each_isa():
            assert_close(operator(value, case.src, case.rowptr, *rest), expected, scale=3)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("heads,channels", [(2, 5), (3, 16), (4, 33), (4, 128), (5, 3), (8, 20), (17, 64), (40, 1)])
@pytest.mark.parametrize("dtype", DTYPES, ids=short)
def test_heads_that_share_a_value(kind, heads, channels, dtype, each_isa):
    for case in (Case(40, [3, 0, 20, 1, 64, 7, 16]), hub_case()):
        operator, definition, value, rest = problem(case, kind, heads, channels, dtype)
        shared = value[:, :1]
        expected = definition(shared.double(), case.src, case.rowptr, *in_double(rest)).to(dtype)
        assert expected.shape == (case.rows, heads, channels)
        for isa in each_isa():
            for src in indices(case.src, isa):
                assert_close(operator(shared, src, case.rowptr, *rest, threads=2), expected, scale=3)


@pytest.mark.parametrize("masked", [slice(0, 800), slice(700, 1500), slice(0, 1500)])
def test_long_rows_with_scores_of_minus_infinity(masked, each_isa):
    case = Case(1600, [1500, 2])  # more edges than keys of 4 x 64 columns stay in cache
    case.src[:1500] = torch.arange(1500)
    operator, definition, value, (key, query, scale) = problem(case, "dot", 4, 64, torch.float32)
    key[masked, :, 0], query[..., 0] = -torch.inf, 1
    expected = definition(value.double(), case.src, case.rowptr, key.double(), query.double(), scale).float()
    assert expected[0].isnan().all() == (masked == slice(0, 1500))
    for _ in each_isa():
        got = operator(value, case.src, case.rowptr, key, query, scale)
        torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-5, equal_nan=True)


@pytest.mark.parametrize("slope", [0.0, 0.5, 1.0, 1.5, -0.25])
def test_gatv2_slopes(slope, each_isa):
    case = Case(40, [3, 0, 20, 1, 64, 7, 16])
    operator, definition, value, rest = problem(case, "gatv2", 4, 12, torch.float32)
    rest[-1] = slope
    expected = definition(value.double(), case.src, case.rowptr, *in_double(rest)).float()
    for _ in each_isa():
        assert_close(operator(value, case.src, case.rowptr, *rest), expected, scale=3)


@pytest.mark.parametrize("kind", KINDS)
def test_bits_do_not_depend_on_threads_or_pool(kind, extension):
    case = hub_case()
    operator, _, value, rest = problem(case, kind, 4, 6, torch.float32)
    first = operator(value, case.src, case.rowptr, *rest, threads=1)
    try:
        for own in (False, True):
            extension.set_own_workers(own)
            for threads in (1, 2, 3):
                assert same_bits(first, operator(value, case.src, case.rowptr, *rest, threads=threads))
    finally:
        extension.set_own_workers(False)


def test_row_blocks_give_the_bits_of_the_whole():
    case = hub_case()
    _, _, value, (score_src, score_dst, edge, slope) = problem(case, "additive_edge", 4, 6, torch.float32)
    whole = ops.attention_additive(value, case.src, case.rowptr, score_src, score_dst, edge, slope)
    for r0, r1 in [(0, 2), (2, 3), (3, 6), (6, 7)]:
        e0, e1 = int(case.rowptr[r0]), int(case.rowptr[r1])
        block = ops.attention_additive(
            value, case.src[e0:e1], case.rowptr[r0 : r1 + 1], score_src, score_dst[r0:r1], edge[e0:e1], slope
        )
        assert same_bits(block, whole[r0:r1])


@pytest.mark.parametrize("kind", KINDS)
def test_strided_rows(kind):
    case = Case(30, [4, 0, 9, 2])
    operator, definition, value, rest = problem(case, kind, 3, 5, torch.float32)

    def spread(x):
        if not isinstance(x, torch.Tensor) or x.dim() < 2:
            return x
        wide = torch.full((x.shape[0], x[0].numel() + 3), torch.nan)
        wide[:, 1 : 1 + x[0].numel()] = x.flatten(1)
        return wide[:, 1 : 1 + x[0].numel()].unflatten(1, x.shape[1:])

    expected = definition(value, case.src, case.rowptr, *rest)
    into = torch.full((4, 20), 7.0)
    out = into[:, 2:17].unflatten(1, (3, 5))
    got = operator(spread(value), case.src, case.rowptr, *map(spread, rest), out=out)
    assert got.data_ptr() == out.data_ptr()
    assert_close(out, expected, scale=3)
    assert (into[:, :2] == 7).all() and (into[:, 17:] == 7).all()


@pytest.mark.parametrize("heads", [1, 3, 4, 8, 16, 33, 128])
@pytest.mark.parametrize("dtype", DTYPES, ids=short)
def test_softmax_shapes(heads, dtype, each_isa):
    case = Case(1, [3, 0, 20, 1, 64, 7, 16, 900])
    score = 5 * case.normal(case.edges, heads, dtype=dtype)
    expected = reference.segment_softmax(score.double(), case.rowptr).to(dtype)
    for _ in each_isa():
        assert_close(ops.segment_softmax(score, case.rowptr), expected)


@pytest.mark.parametrize("dtype", DTYPES, ids=short)
def test_softmax_graphs(case, dtype, each_isa):
    score = case.normal(case.edges, 5, dtype=dtype)
    expected = reference.segment_softmax(score.double(), case.rowptr).to(dtype)
    for _ in each_isa():
        got = ops.segment_softmax(score, case.rowptr, threads=2)
        assert_close(got, expected)
        assert same_bits(got, ops.segment_softmax(score, case.rowptr, threads=1))


def test_softmax_is_torch_geometrics():
    case = Case(1, [3, 0, 20, 1, 64])
    score = 30 * case.normal(case.edges, 4)
    expected = torch_geometric.utils.softmax(score, ptr=case.rowptr)
    assert_close(ops.segment_softmax(score, case.rowptr), expected)


def test_softmax_in_place_and_flat():
    case = Case(1, [3, 0, 20])
    score = case.normal(case.edges)
    expected = reference.segment_softmax(score, case.rowptr)
    assert ops.segment_softmax(score, case.rowptr, out=score) is score
    assert_close(score, expected)


@pytest.mark.parametrize("degree", [7, 9000], ids=["row", "hub"])
def test_extreme_scores(degree, each_isa):
    """Masked edges (-inf), rows with only those, +inf, NaN, and differences beyond float32's exponent."""
    inf, nan = torch.inf, torch.nan
    rowptr = torch.arange(7) * degree
    score = torch.randn(6 * degree, 2, generator=torch.Generator().manual_seed(0))
    score[: degree - 2, 0] = -inf
    score[degree : 2 * degree, 0] = -inf
    score[2 * degree, 0] = inf
    score[3 * degree + 1, 0] = nan
    score[4 * degree + 2, 0] = 1e4
    score[5 * degree : 6 * degree, 0] = -1e30
    expected = reference.segment_softmax(score, rowptr)
    for _ in each_isa():
        got = ops.segment_softmax(score, rowptr)
        torch.testing.assert_close(got, expected, rtol=2e-5, atol=1e-30, equal_nan=True)


def test_exp_is_accurate(each_isa):
    """A row of two edges shows exp itself: weights exp(-d) / (1 + exp(-d))."""
    difference = torch.linspace(0, 87, 4001, dtype=torch.float64)
    score = torch.stack([torch.zeros_like(difference), -difference.float().double()], 1).flatten().float()
    expected = reference.segment_softmax(score.double(), torch.arange(4002) * 2)
    for _ in each_isa():
        got = ops.segment_softmax(score, torch.arange(4002) * 2).double()
        assert float(((got - expected) / expected).abs().max()) < 5e-7


@pytest.mark.parametrize(
    "call,message",
    [
        (
            lambda v, s, r: ops.attention(v, s, r, torch.zeros(5, 3)),
            r"attention: `score` is .*\[E, H\] = \[5, 2\]",
        ),
        (
            lambda v, s, r: ops.attention(torch.zeros(3), s, r, torch.zeros(5, 2)),
            r"`value` is .*\[N, H, ...\]",
        ),
        (
            lambda v, s, r: ops.attention_additive(v, s, r, torch.zeros(3, 2), torch.zeros(3, 2)),
            r"`score_dst` is .*\[B, H\] = \[2, 2\]",
        ),
        (
            lambda v, s, r: ops.attention_gatv2(v, s, r, v, v[:2], torch.zeros(2)),
            r"`att` is .*\[H, C\] = \[2, 4\]",
        ),
        (
            lambda v, s, r: ops.attention_dot(v, s, r, v[:, :1], v[:2], 1.0),
            r"`key` is .*\[N, H, C\] = \[3, 2, C\]",
        ),
        (lambda v, s, r: ops.segment_softmax(torch.zeros(4), r), r"`score` is .*E = rowptr\[-1\]"),
    ],
    ids=["score", "value", "score_dst", "att", "key", "softmax"],
)
def test_errors_name_the_argument(call, message):
    with pytest.raises(OperatorError, match=message):
        call(torch.zeros(3, 2, 4), torch.zeros(5, dtype=torch.int64), torch.tensor([0, 2, 5]))


def test_no_sources_leave_rows_of_zeros(each_isa):
    """Rows without edges are 0 also where there is no source at all, whatever `out` held."""
    no_src, rowptr = torch.empty(0, dtype=torch.int32), torch.zeros(4, dtype=torch.int64)
    value, out = torch.empty(0, 2, 5), torch.full((3, 2, 5), float("nan"))
    key, query = torch.empty(0, 2, 4), torch.randn(3, 2, 4)
    calls = [
        lambda: ops.attention(value, no_src, rowptr, torch.empty(0, 2), out=out),
        lambda: ops.attention_additive(value, no_src, rowptr, torch.empty(0, 2), torch.randn(3, 2), out=out),
        lambda: ops.attention_gatv2(value, no_src, rowptr, key, query, torch.randn(2, 4), out=out),
        lambda: ops.attention_dot(value, no_src, rowptr, key, query, 0.5, out=out),
    ]
    for call in calls:
        out.fill_(float("nan"))
        assert torch.equal(call(), torch.zeros(3, 2, 5))
    flat = torch.full((3, 5), float("nan"))
    assert torch.equal(ops.gather_reduce(torch.empty(0, 5), no_src, rowptr, out=flat), torch.zeros(3, 5))
    flat.fill_(float("nan"))
    assert torch.equal(ops.softmax_reduce(torch.empty(0, 5), no_src, rowptr, 1.0, out=flat), torch.zeros(3, 5))
