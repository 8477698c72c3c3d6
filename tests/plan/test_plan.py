"""A plan says what each superstep holds, to the byte, before it runs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch_geometric import nn as gnn

import pyg_fullgraph as fg
from pyg_fullgraph.errors import SpaceError
from pyg_fullgraph.ir import Stage
from pyg_fullgraph.plan import Residence, make_plan
from pyg_fullgraph.runtime.executor import Run
from pyg_fullgraph.runtime.home import MemoryHome
from pyg_fullgraph.runtime.store import TableStore

NODES, WIDTH = 300, 8


@pytest.fixture
def held(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int, int]]:
    """Of each superstep the bytes that are planned, that the store counts, and that really are there."""
    found: list[tuple[int, int, int]] = []
    free = Run._free

    def watched(self: Run, step: Any) -> None:
        theirs = {t.untyped_storage().data_ptr() for t in _others(self)}
        tensors = [table.whole() for name, table in self.tables.items() if _is_data(self, name)]
        tensors += [t for name, t in self.globals.items() if isinstance(t, Tensor) and _is_data(self, name)]
        own = {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in tensors}
        really = sum(size for pointer, size in own.items() if pointer not in theirs)
        found.append((step.held, self.store.held, really))
        free(self, step)

    monkeypatch.setattr(Run, "_free", watched)
    return found


def _is_data(run: Run, name: str) -> bool:
    return run.program[name].stage is Stage.DATA


def _others(run: Run) -> list[Tensor]:
    """Tensors that no superstep made: arguments, parameters and structure."""
    given = [table.whole() for name, table in run.tables.items() if run.program[name].op == "input"]
    given += [t for name, t in run.globals.items() if isinstance(t, Tensor) and not _is_data(run, name)]
    return given + [t for t in run.structure.values.values() if isinstance(t, Tensor)]


def graph() -> tuple[Tensor, Tensor]:
    torch.manual_seed(0)
    return torch.randn(NODES, WIDTH), torch.randint(0, NODES, (2, 2000))


def hgt() -> tuple[nn.Module, tuple[Any, ...]]:
    kinds = {"paper": 120, "author": 80, "field": 50}
    relations = [(a, "to", b) for a in kinds for b in kinds]

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.convs = nn.ModuleList(gnn.HGTConv(WIDTH, WIDTH, (list(kinds), relations), heads=2) for _ in range(3))

        def forward(self, x: dict[str, Tensor], edges: dict[Any, Tensor]) -> dict[str, Tensor]:
            for conv in self.convs:
                x = conv(x, edges)
            return x

    x = {kind: torch.randn(count, WIDTH) for kind, count in kinds.items()}
    edges = {r: torch.stack([torch.randint(0, kinds[kind], (90,)) for kind in r[::2]]) for r in relations}
    return Net(), (x, edges)


def pna() -> nn.Module:
    return gnn.PNA(WIDTH, 8, 3, 8, aggregators=["mean", "min", "max", "std"], scalers=["identity"], deg=torch.ones(9))


class Pooled(nn.Module):
    """Totals over all rows, by group and of all, and what is made of them."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = gnn.GCNConv(WIDTH, WIDTH), gnn.GraphNorm(WIDTH)

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        h = self.norm(self.conv(x, edge_index))
        return (h - h.mean(0)) @ h.t().mean(1, keepdim=True)


class Sorted(nn.Module):
    """An operator that needs all rows and has two results."""

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        values, order = (x @ x.t().sum(1, keepdim=True)).squeeze(1).sort()
        return values + order


CASES: dict[str, Callable[[], nn.Module]] = {
    "sage": lambda: gnn.GraphSAGE(WIDTH, 16, 3, 4),
    "gcn": lambda: gnn.GCN(WIDTH, 16, 3, 4, jk="cat"),
    "gat": lambda: gnn.GAT(WIDTH, 16, 3, 4, heads=2),
    "gatv2": lambda: gnn.GAT(WIDTH, 16, 2, 4, heads=2, v2=True),
    "gin": lambda: gnn.GIN(WIDTH, 16, 3, 4),
    "edgeconv": lambda: gnn.EdgeCNN(WIDTH, 16, 3, 4),
    "pna": pna,
    "transformer": lambda: gnn.TransformerConv(WIDTH, 4, heads=2, beta=True),
    "pooled": Pooled,
    "sorted": Sorted,
}


@pytest.mark.parametrize("name", [*CASES, "hgt"])
def test_planned_bytes_are_those_handed_out(name: str, held: list[tuple[int, int, int]]) -> None:
    model, args = hgt() if name == "hgt" else (CASES[name](), graph())
    engine = fg.compile(model.eval(), verify="off")
    engine(*args)
    plan = engine.explain(*args).plan
    assert plan is not None and len(plan.steps) == len(held)
    for planned, counted, really in held:
        assert planned == counted == really
    assert plan.peak == max(really for _, _, really in held) > 0


def test_a_plan_is_text_and_a_value() -> None:
    x, edges = graph()
    engine = fg.compile(gnn.GraphSAGE(WIDTH, 16, 2, 4).eval(), verify="off")
    plan, again = (engine.explain(x, edges).plan for _ in range(2))
    assert plan == again and hash(plan) == hash(again)
    first, last = plan.steps
    text = str(plan)
    assert f"rows of N: {NODES} in" in text and "merged as mean" in text and f"held: {first.held:,} bytes" in text
    stored = first.launches[0].block.stored[0]
    assert plan.tables[stored].residence is Residence.TABLE and plan.tables[stored].born == 0
    assert stored in last.frees and plan.tables[stored].dies == 1
    assert next(fetch.value for fetch in last.launches[0].fetches) in first.launches[0].block.stored
    other = engine.explain(x[:200], edges % 200).plan
    assert other.digest != plan.digest


def test_a_plan_of_sizes_that_the_run_tells() -> None:
    x, edges = graph()
    engine = fg.compile(gnn.GraphSAGE(WIDTH, 16, 2, 4).eval(), verify="off")
    engine(x, edges)
    compiled = next(iter(engine._captured.values())).compiled
    plan = make_plan(compiled.program, compiled.schedule, compiled.parts, lambda space: None, lambda block: [])
    assert all(launch.rows is None and launch.blocks is None for step in plan.steps for launch in step.launches)
    assert plan.peak == 0 and not any(spec.known for spec in plan.tables.values())
    assert "rows of N: known as it runs" in str(plan)


def test_a_budget_is_refused_before_any_work() -> None:
    x, edges = graph()
    engine = fg.compile(gnn.GraphSAGE(WIDTH, 16, 3, 4).eval(), verify="off")
    engine(x, edges)
    plan = engine.explain(x, edges).plan
    TableStore(MemoryHome(), plan.peak).reserve(plan)
    with pytest.raises(SpaceError, match=f"smallest budget that would do is {plan.peak:,}"):
        TableStore(MemoryHome(), plan.peak - 1).reserve(plan)
