"""Functions on `Graph`, compiled: equal to the same function run eagerly, whatever the sizes happen to be."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch_geometric.nn import GATConv

import pyg_fullgraph as fg
import pyg_fullgraph.engine as engine_module
from pyg_fullgraph import Graph
from pyg_fullgraph.errors import CaptureError, GraphError, InputError
from tests.graphs import NASTY, nasty

Program = Callable[..., Any]


def close(ours: Any, theirs: Any) -> None:
    if isinstance(theirs, dict):
        assert list(ours) == list(theirs)
        for key in theirs:
            close(ours[key], theirs[key])
        return
    assert ours.shape == theirs.shape and ours.dtype == theirs.dtype
    if theirs.numel():
        assert float((ours - theirs).abs().max()) <= 1e-5 * float(theirs.abs().max())


def random_graph(nodes: int, edges: int, seed: int = 0) -> Graph:
    generator = torch.Generator().manual_seed(seed)
    return Graph(torch.randint(0, nodes, (2, edges), generator=generator), nodes)


# Programs: name -> (function, arguments for a graph and a number of columns) -----------------------


def gcn(g: Graph, x: Tensor, w: Tensor, b: Tensor) -> Tensor:
    scale = (g.degree() + 1).to(x.dtype).rsqrt().view(-1, 1)
    h = scale * (x @ w)
    return (scale * (g.sum(g.src(h)) + h) + b).relu()


def gat(g: Graph, x: Tensor, w: Tensor, a_src: Tensor, a_dst: Tensor) -> Tensor:
    h = x @ w
    score = F.leaky_relu(g.src(h @ a_src) + g.dst(h @ a_dst), 0.2)
    return g.sum(g.softmax(score) * g.src(h))


def sage(g: Graph, x: Tensor, near: Tensor, own: Tensor) -> Tensor:
    return F.normalize(g.mean(g.src(x)) @ near + x @ own)


def edge_network(g: Graph, x: Tensor, edge_attr: Tensor, w: Tensor, v: Tensor) -> Tensor:
    message = torch.cat([g.dst(x), g.src(x) - g.dst(x), edge_attr], dim=-1)
    return g.max((message @ w).relu()) @ v


def all_reductions(g: Graph, x: Tensor, e: Tensor) -> dict[str, Tensor]:
    message = g.src(x) * e
    out = {name: g.reduce(message, name) for name in ("sum", "mean", "max", "min", "mul", "var", "std")}
    return {**out, "gated": g.sum(torch.sigmoid(g.softmax(message)) * g.dst(x)), "degree": g.degree()}


def both_ways(g: Graph, x: Tensor, w: Tensor) -> Tensor:
    back = g.reverse()
    return g.sum(g.src(x @ w)) + back.mean(back.src(x))


def edge_states(g: Graph, x: Tensor, e: Tensor, w: Tensor) -> tuple[Tensor, Tensor]:
    for _ in range(2):
        e = e + torch.tanh(g.src(x) + g.dst(x)) @ w
        x = x + g.mean(e)
    return x, e


def embedded(g: Graph, types: Tensor, table: Tensor, x: Tensor) -> Tensor:
    """`table` may have as many rows as there are nodes and yet belongs to none."""
    return g.sum(g.src(table[types] + x))


def pooled(g: Graph, x: Tensor, w: Tensor) -> Tensor:
    h = g.sum(g.src(x @ w)).relu()
    return h - h.mean(0)


PROGRAMS: dict[str, tuple[Program, Callable[[Graph, int], list[Tensor]]]] = {
    "gcn": (gcn, lambda g, f: [rows(g, f), torch.randn(f, f), torch.randn(f)]),
    "gat": (gat, lambda g, f: [rows(g, f), torch.randn(f, f), torch.randn(f, 1), torch.randn(f, 1)]),
    "sage": (sage, lambda g, f: [rows(g, f), torch.randn(f, f), torch.randn(f, f)]),
    "edge_network": (
        edge_network,
        lambda g, f: [rows(g, f), torch.randn(g.num_edges, 2), torch.randn(2 * f + 2, f), torch.randn(f, f)],
    ),
    "all_reductions": (all_reductions, lambda g, f: [rows(g, f), torch.rand(g.num_edges, f) + 0.5]),
    "both_ways": (both_ways, lambda g, f: [rows(g, f), torch.randn(f, f)]),
    "edge_states": (edge_states, lambda g, f: [rows(g, f), torch.randn(g.num_edges, f), torch.randn(f, f)]),
    "embedded": (embedded, lambda g, f: [torch.arange(g.num_nodes) % f, torch.randn(f, f), rows(g, f)]),
    "pooled": (pooled, lambda g, f: [rows(g, f), torch.randn(f, f)]),
}


def rows(g: Graph, columns: int) -> Tensor:
    return torch.randn(g.num_nodes, columns)


@pytest.mark.parametrize("name", PROGRAMS)
@pytest.mark.parametrize(("nodes", "edges", "columns"), [(30, 90, 8), (8, 40, 8), (20, 8, 8), (8, 8, 8), (40, 40, 8)])
def test_equal_to_eager_whatever_the_sizes(name: str, nodes: int, edges: int, columns: int) -> None:
    """As many nodes as columns, as edges, as both: what has rows is found by its use."""
    function, make = PROGRAMS[name]
    engine = fg.compile(function)
    for step, (n, e) in enumerate([(nodes, edges), (33, 120), (nodes + 1, edges), (8, 8), (5, 0), (1, 1), (1, 0)]):
        g = random_graph(n, e, seed=step)
        args = make(g, columns)
        close_all(engine(g, *args), function(g, *args))


def close_all(ours: Any, theirs: Any) -> None:
    for one, other in zip(torch.utils._pytree.tree_leaves(ours), torch.utils._pytree.tree_leaves(theirs), strict=True):
        close(one, other)


@nasty()
@pytest.mark.parametrize("name", ["gat", "gcn", "edge_network"])
def test_nasty_graphs(name: str, num_nodes: int, edge_index: Tensor) -> None:
    function, make = PROGRAMS[name]
    g = Graph(edge_index, num_nodes)
    args = make(g, 6)
    close(fg.compile(function)(g, *args), function(g, *args))


def count_traces(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    traces: list[int] = []
    original = engine_module.trace
    monkeypatch.setattr(engine_module, "trace", lambda *args: traces.append(1) or original(*args))
    return traces


def test_one_trace_for_all_sizes_and_live_arguments(monkeypatch: pytest.MonkeyPatch) -> None:
    traces = count_traces(monkeypatch)
    engine = fg.compile(gat)
    weights = [torch.randn(8, 8), torch.randn(8, 1), torch.randn(8, 1)]
    for step, (nodes, edges) in enumerate([(8, 30), (30, 8), (8, 8), (50, 200), (3, 0), (1, 4)]):
        g = random_graph(nodes, edges, step)
        x = rows(g, 8)
        close(engine(g, x, *weights), gat(g, x, *weights))
        weights[0].mul_(-1.5)
        weights[1] = torch.randn(8, 1)
        close(engine(g, x, *weights), gat(g, x, *weights))
    assert len(traces) == 1


def test_the_same_graph_is_sorted_once(monkeypatch: pytest.MonkeyPatch) -> None:
    structures: list[int] = []
    original = engine_module.Structure
    monkeypatch.setattr(engine_module, "Structure", lambda *args: structures.append(1) or original(*args))
    edge_index, engine = random_graph(30, 90).edge_index, fg.compile(gcn, verify="off")
    x, w, b = torch.randn(30, 8), torch.randn(8, 8), torch.randn(8)
    for _ in range(3):
        engine(Graph(edge_index, 30), x, w, b)  # a new Graph around the same edges
    assert len(structures) == 1


def test_it_is_the_same_program_as_a_layer() -> None:
    """No edge value of full width: the words become the fused kernel."""
    g = random_graph(30, 90)
    text = str(fg.compile(gat).explain(g, rows(g, 8), torch.randn(8, 8), torch.randn(8, 1), torch.randn(8, 1)))
    assert "gather_reduce" in text or "attention" in text
    assert "float32[E, 8]" not in text
    assert "test_function.py" in text and "in gat" in text


def test_nodes() -> None:
    g = random_graph(40, 60)
    args = PROGRAMS["gat"][1](g, 8)
    chosen = torch.tensor([3, 39, 3])
    close(fg.compile(gat)(g, *args, nodes=chosen), gat(g, *args)[chosen])
    lookup = PROGRAMS["embedded"][1](g, 40)  # a table of 40 rows, none of a node
    close(fg.compile(embedded)(g, *lookup, nodes=chosen), embedded(g, *lookup)[chosen])
    loop = Graph(torch.zeros(2, 3, dtype=torch.int64), 1)
    args = PROGRAMS["gat"][1](loop, 8)
    close(fg.compile(gat)(loop, *args, nodes=torch.tensor([True])), gat(loop, *args))


# Several graphs, several types ---------------------------------------------------------------------


def two_relations(
    writes: Graph, cites: Graph, x_author: Tensor, x_paper: Tensor, w_writes: Tensor, w_cites: Tensor, own: Tensor
) -> Tensor:
    return writes.mean(writes.src(x_author @ w_writes)) + cites.max(cites.src(x_paper @ w_cites)) + x_paper @ own


def by_type(
    graphs: dict[tuple[str, str, str], Graph],
    x_dict: dict[str, Tensor],
    weights: dict[tuple[str, str, str], Tensor],
) -> dict[str, Tensor]:
    for _ in range(2):
        new = {kind: x.clone() for kind, x in x_dict.items()}
        for kind, g in graphs.items():
            new[kind[2]] = new[kind[2]] + g.mean(g.src(x_dict[kind[0]] @ weights[kind]))
        x_dict = {kind: x.relu() for kind, x in new.items()}
    return x_dict


def bipartite_graph(num_src: int, num_dst: int, edges: int, seed: int = 0) -> Graph:
    generator = torch.Generator().manual_seed(seed)
    src = torch.randint(0, num_src, (edges,), generator=generator)
    dst = torch.randint(0, num_dst, (edges,), generator=generator)
    return Graph.from_edges(src, dst, num_src, num_dst)


SIZES = [(20, 30, 50, 70, 6), (6, 9, 20, 30, 6), (9, 6, 20, 30, 6), (6, 6, 6, 6, 6), (12, 12, 30, 30, 6)]


@pytest.mark.parametrize(("authors", "papers", "writings", "citings", "columns"), SIZES)
def test_two_relations(authors: int, papers: int, writings: int, citings: int, columns: int) -> None:
    engine = fg.compile(two_relations)
    for step in range(3):
        a, p = authors + 3 * step, papers + step
        writes, cites = bipartite_graph(a, p, writings, step), random_graph(p, citings, step)
        weights = [torch.randn(columns, columns) for _ in range(3)]
        args = (writes, cites, torch.randn(a, columns), torch.randn(p, columns), *weights)
        close(engine(*args), two_relations(*args))


@pytest.mark.parametrize(("authors", "papers", "writings", "citings", "columns"), SIZES)
def test_dictionaries(authors: int, papers: int, writings: int, citings: int, columns: int) -> None:
    engine = fg.compile(by_type)
    for step in range(3):
        a, p = authors + 3 * step, papers + step
        graphs = {
            ("author", "writes", "paper"): bipartite_graph(a, p, writings, step),
            ("paper", "by", "author"): bipartite_graph(p, a, writings, step + 1),
            ("paper", "cites", "paper"): random_graph(p, citings, step),
        }
        x_dict = {"author": torch.randn(a, columns), "paper": torch.randn(p, columns)}
        weights = {kind: torch.randn(columns, columns) for kind in graphs}
        close(engine(graphs, x_dict, weights), by_type(graphs, x_dict, weights))


def test_one_trace_for_several_graphs(monkeypatch: pytest.MonkeyPatch) -> None:
    traces = count_traces(monkeypatch)
    engine, weights = fg.compile(two_relations), [torch.randn(6, 6) for _ in range(3)]
    for step, (a, p, e, f) in enumerate([(6, 9, 20, 30), (20, 30, 50, 70), (7, 7, 7, 7), (3, 2, 0, 1)]):
        writes, cites = bipartite_graph(a, p, e, step), random_graph(p, f, step)
        args = (writes, cites, torch.randn(a, 6), torch.randn(p, 6), *weights)
        close(engine(*args), two_relations(*args))
    assert len(traces) == 1


# Modules and closures ------------------------------------------------------------------------------


class Net(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.lin = torch.nn.Linear(8, 8)
        self.conv = GATConv(8, 4, heads=2)

    def forward(self, g: Graph, x: Tensor) -> Tensor:
        return g.mean(g.src(self.lin(x))) + self.conv(x, g.edge_index)


class Inside(torch.nn.Module):
    """PyG's signature outside, the vocabulary inside."""

    def __init__(self) -> None:
        super().__init__()
        self.lin = torch.nn.Linear(8, 8)

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        g = Graph(edge_index, x.size(0))
        return self.lin(g.std(g.src(x))) + g.degree().view(-1, 1)


