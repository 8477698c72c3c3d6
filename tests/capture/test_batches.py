"""Another number of graphs, or of copies of static features: no new trace, and the same result."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch_geometric import nn as gnn
from torch_geometric.data import Batch, Data, HeteroData
from torch_geometric.utils import softmax

import pyg_fullgraph as fg

RUNS: list[int] = []  # one entry per run of a forward: a trace puts back what a model counts itself


def _graph(nodes: int, seed: int) -> Data:
    drawn = torch.Generator().manual_seed(seed)
    edges = torch.randint(0, nodes, (2, 3 * nodes), generator=drawn)
    x, y = torch.randn(nodes, 8, generator=drawn), torch.randn(1, 8, generator=drawn)
    return Data(x=x, edge_index=edges, y=y, t=torch.randn(1, generator=drawn))


def _batch(graphs: int) -> Batch:
    return Batch.from_data_list([_graph(5 + k, k) for k in range(graphs)])


class Net(torch.nn.Module):
    """One layer, then what `head` makes of its rows and the batch; counts how often its forward runs."""

    def __init__(self, head: Callable[[Tensor, Any], Any]) -> None:
        super().__init__()
        self.conv, self.head = gnn.GINConv(torch.nn.Linear(8, 8)), head

    def forward(self, data: Any) -> Any:
        RUNS.append(1)
        return self.head(self.conv(data.x, data.edge_index).relu(), data)


def _spread(x: Tensor, data: Any) -> Tensor:
    pooled = gnn.global_mean_pool(x, data.batch, size=data.num_graphs)
    return x - pooled[data.batch]


def _targets(x: Tensor, data: Any) -> Tensor:
    return gnn.global_max_pool(x, data.batch, data.num_graphs) * data.y + data.t.view(-1, 1)


def _lengths(x: Tensor, data: Any) -> Tensor:
    return gnn.global_add_pool(x, data.batch, data.batch_size) / (data.ptr[1:] - data.ptr[:-1]).view(-1, 1)


def _zeros(x: Tensor, data: Any) -> Tensor:
    return x.new_zeros(data.num_graphs, 8).index_add(0, data.batch, x) / data.num_graphs


def _branch(x: Tensor, data: Any) -> Tensor:
    pooled = gnn.global_add_pool(x, data.batch, data.num_graphs)
    return pooled.squeeze(0) if data.num_graphs == 1 else pooled


def _attention(x: Tensor, data: Any) -> Tensor:
    return gnn.global_add_pool(x * softmax(x, data.batch, num_nodes=data.num_graphs), data.batch)


HEADS = [
    lambda x, data: gnn.global_add_pool(x, data.batch),
    _spread, _targets, _lengths, _zeros, _branch, _attention,
    lambda x, data: (x, gnn.GraphNorm(8)(x, data.batch, data.num_graphs)),
]  # fmt: skip


def _same(got: Any, expected: Any) -> None:
    got, expected = (torch.utils._pytree.tree_leaves(item) for item in (got, expected))
    assert len(got) == len(expected)
    for one, other in zip(got, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)


def _without_a_run(call: Callable[[], Any]) -> Any:
    before = len(RUNS)
    result = call()
    assert len(RUNS) == before, "the forward was run again"
    return result


@pytest.mark.parametrize("head", HEADS, ids=lambda head: head.__name__.strip("_<>"))
def test_batches_of_any_number_of_graphs_are_traced_once(head: Any) -> None:
    model = Net(head).eval()
    engine = fg.compile(model, verify="off")
    with torch.no_grad():
        engine(_batch(4))
        for graphs in (5, 2, 9):
            result = _without_a_run(lambda graphs=graphs: engine(_batch(graphs)))
            _same(result, model(_batch(graphs)))
        _same(engine(_batch(1)), model(_batch(1)))  # a trace of its own: layers branch on one graph


def test_a_batch_is_verified() -> None:
    engine = fg.compile(Net(_targets).eval())
    engine(_batch(4))
    assert engine.verification is not None and engine.verification.how != "none"


LOOPS = [
    lambda x, data: sum(k * gnn.global_add_pool(x, data.batch) for k in range(data.num_graphs)),
    lambda x, data: gnn.global_add_pool(x, data.batch)[: data.num_graphs // 2] if data.num_graphs > 3 else x,
]


@pytest.mark.parametrize("head", LOOPS, ids=["range", "decision"])
def test_forwards_that_want_a_number_of_graphs_get_it(head: Any) -> None:
    model = Net(head).eval()
    engine = fg.compile(model)
    with torch.no_grad():
        for graphs in (4, 2, 4, 5, 1):
            _same(engine(_batch(graphs)), model(_batch(graphs)))


def _hetero(graphs: int) -> Batch:
    items = []
    for k in range(graphs):
        drawn, item = torch.Generator().manual_seed(k), HeteroData()
        for kind, nodes in (("a", 4 + k), ("b", 6 + k)):
            item[kind].x = torch.randn(nodes, 8, generator=drawn)
        for left, right, n, m in (("a", "b", 4 + k, 6 + k), ("b", "a", 6 + k, 4 + k)):
            ends = [torch.randint(0, size, (12,), generator=drawn) for size in (n, m)]
            item[left, "to", right].edge_index = torch.stack(ends)
        items.append(item)
    return Batch.from_data_list(items)


class Hetero(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        layers = {(a, "to", b): gnn.SAGEConv((8, 8), 8) for a, b in (("a", "b"), ("b", "a"))}
        self.conv = gnn.HeteroConv(layers)

    def forward(self, data: Any) -> Any:
        RUNS.append(1)
        out = self.conv(data.x_dict, data.edge_index_dict)
        return {kind: gnn.global_add_pool(x, data[kind].batch, data.num_graphs) for kind, x in out.items()}


def test_batches_of_several_types_are_traced_once() -> None:
    model = Hetero().eval()
    engine = fg.compile(model, verify="off")
    with torch.no_grad():
        engine(_hetero(3))
        for graphs in (4, 2):
            result = _without_a_run(lambda graphs=graphs: engine(_hetero(graphs)))
            _same(result, model(_hetero(graphs)))


class Counted(torch.nn.Module):
    """The number of graphs as an argument, under any of its names."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.conv, self.name = gnn.GraphConv(8, 8), name

    def forward(self, x: Tensor, edge_index: Tensor, batch: Tensor, **kwargs: int) -> Tensor:
        RUNS.append(1)
        pooled = gnn.global_mean_pool(self.conv(x, edge_index), batch, kwargs[self.name])
        return pooled.squeeze(0) if kwargs[self.name] == 1 else pooled


