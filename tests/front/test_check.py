"""Verification by the engine: refused is refused again, interrupted is not done, masks and lists are checked, notes."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch_geometric.nn import GAT, GCN, GraphSAGE, HeteroConv, RGCNConv, SAGEConv

import pyg_fullgraph as fg
import pyg_fullgraph.engine as engine_module
import pyg_fullgraph.front.check as check_module
from pyg_fullgraph.engine import Engine
from pyg_fullgraph.errors import FullGraphMismatch
from pyg_fullgraph.front.attempts import NO_ROWS, Verification
from pyg_fullgraph.front.check import Check

N, E = 60, 200


def graph(nodes: int = N, edges: int = E) -> tuple[Tensor, Tensor]:
    return torch.randn(nodes, 8), torch.randint(0, nodes, (2, edges))


def close(got: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(got, expected.detach(), rtol=0, atol=1e-5 * float(expected.abs().max()))


@pytest.fixture
def wrong(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """Until it is undone every program gives one and a half times what it should."""
    original = Engine._run

    def run(self: Engine, *args: Any) -> Any:
        return torch.utils._pytree.tree_map(lambda leaf: leaf * 1.5, original(self, *args))

    monkeypatch.setattr(Engine, "_run", run)
    return monkeypatch


CALLS: dict[str, Callable[[torch.nn.Module, Tensor, Tensor, Engine], Any]] = {
    "engine": lambda model, x, e, engine: engine(x, e),
    "always": lambda model, x, e, engine: engine(x, e),
    "ids": lambda model, x, e, engine: engine(x, e, nodes=torch.tensor([3, 3, 7])),
    "mask": lambda model, x, e, engine: engine(x, e, nodes=torch.arange(N) < 5),
    "order": lambda model, x, e, engine: engine(x, e),
    "inference": lambda model, x, e, engine: fg.inference(model, x, e),
    "inference, nodes": lambda model, x, e, engine: fg.inference(model, x, e, nodes=[1, 2]),
    "accelerate": lambda model, x, e, engine: model.inference(x, e),
}


@pytest.mark.parametrize("name", CALLS)
def test_refused_is_refused_again(name: str, wrong: pytest.MonkeyPatch) -> None:
    model, (x, edges) = SAGEConv(8, 4).eval(), graph()
    fg.accelerate(model)
    engine = Engine(model, order="rcm" if name == "order" else None, verify=name if name == "always" else "auto")
    for _ in range(3):
        with pytest.raises(FullGraphMismatch):
            CALLS[name](model, x, edges, engine)
    assert engine.verification is None


def test_refused_hetero_and_typed_models_are_refused_again(wrong: pytest.MonkeyPatch) -> None:
    (x, edges), key = graph(), ("a", "to", "a")
    for model, args in (
        (RGCNConv(8, 4, 3), (x, edges, torch.randint(0, 3, (E,)))),
        (HeteroConv({key: SAGEConv(8, 4)}), ({"a": x}, {key: edges})),
    ):
        engine = Engine(model.eval())
        for _ in range(2):
            with pytest.raises(FullGraphMismatch):
                engine(*args)


def test_out_is_not_filled_with_a_refused_result(wrong: pytest.MonkeyPatch) -> None:
    x, edges = graph()
    out = torch.full((N, 4), 7.0)
    engine = Engine(SAGEConv(8, 4).eval())
    for _ in range(2):
        with pytest.raises(FullGraphMismatch):
            engine(x, edges, out=out)
    assert bool((out == 7).all())


def test_a_refusal_is_over_once_a_check_passes(wrong: pytest.MonkeyPatch) -> None:
    model, (x, edges) = SAGEConv(8, 4).eval(), graph()
    engine = Engine(model)
    with pytest.raises(FullGraphMismatch):
        engine(x, edges)
    wrong.undo()
    close(engine(x, edges), model(x, edges))
    assert engine.verification is not None and engine.verification.how == "neighbourhood"
    close(engine(x, edges), model(x, edges))


def test_each_signature_has_its_own_check() -> None:
    model, (x, edges) = GCN(8, 8, 2, 3).eval(), graph()
    engine, found = Engine(model), []
    for args in ((x, edges), (x, edges, torch.rand(E)), (x, edges), (x, edges, torch.rand(E))):
        close(engine(*args), model(*args))
        found.append(engine.verification)
    assert found[0] is not None and found[1] is not None and found[0] is not found[1]
    assert found[2] is found[1] and found[3] is found[1]


def test_a_refusal_by_always_counts_for_auto(monkeypatch: pytest.MonkeyPatch) -> None:
    model, (x, edges) = GraphSAGE(8, 8, 2, 3).eval(), graph()
    engine = Engine(model, verify="always")
    engine(x, edges)
    original = Engine._run
    monkeypatch.setattr(Engine, "_run", lambda self, *args: original(self, *args) + 0.1)
    with pytest.raises(FullGraphMismatch):
        engine(x, edges)
    engine.verify = "auto"
    with pytest.raises(FullGraphMismatch):
        engine(x, edges)
    monkeypatch.undo()
    close(engine(x, edges), model(x, edges))


@pytest.mark.parametrize("interrupt", [KeyboardInterrupt, MemoryError], ids=["control-C", "memory"])
def test_an_interrupted_check_is_not_done(interrupt: type[BaseException], monkeypatch: pytest.MonkeyPatch) -> None:
    model, (x, edges) = GAT(8, 8, 2, 3, heads=2).eval(), graph()
    engine = Engine(model)

    def stopped(*args: Any, **kwargs: Any) -> Any:
        raise interrupt

    monkeypatch.setattr(check_module, "verify", stopped)
    with pytest.raises(interrupt):
        engine(x, edges)
    monkeypatch.undo()
    assert engine.verification is None
    close(engine(x, edges), model(x, edges))
    assert engine.verification is not None


@pytest.mark.parametrize(
    "nodes",
    [
        pytest.param(torch.arange(N) % 3 == 0, id="mask"),
        pytest.param(torch.tensor([N - 1, 3, 3]), id="numbers"),
        pytest.param(torch.tensor([5], dtype=torch.int32), id="int32"),
    ],
)
@pytest.mark.parametrize(
    "build", [lambda: GCN(8, 8, 2, 3), lambda: GraphSAGE(8, 8, 2, 3, norm="graph_norm")], ids=["GCN", "wide"]
)
def test_rows_asked_for_are_checked_at_the_first_call(build: Any, nodes: Tensor) -> None:
    model, (x, edges) = build().eval(), graph()
    engine = Engine(model)
    close(engine(x, edges, nodes=nodes), model(x, edges)[nodes if nodes.dtype == torch.bool else nodes.long()])
    assert engine.verification is not None and engine.verification.how != "none"


def test_no_rows_leave_the_check_for_the_next_call() -> None:
    model, (x, edges) = GCN(8, 8, 2, 3).eval(), graph()
    engine = Engine(model)
    engine(x, edges, nodes=torch.zeros(N, dtype=torch.bool))
    assert engine.verification is not None and engine.verification.how == "none"
    engine(x, edges)
    assert engine.verification.how == "neighbourhood" and not engine.notes


class Picky(torch.nn.Module):
    """Its forward fails on all but the very graph."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = SAGEConv(8, 4)

    def forward(self, x: Tensor, edges: Tensor) -> Tensor:
        if not (isinstance(edges.size(1), torch.SymInt) or edges.size(1) == E):
            raise RuntimeError("not my graph")  # an assertion would be pytest's, and read pytest's state
        return self.conv(x, edges)


