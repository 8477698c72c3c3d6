"""Hidden values of a forward: hooks see all nodes, what is written is told, `outputs=` gives what submodules return."""

from __future__ import annotations

import logging
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch_geometric.data import Data
from torch_geometric.nn import GAT, GCN, GraphSAGE, HeteroConv, RGCNConv, SAGEConv, to_hetero

import pyg_fullgraph as fg
from pyg_fullgraph.capture.returned import tensors_of
from pyg_fullgraph.engine import Engine
from pyg_fullgraph.errors import CaptureError, FullGraphMismatch, InputError

N, E = 80, 300
KEY = ("a", "to", "b")
BACK = ("b", "to", "a")


def graph() -> tuple[Tensor, Tensor]:
    return torch.randn(N, 8), torch.randint(0, N, (2, E))


def same(got: Any, want: Any) -> None:
    found, expected = tensors_of(got), tensors_of(want)
    assert type(got) is type(want) and len(found) == len(expected)
    for a, b in zip(found, expected, strict=True):
        largest = float(b.detach().abs().max()) if b.numel() else 1.0
        torch.testing.assert_close(a.detach(), b.detach(), rtol=0, atol=1e-5 * largest)


class Rel(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.convs = torch.nn.ModuleList([RGCNConv(8, 8, 3), RGCNConv(8, 4, 3)])

    def forward(self, x: Tensor, edge_index: Tensor, edge_type: Tensor) -> Tensor:
        return self.convs[1](self.convs[0](x, edge_index, edge_type).relu(), edge_index, edge_type)


class Hetero(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.convs = torch.nn.ModuleList(
            [HeteroConv({key: SAGEConv((8, 8), 8) for key in (KEY, BACK)}) for _ in range(2)]
        )

    def forward(self, x_dict: Any, edge_index_dict: Any) -> Any:
        x_dict = {key: x.relu() for key, x in self.convs[0](x_dict, edge_index_dict).items()}
        return self.convs[1](x_dict, edge_index_dict)


class Mine(torch.nn.Module):
    """Writes over what a submodule has returned, and calls one twice."""

    def __init__(self) -> None:
        super().__init__()
        self.convs = torch.nn.ModuleList([SAGEConv(8, 8)])
        self.lin, self.unused = torch.nn.Linear(8, 8), torch.nn.Linear(8, 8)

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        h = self.convs[0](x, edge_index)
        h.relu_()
        return self.lin(self.lin(h).tanh())


def call(name: str) -> tuple[Any, ...]:
    x, edges = graph()
    if name == "RGCN":
        return x, edges, torch.randint(0, 3, (E,))
    if name == "hetero":
        return {"a": x, "b": torch.randn(N, 8)}, {KEY: edges, BACK: edges.flip(0)}
    return x, edges


MODELS: dict[str, Callable[[], torch.nn.Module]] = {
    "SAGE": lambda: GraphSAGE(8, 8, 2, 4),
    "GCN": lambda: GCN(8, 8, 2, 4),
    "GAT": lambda: GAT(8, 8, 2, 4, heads=2),
    "RGCN": Rel,
    "hetero": Hetero,
    "mine": Mine,
}


def own(model: torch.nn.Module, args: tuple[Any, ...]) -> Any:
    with torch.no_grad():
        return model(*args)


def copied(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.clone()
    if isinstance(value, dict):
        return {key: copied(item) for key, item in value.items()}
    return tuple(copied(item) for item in value) if isinstance(value, tuple) else value


@pytest.mark.parametrize("name", MODELS)
def test_hooks_that_look_see_what_the_own_forward_shows(name: str) -> None:
    """Before and after, with and without keyword arguments, on a layer and on the model, all of them each time."""
    model, log = MODELS[name]().eval(), []
    layer = model.convs[0]
    layer.register_forward_hook(lambda module, args, out: log.append(("post", type(module), copied((args, out)))))
    layer.register_forward_pre_hook(lambda module, args: log.append(("pre", copied(args))))
    layer.register_forward_hook(lambda module, args, kwargs, out: log.append(copied((kwargs, out))), with_kwargs=True)
    model.register_forward_hook(lambda module, args, out: log.append(("model", copied((args, out)))))
    engine = Engine(model)
    for _ in range(2):
        args = call(name)
        want = own(model, args)
        expected, log[:] = list(log), []
        same(engine(*args), want)
        assert len(log) == len(expected) == 4
        assert [kind for kind, *_ in map(_pair, log)] == [kind for kind, *_ in map(_pair, expected)]
        same(tuple(log), tuple(expected))
        log.clear()
    assert len(engine.notes) == 3 and all("hook" in note and "<lambda>" in note for note in engine.notes)
    assert engine.verification is not None and engine.verification.how != "none"


def _pair(item: tuple[Any, ...]) -> tuple[Any, ...]:
    return item if isinstance(item[0], str) else ("kwargs", item)


def test_what_a_hook_writes_makes_no_new_trace() -> None:
    model, (x, edges), seen, numbers = GCN(8, 8, 2, 4).eval(), graph(), {}, {"calls": 0}

    def count(module: Any, args: Any, out: Tensor) -> None:
        numbers["calls"] += 1

    model.convs[0].register_forward_hook(lambda module, args, out: seen.update(h=out))
    model.convs[1].register_forward_hook(count)
    engine = Engine(model)
    engine(x, edges)
    numbers["calls"] = 0
    for _ in range(3):
        same(engine(x, edges), own(model, (x, edges)))
    assert numbers["calls"] == 6 and len(engine._captured) == 1
    model.convs[1]._forward_hooks.clear()
    model.convs[1].register_forward_hook(lambda module, args, out: out * 2)
    same(engine(x, edges), own(model, (x, edges)))


def test_hooks_see_all_nodes_whatever_is_asked_for() -> None:
    model, (x, edges), seen = GCN(8, 8, 2, 4).eval(), graph(), {}
    model.convs[0].register_forward_hook(lambda module, args, out: seen.update(h=out))
    want = own(model, (x, edges))
    hidden = seen.pop("h")
    nodes = torch.tensor([3, 5])
    same(Engine(model)(x, edges, nodes=nodes), want[nodes])
    same(seen.pop("h"), hidden)
    same(Engine(model, order="rcm", verify="off")(x, edges), want)
    same(seen.pop("h"), hidden)
    same(fg.inference(model, x, edges, verify="always"), want)
    same(seen.pop("h"), hidden)
    same(fg.accelerate(model).inference(x, edges, nodes=[1]), want[1:2])
    same(seen.pop("h"), hidden)


def thrice(module: Any, args: Any, out: Tensor) -> None:
    out.mul_(3)


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda layer: layer.register_forward_hook(lambda m, a, out: out * 2), id="output"),
        pytest.param(lambda layer: layer.register_forward_pre_hook(lambda m, a: (a[0] + 1, *a[1:])), id="input"),
        pytest.param(lambda layer: layer.register_forward_hook(thrice), id="in place"),
        pytest.param(lambda layer: torch.nn.utils.weight_norm(layer.lin_l), id="weight norm"),
    ],
)
def test_hooks_that_change_something_are_part_of_the_program(change: Any) -> None:
    model, (x, edges) = GraphSAGE(8, 8, 2, 4).eval(), graph()
    change(model.convs[0])
    engine = Engine(model, verify="always")
    for _ in range(2):
        same(engine(x, edges), own(model, (x, edges)))
    assert engine.verification is not None and engine.verification.how == "neighbourhood" and not engine.notes


