"""Nothing that cannot be right enters a kernel, and what enters is read as torch shows it."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from pyg_fullgraph import ops
from pyg_fullgraph.errors import FullGraphError, GraphError, OperatorError
from pyg_fullgraph.graph import Graph
from pyg_fullgraph.ops import backend, reference, trusted

ROWPTR = torch.tensor([0, 2, 4, 4, 7])
SRC = torch.tensor([0, 1, 2, 3, 5, 9, 8])


def values(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


Arguments = dict[str, Any]


def calls() -> dict[str, tuple[Callable[..., Any], Arguments]]:
    """Every operator with arguments that are right."""
    x, heads, query = values(10, 6), values(10, 2, 3), values(4, 2, 3)
    attend = {"value": heads, "src": SRC, "rowptr": ROWPTR}
    return {
        "gather": (ops.gather, {"x": x, "index": SRC}),
        "repeat": (ops.repeat, {"x": values(4, 3), "rowptr": ROWPTR}),
        "segment_reduce": (ops.segment_reduce, {"value": values(7, 3), "rowptr": ROWPTR, "reduce": "sum"}),
        "segment_softmax": (ops.segment_softmax, {"score": values(7, 3), "rowptr": ROWPTR}),
        "gather_reduce": (ops.gather_reduce, {"x": x, "src": SRC, "rowptr": ROWPTR, "weight": values(7)}),
        "attention": (ops.attention, attend | {"score": values(7, 2)}),
        "attention_additive": (
            ops.attention_additive,
            attend | {"score_src": values(10, 2), "score_dst": values(4, 2), "score_edge": values(7, 2)},
        ),
        "attention_gatv2": (
            ops.attention_gatv2,
            attend
            | {"key": values(10, 2, 3, seed=1), "query": query, "att": values(2, 3), "key_edge": values(7, 2, 3)},
        ),
        "attention_dot": (ops.attention_dot, attend | {"key": values(10, 2, 3), "query": query, "scale": 0.5}),
        "edge_dot": (ops.edge_dot, {"key": heads, "src": SRC, "query": query, "rowptr": ROWPTR}),
        "message": (ops.message, {"x": x, "src": SRC, "rowptr": ROWPTR, "dst": values(4, 6), "edge": values(7, 6)}),
        "message_reduce": (
            ops.message_reduce,
            {"x": x, "src": SRC, "rowptr": ROWPTR, "reduces": ("sum", "max"), "weight": values(7)},
        ),
        "softmax_reduce": (ops.softmax_reduce, {"x": x, "src": SRC, "rowptr": ROWPTR, "scale": values(6)}),
        "csr": (ops.csr, {"index": SRC, "num_rows": 10}),
        "reduce_by": (ops.reduce_by, {"x": values(7, 3), "index": SRC, "rows": 10}),
        "softmax_by": (ops.softmax_by, {"x": values(7, 3), "index": SRC, "rows": 10}),
    }


CALLS = calls()


def tensors_of(name: str) -> list[str]:
    return [key for key, value in CALLS[name][1].items() if isinstance(value, Tensor)]


EVERY_TENSOR = [(name, key) for name in CALLS for key in tensors_of(name)]
WITH_ROWPTR = [name for name, (_, given) in CALLS.items() if "rowptr" in given]


def flat_results(result: Any) -> list[Tensor]:
    return [result] if isinstance(result, Tensor) else list(result)


def shown_by(operator: str, change: Callable[[Tensor], Tensor], key: str) -> Arguments:
    given = dict(CALLS[operator][1])
    given[key] = change(given[key])
    return given


@pytest.mark.parametrize("name,key", EVERY_TENSOR)
def test_lazy_minus_signs_are_read(name, key):
    call, given = CALLS[name]
    lazy = {**given, key: torch._neg_view(-given[key])}  # shows what `given` holds, its memory holds the negatives
    if key == "rowptr":  # believed as it lies, so refused
        with pytest.raises(OperatorError, match="rowptr"):
            call(**lazy)
        return
    for got, want in zip(flat_results(call(**lazy)), flat_results(call(**given)), strict=True):
        assert torch.equal(got, want)


@pytest.mark.parametrize(
    "view", [lambda z: z.conj(), lambda z: z.conj().imag, lambda z: z.mH], ids=["conj", "imag", "mH"]
)
def test_conjugates_are_read(view):
    x = view(torch.randn(10, 10, dtype=torch.complex64))
    assert torch.equal(ops.gather(x, SRC), x[SRC])
    assert torch.equal(ops.repeat(x[:4], ROWPTR), x[:4].repeat_interleave(ROWPTR.diff(), 0))
    graph = Graph(torch.stack([SRC, SRC.flip(0)]), 10)
    assert torch.equal(graph.src(x), x[SRC])
    assert torch.equal(graph.dst(x), x[SRC.flip(0)])


@pytest.mark.parametrize("name,key", EVERY_TENSOR)
def test_meta_tensors_are_refused(name, key):
    call, given = CALLS[name]
    with pytest.raises(FullGraphError, match=f"`{key}`|meta"):
        call(**{**given, key: given[key].to("meta")})


@pytest.mark.parametrize("name,key", EVERY_TENSOR)
def test_sparse_tensors_are_refused(name, key):
    call, given = CALLS[name]
    with pytest.raises(OperatorError, match=key):
        call(**{**given, key: given[key].to_sparse()})


@pytest.mark.parametrize("name", WITH_ROWPTR)
@pytest.mark.parametrize("rowptr", [[0, 10**9, 4, 4, 7], [0, -1, 4, 4, 7], [5, 2, 4, 4, 7], [0, 2, 4, 8, 7]])
@pytest.mark.parametrize("served", ["kernels", "reference"])
def test_rowptr_that_falls_is_refused(name, rowptr, served, monkeypatch):
    if served == "reference":
        for module in ("backend", "gather", "sort"):
            path = importlib.import_module(f"pyg_fullgraph.ops.{module}")
            monkeypatch.setattr(path, "load", lambda: backend.Extension(None, "for this test"))
    call, given = CALLS[name]
    with pytest.raises(OperatorError, match="never decreas"):
        call(**{**given, "rowptr": torch.tensor(rowptr)})


@pytest.mark.parametrize("name", [name for name, (_, given) in CALLS.items() if {"src", "index"} & set(given)])
@pytest.mark.parametrize("bad", [-1, 10, 2**40])
def test_row_numbers_out_of_range_are_refused(name, bad):
    call, given = CALLS[name]
    key = "src" if "src" in given else "index"
    wrong = given[key].clone()
    wrong[4] = bad
    with pytest.raises((OperatorError, GraphError), match=rf"{key}\[4\]` is {bad}|edge 4 has index {bad}"):
        call(**{**given, key: wrong})


def test_row_numbers_of_an_empty_table():
    with pytest.raises(OperatorError, match="no rows"):
        ops.gather(torch.empty(0, 3), torch.tensor([0]))
    assert ops.gather(torch.empty(0, 3), torch.empty(0, dtype=torch.int64)).shape == (0, 3)


@pytest.mark.parametrize("threads", [0, -5, 1.5, "2", True, 10**9])
@pytest.mark.parametrize("name", ["csr", "gather", "repeat", "gather_reduce", "segment_softmax", "message"])
def test_numbers_of_threads_are_refused(name, threads):
    call, given = CALLS[name]
    with pytest.raises(OperatorError, match="threads"):
        call(**given, threads=threads)


@pytest.mark.parametrize("rows", [-1, -(10**6), 2.5, "3", True, 2**63, None])
@pytest.mark.parametrize("name,key", [("csr", "num_rows"), ("reduce_by", "rows"), ("softmax_by", "rows")])
def test_numbers_of_rows_are_refused(name, key, rows):
    call, given = CALLS[name]
    with pytest.raises(OperatorError, match=key):
        call(**{**given, key: rows})


def test_out_with_a_lazy_sign_is_refused():
    with pytest.raises(OperatorError, match="out"):
        ops.gather(values(10, 6), SRC, out=torch._neg_view(torch.empty(7, 6)))


def test_rows_of_a_larger_rowptr_are_taken():
    x = values(10, 6)
    got = ops.gather_reduce(x, SRC[4:], ROWPTR[3:])
    assert torch.allclose(got, reference.gather_reduce(x, SRC[4:], ROWPTR[3:], None, "sum"))


def test_the_trusted_door_is_the_same_operator():
    for name in trusted.__all__:
        assert getattr(ops, name).__doc__ == getattr(trusted, name).__doc__
        call, given = CALLS[name]
        for got, want in zip(flat_results(getattr(trusted, name)(**given)), flat_results(call(**given)), strict=True):
            assert torch.equal(got, want)
