"""Nothing of a call is alive when it has returned or failed, with Python's cycle collector switched off."""

from __future__ import annotations

import _thread
import ast
import copy
import gc
import signal
import threading
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch_geometric.data import Data
from torch_geometric.nn import (
    GAT,
    GCN,
    PNA,
    EdgeCNN,
    GraphSAGE,
    HGTConv,
    MessagePassing,
    RGCNConv,
)

import pyg_fullgraph as fg
from pyg_fullgraph.errors import CaptureError, GraphError
from pyg_fullgraph.runtime.progress import Progress

N, E, F = 60, 240, 6
KINDS = ["a", "b"]
RELATIONS = [("a", "to", "b"), ("b", "to", "a"), ("a", "next", "a")]


class Relations(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = RGCNConv(F, 8, 3), RGCNConv(8, 4, 3)

    def forward(self, x: Tensor, edge_index: Tensor, edge_type: Tensor) -> Tensor:
        return self.second(self.first(x, edge_index, edge_type).relu(), edge_index, edge_type)


class Typed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = HGTConv(F, 8, (KINDS, RELATIONS), heads=2)

    def forward(self, x_dict: dict[str, Tensor], edge_index_dict: dict[Any, Tensor]) -> dict[str, Tensor]:
        return self.conv(x_dict, edge_index_dict)


def edges(num_src: int = N, num_dst: int = N, count: int = E) -> Tensor:
    return torch.stack([torch.randint(0, num_src, (count,)), torch.randint(0, num_dst, (count,))])


def pna() -> nn.Module:
    scalers = ["identity", "amplification"]
    return PNA(F, 8, 2, 4, aggregators=["mean", "std", "max"], scalers=scalers, deg=torch.tensor([0, 10, 20, 30]))


def plain() -> tuple[Any, ...]:
    return torch.randn(N, F), edges()


MODELS: dict[str, tuple[Callable[[], nn.Module], Callable[[], tuple[Any, ...]]]] = {
    "sage": (lambda: GraphSAGE(F, 8, 2, 4), plain),
    "gcn": (lambda: GCN(F, 8, 2, 4), plain),
    "gat": (lambda: GAT(F, 8, 2, 4, heads=2), plain),
    "pna": (pna, plain),
    "edgecnn": (lambda: EdgeCNN(F, 8, 2, 4), plain),
    "norms": (lambda: GCN(F, 8, 3, 4, norm="graph_norm", jk="cat"), plain),
    "rgcn": (Relations, lambda: (*plain(), torch.randint(0, 3, (E,)))),
    "hgt": (
        Typed,
        lambda: (
            {kind: torch.randn(N, F) for kind in KINDS},
            {relation: edges() for relation in RELATIONS},
        ),
    ),
}


def alive() -> dict[int, Any]:
    """Every tensor of this process that Python knows, fake ones too."""
    return {id(found): found for found in gc.get_objects() if issubclass(type(found), Tensor)}


@contextmanager
def nothing_left(more: int = 0) -> Iterator[None]:
    """Asserts that a block makes no more tensors than it lets go of, without the collector."""
    gc.collect()
    gc.disable()
    try:
        before = len(alive())
        yield
        left = len(alive()) - before
    finally:
        gc.enable()
    assert left <= more, f"{left} tensors are left"


@pytest.mark.parametrize("name", MODELS)
def test_no_call_leaves_a_tensor_behind(name: str) -> None:
    build, inputs = MODELS[name]
    engine, arguments = fg.Engine(build().eval(), verify="off"), inputs()
    result = engine(*arguments)
    ways: list[tuple[dict[str, Any], dict[str, Any]]] = [
        ({}, {}),
        ({"home": "mapped"}, {}),
        ({"threads": 2}, {}),
        ({"verify": "always"}, {}),
    ]
    if isinstance(result, Tensor):
        few = torch.tensor([5, 3])
        ways += [({}, {"nodes": few}), ({}, {"out": torch.empty_like(result)}), ({"order": "rcm"}, {})]
    for options, call in ways:
        vars(engine).update({"home": "memory", "threads": 1, "verify": "off", "order": None, **options})
        engine(*arguments, **call)
        engine.verification = None
        with nothing_left(more=4 if options.get("verify") else 0):  # what was verified, and how
            for _ in range(3):
                engine(*arguments, **call)


@pytest.mark.parametrize("name", ["sage", "norms", "hgt"])
def test_the_first_call_keeps_no_tensor_of_the_user_and_no_result(name: str) -> None:
    build, inputs = MODELS[name]
    engine, arguments = fg.Engine(build().eval()), inputs()
    gc.collect()
    gc.disable()
    try:
        result = engine(*arguments)
        leaves = [*torch.utils._pytree.tree_leaves(arguments), *torch.utils._pytree.tree_leaves(result)]
        watched = [weakref.ref(leaf) for leaf in leaves]
        model = weakref.ref(engine.model)
        del arguments, result, leaves
        assert [ref() for ref in watched] == [None] * len(watched)
        del engine
        assert model() is None
    finally:
        gc.enable()


@pytest.mark.parametrize("way", ["inference", "loader", "accelerate", "patch", "function", "graph"])
def test_no_entrance_leaves_a_tensor_behind(way: str) -> None:
    model, (x, edge_index) = GraphSAGE(F, 8, 2, 4).eval(), plain()
    data = Data(x=x, edge_index=edge_index)
    fast = fg.accelerate(copy.deepcopy(model))
    patched = fg.nn.patch(copy.deepcopy(model))
    graph = fg.Graph(edge_index, N)
    mean = fg.compile(lambda g, h: g.mean(g.src(h)))
    ways: dict[str, Callable[[], Any]] = {
        "inference": lambda: fg.inference(model, x, edge_index),
        "loader": lambda: fg.inference(model, data, nodes=torch.tensor([1, 2])),
        "accelerate": lambda: fast.inference(data),
        "patch": lambda: patched(x, edge_index),
        "function": lambda: mean(graph, x),
        "graph": lambda: graph.sum(graph.softmax(graph.src(x))) + graph.std(graph.dst(x)),
    }
    with torch.no_grad():
        ways[way]()
        with nothing_left():
            for _ in range(3):
                ways[way]()


def test_no_function_holds_itself() -> None:
    """A nested function that calls itself by name is a cycle, which keeps all that it refers to."""
    found = []
    for file in sorted(Path(fg.__file__).parent.rglob("*.py")):
        for outer in ast.walk(ast.parse(file.read_text())):
            if not isinstance(outer, ast.FunctionDef):
                continue
            for inner in ast.walk(outer):
                names = {node.id for node in ast.walk(inner) if isinstance(node, ast.Name)}
                if inner is not outer and isinstance(inner, ast.FunctionDef) and inner.name in names:
                    found.append(f"{file.name}:{inner.lineno} {inner.name}")
    assert found == [], "make them functions of the module"


LARGE = 30_000  # nodes, so that a superstep has several blocks


def large() -> tuple[Tensor, Tensor]:
    return torch.randn(LARGE, F), edges(LARGE, LARGE, 4 * LARGE)


def failing(when: str) -> Callable[[Progress, int], None]:
    """What is called after each block, and fails at the third, or on another thread than this one."""
    main, count, helped = threading.get_ident(), 0, threading.Event()

    def rows(self: Progress, number: int) -> None:
        nonlocal count
        count += 1
        if when == "interrupt" and count == 3:
            _thread.interrupt_main()
        if when == "error on a helper":
            if threading.get_ident() == main:
                helped.wait(20)  # on a busy machine this thread would else do all blocks before the helper wakes up
                return
            helped.set()
        if when == "error on a helper" or (when == "error" and count == 3):
            raise ZeroDivisionError("of the test")

    return rows


def resident() -> float:
    """MiB of this process in memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096 / 2**20


@pytest.mark.parametrize("name", ["sage", "norms"])
def test_an_error_that_is_kept_keeps_no_table_and_memory_does_not_grow(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine, arguments = fg.Engine(MODELS[name][0]().eval(), verify="off", threads=2), large()
    expected, kept = engine(*arguments), []
    before_test = signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in the background ignores it
    for when in ("error", "error on a helper", "interrupt"):
        monkeypatch.setattr(Progress, "rows", failing(when))
        with nothing_left():
            try:
                engine(*arguments)
            except (ZeroDivisionError, KeyboardInterrupt) as error:
                kept.append(error)
        monkeypatch.undo()
        assert torch.equal(engine(*arguments), expected)
    signal.signal(signal.SIGINT, before_test)
    assert [type(error) for error in kept] == [ZeroDivisionError, ZeroDivisionError, KeyboardInterrupt]
    if not Path("/proc/self/statm").exists():
        return
    gc.disable()
    try:
        for _ in range(20):  # the heap takes its shape
            engine(*arguments)
        before, table = resident(), LARGE * F * 4 / 2**20
        for _ in range(20):
            engine(*arguments)
        assert resident() - before < 20 * table / 4  # one table left by every call would be four times that
    finally:
        gc.enable()


def test_a_refused_graph_or_result_is_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    engine, (x, edge_index) = fg.Engine(GCN(F, 8, 2, 4).eval(), verify="always"), plain()
    engine(x, edge_index)
    engine.verification = None
    refused, graphs = [], (edge_index + N, edge_index - N)
    with nothing_left():
        for graph in graphs:
            with pytest.raises(GraphError) as error:
                engine(x, graph)
            refused.append(error.value)
    monkeypatch.setattr("pyg_fullgraph.engine.compared", None)  # fails with the result at hand
    with nothing_left(), pytest.raises(TypeError) as unverified:
        engine(x, edge_index)
    assert unverified.value is not None


class Refused(MessagePassing):
    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        out = self.propagate(edge_index, x=x)
        return out[: int(out.abs().sum() * 3)]

    def message(self, x_j: Tensor) -> Tensor:
        return x_j


def test_a_model_that_is_refused_is_not_kept() -> None:
    arguments = plain()
    fg.Engine(GCN(F, 8, 2, 4).eval())(*arguments)
    gc.collect()
    gc.disable()
    try:
        engine = fg.Engine(Refused().eval())
        watched, model = weakref.ref(arguments[0]), weakref.ref(engine.model)
        with pytest.raises(CaptureError):
            engine(*arguments)
        del arguments, engine
        assert watched() is None
        assert model() is None
    finally:
        gc.enable()
