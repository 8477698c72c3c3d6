"""What a forward reads beside its arguments is changed between two calls: the second call is the model's own again."""

from __future__ import annotations

import argparse
import collections
import dataclasses
import decimal
import enum
import fractions
import functools
import logging
import sys
import threading
import types
import weakref
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch_geometric.data import Data
from torch_geometric.nn import LSTMAggregation, MeanAggregation, MedianAggregation, SAGEConv

import pyg_fullgraph as fg

torch.manual_seed(0)
X, EDGES = torch.randn(30, 8), torch.randint(0, 30, (2, 100))


@dataclasses.dataclass
class Config:
    scale: float
    more: Any = None


@dataclasses.dataclass(frozen=True)
class Frozen:
    scale: float


class Act(enum.Enum):
    RELU = "relu"
    SIGMOID = "sigmoid"


class Slotted:
    __slots__ = ("scale",)

    def __init__(self, scale: float) -> None:
        self.scale = scale


class Scaler:
    shift = 0.0

    def __init__(self, scale: Any) -> None:
        self.scale = scale

    def __call__(self, h: torch.Tensor) -> torch.Tensor:
        return h * self.scale + self.shift

    def apply(self, h: torch.Tensor) -> torch.Tensor:
        return self(h)


Pair = collections.namedtuple("Pair", "scale rest")


class Named(str):
    scale = 1.0


class Net(nn.Module):
    """A layer, and a use of some state."""

    def __init__(self, state: Any, use: Callable[[torch.Tensor, Any], torch.Tensor]) -> None:
        super().__init__()
        self.conv, self.state, self.use = SAGEConv(8, 4), state, use

    def forward(self, x: torch.Tensor, edge_index: torch.Tensor) -> torch.Tensor:
        return self.use(self.conv(x, edge_index), self.state)


def _times(h: torch.Tensor, s: Any) -> torch.Tensor:
    return h * s


def _scale(h: torch.Tensor, s: Any) -> torch.Tensor:
    return h * s.scale


def _call(h: torch.Tensor, s: Any) -> torch.Tensor:
    return s(h)


def _set(name: str, value: Any) -> Callable[[Net], None]:
    return lambda model: setattr(model.state, name, value)


def _replace(value: Any) -> Callable[[Net], None]:
    return lambda model: setattr(model, "state", value)


def _item(key: Any, value: Any) -> Callable[[Net], None]:
    return lambda model: model.state.__setitem__(key, value)


def _linear() -> nn.Module:
    return nn.Linear(4, 4).eval()


def _train(layer: nn.Module) -> None:
    for parameter in layer.parameters():
        parameter.data.add_(1.0)


def _deepest(depth: int) -> Any:
    return 1.0 if depth == 0 else [_deepest(depth - 1)]


def _into(value: Any, depth: int) -> Any:
    return value if depth == 0 else _into(value[0], depth - 1)


def _cyclic() -> dict[str, Any]:
    made: dict[str, Any] = {"scale": 1.0}
    made["self"] = [made]
    return made


