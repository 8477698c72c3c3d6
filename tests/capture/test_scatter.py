"""torch_scatter's functions inside a forward: the engine equals the real library, element by element.

Skipped where torch_scatter is not installed: its presence changes the paths that torch_geometric itself takes, so it
has an environment of its own (`scripts/install-scatter`).
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from pyg_fullgraph.engine import Engine
from pyg_fullgraph.errors import CaptureError
from tests.graphs import NASTY

ts = pytest.importorskip("torch_scatter", reason="torch_scatter is not installed: scripts/install-scatter VENV")

Body = Callable[[Tensor, Tensor], Any]


class Model(torch.nn.Module):
    """A forward of (x, edge_index) that is one function."""

    def __init__(self, body: Body) -> None:
        super().__init__()
        self.body = body

    def forward(self, x: Tensor, edge_index: Tensor) -> Any:
        return self.body(x, edge_index)


def by_destination(x: Tensor, e: Tensor) -> tuple[Tensor, Tensor]:
    """Messages in the order of their destination, and these."""
    order = e[1].argsort(stable=True)
    return x[e[0][order]], e[1][order]


def pointers(index: Tensor, rows: int) -> Tensor:
    count = ts.scatter_sum(torch.ones_like(index), index, dim=0, dim_size=rows)
    return torch.cat([count.new_zeros(1), count.cumsum(0)])


def _scatter(reduce: str, **more: Any) -> Body:
    return lambda x, e: ts.scatter(x[e[0]], e[1], dim=0, dim_size=x.size(0), reduce=reduce, **more)


def _last_dimension(reduce: str) -> Body:
    """The default `dim=-1`: messages [F, E]."""
    return lambda x, e: ts.scatter(x.t()[:, e[0]].contiguous(), e[1], dim_size=x.size(0), reduce=reduce)


def _no_size(reduce: str) -> Body:
    return lambda x, e: ts.scatter(x[e[0]], e[1], dim=0, reduce=reduce)


def _three(reduce: str) -> Body:
    """Messages [E, 2, F], the edges in the first or in the middle dimension."""

    def body(x: Tensor, e: Tensor) -> tuple[Tensor, Tensor]:
        heads = torch.stack([x, -2 * x], dim=1)[e[0]]
        first = ts.scatter(heads, e[1], dim=0, dim_size=x.size(0), reduce=reduce)
        middle = ts.scatter(heads.transpose(0, 1).contiguous(), e[1], dim=1, dim_size=x.size(0), reduce=reduce)
        return first, middle

    return body


def _own_index(reduce: str) -> Body:
    """Every column has an index of its own."""

    def body(x: Tensor, e: Tensor) -> Tensor:
        index = torch.stack([e[0], e[1], (e[0] + e[1]) % x.size(0), e[1]], dim=1)
        return ts.scatter(x[e[0]], index, dim=0, dim_size=x.size(0), reduce=reduce)

    return body


def _into(function: str) -> Body:
    """`out=`: written in place, and returned."""

    def body(x: Tensor, e: Tensor) -> tuple[Tensor, Any]:
        out = x * 0.5
        result = getattr(ts, function)(x[e[0]], e[1], dim=0, out=out)
        return out, result

    return body


def _with_place(function: str, **more: Any) -> Body:
    return lambda x, e: getattr(ts, function)((x[e[0]] * 2).round(), e[1], dim=0, dim_size=x.size(0), **more)


def _integers(reduce: str) -> Body:
    return lambda x, e: ts.scatter((x[e[0]] * 5).long(), e[1], dim=0, dim_size=x.size(0), reduce=reduce)


def _infinite(reduce: str) -> Body:
    """A group of nothing but -inf is taken for empty."""

    def body(x: Tensor, e: Tensor) -> Tensor:
        messages = x[e[0]].masked_fill(e[1].unsqueeze(-1) % 2 == 0, float("-inf" if reduce == "max" else "inf"))
        return ts.scatter(messages, e[1], dim=0, dim_size=x.size(0), reduce=reduce)

    return body


def _at_place(x: Tensor, e: Tensor) -> Tensor:
    """The place of a maximum, used: rows of the winning edges' sources."""
    _, place = ts.scatter_max(x[e[0], 0], e[1], dim=0, dim_size=x.size(0))
    sources = torch.cat([e[0], e[0].new_zeros(1)])
    return x[sources[place]] * (place < e.size(1)).unsqueeze(-1)


def _composite(function: str, **more: Any) -> Body:
    def body(x: Tensor, e: Tensor) -> Tensor:
        return getattr(ts, function)(x[e[0]], e[1], dim=0, dim_size=x.size(0), **more)

    return body