def test_a_hook_that_reads_what_another_has_seen() -> None:
    model, (x, edges), seen = GraphSAGE(8, 8, 2, 8).eval(), graph(), {}
    model.convs[0].register_forward_hook(lambda module, args, out: seen.update(h=out))
    model.convs[1].register_forward_hook(lambda module, args, out: out + seen["h"])
    want = own(model, (x, edges))
    seen.clear()
    engine = Engine(model)
    same(engine(x, edges), want)
    assert seen["h"].shape == (N, 8) and engine.verification is not None and engine.verification.how != "none"


def test_hooks_that_read_values() -> None:
    """They cannot run in a trace, and need not."""
    model, (x, edges), seen = GraphSAGE(8, 8, 2, 4).eval(), graph(), []

    def largest(module: Any, args: Any, out: Tensor) -> None:
        if out.max() > -100:
            seen.append((out.numpy().max().item(), out.shape, f"{out.sum().item():.3f}"))

    model.convs[0].register_forward_hook(largest)
    want = own(model, (x, edges))
    expected, seen[:] = list(seen), []
    engine = Engine(model)
    same(engine(x, edges), want)
    assert [item[1] for item in seen] == [item[1] for item in expected] == [(N, 8)]
    assert seen[0][0] == pytest.approx(expected[0][0], rel=1e-4)