@pytest.mark.parametrize("nodes", [30, 8])
def test_modules_that_take_a_graph(nodes: int) -> None:
    model, g = Net().eval(), random_graph(nodes, 60)
    x, engine = rows(g, 8), fg.compile(model)
    close(engine(g, x), model(g, x).detach())
    with torch.no_grad():
        model.lin.weight.neg_()
    close(engine(g, x), model(g, x).detach())


@pytest.mark.parametrize("nodes", [30, 8])
def test_modules_that_make_a_graph(nodes: int) -> None:
    model, g = Inside().eval(), random_graph(nodes, 60)
    x = rows(g, 8)
    close(fg.compile(model)(x, g.edge_index), model(x, g.edge_index).detach())


def test_parameters_of_modules_read_from_outside_are_live() -> None:
    layers = [torch.nn.Linear(8, 8), torch.nn.Linear(8, 8)]
    conv = GATConv(8, 8).eval()

    def program(g: Graph, x: Tensor) -> Tensor:
        for layer in layers:
            x = g.mean(g.src(layer(x))).relu()
        return conv(x, g.edge_index)

    for layer in layers:
        layer.eval()
    g = random_graph(30, 90)
    x, engine = rows(g, 8), fg.compile(program)
    close(engine(g, x), program(g, x).detach())
    with torch.no_grad():
        layers[1].weight.neg_()
    close(engine(g, x), program(g, x).detach())
    layers[0].train()
    with pytest.raises(InputError, match="train mode"):
        engine(g, x)