def _attention(x: Tensor, e: Tensor) -> Tensor:
    alpha = ts.scatter_softmax((x[e[0]] * x[e[1]]).sum(dim=-1), e[1], dim=0, dim_size=x.size(0))
    return ts.scatter_add(alpha.unsqueeze(-1) * x[e[0]], e[1], dim=0, dim_size=x.size(0))


def _softmax_last(x: Tensor, e: Tensor) -> Tensor:
    return ts.scatter_softmax(x.t()[:, e[0]].contiguous(), e[1])


def _segment_coo(reduce: str) -> Body:
    def body(x: Tensor, e: Tensor) -> Tensor:
        messages, index = by_destination(x, e)
        return ts.segment_coo(messages, index, dim_size=x.size(0), reduce=reduce)

    return body


def _segment_coo_no_size(reduce: str) -> Body:
    def body(x: Tensor, e: Tensor) -> Tensor:
        messages, index = by_destination(x, e)
        return ts.segment_coo(messages, index, reduce=reduce)

    return body


def _segment_csr(reduce: str) -> Body:
    def body(x: Tensor, e: Tensor) -> Tensor:
        messages, index = by_destination(x, e)
        return ts.segment_csr(messages, pointers(index, x.size(0)), reduce=reduce)

    return body


def _segment_csr_into(reduce: str) -> Body:
    def body(x: Tensor, e: Tensor) -> tuple[Tensor, Tensor]:
        messages, index = by_destination(x, e)
        out = x * 0.5
        return ts.segment_csr(messages, pointers(index, x.size(0)), out=out, reduce=reduce), out

    return body