@pytest.mark.parametrize("name", ["batch_size", "num_graphs", "size"])
def test_numbers_of_graphs_as_arguments(name: str) -> None:
    model = Counted(name).eval()
    engine = fg.compile(model, verify="off")
    with torch.no_grad():
        for graphs in (4, 7, 2, 31, 1):  # more than there are nodes of is allowed
            data = _batch(min(graphs, 9))
            call = (data.x, data.edge_index, data.batch)

            def run(call: Any = call, graphs: int = graphs) -> Any:
                return engine(*call, **{name: graphs})

            _same(run() if graphs in (4, 1) else _without_a_run(run), model(*call, **{name: graphs}))


def _static(layer: Callable[[], torch.nn.Module]) -> type:
    class Static(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = layer(), layer()

        def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
            RUNS.append(1)
            return self.second(self.first(x, edge_index).relu(), edge_index)

    return Static


STATIC = {
    "GCN": lambda: gnn.GCNConv(8, 8),
    "SAGE": lambda: gnn.SAGEConv(8, 8),
    "GIN": lambda: gnn.GINConv(torch.nn.Sequential(torch.nn.Linear(8, 8), torch.nn.ReLU(), torch.nn.Linear(8, 8))),
    "Cheb": lambda: gnn.ChebConv(8, 8, K=3),
    "max": lambda: gnn.GraphConv(8, 8, aggr="max"),
}


@pytest.mark.parametrize("name", STATIC)
def test_any_number_of_copies_is_traced_once(name: str) -> None:
    model, edges = _static(STATIC[name])().eval(), _graph(20, 0).edge_index
    engine = fg.compile(model, verify="off")
    with torch.no_grad():
        engine(torch.randn(3, 20, 8), edges)
        for copies in (4, 2, 8):
            x = torch.randn(copies, 20, 8)
            _same(_without_a_run(lambda x=x: engine(x, edges)), model(x, edges))
        for copies in (1, 3):
            x = torch.randn(copies, 20, 8)
            _same(engine(x, edges), model(x, edges))


class InTime(torch.nn.Module):
    """A loop over the first axis, whose length it wants as a number; and one that a parameter fixes."""

    def __init__(self, weighted: bool) -> None:
        super().__init__()
        self.conv, self.weighted = gnn.GCNConv(8, 8), weighted
        self.weight = torch.nn.Parameter(torch.randn(3, 1, 1))

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        if self.weighted:
            return self.conv(x * self.weight, edge_index)
        state = torch.zeros_like(x[0])
        for step in range(x.size(0)):
            state = self.conv(x[step] + state, edge_index).tanh()
        return state


@pytest.mark.parametrize("weighted", [False, True], ids=["loop", "parameter"])
def test_axes_that_are_numbers_stay_numbers(weighted: bool) -> None:
    model, edges = InTime(weighted).eval(), _graph(20, 0).edge_index
    engine = fg.compile(model)
    with torch.no_grad():
        for steps in (3,) if weighted else (3, 5):
            x = torch.randn(steps, 20, 8)
            _same(engine(x, edges), model(x, edges))


class Timed(torch.nn.Module):
    """Static features with two axes in front of the nodes, and one row per copy."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = gnn.GCNConv(8, 8)

    def forward(self, x: Tensor, edge_index: Tensor, t: Tensor) -> Tensor:
        RUNS.append(1)
        return self.conv(x + t.view(-1, 1, 1, 1), edge_index).mean(1)


def test_several_axes_and_rows_of_copies() -> None:
    model, edges = Timed().eval(), _graph(20, 0).edge_index
    engine = fg.compile(model, verify="off")
    with torch.no_grad():
        engine(torch.randn(3, 2, 20, 8), edges, torch.randn(3))
        for shape in ((4, 2), (5, 6)):
            x, t = torch.randn(*shape, 20, 8), torch.randn(shape[0])
            _same(_without_a_run(lambda x=x, t=t: engine(x, edges, t)), model(x, edges, t))


READ: list[int] = []


class Logging(torch.nn.Module):
    """Adds to a global list; with `reads`, the result depends on what it holds."""

    def __init__(self, reads: bool) -> None:
        super().__init__()
        self.conv, self.reads = gnn.GCNConv(8, 8), reads

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        if self.reads:
            READ.append(1)
            return self.conv(x, edge_index) * len(READ)
        RUNS.append(1)
        return self.conv(x, edge_index)


def test_a_list_that_is_only_filled_is_nothing_that_forward_reads() -> None:
    edges, x = _graph(20, 0).edge_index, torch.randn(20, 8)
    engine = fg.compile(Logging(reads=False).eval(), verify="off")
    engine(x, edges)
    _without_a_run(lambda: engine(x, edges))
    reading = fg.compile(Logging(reads=True).eval(), verify="off")
    first, second = reading(x, edges), reading(x, edges)
    torch.testing.assert_close(second * (len(READ) - 1), first * len(READ), rtol=1e-5, atol=1e-5)
