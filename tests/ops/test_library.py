"""The operators under torch.library: schema, fake kernels, and torch.compile."""

from __future__ import annotations

import pytest
import torch

from pyg_fullgraph import ops

from .conftest import Case, assert_close

case = Case(12, [3, 0, 5, 1])
X, KEY, QUERY = case.normal(12, 2, 4), case.normal(12, 2, 4), case.normal(4, 2, 4)
EDGE, EDGE_KEY, ATT = case.normal(9, 2), case.normal(9, 2, 4), case.normal(2, 4)
GRAPH = (case.src, case.rowptr)
CALLS = {
    "gather": (X, case.src),
    "repeat": (QUERY, case.rowptr),
    "segment_reduce": (EDGE, case.rowptr, "mean"),
    "segment_softmax": (EDGE, case.rowptr),
    "gather_reduce": (X, *GRAPH, EDGE, "sum"),
    "attention": (X, *GRAPH, EDGE),
    "attention_additive": (X, *GRAPH, case.normal(12, 2), case.normal(4, 2), EDGE, 0.2),
    "attention_gatv2": (X, *GRAPH, KEY, QUERY, ATT, EDGE_KEY, 0.2),
    "attention_dot": (X, *GRAPH, KEY, QUERY, 0.5),
    "csr": (case.src, 12),
    "reduce_by": (case.normal(9, 2), case.src, 12, "max"),
    "softmax_by": (case.normal(9, 2), case.src, 12),
}


@pytest.mark.parametrize("name", list(CALLS))
def test_opcheck(name):
    torch.library.opcheck(getattr(torch.ops.pyg_fullgraph, name).default, CALLS[name])


@pytest.mark.parametrize("name", list(CALLS))
def test_is_the_plain_function(name):
    got, expected = getattr(torch.ops.pyg_fullgraph, name)(*CALLS[name]), getattr(ops, name)(*CALLS[name])
    for a, b in zip(*(r if isinstance(r, tuple) else (r,) for r in (got, expected))):
        assert torch.equal(a, b)


def test_compiled_code_sees_the_operators():
    def layer(x, src, rowptr, score):
        return ops.attention(x * 2, src, rowptr, score) + ops.gather_reduce(x, src, rowptr, reduce="mean")

    compiled = torch.compile(layer, backend="aot_eager", fullgraph=True)
    assert_close(compiled(X, *GRAPH, EDGE), layer(X, *GRAPH, EDGE))
