"""What is kept with a graph is found for these contents alone, wherever they lie, and is gone with them."""

from __future__ import annotations

import gc
import threading
import weakref

import numpy as np
import torch
import torch_geometric.nn as pyg

from pyg_fullgraph.capture.signature import bind
from pyg_fullgraph.engine import Engine
from pyg_fullgraph.graph.generate import grid
from pyg_fullgraph.runtime.kept import Kept, Key

MODEL = pyg.GCN(8, 8, 2).eval()
X = torch.randn(100, 8)


def key(edge_index: torch.Tensor, *options: object) -> Key:
    return Key.of(*bind(MODEL, (X, edge_index), {})).also(*options)


def numbered(seed: int) -> torch.Tensor:
    return torch.randperm(100, generator=torch.Generator().manual_seed(seed))[grid(10, 10)]


class Counted(torch.nn.Module):
    """Rows summed by a vector of groups, after a layer."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = pyg.SAGEConv(8, 8)

    def forward(self, x: torch.Tensor, edge_index: torch.Tensor, group: torch.Tensor) -> torch.Tensor:
        return self.conv(x, edge_index) + pyg.global_add_pool(x, group, 1)[group]


def test_found_for_the_same_contents_and_options_only() -> None:
    kept, edges = Kept[str](), numbered(0)
    kept.put(key(edges, "rcm"), "found")
    assert kept.get(key(edges, "rcm")) == "found"
    assert kept.get(key(edges, "community")) is None
    assert kept.get(key(edges.clone(), "rcm")) == "found"
    assert kept.get(key(edges.t().contiguous().t(), "rcm")) == "found"
    assert kept.get(key(edges.flip(1), "rcm")) is None
    assert kept.get(key(edges.int(), "rcm")) is None
    edges.numpy()[0, 0] = 5
    assert kept.get(key(edges, "rcm")) is None


def test_gone_with_the_graph() -> None:
    kept, edges = Kept[torch.Tensor](), numbered(0)
    held = torch.zeros(3)
    alive = weakref.ref(held)
    kept.put(key(edges), held)
    del held
    assert alive() is not None
    del edges
    gc.collect()
    assert alive() is None
    assert len(kept) == 0


def test_the_last_four_graphs() -> None:
    kept, graphs = Kept[int](), [numbered(seed) for seed in range(6)]
    for number, edges in enumerate(graphs[:4]):
        kept.put(key(edges), number)
    kept.get(key(graphs[0]))
    kept.put(key(graphs[4]), 4)
    assert [kept.get(key(edges)) for edges in graphs] == [0, None, 2, 3, 4, None]


def test_kept_as_long_as_any_memory_with_these_contents_is_alive() -> None:
    kept, edges = Kept[str](), numbered(0)
    kept.put(key(edges), "found")
    other = edges.clone()
    assert kept.get(key(other)) == "found"
    del edges
    assert kept.get(key(other[:, :])) == "found"
    del other
    assert len(kept) == 0


def test_gone_when_the_memory_is_seen_to_hold_another_graph() -> None:
    kept, edges = Kept[int](), numbered(0)
    kept.put(key(edges), 0)
    np.copyto(edges.numpy(), numbered(1).numpy())
    assert kept.get(key(edges)) is None
    assert len(kept) == 0
    kept.put(key(edges), 1)
    same = edges.clone()
    kept.get(key(same))
    np.copyto(edges.numpy(), numbered(2).numpy())
    kept.put(key(edges), 2)
    assert kept.get(key(same)) == 1
    assert len(kept) == 2


def test_parts_of_one_memory_are_graphs_of_their_own() -> None:
    kept, both = Kept[int](), torch.cat([numbered(0), numbered(1)], dim=1)
    parts = both.chunk(2, dim=1)
    for number, part in enumerate(parts):
        kept.put(key(part), number)
    assert [kept.get(key(part)) for part in parts] == [0, 1]


def test_a_small_argument_made_for_each_call_does_not_end_it() -> None:
    engine, edges = Engine(Counted().eval(), verify="off"), numbered(0)
    for _ in range(3):
        engine(X, edges, torch.zeros(100, dtype=torch.int64))
        (captured,) = engine._captured.values()
        assert len(captured.structures) == 1
    del edges
    assert len(captured.structures) == 0


def test_kept_where_it_was_made_in_inference_mode() -> None:
    with torch.inference_mode():
        edges = numbered(0)
    kept = Kept[str]()
    kept.put(key(edges), "found")
    assert kept.get(key(edges)) == "found"
    edges.numpy()[0, 0] = 7
    assert kept.get(key(edges)) is None


def test_nothing_is_kept_by_a_kept_that_is_gone() -> None:
    gc.disable()
    try:
        kept, edges, held = Kept[torch.Tensor](), numbered(0), torch.zeros(3)
        alive = weakref.ref(held)
        kept.put(key(edges), held)
        del held, kept
        assert alive() is None
    finally:
        gc.enable()


def test_an_engine_keeps_neither_graphs_nor_their_orders_alive() -> None:
    engine = Engine(MODEL, verify="off", order="rcm")
    graphs = []
    for seed in range(6):
        edges = numbered(seed)
        engine(X, edges)
        graphs.append(weakref.ref(edges))
        (captured,) = engine._captured.values()
        arrangement, _ = next(reversed(captured.arranged._items.values())).item
        graphs += [weakref.ref(tensor) for tensor in arrangement.integers.values()]
        del edges, arrangement
    gc.collect()
    assert not any(graph() is not None for graph in graphs)
    assert len(captured.arranged) == len(captured.structures) == 0
    assert len(engine.notes) == 1


def test_calls_from_several_threads() -> None:
    """More graphs than are kept, so that threads drop what others look up."""
    graphs = [numbered(seed) for seed in range(6)]
    engine = Engine(MODEL, verify="off", order="rcm", threads=2)
    engine(X, numbered(9))  # traced by one thread
    with torch.no_grad():
        expected = [MODEL(X, edges) for edges in graphs]
    wrong: list[object] = []

    def calls(first: int) -> None:
        for number in range(20):
            graph = (first + 7 * number) % 6
            try:
                got = engine(X, graphs[graph])
                torch.testing.assert_close(got, expected[graph], rtol=0, atol=1e-5)
            except BaseException as error:
                wrong.append(error)

    threads = [threading.Thread(target=calls, args=(first,)) for first in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