def test_a_hook_that_changes_something_by_the_data_is_refused() -> None:
    model, (x, edges) = GraphSAGE(8, 8, 2, 4).eval(), graph()
    model.convs[0].register_forward_hook(lambda module, args, out: out * 2 if out.max() > 0 else None)
    engine = Engine(model)
    for _ in range(2):
        with pytest.raises((CaptureError, FullGraphMismatch)):
            engine(x, edges)


def test_such_a_hook_with_the_own_forward_to_fall_back_to() -> None:
    model, (x, edges) = GraphSAGE(8, 8, 2, 4).eval(), graph()
    model.convs[0].register_forward_hook(lambda module, args, out: out * 2 if out.max() > 0 else None)
    engine = Engine(model, fallback="eager", verify="off")
    same(engine(x, edges), own(model, (x, edges)))
    assert any("changes what the layer takes or returns" in note for note in engine.notes)


def test_the_check_of_widths_calls_no_hook() -> None:
    """It runs forward on two nodes where the first layer that was defined does not fit."""

    class Backwards(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.last, self.first = torch.nn.Linear(16, 4), SAGEConv(8, 16)

        def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
            return self.last(self.first(x, edge_index))

    model, (x, edges), rows = Backwards().eval(), graph(), []
    model.first.register_forward_hook(lambda module, args, out: rows.append(len(out)))
    same(fg.inference(model, x, edges), own(model, (x, edges)))
    assert rows == [N, N]


def test_a_hook_that_is_given_what_no_program_has() -> None:
    class Inner(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = SAGEConv(8, 4)

        def forward(self, data: Data) -> Tensor:
            return self.conv(data.x, data.edge_index)

    class Outer(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = Inner()

        def forward(self, data: Data) -> Tensor:
            return self.inner(data) * 2

    model, (x, edges), seen = Outer().eval(), graph(), []
    data = Data(x=x, edge_index=edges)
    model.register_forward_hook(lambda module, args, out: seen.append((args[0], out)))
    same(fg.inference(model, data), own(model.inner, (data,)) * 2)
    assert len(seen) == 1 and seen[0][0].x.shape == (N, 8) and len(seen[0][1]) == N
    model.inner.register_forward_hook(lambda module, args, out: None)
    with pytest.raises(CaptureError, match=r"^The forward hook '.*' of layer 'inner' is given a Data.*\['inner'\].*$"):
        fg.inference(model, data)


def test_an_error_of_a_hook_is_the_users() -> None:
    model, (x, edges) = GraphSAGE(8, 8, 2, 4).eval(), graph()
    model.convs[0].register_forward_hook(lambda module, args, out: {}["missing"])
    with pytest.raises(CaptureError, match="missing"):
        Engine(model)(x, edges)


def test_hooks_on_all_modules_and_hooks_that_remove_themselves() -> None:
    model, (x, edges), log = GCN(8, 8, 2, 4).eval(), graph(), []
    handle = torch.nn.modules.module.register_module_forward_hook(lambda m, a, out: log.append((type(m), copied(out))))
    try:
        want = own(model, (x, edges))
        expected, log[:] = list(log), []
        same(Engine(model)(x, edges), want)
        assert {kind for kind, _ in log} <= {kind for kind, _ in expected}
        shown = [out for kind, out in log if kind is GCN]
        assert len(shown) == 1
        same(shown[0], want)
    finally:
        handle.remove()


STORE: list[Any] = []
NUMBERS = {"calls": 0}
LAST: Any = None
BOX = SimpleNamespace()


class Writing(torch.nn.Module):
    """One way of leaving something behind."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.conv, self.how = SAGEConv(8, 4), how
        self.h: Any = None
        self.kept: dict[str, list[Any]] = {"all": []}

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        global LAST
        h = self.conv(x, edge_index)
        if self.how == "attribute":
            self.h = h
        elif self.how == "nested":
            self.kept["all"].append(h)
        elif self.how == "global list":
            STORE.append(h)
        elif self.how == "global name":
            LAST = h
        elif self.how == "object":
            BOX.h = h
        elif self.how == "size":
            NUMBERS["nodes"] = x.size(0)
        elif self.how == "child":
            self.conv.seen = h
        return h * 2


NAMES = {
    "attribute": "'self.h'", "nested": "self.kept", "global list": "'STORE'", "global name": "'LAST'",
    "object": "'BOX'", "size": "'NUMBERS'",
}  # fmt: skip


@pytest.mark.parametrize("how", NAMES)
def test_what_forward_leaves_behind_is_told_and_put_back(how: str, caplog: pytest.LogCaptureFixture) -> None:
    model, (x, edges) = Writing(how).eval(), graph()
    want = model.conv(x, edges) * 2
    with caplog.at_level(logging.WARNING, "pyg_fullgraph"):
        for _ in range(2):
            same(fg.inference(model, x, edges, verify="always"), want)
    told = [record.getMessage() for record in caplog.records]
    assert len(told) == 1 and NAMES[how] in told[0] and "outputs=" in told[0]
    assert model.h is None and model.kept == {"all": []} and not STORE and LAST is None and not vars(BOX)
    assert NUMBERS == {"calls": 0}


def test_a_closure_that_is_written_to() -> None:
    seen: list[Any] = []
    last: Any = None

    class Closing(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = SAGEConv(8, 4)

        def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
            nonlocal last
            last = self.conv(x, edge_index)
            seen.append(last)
            return last * 2

    model, (x, edges) = Closing().eval(), graph()
    engine = Engine(model)
    same(engine(x, edges), model.conv(x, edges) * 2)
    assert not seen and last is None
    assert len(engine.notes) == 1 and "'seen'" in engine.notes[0] and "'last'" in engine.notes[0]


class Counting(torch.nn.Module):
    """Its result depends on how often it was called."""

    def __init__(self, where: str) -> None:
        super().__init__()
        self.conv, self.where, self.count = SAGEConv(8, 4), where, 0

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        if self.where == "attribute":
            self.count += 1
            return self.conv(x, edge_index) * self.count
        NUMBERS["calls"] += 1
        return self.conv(x, edge_index) * NUMBERS["calls"]


@pytest.mark.parametrize("where", ["attribute", "global"])
def test_a_counter_in_the_result_is_refused(where: str) -> None:
    model, (x, edges) = Counting(where).eval(), graph()
    try:
        engine = Engine(model)
        for _ in range(2):
            with pytest.raises(FullGraphMismatch, match="another result at every call"):
                engine(x, edges)
    finally:
        NUMBERS["calls"] = 0


# outputs= -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", MODELS)
def test_outputs_of_submodules(name: str) -> None:
    model, seen = MODELS[name]().eval(), {}
    engine = Engine(model, outputs=["convs.0"], verify="always")
    for _ in range(2):
        args = call(name)
        handle = model.convs[0].register_forward_hook(lambda module, args, out: seen.update(h=copied(out)))
        want = own(model, args)
        handle.remove()
        result = engine(*args)
        same(result, (want, {"convs.0": seen["h"]}))
    assert engine.verification is not None and engine.verification.how != "none"


def test_a_submodule_that_is_called_several_times() -> None:
    model, (x, edges) = Mine().eval(), graph()
    result, outputs = fg.inference(model, x, edges, outputs=["lin", "convs.0"])
    first = own(model.lin, (own(model.convs[0], (x, edges)).relu(),))
    same(outputs["lin"], [first, own(model.lin, (first.tanh(),))])
    same(result, own(model, (x, edges)))
    same(outputs["convs.0"], own(model.convs[0], (x, edges)))  # as it was returned, before relu_()


def test_outputs_by_every_way(tmp_path: Any) -> None:
    model, (x, edges) = GCN(8, 8, 2, 4).eval(), graph()
    want = own(model, (x, edges)), {"convs.0": own(model.convs[0], (x, edges))}
    nodes = torch.tensor([7, 0, 7])
    part = want[0][nodes], {"convs.0": want[1]["convs.0"][nodes]}
    same(fg.inference(model, x, edges, nodes=nodes, outputs="convs.0"), part)
    same(fg.compile(model, outputs=["convs.0"], order="rcm")(x, edges), want)
    same(fg.accelerate(model, outputs=["convs.0"]).inference(x, edges), want)
    out = torch.empty(N, 4)
    same(fg.inference(model, x, edges, out=out, outputs=["convs.0"]), want)
    same(out, want[0])
    same(fg.compile(model, outputs=["convs.0"])(x, edges, out=out), want)
    fg.inference(model, x, edges, out=tmp_path / "out.pt", outputs=["convs.0"])
    same(torch.load(tmp_path / "out.pt"), want)
    edges = edges[:, edges[0] != edges[1]]
    adj = torch.sparse_coo_tensor(edges.flip(0), torch.ones(edges.size(1)), (N, N)).coalesce()
    result = fg.inference(model, x, adj, outputs=["convs.0"])
    same(result, (own(model, (x, adj)), {"convs.0": own(model.convs[0], (x, adj))}))


def test_outputs_of_a_method_and_of_a_function() -> None:
    class Encoder(Mine):
        def encode(self, x: Tensor, edge_index: Tensor) -> Tensor:
            return self.lin(self.convs[0](x, edge_index))

    model, (x, edges) = Encoder().eval(), graph()
    first = own(model.convs[0], (x, edges))
    want = own(model.lin, (first,)), {"convs.0": first}
    same(fg.inference(model.encode, x, edges, outputs=["convs.0"]), want)
    conv = model.convs[0]
    engine = fg.compile(lambda x, edge_index: conv(x, edge_index) * 2, outputs=["conv"])
    same(engine(x, edges), (first * 2, {"conv": first}))


def test_outputs_of_transformed_models_and_of_the_own_forward() -> None:
    types = ["a", "b"], [KEY, BACK]
    model, args = to_hetero(GraphSAGE((8, 8), 8, 2, 4), types).eval(), call("hetero")
    name = "convs.0.a__to__b"
    seen = {}
    handle = model.get_submodule(name).register_forward_hook(lambda m, a, out: seen.update(h=copied(out)))
    want = own(model, args)
    handle.remove()
    same(Engine(model, outputs=[name])(*args), (want, {name: seen["h"]}))

    class Stops(Mine):
        def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
            return super().forward(x if x.sum() > 0 else -x, edge_index)

    stops, (x, edges) = Stops().eval(), graph()
    x = x.abs()
    same(
        fg.inference(stops, x, edges, fallback="eager", outputs=["convs.0"]),
        (own(stops, (x, edges)), {"convs.0": own(stops.convs[0], (x, edges))}),
    )


@pytest.mark.parametrize(
    ("outputs", "text"),
    [
        (["conv.0"], r"no submodule of the model. Did you mean 'convs.0'"),
        ("zzz", "There are convs"),
        ([""], "no submodule"),
    ],
)
def test_unknown_outputs_name_what_is_near(outputs: Any, text: str) -> None:
    with pytest.raises(InputError, match=text):
        fg.compile(Mine(), outputs=outputs)
    with pytest.raises(InputError, match=text):
        fg.inference(Mine().eval(), *graph(), outputs=outputs)


def test_a_submodule_that_is_not_called() -> None:
    for _ in range(2):
        with pytest.raises(InputError, match=r"'unused', which Mine\.forward does not call"):
            fg.inference(Mine().eval(), *graph(), outputs=["unused"])