def test_methods_and_partials() -> None:
    model, g = Net().eval(), random_graph(30, 90)
    x = rows(g, 8)
    close(fg.compile(model.forward)(g, x), model(g, x).detach())
    with torch.no_grad():
        model.lin.bias.add_(1)
    close(fg.compile(functools.partial(model.forward))(g, x), model(g, x).detach())


HIDDEN = torch.ones(8)
CONSTANTS = {"scale": [torch.ones(8)]}


def helper(x: Tensor) -> Tensor:
    return x * HIDDEN


class Holder:
    def __init__(self) -> None:
        self.weight = torch.ones(8)

    def __call__(self, g: Graph, x: Tensor) -> Tensor:
        return g.sum(g.src(x)) * self.weight


def refused_programs() -> dict[str, tuple[Program, str]]:
    weight, graph = torch.ones(8), random_graph(30, 90)

    def with_default(g: Graph, x: Tensor, w: Tensor = weight) -> Tensor:
        return g.sum(g.src(x)) * w

    return {
        "closure": (lambda g, x: g.sum(g.src(x)) * weight, "reads the tensor 'weight' from outside"),
        "global": (lambda g, x: g.sum(g.src(x)) * HIDDEN, "the tensor 'HIDDEN'"),
        "nested": (lambda g, x: g.sum(g.src(x)) * CONSTANTS["scale"][0], r"the tensor 'CONSTANTS\['scale'\]\[0\]'"),
        "helper": (lambda g, x: g.sum(g.src(helper(x))), "the tensor 'HIDDEN'"),
        "inner function": (lambda g, x: next(g.sum(g.src(x)) * HIDDEN for _ in range(1)), "the tensor 'HIDDEN'"),
        "partial": (functools.partial(gat, w=weight), "gat reads the tensor 'w'"),
        "object": (Holder(), "Holder reads the tensor '.*weight'"),
        "default": (with_default, "with_default's default"),
        "graph": (lambda g, x: graph.sum(graph.src(x)), "the Graph 'graph'"),
    }


