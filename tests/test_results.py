"""What a forward returns comes back as what it was, by every way to run it."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch_geometric.nn import GAT, GCN, GraphSAGE, HeteroConv, RGCNConv, SAGEConv

import pyg_fullgraph as fg
from pyg_fullgraph.capture.returned import paths_of
from pyg_fullgraph.engine import Engine
from pyg_fullgraph.errors import CaptureError
from tests.capture.test_returned import Frozen, Items, Keyed, Output, Pair, Slotted, Typed

N, E = 40, 160


class Net(torch.nn.Module):
    def __init__(self, inner: torch.nn.Module, finish: Callable[[Any], Any]) -> None:
        super().__init__()
        self.inner, self.finish = inner, finish

    def forward(self, x: Any, edge_index: Any, edge_type: Tensor | None = None) -> Any:
        more = () if edge_type is None else (edge_type,)
        return self.finish(self.inner(x, edge_index, *more))


FINISHES: dict[str, Callable[[Tensor], Any]] = {
    "dataclass": lambda h: Frozen(h, 5, {"more": h.relu()}),
    "slots": lambda h: Slotted(h, [h.sum(dim=0)]),
    "output": lambda h: Output(h, h.relu()),
    "namedtuple": lambda h: Pair(h, (h.relu(), None)),
    "NamedTuple": lambda h: Typed(h, 7),
    "max": lambda h: h.max(dim=1),
    "sort": lambda h: h.sort(dim=1, descending=True),
    "topk": lambda h: h.topk(2, dim=-1),
    "median": lambda h: h.median(dim=1),
    "ordered": lambda h: OrderedDict(z=h, a=h.relu()),
    "classes": lambda h: Items([Keyed({"h": h})]),
    "nested": lambda h: {"a": Frozen(h), "b": [h.max(dim=1), h.shape[1], "text"]},
}
MODELS = {
    "GCN": lambda: GCN(8, 8, 2, 4),
    "SAGE": lambda: GraphSAGE(8, 8, 2, 4),
    "GAT": lambda: GAT(8, 8, 2, 4, heads=2),
    "RGCN": lambda: RGCNConv(8, 4, 3),
}


def call(name: str) -> tuple[Any, ...]:
    args = (torch.randn(N, 8), torch.randint(0, N, (2, E)))
    return (*args, torch.randint(0, 3, (E,))) if name == "RGCN" else args


def same(got: Any, want: Any) -> None:
    """Of the same classes, with the same names and values."""
    assert type(got) is type(want)
    found, expected = paths_of(got), paths_of(want)
    assert [path for path, _ in found] == [path for path, _ in expected]
    for (_, a), (_, b) in zip(found, expected, strict=True):
        if isinstance(b, Tensor):
            torch.testing.assert_close(a, b.detach(), rtol=0, atol=1e-5 * float(b.detach().abs().max()))
        else:
            assert type(a) is type(b) and a == b


@pytest.mark.parametrize("number", range(len(FINISHES)), ids=list(FINISHES))
def test_results_of_every_kind(number: int) -> None:
    name = list(MODELS)[number % len(MODELS)]
    model, args = Net(MODELS[name](), list(FINISHES.values())[number]).eval(), call(name)
    want, engine = model(*args), Engine(model, verify="always")
    same(engine(*args), want)
    assert engine.verification is not None and engine.verification.how != "none"
    other = call(name)  # another graph, the same program
    same(engine(*other), model(*other))


@pytest.mark.parametrize("name", ["dataclass", "max", "output"])
def test_by_every_way(name: str, tmp_path: Path) -> None:
    model, (x, edges) = Net(GCN(8, 8, 2, 4), FINISHES[name]).eval(), call("GCN")
    want = model(x, edges)
    same(fg.inference(model, x, edges, embedding_device="cpu", out=tmp_path / "out.pt"), want)
    same(torch.load(tmp_path / "out.pt", weights_only=False), want)
    same(fg.accelerate(model).inference(x, edges), want)
    same(Engine(model, order="rcm")(x, edges), want)


def test_rows_of_nodes() -> None:
    model, (x, edges) = Net(GCN(8, 8, 2, 4), lambda h: Frozen(h, 5, {"more": h.max(dim=1)})).eval(), call("GCN")
    nodes, want = torch.tensor([3, 39, 3]), model(x, edges)
    part = Frozen(want.logits[nodes], 5, {"more": torch.return_types.max([t[nodes] for t in want.more["more"]])})
    object.__setattr__(part, "derived", want.derived[nodes])
    same(Engine(model)(x, edges, nodes=nodes), part)


def test_own_forward_by_fallback() -> None:
    model, (x, edges) = Net(GCN(8, 8, 2, 4), lambda h: Frozen(h if h.sum() > 0 else -h)).eval(), call("GCN")
    same(fg.inference(model, x, edges, fallback="eager"), model(x, edges))
    nodes = torch.tensor([3, 5])
    part = fg.inference(model, x, edges, fallback="eager", nodes=nodes)
    assert type(part) is Frozen and torch.equal(part.logits, model(x, edges).logits[nodes])


def test_dictionaries_of_kinds() -> None:
    key = ("a", "to", "a")
    model = Net(HeteroConv({key: SAGEConv(8, 4)}), lambda out: Output(out, {k: v.max(dim=1) for k, v in out.items()}))
    args = {"a": torch.randn(N, 8)}, {key: torch.randint(0, N, (2, E))}
    same(Engine(model.eval(), verify="always")(*args), model(*args))


def test_what_is_no_result_is_refused_by_name() -> None:
    class Strange:
        def __init__(self, h: Tensor) -> None:
            self.h = h

    model, args = Net(GCN(8, 8, 2, 4), Strange).eval(), call("GCN")
    with pytest.raises(CaptureError, match=r"A Strange .* is returned by Net.forward .* dataclasses"):
        Engine(model)(*args)
