"""One tensor fills one parameter, models without features, features that are None, methods and wrappers."""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils import _pytree as pytree
from torch_geometric.data import Data, HeteroData
from torch_geometric.nn import (
    GAE,
    GCN,
    VGAE,
    DeepGraphInfomax,
    GCNConv,
    GINConv,
    GraphSAGE,
    HeteroConv,
    SAGEConv,
    global_add_pool,
)

import pyg_fullgraph as fg
from tests.runtime.test_indices import drawn, features

N, E = 30, 90
EDGES, X = drawn(N, N, E), features(N, 4)
TYPES, WEIGHT, ATTRIBUTES = torch.arange(E) % 3, torch.rand(E), torch.rand(E, 4)


def same(got: Any, want: Any) -> None:
    left, right = pytree.tree_leaves(got), pytree.tree_leaves(want)
    assert len(left) == len(right)
    for ours, theirs in zip(left, right, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)


def net(forward: Callable[..., Any], **parts: Any) -> torch.nn.Module:
    made = type("Net", (torch.nn.Module,), {"forward": forward})()
    for name, part in parts.items():
        setattr(made, name, part)
    return made.eval()


def handed_on(self: Any, *args: Any, **kwargs: Any) -> Any:
    return self.inner(*args, **kwargs) * 2


# One tensor, one parameter ---------------------------------------------------------------------------------

MISSING: dict[str, tuple[Callable[..., Any], Data, str]] = {
    "h beside x": (lambda self, h, x, edge_index: self.conv(h, edge_index) + x, Data(X, EDGES, pos=X), "'h'"),
    "z beside x": (lambda self, x, feat, edge_index: self.conv(feat, edge_index) + x, Data(X, EDGES), "'feat'"),
    "weights": (lambda self, edge_index, edge_weight: edge_weight, Data(X, EDGES), "'edge_weight'"),
    "attributes": (lambda self, edge_attr, edge_index: edge_attr, Data(X[:, :4], EDGES), "'edge_attr'"),
    "labels": (lambda self, edge_index, edge_label_index: edge_label_index, Data(X, EDGES), "'edge_label_index'"),
    "pos": (lambda self, pos, edge_index: self.conv(pos, edge_index), Data(X, EDGES), "'pos'"),
    "batch": (lambda self, edge_index, batch: batch, Data(X, EDGES), "'batch'"),
}


@pytest.mark.parametrize("name", MISSING)
def test_what_the_data_lacks_is_not_made_of_its_features(name: str) -> None:
    forward, data, word = MISSING[name]
    with pytest.raises(fg.InputError, match=f"needs (node features )?{word}"):
        fg.inference(net(forward, conv=GCNConv(4, 4)), data)


def test_as_many_edges_as_nodes() -> None:
    data = Data(torch.rand(E, 4), drawn(E, E, E))
    with pytest.raises(fg.InputError, match="needs 'edge_weight'"):
        fg.inference(net(lambda self, edge_index, edge_weight: edge_weight), data)


# Models without features -----------------------------------------------------------------------------------


def own_table(self: Any, edge_index: Tensor, *more: Tensor) -> Tensor:
    return self.conv(self.table, edge_index, *more)


def typed(self: Any, edge_index: Tensor, edge_type: Tensor) -> Tensor:
    return self.conv(self.table, edge_index, (edge_type + 1).float())


def attributed(self: Any, edge_index: Tensor, edge_attr: Tensor) -> Tensor:
    return self.conv(self.table, edge_index, edge_attr.mean(1))


def weighted(self: Any, edge_weight: Tensor, edge_index: Tensor) -> Tensor:
    return self.conv(self.table, edge_index, edge_weight)


def scored(self: Any, edge_index: Tensor, edge_label_index: Tensor) -> Tensor:
    h = self.conv(self.table, edge_index)
    return (h[edge_label_index[0]] * h[edge_label_index[1]]).sum(1)