def _segment_csr_part(reduce: str) -> Body:
    """Pointers that leave rows out at both ends, along the middle dimension."""

    def body(x: Tensor, e: Tensor) -> Tensor:
        messages, index = by_destination(x, e)
        bounds = ((2 * pointers(index, x.size(0)) + e.size(1)) // 4).view(1, -1)
        return ts.segment_csr(torch.stack([messages, 3 * messages]), bounds, reduce=reduce)

    return body


def _segment_places(x: Tensor, e: Tensor) -> tuple[Any, Any]:
    messages, index = by_destination(x, e)
    bounds = pointers(index, x.size(0))
    return ts.segment_max_csr(messages, bounds), ts.segment_min_coo(messages, index, dim_size=x.size(0))


def _gather_csr(x: Tensor, e: Tensor) -> Tensor:
    _, index = by_destination(x, e)
    return ts.gather_csr(x, pointers(index, x.size(0)))


def _gather_coo(x: Tensor, e: Tensor) -> tuple[Tensor, Tensor]:
    _, index = by_destination(x, e)
    return ts.gather_coo(x, index), ts.gather_coo(torch.stack([x, x + 1]), index.view(1, -1).expand(2, -1))


REDUCES = ("sum", "mean", "mul", "max", "min")
SEGMENT = ("sum", "mean", "max", "min")
BODIES: dict[str, Body] = {
    **{f"scatter-{r}": _scatter(r) for r in (*REDUCES, "add")},
    **{f"scatter-{r}-last-dim": _last_dimension(r) for r in REDUCES},
    **{f"scatter-{r}-no-dim_size": _no_size(r) for r in REDUCES},
    **{f"scatter-{r}-3d": _three(r) for r in REDUCES},
    **{f"scatter-{r}-index-per-column": _own_index(r) for r in REDUCES},
    **{f"{f}-out": _into(f) for f in ("scatter_sum", "scatter_mean", "scatter_mul", "scatter_max", "scatter_min")},
    **{f"{f}-places": _with_place(f) for f in ("scatter_max", "scatter_min")},
    **{f"scatter-{r}-int64": _integers(r) for r in REDUCES},
    **{f"scatter-{r}-infinite": _infinite(r) for r in ("max", "min")},
    "scatter_max-place-used": _at_place,
    "scatter_std": _composite("scatter_std"),
    "scatter_std-biased": _composite("scatter_std", unbiased=False),
    "scatter_logsumexp": _composite("scatter_logsumexp"),
    "scatter_softmax": _composite("scatter_softmax"),
    "scatter_log_softmax": _composite("scatter_log_softmax"),
    "scatter_softmax-last-dim": _softmax_last,
    "attention": _attention,
    **{f"segment_coo-{r}": _segment_coo(r) for r in SEGMENT},
    **{f"segment_coo-{r}-no-dim_size": _segment_coo_no_size(r) for r in SEGMENT},
    **{f"segment_csr-{r}": _segment_csr(r) for r in SEGMENT},
    **{f"segment_csr-{r}-out": _segment_csr_into(r) for r in SEGMENT},
    **{f"segment_csr-{r}-part": _segment_csr_part(r) for r in SEGMENT},
    "segment-places": _segment_places,
    "gather_csr": _gather_csr,
    "gather_coo": _gather_coo,
}


DIVIDES_BY_ZERO = ("gather_coo",)


def assert_equal(got: Any, expected: Any, message: str) -> None:
    pairs = zip(torch.utils._pytree.tree_leaves(got), torch.utils._pytree.tree_leaves(expected), strict=True)
    for ours, theirs in pairs:
        assert ours.dtype == theirs.dtype and ours.shape == theirs.shape, message
        finite = theirs[torch.isfinite(theirs)].abs()
        scale = float(finite.max()) if finite.numel() else 1.0
        tolerance = 1e-5 * max(scale, 1e-30) if theirs.is_floating_point() else 0
        torch.testing.assert_close(ours, theirs, rtol=0, atol=tolerance, equal_nan=True, msg=message)


@pytest.mark.parametrize("name", list(BODIES))
def test_equals_the_library_on_nasty_graphs(name: str) -> None:
    model = Model(BODIES[name]).eval()
    engine = Engine(model, verify="off", threads=2)
    compared = 0
    for key, (nodes, edge_index) in NASTY.items():
        if edge_index.size(1) == 0 and name in DIVIDES_BY_ZERO:
            continue  # a floating point exception would end this process
        if edge_index.size(1) == 0 and name.endswith("no-dim_size"):
            continue  # Python code of the library branches on it: `Traced.differs`
        x = torch.randn(nodes, 4, generator=torch.Generator().manual_seed(nodes))
        try:
            expected = model(x, edge_index)
        except (RuntimeError, IndexError):
            continue  # the library itself cannot: no index to take the maximum of
        assert_equal(engine(x, edge_index), expected, f"{name} on {key}")
        compared += 1
    assert compared >= 12


BLOCKED = [
    name
    for name in BODIES
    if not any(mark in name for mark in ("per-column", "place", "segment", "gather_c", "no-dim_size"))
]


@pytest.mark.parametrize("name", BLOCKED)
def test_runs_block_by_block(name: str) -> None:
    """Nothing of an edge's size is computed whole."""
    nodes, edge_index = NASTY["mixed"]
    engine = Engine(Model(BODIES[name]).eval(), verify="off")
    engine(torch.randn(nodes, 4), edge_index)
    (captured,) = engine._captured.values()
    whole = [v for v in captured.program if v.op == "aten" and not v.local and int(v.stage) == 3]
    assert not [f"{value.target} {value.shape}" for value in whole]


def test_softmax_is_one_word() -> None:
    nodes, edge_index = NASTY["mixed"]
    engine = Engine(Model(_attention).eval(), verify="off")
    engine(torch.randn(nodes, 4), edge_index)
    (captured,) = engine._captured.values()
    assert {"softmax", "attention"} & {value.op for value in captured.program}


def test_imported_names_are_put_back() -> None:
    module = importlib.import_module("torch_scatter.composite.softmax")
    softmax = ts.scatter_softmax
    nodes, edge_index = NASTY["random"]
    Engine(Model(_attention).eval(), verify="off")(torch.randn(nodes, 4), edge_index)
    assert ts.scatter_softmax is softmax
    assert "int" not in vars(importlib.import_module("torch_scatter.scatter"))
    assert module.scatter_softmax is softmax


def test_geometric_layers_are_as_without_it() -> None:
    """torch_geometric dispatches to torch_scatter where it is installed; a trace takes the plain path."""
    from torch_geometric.nn import GAT, PNAConv, SAGEConv

    nodes, edge_index = NASTY["mixed"]
    x = torch.randn(nodes, 8)
    pna = PNAConv(8, 8, ["max", "std"], ["identity"], deg=torch.ones(4, dtype=torch.long))
    for model in (SAGEConv(8, 8, aggr="max"), GAT(8, 8, 2, heads=2), pna):
        expected = model.eval()(x, edge_index).detach()
        assert_equal(Engine(model, verify="off")(x, edge_index), expected, type(model).__name__)


def _segments_that_differ(x: Tensor, e: Tensor) -> Tensor:
    return ts.segment_csr(x.expand(2, -1, -1).contiguous(), torch.stack([e[0][:2], e[0][:2]]))


def _segment_coo_into(x: Tensor, e: Tensor) -> Tensor:
    return ts.segment_coo(*by_destination(x, e), out=x * 0.5)


@pytest.mark.parametrize("body", [_segments_that_differ, _segment_coo_into], ids=["segment_csr", "segment_coo-out"])
def test_an_unknown_form_names_the_line(body: Body) -> None:
    nodes, edge_index = NASTY["random"]
    line = body.__code__.co_firstlineno + 1
    with pytest.raises(CaptureError, match=rf"test_scatter\.py:{line} in {body.__name__}"):
        Engine(Model(body).eval(), verify="off")(torch.randn(nodes, 4), edge_index)
