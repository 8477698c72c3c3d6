"""`nodes=` selects the rows of nodes, and leaves everything else whole, however a call runs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils import _pytree as pytree
from torch_geometric.data import Data
from torch_geometric.nn import GCN, GCNConv, GraphConv, HeteroConv, HypergraphConv, RGCNConv, SAGEConv

import pyg_fullgraph as fg
from tests.runtime.test_indices import ACROSS, AROUND, ITEMS, TwoSets, X, drawn, features

N, E = 12, 40
EDGES, FEATURES = drawn(N, N, E), features(N, 4)
TYPES = torch.arange(E) % 3


class Both(torch.nn.Module):
    """Scores of nodes, of the graph, of edges and of columns; with N columns where `columns` says so."""

    def __init__(self, columns: int = 3, branches: bool = False) -> None:
        super().__init__()
        self.conv, self.branches = GCNConv(4, columns), branches

    def forward(self, x: Tensor, edge_index: Tensor) -> dict[str, Any]:
        h = self.conv(x, edge_index)
        if self.branches and float(h.sum()) > 1e9:
            h = h * 2
        edges = h[edge_index[0]] * h[edge_index[1]]
        return {"edges": edges, "rows": (h, h.argmax(1)), "whole": h.mean(0), "total": h.sum(), "name": "both"}


def picked(out: dict[str, Any], index: Any) -> dict[str, Any]:
    return {**out, "rows": (out["rows"][0][index], out["rows"][1][index])}


def same(got: Any, want: Any) -> None:
    left, right = pytree.tree_leaves(got), pytree.tree_leaves(want)
    assert len(left) == len(right)
    for ours, theirs in zip(left, right, strict=True):
        if isinstance(theirs, Tensor):
            torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)
        else:
            assert ours == theirs


MASK = torch.arange(N) % 5 == 0
FORMS: dict[str, Any] = {
    "numbers": torch.tensor([5, 11, 5]),
    "int32": torch.tensor([5, 11, 5], dtype=torch.int32),
    "mask": MASK,
    "list": [0, 3],
    "array": np.array([0, 3]),
    "list-of-bools": MASK.tolist(),
    "none": [],
    "dictionary": {"x": [0, 3]},
}


@pytest.mark.parametrize("branches", [False, True], ids=["captured", "own-forward"])
@pytest.mark.parametrize("columns", [3, N, E])
def test_only_rows_of_nodes_are_selected(columns: int, branches: bool) -> None:
    model = Both(columns, branches).eval()
    engine = fg.compile(model, fallback="eager")
    with torch.no_grad():
        want = model(FEATURES, EDGES)
    for name, form in FORMS.items():
        if branches and name == "dictionary":
            form = {"N": [0, 3]}
        entries = next(iter(form.values())) if isinstance(form, dict) else form
        index = torch.as_tensor(entries)
        same(engine(FEATURES, EDGES, nodes=form), picked(want, index if index.numel() else index.long()))
    assert bool(engine._captured) is not branches


class Table(torch.nn.Module):
    def __init__(self, columns: int = 3) -> None:
        super().__init__()
        self.table, self.conv = torch.nn.Embedding(N, 4), GCNConv(4, columns)

    def forward(self, edge_index: Tensor) -> tuple[Tensor, Tensor]:
        h = self.conv(self.table.weight, edge_index)
        return h, h.mean(0)


class Square(Table):
    """As many nodes as columns."""

    def __init__(self) -> None:
        super().__init__()
        self.table, self.conv = torch.nn.Embedding(N, N), SAGEConv(N, N)  # type: ignore[assignment]

    def forward(self, edge_index: Tensor) -> tuple[Tensor, ...]:  # type: ignore[override]
        h = self.conv(self.table.weight, edge_index).relu().log_softmax(-1)
        return h, h.mean(0), h.mean(1), h.t(), h @ h.new_ones(N, N), h.max(dim=0)[0], h.view(N, 2, -1)[:, 1]


def test_as_many_nodes_as_columns() -> None:
    model, some = Square().eval(), torch.tensor([5, 11, 0])
    with torch.no_grad():
        h, mean, rows, turned, product, most, part = model(EDGES)
    want = h[some], mean, rows[some], turned[:, some], product[some], most, part[some]
    same(fg.compile(model)(EDGES, nodes=some), want)


class Relations(torch.nn.Module):
    """RGCN as it is written for link prediction: no features but its own."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = RGCNConv(N, 6, 3), RGCNConv(6, 4, 3)

    def forward(self, edge_index: Tensor, edge_type: Tensor) -> tuple[Tensor, Tensor]:
        h = self.second(self.first(None, edge_index, edge_type).relu(), edge_index, edge_type)
        return h, h.mean(0)


