"""Static graphs, features [*, N, F]: in dictionaries of types, pairs and by themselves."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch_geometric.nn import GCNConv, GraphConv, HeteroConv, SAGEConv

import pyg_fullgraph as fg
from tests.runtime.test_indices import drawn


def batch(copies: tuple[int, ...], rows: int) -> Tensor:
    return torch.randn(*copies, rows, 8, generator=torch.Generator().manual_seed(rows))


def typed(copies: int, a: int, b: int) -> tuple[Any, ...]:
    edges = {("a", "r", "b"): drawn(a, b), ("b", "s", "a"): drawn(b, a)}
    return {"a": batch((copies,), a), "b": batch((copies,), b)}, edges


CASES: dict[str, tuple[Any, list[tuple[Any, ...]]]] = {
    "alone": (GCNConv(8, 5), [(batch((4,), n), drawn(n, n)) for n in (20, 33)]),
    "two axes": (GraphConv(8, 5), [(batch((2, 4), n), drawn(n, n)) for n in (20, 33)]),
    "pair": (GraphConv((8, 8), 5), [((batch((4,), n), batch((4,), 12)), drawn(n, 12)) for n in (20, 33)]),
    "pair, more destinations": (
        SAGEConv((8, 8), 5),
        [((batch((4,), 9), batch((4,), n)), drawn(9, n)) for n in (20, 33)],
    ),
    "types": (HeteroConv({k: GraphConv((8, 8), 5) for k in typed(4, 5, 5)[1]}), [typed(4, 30, 20), typed(4, 9, 40)]),
    "types, mean": (
        HeteroConv({k: SAGEConv((8, 8), 5) for k in typed(4, 5, 5)[1]}),
        [typed(3, 8, 50), typed(3, 9, 40)],
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_is_what_forward_gives_for_any_size(name: str) -> None:
    model, calls = CASES[name]
    engine = fg.compile(model.eval())
    for args in calls:
        with torch.no_grad():
            want = model(*args)
        got = engine(*args)
        for key in want if isinstance(want, dict) else [...]:
            torch.testing.assert_close(got[key], want[key], rtol=1e-5, atol=1e-5)
    assert len(engine._captured) == 1
    assert engine.verification is not None and engine.verification.how != "none"


def test_more_copies_than_nodes() -> None:
    model = CASES["types"][0].eval()
    args = typed(40, 7, 5)
    with torch.no_grad():
        want = model(*args)
    got = fg.compile(model)(*args)
    for key in want:
        torch.testing.assert_close(got[key], want[key], rtol=1e-5, atol=1e-5)


def test_an_end_out_of_range_is_named() -> None:
    x, edges = typed(4, 30, 20)
    edges["a", "r", "b"][1, 0] = 20
    with pytest.raises(fg.GraphError, match="its destination 20 does not exist"):
        fg.compile(CASES["types"][0].eval())(x, edges)