@pytest.mark.parametrize("name", list(refused_programs()))
def test_what_would_go_stale_is_refused(name: str) -> None:
    function, match = refused_programs()[name]
    with pytest.raises(InputError, match=match):
        fg.compile(function)


# Dimensions by hand, errors ------------------------------------------------------------------------


def test_dims_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    """A value that no operator ties to the graph keeps its size, unless the user says what it counts."""

    def program(g: Graph, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        return g.sum(g.src(x)), y.relu()

    for dims, expected in (({}, 2), ({"y": ("N", 3)}, 1)):
        traces = count_traces(monkeypatch)
        engine = fg.compile(program, dims=dims)
        for nodes in (20, 30):
            g = random_graph(nodes, 50)
            args = (rows(g, 8), rows(g, 3))
            close_all(engine(g, *args), program(g, *args))
        assert len(traces) == expected


def test_wrong_sizes_are_named() -> None:
    g = random_graph(30, 90)
    args = PROGRAMS["edge_network"][1](g, 8)
    engine = fg.compile(edge_network)
    short = [args[0][:29], *args[1:]]
    with pytest.raises((GraphError, CaptureError), match="dst takes one row per node"):
        engine(g, *short)
    engine(g, *args)
    with pytest.raises((GraphError, CaptureError, InputError), match=r"max takes one row per edge|edge_attr"):
        engine(g, args[0], args[1][:50], *args[2:])


def test_what_cannot_be_compiled() -> None:
    for wrong, match in ((3, "got int"), (Net, "the class Net, not an instance")):
        with pytest.raises(InputError, match=match):
            fg.compile(wrong)  # type: ignore[arg-type]

    def decides(g: Graph, x: Tensor) -> Tensor:
        return g.sum(g.src(x)) if x.sum() > 0 else x

    g = random_graph(30, 90)
    with pytest.raises(CaptureError, match=r"in .*decides"):
        fg.compile(decides)(g, rows(g, 8))
    close(fg.compile(decides, fallback="eager")(g, torch.ones(30, 8)), decides(g, torch.ones(30, 8)))


def test_too_small_to_explain() -> None:
    g = random_graph(1, 4)
    with pytest.raises(InputError, match="pass a larger one"):
        fg.compile(gat).explain(g, *PROGRAMS["gat"][1](g, 8))


def test_nasty_has_the_cases_that_matter() -> None:
    assert {"empty", "one_node", "no_edges", "isolated", "duplicates", "hub_in"} <= set(NASTY)