class Counted(Table):
    def forward(self, edge_index: Tensor, num_nodes: int) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        h = self.conv(torch.ones(num_nodes, 4), edge_index)
        return h, h.mean(0)


@pytest.mark.parametrize(
    ("model", "args"),
    [(Table(), (EDGES,)), (Relations(), (EDGES, TYPES)), (Counted(), (EDGES, N))],
    ids=["table", "rgcn", "counted"],
)
@pytest.mark.parametrize("form", [torch.tensor([5, 11]), MASK], ids=["numbers", "mask"])
def test_without_features_the_rows_of_the_output_are_the_nodes(model: Any, args: Any, form: Tensor) -> None:
    with torch.no_grad():
        rows, whole = model.eval()(*args)
    same(fg.compile(model)(*args, nodes=form), (rows[form], whole))
    short = torch.ones(5, dtype=torch.bool)
    for wrong, words in ((torch.tensor([5, 12]), "node 12 .entry 1.*0 to 11"), (short, "mask of 5.*12 nodes")):
        with pytest.raises(fg.InputError, match=words):
            fg.compile(model)(*args, nodes=wrong)


def hetero() -> tuple[torch.nn.Module, tuple[Any, ...]]:
    edges = {("a", "r", "b"): drawn(7, 9), ("b", "s", "a"): drawn(9, 7)}
    return HeteroConv({kind: SAGEConv((4, 4), 3) for kind in edges}).eval(), (
        {"a": features(7, 4), "b": features(9, 4)},
        edges,
    )


@pytest.mark.parametrize(
    "form",
    [{"a": [0, 6]}, {"a": torch.arange(7) % 2 == 0, "b": [8, 8]}, {"b": np.array([1])}, {}],
    ids=["one", "both", "array", "none"],
)
def test_kinds_of_nodes_are_selected_by_name(form: dict[str, Any]) -> None:
    model, args = hetero()
    with torch.no_grad():
        want = model(*args)
    want = {kind: rows[torch.as_tensor(form[kind])] if kind in form else rows for kind, rows in want.items()}
    engine = fg.compile(model)
    same(engine(*args, nodes=form), want)
    empty = {**args[1], ("a", "r", "b"): torch.empty(2, 0, dtype=torch.long)}
    with torch.no_grad():  # one kind without edges: the model's own forward may run
        own = model(args[0], empty)
    own = {kind: rows[torch.as_tensor(form[kind])] if kind in form else rows for kind, rows in own.items()}
    same(engine(args[0], empty, nodes=form), own)


SETS: dict[str, tuple[Any, tuple[Any, ...], dict[str, Any], Callable[[Any, Tensor], Any]]] = {
    "size": (SAGEConv((8, 8), 4), ((X, None), ACROSS), {"size": (5, 9)}, lambda out, i: out[i]),
    "hypergraph": (HypergraphConv(8, 4), (X, ACROSS), {}, lambda out, i: out[i]),
    "pair": (GraphConv((8, 6), 4), ((X, ITEMS), ACROSS), {}, lambda out, i: out[i]),
    "static": (GraphConv(8, 4), (torch.randn(3, 5, 8), AROUND), {}, lambda out, i: out[:, i]),
}