CASES: dict[str, tuple[Callable[[], Any], Callable[..., torch.Tensor], Callable[[Net], Any]]] = {
    "Namespace": (lambda: argparse.Namespace(scale=1.0), _scale, _set("scale", 3.0)),
    "Namespace in a list": (
        lambda: [argparse.Namespace(scale=1.0)],
        lambda h, s: h * s[0].scale,
        lambda m: setattr(m.state[0], "scale", 3.0),
    ),
    "SimpleNamespace": (lambda: types.SimpleNamespace(scale=1), _scale, _set("scale", 1.5)),
    "dataclass": (lambda: Config(1.0), _scale, _set("scale", 3.0)),
    "dataclass replaced": (lambda: Config(1.0), _scale, _replace(Config(3.0))),
    "frozen dataclass": (lambda: Frozen(1.0), _scale, _replace(Frozen(3.0))),
    "dataclass of dataclasses": (
        lambda: Config(1.0, Config(1.0)),
        lambda h, s: h * s.more.scale,
        lambda m: setattr(m.state.more, "scale", 3.0),
    ),
    "slots": (lambda: Slotted(1.0), _scale, _set("scale", 3.0)),
    "attributes replaced as a whole": (lambda: Scaler(1.0), _scale, _set("__dict__", {"scale": 3.0})),
    "Enum": (lambda: Act.RELU, lambda h, s: h.relu() if s is Act.RELU else h.sigmoid(), _replace(Act.SIGMOID)),
    "set": (lambda: {"relu"}, lambda h, s: h.relu() if "relu" in s else h, lambda m: m.state.clear()),
    "frozenset": (lambda: frozenset("a"), lambda h, s: h * len(s), _replace(frozenset("ab"))),
    "Fraction": (lambda: fractions.Fraction(1, 2), lambda h, s: h * float(s), _replace(fractions.Fraction(1, 3))),
    "Decimal": (lambda: decimal.Decimal("0.5"), lambda h, s: h * float(s), _replace(decimal.Decimal("0.25"))),
    "range": (lambda: range(2), lambda h, s: h * len(s), _replace(range(3))),
    "NumPy array": (lambda: np.ones(1), lambda h, s: h * float(s[0]), _item(0, 3.0)),
    "NumPy array as a tensor": (lambda: np.ones(4, "f"), lambda h, s: h * torch.from_numpy(s), _item(0, 3.0)),
    "NumPy array in a dict": (
        lambda: {"w": np.ones(4, "f")},
        lambda h, s: h * torch.as_tensor(s["w"]),
        lambda m: m.state["w"].__setitem__(0, 3.0),
    ),
    "large NumPy array": (lambda: np.ones(5000), lambda h, s: h * float(s[-1]), _item(-1, 3.0)),
    "NumPy array of objects": (lambda: np.array([1.0, None]), lambda h, s: h * s[0], _item(0, 3.0)),
    "NumPy number": (lambda: np.float32(1.0), lambda h, s: h * float(s), _replace(np.float32(3.0))),
    "bytearray": (lambda: bytearray(b"\x01"), lambda h, s: h * s[0], _item(0, 3)),
    "number for a truth": (lambda: [True], lambda h, s: h * 2 if s[0] is True else h, _item(0, 1)),
    "minus zero": (lambda: [0.0], lambda h, s: h if str(s[0]) == "0.0" else -h, _item(0, -0.0)),
    "twelve lists deep": (
        lambda: _deepest(12),
        lambda h, s: h * _into(s, 12),
        lambda m: _into(m.state, 11).__setitem__(0, 3.0),
    ),
    "cycle": (_cyclic, lambda h, s: h * s["self"][0]["scale"], _item("scale", 3.0)),
    "key of a dict": (
        lambda: {"a": 1},
        lambda h, s: h if "a" in s else -h,
        lambda m: m.state.update(b=m.state.pop("a")),
    ),
    "OrderedDict": (lambda: collections.OrderedDict(a=1.0), lambda h, s: h * s["a"], _item("a", 3.0)),
    "deque": (lambda: collections.deque([1.0]), lambda h, s: h * s[0], _item(0, 3.0)),
    "long list": (lambda: [1] * 20_000, lambda h, s: h * s[-1], _item(-1, 3)),
    "subclass of str": (lambda: Named("a"), _scale, _set("scale", 3.0)),
    "callable object": (lambda: Scaler(1.0), _call, _set("scale", 3.0)),
    "bound method": (lambda: Scaler(1.0).apply, _call, lambda m: setattr(m.state.__self__, "scale", 3.0)),
    "partial": (
        lambda: functools.partial(_times, s=[1.0]),
        lambda h, s: h * s.keywords["s"][0],
        lambda m: m.state.keywords["s"].__setitem__(0, 3.0),
    ),
    "another function": (lambda: torch.relu, _call, _replace(torch.sigmoid)),
    "another lambda": (lambda: lambda h: h * 2, _call, _replace(lambda h: h * 3)),
    "default of a function": (lambda: lambda h, by=2: h * by, _call, lambda m: setattr(m.state, "__defaults__", (3,))),
    "tensor in a list": (lambda: [torch.ones(())], lambda h, s: h * s[0], lambda m: m.state[0].fill_(3.0)),
    "tensor in a list replaced": (lambda: [torch.ones(4)], lambda h, s: h * s[0], _item(0, torch.full((4,), 3.0))),
    "tensor in a list of another shape": (lambda: [torch.ones(4)], lambda h, s: h * s[0], _item(0, torch.ones(30, 1))),
    "tensor in a tuple": (lambda: (torch.ones(4),), lambda h, s: h * s[0], lambda m: m.state[0].fill_(3.0)),
    "tuple replaced": (lambda: (torch.ones(4),), lambda h, s: h * s[0], _replace((torch.full((4,), 3.0),))),
    "tensor in a named tuple": (lambda: Pair(torch.ones(4), 1), _scale, lambda m: m.state.scale.fill_(3.0)),
    "tensor in an object": (lambda: Scaler(torch.ones(4)), _call, lambda m: m.state.scale.numpy().fill(3.0)),
    "integers in a list": (
        lambda: [torch.tensor([0, 1, 2, 3])],
        lambda h, s: h[:, s[0]],
        lambda m: m.state[0].copy_(torch.tensor([3, 2, 1, 0])),
    ),
    "mask in a dict": (
        lambda: {"m": torch.tensor([True, False, True, True])},
        lambda h, s: h.masked_fill(s["m"], 0.0),
        lambda m: m.state["m"].logical_not_(),
    ),
    "tensor read as a number": (
        lambda: [torch.ones(())],
        lambda h, s: h * float(s[0]),
        lambda m: m.state[0].fill_(3.0),
    ),
    "tensor read as a list": (
        lambda: [torch.ones(2)],
        lambda h, s: h * s[0].tolist()[1],
        lambda m: m.state[0].fill_(3.0),
    ),
    "one tensor in two places": (
        lambda: [torch.ones(4)] * 2,
        lambda h, s: h * s[0] * s[1],
        _item(1, torch.full((4,), 3.0)),
    ),
    "layer in a list": (lambda: [_linear()], lambda h, s: s[0](h), lambda m: _train(m.state[0])),
    "layer in a list replaced": (lambda: [_linear()], lambda h, s: s[0](h), _item(0, _linear())),
    "layer in a tuple": (lambda: (_linear(),), lambda h, s: s[0](h), lambda m: _train(m.state[0])),
    "layer in a dict, loaded": (
        lambda: {"head": _linear()},
        lambda h, s: s["head"](h),
        lambda m: m.state["head"].load_state_dict(_linear().state_dict()),
    ),
    "parameter of a layer in a list replaced": (
        lambda: [_linear()],
        lambda h, s: s[0](h),
        lambda m: setattr(m.state[0], "weight", nn.Parameter(torch.ones(4, 4))),
    ),
    "attribute of a layer in a list": (
        lambda: [nn.LeakyReLU(0.1)],
        lambda h, s: s[0](h),
        lambda m: setattr(m.state[0], "negative_slope", 0.7),
    ),
    "mode of a layer in a list": (
        lambda: [nn.BatchNorm1d(4).eval()],
        lambda h, s: s[0](h),
        lambda m: m.state[0].running_mean.fill_(1.0),
    ),
    "aggregation in a list": (
        lambda: [MedianAggregation(), MeanAggregation()],
        lambda h, s: s[0](h, torch.arange(30) // 3, dim_size=10) if len(s) > 1 else h,
        lambda m: m.state.pop(),
    ),
    "layer with its own state replaced": (
        lambda: LSTMAggregation(4, 4).eval(),
        lambda h, s: s(h, torch.arange(30) // 3, dim_size=10),
        _replace(LSTMAggregation(4, 4).eval()),
    ),
    "what a logger and a lock stand beside": (
        lambda: [logging.getLogger("x"), threading.Lock(), sys.stderr, 1.0],
        lambda h, s: h * s[3],
        _item(3, 3.0),
    ),
    "iterator": (lambda: iter([1.0, 2.0, 3.0] * 9), lambda h, s: h, lambda m: None),
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
@torch.no_grad()
def test_state_of_the_model(case: Any) -> None:
    make, use, change = case
    model = Net(make(), use).eval()
    engine = fg.compile(model, verify="off")
    torch.testing.assert_close(engine(X, EDGES), model(X, EDGES))
    change(model)
    torch.testing.assert_close(engine(X, EDGES), model(X, EDGES))


# Outside of the model -------------------------------------------------------------------------------------------

SCALE, SHIFT, SETTINGS = 2.0, torch.tensor(2.0), {"power": [1.0]}
LAYER = nn.Linear(4, 4).eval()
config = types.ModuleType("config")
config.factor = 1.0  # type: ignore[attr-defined]


def _helper(h: torch.Tensor) -> torch.Tensor:
    return _inner(h) * SETTINGS["power"][0]


def _inner(h: torch.Tensor) -> torch.Tensor:
    return h * SCALE * config.factor  # type: ignore[attr-defined]


def _other(h: torch.Tensor) -> torch.Tensor:
    return h - 1.0


class Outside(nn.Module):
    factor = 2.0
    table: dict[str, float] = {"a": 1.0}  # noqa: RUF012

    def __init__(self) -> None:
        super().__init__()
        self.conv = SAGEConv(8, 4)
        extra = 1.0

        def closed(h: torch.Tensor) -> torch.Tensor:
            return h * extra

        def close(value: float) -> None:
            nonlocal extra
            extra = value

        self.closed, self.close = closed, close

    @property
    def offset(self) -> float:
        return self.factor * 2

    @staticmethod
    def fixed(h: torch.Tensor) -> torch.Tensor:
        return h * 1.5

    def scaled(self, h: torch.Tensor) -> torch.Tensor:
        return _helper(h) * self.factor * self.table["a"]

    def forward(self, x: torch.Tensor, edge_index: torch.Tensor) -> torch.Tensor:
        h = self.fixed(self.closed(self.scaled(self.conv(x, edge_index)))) + self.offset
        return LAYER(h) + SHIFT * torch.ones(4)


def _hooked(patch: pytest.MonkeyPatch, model: Outside) -> None:
    hooks = dict(nn.modules.module._global_forward_hooks)
    handle = nn.modules.module.register_module_forward_hook(lambda m, i, o: o * 2 if isinstance(m, SAGEConv) else None)
    found = dict(nn.modules.module._global_forward_hooks)
    handle.remove()
    assert not hooks and found
    for key, hook in found.items():
        patch.setitem(nn.modules.module._global_forward_hooks, key, hook)


HERE = sys.modules[__name__]
OUTSIDE: dict[str, Callable[[pytest.MonkeyPatch, Outside], object]] = {
    "class attribute": lambda p, m: p.setattr(Outside, "factor", 5.0),
    "class attribute shadowed": lambda p, m: setattr(m, "factor", 5.0),
    "class attribute, a dict": lambda p, m: p.setitem(Outside.table, "a", 5.0),
    "global number": lambda p, m: p.setattr(HERE, "SCALE", 7.0),
    "global in a list in a dict": lambda p, m: p.setitem(SETTINGS, "power", [4.0]),
    "global tensor replaced": lambda p, m: p.setattr(HERE, "SHIFT", torch.tensor(9.0)),
    "global layer trained": lambda p, m: p.setattr(LAYER.weight, "data", LAYER.weight.data + 1),
    "global layer replaced": lambda p, m: p.setattr(HERE, "LAYER", nn.Linear(4, 4).eval()),
    "attribute of a global module": lambda p, m: p.setattr(config, "factor", 3.0),
    "helper function": lambda p, m: p.setattr(HERE, "_inner", _other),
    "a builtin hidden": lambda p, m: p.setattr(HERE, "getattr", getattr, raising=False),
    "variable of the enclosing function": lambda p, m: m.close(4.0),
    "method of the class": lambda p, m: p.setattr(Outside, "scaled", lambda self, h: h),
    "static method": lambda p, m: p.setattr(Outside, "fixed", staticmethod(_other)),
    "property": lambda p, m: p.setattr(Outside, "offset", property(lambda self: 11.0)),
    "forward of the class": lambda p, m: p.setattr(
        Outside, "forward", lambda self, x, edge_index: self.conv(x, edge_index)
    ),
    "forward of the object": lambda p, m: setattr(m, "forward", lambda x, edge_index: m.conv(x, edge_index)),
    "forward of a layer of PyG": lambda p, m: p.setattr(SAGEConv, "forward", lambda self, x, edge_index: self.lin_l(x)),
    "message of a layer of PyG": lambda p, m: p.setattr(SAGEConv, "message", lambda self, x_j: x_j * 2),
    "forward of a layer of torch": lambda p, m: p.setattr(nn.Linear, "forward", lambda self, x: x @ self.weight.t()),
    "another class": lambda p, m: setattr(m, "__class__", type("Sub", (Outside,), {"factor": 6.0})),
    "hook on all modules": _hooked,
    "hook on a layer": lambda p, m: m.conv.register_forward_hook(lambda module, args, out: out * 2),
}


@torch.no_grad()
def test_what_lies_outside_of_the_model() -> None:
    """One model and one engine; each change is undone before the next."""
    model = Outside().eval()
    engine = fg.compile(model, verify="off")
    torch.testing.assert_close(engine(X, EDGES), model(X, EDGES))
    for name, change in OUTSIDE.items():
        with pytest.MonkeyPatch.context() as patch:
            change(patch, model)
            got, expected = engine(X, EDGES), model(X, EDGES)
        torch.testing.assert_close(got, expected, msg=lambda text, name=name: f"{name}: {text}")  # type: ignore[misc]
        vars(model).pop("factor", None), vars(model).pop("forward", None), model.conv._forward_hooks.clear()
        model.__class__ = Outside
        model.close(1.0)


@torch.no_grad()
def test_global_tensor_in_place_makes_no_new_trace() -> None:
    model = Outside().eval()
    engine = fg.compile(model, verify="off")
    engine(X, EDGES)
    for value in (9.0, 2.0):
        SHIFT.fill_(value)
        torch.testing.assert_close(engine(X, EDGES), model(X, EDGES))
    assert len(engine._captured) == 1


@torch.no_grad()
def test_default_dtype() -> None:
    class Model(nn.Module):
        def forward(self, x: torch.Tensor, edge_index: torch.Tensor) -> torch.Tensor:
            return torch.zeros(x.size(0), 2).index_add(0, edge_index[1], torch.ones(edge_index.size(1), 2))

    engine = fg.compile(Model().eval(), verify="off")
    assert engine(X, EDGES).dtype == torch.float32
    torch.set_default_dtype(torch.float64)
    try:
        assert engine(X, EDGES).dtype == torch.float64
    finally:
        torch.set_default_dtype(torch.float32)


class Counting(nn.Module):
    """Attributes that training changes and forward does not read."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.step, self.history, self.scales = SAGEConv(8, 4), 0, [], [torch.ones(4)]
        self.optimizer = torch.optim.Adam(self.parameters())

    def forward(self, x: torch.Tensor, edge_index: torch.Tensor) -> torch.Tensor:
        return self.conv(x, edge_index) * self.scales[0]


@torch.no_grad()
def test_what_forward_does_not_read_makes_no_new_trace() -> None:
    model = Counting().eval()
    engine = fg.compile(model, verify="off")
    for step in range(4):
        torch.testing.assert_close(engine(X, EDGES), model(X, EDGES))
        model.step = step
        model.history.append(torch.ones(step))
        model.scales[0] = torch.full((4,), float(step))
        model.conv.lin_l.weight.add_(0.1)
    (only,) = engine._captured.values()
    assert only is not None and engine.notes == []


@torch.no_grad()
def test_what_cannot_be_compared_is_traced_anew_and_told_once() -> None:
    model = Net((i * 1.0 for i in range(1, 9)), lambda h, s: h * next(s)).eval()
    engine = fg.compile(model, verify="off")
    first = engine(X, EDGES)
    torch.testing.assert_close(engine(X, EDGES), first * 2)
    torch.testing.assert_close(engine(X, EDGES), first * 3)
    assert [note for note in engine.notes if "'state'" in note and "at each call" in note] == engine.notes
    assert len(engine._captured) == 1


CALLS = {"count": 0}


class Moving(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = SAGEConv(8, 4)

    def forward(self, x: torch.Tensor, edge_index: torch.Tensor) -> torch.Tensor:
        CALLS["count"] += 1
        return self.conv(x, edge_index) * CALLS["count"]


@torch.no_grad()
def test_a_forward_that_changes_what_it_reads() -> None:
    model = Moving().eval()
    engine = fg.compile(model, verify="off")
    CALLS["count"] = 0
    first = engine(X, EDGES)
    torch.testing.assert_close(engine(X, EDGES), first * 2)
    assert any("CALLS" in note for note in engine.notes)


MEMO: dict[str, torch.Tensor] = {}


class Memoising(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = SAGEConv(8, 4)

    def forward(self, x: torch.Tensor, edge_index: torch.Tensor) -> torch.Tensor:
        if "h" not in MEMO:
            MEMO["h"] = self.conv(x, edge_index)
        return MEMO["h"] * 2


@torch.no_grad()
def test_nothing_of_a_trace_stays_in_global_containers() -> None:
    model = Memoising().eval()
    engine = fg.compile(model, verify="off")
    got = engine(X, EDGES)
    assert not MEMO
    torch.testing.assert_close(got, model(X, EDGES))
    MEMO.clear()


@torch.no_grad()
def test_old_states_are_forgotten() -> None:
    model = Net([1.0], lambda h, s: h * s[0]).eval()
    engine = fg.compile(model, verify="off")
    for value in range(12):
        model.state[0] = float(value)
        torch.testing.assert_close(engine(X, EDGES), model(X, EDGES))
    assert len(engine._captured) <= 9


class Child(nn.Module):
    def __init__(self, parent: nn.Module) -> None:
        super().__init__()
        self.parent = weakref.ref(parent)

    def forward(self, h: torch.Tensor) -> torch.Tensor:
        return h * self.parent().scale


class Roundabout(nn.Module):
    """Reads its attributes by other ways than `self.name`."""

    by = 1.0

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.scale, self.part1, self.part2 = SAGEConv(8, 4), 1.0, 1.0, 1.0
        self.child, self._hidden = Child(self), {"late": 1.0}

    def __getattr__(self, name: str) -> Any:
        return self.__dict__["_hidden"]["late"] if name == "late" else super().__getattr__(name)

    @classmethod
    def scaled(cls, h: torch.Tensor) -> torch.Tensor:
        return h * cls.by

    def forward(self, x: torch.Tensor, edge_index: torch.Tensor) -> torch.Tensor:
        h = self.child(self.conv(x, edge_index)) * vars(self)["part2"] * self.late
        return self.scaled(h * getattr(self, f"part{1}"))


class Derived(Roundabout):
    @torch.no_grad()
    def forward(self, x: torch.Tensor, edge_index: torch.Tensor) -> torch.Tensor:
        return super().forward(x, edge_index) * SCALE


def _plain_forward(self: Roundabout, x: torch.Tensor, edge_index: torch.Tensor) -> torch.Tensor:
    return self.conv(x, edge_index)


ROUNDABOUT: dict[str, Callable[[pytest.MonkeyPatch, Roundabout], object]] = {
    "weak reference": lambda p, m: p.setattr(m, "scale", 3.0),
    "getattr": lambda p, m: p.setattr(m, "part1", 3.0),
    "vars": lambda p, m: p.setattr(m, "part2", 3.0),
    "__getattr__": lambda p, m: p.setitem(m._hidden, "late", 3.0),
    "classmethod": lambda p, m: p.setattr(Roundabout, "by", 3.0),
    "global of a decorated method": lambda p, m: p.setattr(HERE, "SCALE", 5.0),
    "method of the base": lambda p, m: p.setattr(Roundabout, "forward", _plain_forward),
}


@torch.no_grad()
def test_other_ways_to_an_attribute() -> None:
    model = Derived().eval()
    engine = fg.compile(model, verify="off")
    torch.testing.assert_close(engine(X, EDGES), model(X, EDGES))
    for name, change in ROUNDABOUT.items():
        with pytest.MonkeyPatch.context() as patch:
            change(patch, model)
            got, expected = engine(X, EDGES), model(X, EDGES)
        torch.testing.assert_close(got, expected, msg=lambda text, name=name: f"{name}: {text}")  # type: ignore[misc]


class Graphs(nn.Module):
    """A graph of its own, as transductive models keep it."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.data = SAGEConv(8, 8), Data(x=X.clone(), edge_index=EDGES.clone())

    def forward(self, x: torch.Tensor, edge_index: torch.Tensor) -> torch.Tensor:
        return self.conv(self.data.x, self.data.edge_index) + x


@pytest.mark.parametrize(
    "change",
    [
        lambda m: m.data.x.add_(1.0),
        lambda m: m.data.edge_index.numpy().__setitem__(0, EDGES.numpy()[1]),
        lambda m: setattr(m, "data", Data(x=X * 2, edge_index=EDGES[:, :50].flip(0))),
    ],
    ids=["features in place", "edges in place", "replaced"],
)
@torch.no_grad()
def test_a_graph_that_the_model_keeps(change: Callable[[Graphs], object]) -> None:
    model = Graphs().eval()
    engine = fg.compile(model)
    torch.testing.assert_close(engine(X, EDGES), model(X, EDGES))
    change(model)
    torch.testing.assert_close(engine(X, EDGES), model(X, EDGES))