@pytest.mark.parametrize(
    ("forward", "more"),
    [
        (lambda self, edge_index: self.conv(self.table, edge_index), {}),
        (typed, {"edge_type": TYPES}),
        (attributed, {"edge_attr": ATTRIBUTES}),
        (weighted, {"edge_weight": WEIGHT}),
        (scored, {"edge_label_index": drawn(N, N, 7)}),
    ],
    ids=["edges", "types", "attributes", "weights-first", "labels"],
)
@pytest.mark.parametrize("held", [True, False], ids=["in-data", "by-name"])
def test_models_without_features(forward: Any, more: dict[str, Tensor], held: bool) -> None:
    model = net(forward, table=torch.nn.Parameter(features(N, 4)), conv=GCNConv(4, 3))
    data = Data(edge_index=EDGES, num_nodes=N, **(more if held else {}))
    with torch.no_grad():
        want = model(edge_index=EDGES, **more)
    same(fg.inference(model, data, **({} if held else more)), want)
    if not more:
        same(fg.inference(model, EDGES), want)
        same(fg.inference(model, data, nodes=[3, 29]), want[[3, 29]])


# Features that are None ------------------------------------------------------------------------------------


class Ones(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = GINConv(torch.nn.Linear(1, 8))

    def forward(self, x: Tensor | None, edge_index: Tensor, batch: Tensor) -> Tensor:
        if x is None:
            x = torch.ones(batch.size(0), 1)
        return global_add_pool(self.conv(x, edge_index).relu(), batch)


def test_none_is_passed_where_the_data_has_no_features() -> None:
    model, batch = Ones().eval(), torch.arange(N) // 10
    with torch.no_grad():
        want = model(None, EDGES, batch)
    same(fg.inference(model, Data(x=None, edge_index=EDGES, batch=batch, num_nodes=N)), want)
    wrapped = net(handed_on, inner=model)
    same(fg.inference(wrapped, Data(edge_index=EDGES, batch=batch, num_nodes=N)), want * 2)


@pytest.mark.parametrize("fallback", ["error", "eager"])
def test_a_model_that_cannot_do_without_says_so(fallback: str) -> None:
    with pytest.raises(fg.InputError, match=r"needs node features 'x'.*Set data\.x.*With x=None: "):
        fg.inference(GraphSAGE(4, 4, 2).eval(), Data(edge_index=EDGES, num_nodes=N), fallback=fallback)


# Methods and wrappers --------------------------------------------------------------------------------------


class Links(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = SAGEConv(4, 3)

    def encode(self, x: Tensor, edge_index: Tensor) -> Tensor:
        return self.conv(x, edge_index)

    def decode(self, z: Tensor, pairs: Tensor) -> Tensor:
        return (z[pairs[0]] * z[pairs[1]]).sum(1)

    def both(self, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        return self.encode(*args, **kwargs), self.conv.lin_l.weight


class Doubled(GCN):
    def forward(self, *args: Any) -> Tensor:  # type: ignore[override]
        return super().forward(*args) * 2


class Named(torch.nn.Module):
    """Hands on by name alone, beside what it gives itself."""

    def __init__(self) -> None:
        super().__init__()
        self.nets = torch.nn.ModuleList([GCN(4, 8, 2, 3)])

    def forward(self, features: Tensor, **kwargs: Any) -> Tensor:
        return self.nets[0](features / 2, **kwargs)


class Latent(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.mean, self.spread = GCNConv(4, 3), GCNConv(4, 3)

    def forward(self, x: Tensor, edge_index: Tensor, edge_weight: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self.mean(x, edge_index, edge_weight), self.spread(x, edge_index, edge_weight)


links, plain, latent = Links().eval(), GAE(GCN(4, 8, 2, 3)).eval(), VGAE(Latent()).eval()
CALLED: dict[str, tuple[Any, Any]] = {
    "method": (links.encode, links),
    "method that hands on": (links.both, links),
    "forward": (plain.encoder.forward, plain),
    "GAE": (plain, plain),
    "GAE.encode": (plain.encode, plain),
    "VGAE": (latent, latent),
    "VGAE.encode": (latent.encode, latent),
    "super": (Doubled(4, 8, 2, 3).eval(), None),
    "by name": (Named().eval(), None),
    "wrapper of a wrapper": (net(handed_on, inner=GAE(GCN(4, 8, 2, 3))), None),
}


@pytest.mark.parametrize("name", CALLED)
def test_methods_and_wrappers(name: str) -> None:
    call, _ = CALLED[name]
    with torch.no_grad():
        want = call(X, edge_index=EDGES) if name == "by name" else call(X, EDGES)
    for _ in range(2):
        same(fg.inference(call, Data(X, EDGES)), want)
    same(fg.inference(call, X, EDGES), want)
    same(fg.inference(call, Data(X, EDGES), nodes=[4]), pytree.tree_map(lambda t: t[[4]] if len(t) == N else t, want))


class Bought(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = SAGEConv((4, 6), 3)

    def forward(self, users: Tensor, items: Tensor, edge_index: Tensor) -> Tensor:
        return self.conv((users, items), edge_index)


def test_two_sets_by_name_by_place_and_from_data() -> None:
    model, items, edges = Bought().eval(), features(50, 6), drawn(N, 50, E)
    with torch.no_grad():
        want = model(X, items, edges)
    same(fg.inference(model, X, items, edges), want)
    same(fg.inference(model, edge_index=edges, items=items, users=X), want)
    same(fg.inference(model, Data(users=X, items=items, edge_index=edges)), want)  # items() is a method of Data
    same(fg.inference(model, X, items, edges, nodes=[49]), want[[49]])


def test_types_without_names_of_arguments() -> None:
    data = HeteroData()
    data["a"].x, data["b"].x = features(7, 4), features(9, 5)
    data["a", "r", "b"].edge_index, data["b", "s", "a"].edge_index = drawn(7, 9), drawn(9, 7)
    model = HeteroConv({("a", "r", "b"): SAGEConv((4, 5), 3), ("b", "s", "a"): SAGEConv((5, 4), 3)}).eval()
    with torch.no_grad():
        want = model(data.x_dict, data.edge_index_dict)
    got = fg.inference(model, data)
    same([got["a"], got["b"]], [want["a"], want["b"]])
    got = fg.inference(model, data, nodes={"a": [6, 0]})
    same([got["a"], got["b"]], [want["a"][[6, 0]], want["b"]])


def test_a_wrapper_that_hands_on_twice() -> None:
    model = DeepGraphInfomax(8, GCN(4, 8, 2), lambda z, *a, **k: z.mean(0), lambda x, e: (x.flip(0), e)).eval()
    with torch.no_grad():
        real, wrong, whole = model(X, EDGES)
    same(fg.inference(model, Data(X, EDGES), nodes=[3]), (real[[3]], wrong[[3]], whole))


def test_a_wrapper_takes_the_weights_of_what_it_wraps() -> None:
    with torch.no_grad():
        want = plain(X, EDGES, WEIGHT)
    same(fg.inference(plain, Data(X, EDGES, edge_weight=WEIGHT)), want)
    same(fg.inference(plain.encode, X, EDGES, edge_weight=WEIGHT), want)


def test_a_method_reads_the_weights_of_now_and_is_captured_once() -> None:
    model = copy.deepcopy(links)
    fg.inference(model.encode, Data(X, EDGES))
    with torch.no_grad():
        model.conv.lin_l.weight.mul_(2)
        same(fg.inference(model.encode, Data(X, EDGES)), model.encode(X, EDGES))
    (kept,) = vars(model)["_fullgraph_engines"]._built.values()
    (engine,) = vars(kept)["_fullgraph_engines"]._built.values()
    assert len(engine._captured) == 1
    same(fg.inference(copy.deepcopy(model).encode, Data(X, EDGES)), model.encode(X, EDGES).detach())


def test_functions_and_what_is_no_model() -> None:
    def scaled(x: Tensor, edge_index: Tensor, scale: float) -> Tensor:
        return links.encode(x, edge_index) * scale

    with torch.no_grad():
        want = links.encode(X, EDGES) * 3
    same(fg.inference(partial(scaled, scale=3.0), X, EDGES), want)
    for wrong in (Data(X, EDGES), X, Links, 3):
        with pytest.raises(fg.InputError, match="first argument must be the model"):
            fg.inference(wrong, Data(X, EDGES))


def test_without_forward_the_way_is_named() -> None:
    with pytest.raises(fg.InputError, match=r"Links has no forward.*inference\(model\.encode, data\).*decode"):
        fg.inference(links, Data(X, EDGES))