@pytest.mark.parametrize("name", SETS)
def test_other_sets_of_nodes(name: str) -> None:
    model, args, kwargs, rows = SETS[name]
    with torch.no_grad():
        want = model.eval()(*args, **kwargs)
    index = torch.tensor([4, 0])
    same(fg.compile(model)(*args, **kwargs, nodes=index), rows(want, index))


@pytest.mark.parametrize("branches", [False, True], ids=["captured", "own-forward"])
@pytest.mark.parametrize(
    ("form", "words"),
    [
        (torch.tensor([0, -1]), r"nodes= holds node -1 \(entry 1\), but nodes are numbered 0 to 11"),
        ([3, 12], r"nodes= holds node 12 \(entry 1\), but nodes are numbered 0 to 11"),
        (torch.ones(5, dtype=torch.bool), "nodes= is a mask of 5, but there are 12 nodes"),
        ("abc", "nodes= takes node numbers .*got str 'abc'"),
        ([0.5], "nodes= takes node numbers .*got torch.float32"),
        ([[1, 2]], r"nodes= takes node numbers .* of shape \[1, 2\]"),
        (["a"], "nodes= takes node numbers .*got list"),
        ({"paper": [0]}, "asks for rows of 'paper', but the model returns rows of"),
        (object(), "nodes= takes node numbers"),
    ],
)
def test_what_cannot_be_selected_is_refused_alike(form: Any, words: str, branches: bool) -> None:
    engine = fg.compile(Both(branches=branches).eval(), fallback="eager", verify="off")
    with pytest.raises(fg.InputError, match=words):
        engine(FEATURES, EDGES, nodes=form)
    with pytest.raises(fg.InputError, match=words):
        fg.inference(engine.model, Data(FEATURES, EDGES), nodes=form, fallback="eager", verify="off")


def test_several_kinds_are_named() -> None:
    model, args = hetero()
    with pytest.raises(fg.InputError, match="returns rows of 'a' and 'b': which of them"):
        fg.compile(model)(*args, nodes=[0])


def test_no_rows_of_nodes() -> None:
    class Whole(GCN):
        def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:  # type: ignore[override]
            return super().forward(x, edge_index).mean(0)

    with pytest.raises(fg.InputError, match="the model returns none"):
        fg.compile(Whole(4, 4, 1).eval())(FEATURES, EDGES, nodes=[0])


def test_two_sets_under_any_names() -> None:
    model = TwoSets().eval()
    with torch.no_grad():
        want = model(X, ITEMS, ACROSS)
    same(fg.compile(model)(X, ITEMS, ACROSS, nodes={"users": [4]}), (want[0], want[1][[4]]))


@pytest.mark.parametrize("kinds", [("numbers", [0]), ("mask", [True])])
def test_a_graph_of_one_node(kinds: tuple[str, Any]) -> None:
    model, loop = Both().eval(), torch.zeros(2, 1, dtype=torch.long)
    with torch.no_grad():
        want = model(FEATURES[:1], loop)
    same(fg.compile(model)(FEATURES[:1], loop, nodes=kinds[1]), picked(want, torch.tensor([0])))
    with pytest.raises(fg.InputError, match="holds node 1"):
        fg.compile(model)(FEATURES[:1], loop, nodes=[1])


def test_an_empty_graph() -> None:
    model, nothing = Both().eval(), torch.zeros(2, 0, dtype=torch.long)
    got = fg.compile(model)(FEATURES[:0], nothing, nodes=[])
    assert got["rows"][0].shape == (0, 3) and got["whole"].shape == (3,)
    with pytest.raises(fg.InputError, match="there are none"):
        fg.compile(model)(FEATURES[:0], nothing, nodes=[0])
