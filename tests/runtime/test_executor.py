"""A run: right in any blocks, the same bits on any threads, tables that go when unused, and errors that end it."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
import torch_geometric.nn as gnn
from torch import Tensor

from pyg_fullgraph.plan import blocks
from pyg_fullgraph.runtime import Progress
from tests.graphs import nasty
from tests.passes.programs import EDGE_INDEX, NODES, X

from .blocks import compiled, new_run, rows_only

MODULES = {
    "GCN": lambda: gnn.GCN(16, 8, 3, 4, norm="graph_norm"),
    "GAT": lambda: gnn.GAT(16, 8, 2, 4, heads=2),
    "EdgeCNN": lambda: gnn.EdgeCNN(16, 8, 2, 4),
}


def built(name: str) -> torch.nn.Module:
    torch.manual_seed(0)
    return MODULES[name]().eval()


def close(got: Tensor, expected: Tensor) -> None:
    assert got.shape == expected.shape and got.dtype == expected.dtype
    if expected.numel():
        assert float((got - expected).abs().max()) <= 1e-5 * float(expected.abs().max())


@pytest.mark.parametrize("name", MODULES)
def test_threads_change_no_bit_whatever_the_blocks(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    module = built(name)
    made, results = compiled(module), []
    for most in (1, 3, NODES):
        for constant, value in (("MIN_ROWS", 1), ("MAX_ROWS", most), ("SMALLEST", 1)):
            monkeypatch.setattr(blocks, constant, value)
        results.append([new_run(made, module, threads=threads).run() for threads in (1, 2, 3)])
    with torch.no_grad():
        expected = module(X, EDGE_INDEX)
    for one, two, three in results:
        assert torch.equal(one, two) and torch.equal(one, three)
        close(one, expected)


@nasty()
def test_one_compiled_program_runs_on_any_graph(num_nodes: int, edge_index: Tensor) -> None:
    module = built("EdgeCNN")
    made = _compiled_once(module)
    x = torch.randn(num_nodes, 16)
    with torch.no_grad():
        close(new_run(made, module, x, edge_index, threads=2).run(), module(x, edge_index))


_MADE: list[Any] = []


def _compiled_once(module: torch.nn.Module) -> Any:
    """Built alike by every test that asks; parameters are read by each run."""
    _MADE[:] = _MADE or [compiled(module)]
    return _MADE[0]


class Watching(Progress):
    """Notes which tables a run has at each of its supersteps."""

    def __init__(self) -> None:
        super().__init__(False, 0)
        self.tables: list[set[str]] = []
        self.done = 0
        self.run: Any = None

    @contextmanager
    def superstep(self, number: int, rows: int) -> Iterator[None]:
        self.tables.append(set(self.run.tables))
        yield

    def rows(self, count: int) -> None:
        self.done += count


def test_a_table_is_freed_after_the_superstep_that_needs_it_last() -> None:
    module = built("GCN")
    made, progress = compiled(module), Watching()
    progress.run = run = new_run(made, module, progress=progress)
    freed: set[str] = set()
    steps = iter(made.schedule.steps)
    run.run()
    assert any(step.frees for step in made.schedule.steps)
    position = 0
    for step in steps:
        for _ in step.blocks:
            assert not progress.tables[position] & freed
            position += 1
        freed |= set(step.frees)
    assert position == len(progress.tables)


def test_a_run_holds_nothing_when_it_has_returned() -> None:
    module = built("GAT")
    made = compiled(module)
    run = new_run(made, module)
    run.run()
    assert not run.tables and not run.globals and not run.pools
    assert len(run.seconds) == len(made.schedule.steps)


def test_progress_is_told_of_every_row_of_every_superstep() -> None:
    module = built("GAT")
    made, progress = compiled(module), Watching()
    progress.run = run = new_run(made, module, progress=progress)
    run.run()
    assert progress.done == NODES * sum(len(step.blocks) for step in made.schedule.steps)


@pytest.mark.parametrize("threads", [1, 3])
def test_the_first_error_ends_all_threads(threads: int, monkeypatch: pytest.MonkeyPatch) -> None:
    for constant, value in (("MIN_ROWS", 1), ("MAX_ROWS", 1), ("SMALLEST", 1)):
        monkeypatch.setattr(blocks, constant, value)

    class Failing(Watching):
        lock = threading.Lock()

        def rows(self, count: int) -> None:
            with self.lock:
                self.done += count
                if self.done >= 4:
                    raise ZeroDivisionError("of the test")

    before, module, progress = torch.get_num_threads(), built("EdgeCNN"), Failing()
    progress.run = run = new_run(compiled(module), module, threads=threads, progress=progress)
    with pytest.raises(ZeroDivisionError, match="of the test"):
        run.run()
    assert progress.done <= 4 + threads  # each of the others may have been in a block
    assert torch.get_num_threads() == before
    assert not run.tables and not run.globals


def test_parameters_are_read_by_each_run() -> None:
    module = built("GAT")
    made = compiled(module)
    first = new_run(made, module).run()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.mul_(0.5).add_(0.1)
        second, expected = new_run(made, module).run(), module(X, EDGE_INDEX)
    close(second, expected)
    assert not torch.equal(first, second)


def test_only_the_rows_that_are_asked_for_are_computed() -> None:
    module = rows_only(lambda x: x.exp())
    made = compiled(module)
    (block,) = made.schedule.steps[0].blocks
    progress = Watching()
    progress.run = run = new_run(made, module, progress=progress, limits={block.space: (7,)})
    assert torch.equal(run.run()[:7], X[:7].exp())
    assert progress.done == 7


def test_a_total_of_no_rows_is_a_total() -> None:
    module = rows_only(lambda x: (x.exp().sum(0), x.sum(0, keepdim=True) + 1))
    got = new_run(compiled(module), module, torch.empty(0, 16), torch.empty(2, 0, dtype=torch.long)).run()
    assert torch.equal(got[0], torch.zeros(16)) and torch.equal(got[1], torch.ones(1, 16))
