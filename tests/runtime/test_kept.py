"""What is kept with a graph is found for that graph alone, unchanged, and is gone with it."""

from __future__ import annotations

import gc
import threading
import weakref

import torch
import torch_geometric.nn as pyg

from pyg_fullgraph.capture.signature import bind
from pyg_fullgraph.engine import Engine
from pyg_fullgraph.graph.generate import grid
from pyg_fullgraph.runtime.kept import Kept, Key

MODEL = pyg.GCN(8, 8, 2).eval()
X = torch.randn(100, 8)


def key(edge_index: torch.Tensor, *options: object) -> Key:
    return Key.of(*bind(MODEL, (X, edge_index), {}), *options)


def numbered(seed: int) -> torch.Tensor:
    return torch.randperm(100, generator=torch.Generator().manual_seed(seed))[grid(10, 10)]


def test_found_for_the_very_same_tensors_and_options_only() -> None:
    kept, edges = Kept[str](), numbered(0)
    kept.put(key(edges, "rcm"), "found")
    assert kept.get(key(edges, "rcm")) == "found"
    assert kept.get(key(edges, "community")) is None
    assert kept.get(key(edges.clone(), "rcm")) is None
    edges[0, 0] = 5
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


def test_not_kept_where_a_change_would_leave_no_trace() -> None:
    with torch.inference_mode():
        edges = numbered(0)
    kept = Kept[str]()
    kept.put(key(edges), "stale")
    assert kept.get(key(edges)) is None
    assert len(kept) == 0


def test_an_engine_keeps_neither_graphs_nor_their_orders_alive() -> None:
    engine = Engine(MODEL, verify="off", order="rcm")
    graphs = []
    for seed in range(6):
        edges = numbered(seed)
        engine(X, edges)
        graphs.append(weakref.ref(edges))
        (captured,) = engine._captured.values()
        arrangement, _ = next(reversed(captured.arranged._items.values()))[1]
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