def test_a_forward_that_fails_on_parts_is_checked_on_the_whole() -> None:
    model, (x, edges) = Picky().eval(), graph()
    engine = Engine(model)
    close(engine(x, edges), model(x, edges))
    assert engine.verification is not None and engine.verification.how == "whole"


def test_what_could_not_be_verified_is_noted_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(check_module, "verify", functools.partial(check_module.verify, budget=10))
    model, (x, edges) = Picky().eval(), graph()
    with caplog.at_level(logging.INFO, "pyg_fullgraph"):
        for _ in range(5):
            close(fg.inference(model, x, edges), model(x, edges))
    told = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert len(told) == 1 and "not verified" in told[0] and "not my graph" in told[0] and "Picky" in told[0]


def test_a_note_of_a_refused_call_is_told(caplog: pytest.LogCaptureFixture, wrong: pytest.MonkeyPatch) -> None:
    model, (x, edges) = SAGEConv(8, 4).eval(), graph()
    wrong.setattr(engine_module, "whole_notes", lambda *args, **kwargs: ["this costs much"])
    with caplog.at_level(logging.WARNING, "pyg_fullgraph"):
        with pytest.raises(FullGraphMismatch):
            fg.inference(model, x, edges)
        wrong.undo()
        fg.inference(model, x, edges)
    assert [record.getMessage() for record in caplog.records].count("SAGEConv: this costs much") == 1


def test_nothing_found_is_tried_again_ever_more_seldom() -> None:
    check, none = Check(), Verification("none", reason="a reason")
    tried = []
    for call in range(1, 17):
        if check.due("auto"):
            tried.append(call)
            assert check.run(lambda: none) is none
    assert tried == [1, 2, 4, 8, 16]
    assert check.due("always") and not check.due("off")
    assert check.note(none) and not check.note(Verification("none", reason=NO_ROWS))
    check.run(lambda: Verification("whole", 3))
    assert check.passed and not check.due("auto")
