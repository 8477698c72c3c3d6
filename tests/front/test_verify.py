"""Verification on plain callables: what it recomputes, what it catches, and when it takes the other route."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch_geometric.nn import GCNConv, GraphConv, SAGEConv
from torch_geometric.nn.models import GCN

from pyg_fullgraph.errors import FullGraphMismatch
from pyg_fullgraph.front.attempts import Verification
from pyg_fullgraph.front.compare import Again, compare, pairs_of
from pyg_fullgraph.front.neighborhood import in_neighborhood, small_subgraph
from pyg_fullgraph.front.own import Unsteady
from pyg_fullgraph.front.verify import Inputs, verify
from tests.graphs import NASTY

COLUMNS = 5


def inputs_of(x: Tensor, edge_index: Tensor, *per_edge: Tensor, upstream: int = 0) -> Inputs:
    """A call `forward(x, edge_index, *per_edge)`."""
    dims: list[tuple[int | str, ...]] = [("N", x.size(1)), (2, "E")]
    dims += [("E", *value.shape[1:]) for value in per_edge]
    return Inputs([x, edge_index, *per_edge], dims, lambda tensors: (tuple(tensors), {}), upstream)


def random_graph(num_nodes: int = 300, num_edges: int = 700) -> tuple[Tensor, Tensor]:
    return torch.randn(num_nodes, COLUMNS), torch.randint(0, num_nodes, (2, num_edges))


class Net(torch.nn.Module):
    """Two layers with degrees and weights."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = GCNConv(COLUMNS, 8), SAGEConv(8, 3)

    def forward(self, x: Tensor, edge_index: Tensor, weight: Tensor | None = None) -> Tensor:
        return self.b(self.a(x, edge_index, weight).relu(), edge_index)


class Recorded:
    """A callable that remembers the sizes it was called with."""

    def __init__(self, call: Any) -> None:
        self.call = call
        self.sizes: list[tuple[int, int]] = []

    def __call__(self, x: Tensor, edge_index: Tensor, *rest: Tensor) -> Any:
        self.sizes.append((x.size(0), edge_index.size(1)))
        with torch.no_grad():
            return self.call(x, edge_index, *rest)


def brute_force(edge_index: Tensor, targets: list[int], hops: int) -> tuple[set[int], set[int]]:
    """Edges whose destination is within `hops` of the targets, and their nodes."""
    pairs = edge_index.t().tolist()
    inside = set(targets)
    for _ in range(hops):
        inside |= {s for s, d in pairs if d in inside}
    edges = {e for e, (_, d) in enumerate(pairs) if d in inside}
    return edges, inside | {pairs[e][0] for e in edges}


@pytest.mark.parametrize("hops", [0, 1, 2, 5])
@pytest.mark.parametrize("name", [name for name in NASTY if NASTY[name][0] > 0])
def test_in_neighborhood_against_brute_force(name: str, hops: int) -> None:
    num_nodes, edge_index = NASTY[name]
    targets = torch.tensor(sorted({0, num_nodes // 2, num_nodes - 1}))
    found = in_neighborhood(edge_index, targets, hops, num_nodes, 10**9)
    assert found is not None
    edges, nodes = brute_force(edge_index, targets.tolist(), hops)
    assert (found[0].tolist(), found[1].tolist()) == (sorted(edges), sorted(nodes))


def test_in_neighborhood_follows_the_flow() -> None:
    edge_index = torch.tensor([[0, 1, 2], [1, 2, 3]])
    up = in_neighborhood(edge_index, torch.tensor([1]), 1, 4, 10)
    down = in_neighborhood(edge_index, torch.tensor([1]), 1, 4, 10, upstream=1)
    assert up is not None and up[1].tolist() == [0, 1]
    assert down is not None and down[1].tolist() == [1, 2, 3]


def test_in_neighborhood_gives_up_beyond_the_budget() -> None:
    _, edge_index = random_graph()
    assert in_neighborhood(edge_index, torch.arange(9), None, 300, 20) is None


@pytest.mark.parametrize("name", [name for name in NASTY if NASTY[name][0] > 0])
@pytest.mark.parametrize("limit", [0, 3, 50, 10**6])
def test_small_subgraph_is_induced_and_small(name: str, limit: int) -> None:
    num_nodes, edge_index = NASTY[name]
    edges, nodes = small_subgraph(edge_index, torch.tensor([0]), num_nodes, limit)
    inside = set(nodes.tolist())
    assert 0 in inside
    expected = [e for e, (s, d) in enumerate(edge_index.t().tolist()) if s in inside and d in inside]
    assert edges.tolist() == expected
    loops = int((edge_index == 0).all(dim=0).sum())
    assert edges.numel() <= max(limit, loops)
    if loops <= limit:
        assert inside == taken_one_by_one(edge_index, limit)


def taken_one_by_one(edge_index: torch.Tensor, limit: int) -> set[int]:
    """The nodes around node 0 in order of distance and number, until one brings too many edges."""
    pairs, inside = edge_index.t().tolist(), {0}
    while True:
        ring = sorted({n for pair in pairs for n in pair if set(pair) & inside} - inside)
        for node in ring:
            more = inside | {node}
            if sum(s in more and d in more for s, d in pairs) > limit:
                return inside
            inside = more
        if not ring:
            return inside


@pytest.mark.parametrize("weighted", [False, True], ids=["plain", "weights"])
def test_right_rows_pass_on_their_neighbourhood(weighted: bool) -> None:
    x, edge_index = random_graph()
    rest = (torch.rand(700),) if weighted else ()
    model = Net().eval()
    forward, engine = Recorded(model), Recorded(model)
    output = engine(x, edge_index, *rest)
    result = verify(inputs_of(x, edge_index, *rest), output, forward=forward, engine=engine, hops=2)
    assert result.how == "neighbourhood"
    assert (result.nodes, result.worst <= result.allowed) == (8, True)
    ((num_nodes, num_edges),) = forward.sizes
    assert num_nodes < 300 and num_edges < 700
    assert engine.sizes == [(300, 700)]


@pytest.mark.parametrize(
    "wrong",
    [
        pytest.param(lambda out: out + 0.01, id="all rows"),
        pytest.param(lambda out: out * torch.tensor([1.0, 1.001, 1.0]), id="one column"),
        pytest.param(lambda out: torch.full_like(out, float("nan")), id="NaN"),
        pytest.param(lambda out: torch.full_like(out, float("inf")), id="inf"),
        pytest.param(lambda out: out.roll(1, dims=0), id="rows shifted"),
        pytest.param(lambda out: out[:, :2], id="too few columns"),
    ],
)
def test_wrong_rows_are_caught(wrong: Any) -> None:
    x, edge_index = random_graph()
    model = Recorded(Net().eval())
    output = wrong(model(x, edge_index))
    with pytest.raises(FullGraphMismatch):
        verify(inputs_of(x, edge_index), output, forward=model, engine=model, hops=2)


def test_the_message_names_node_column_values_and_tolerance() -> None:
    x, edge_index = random_graph()
    model = Recorded(Net().eval())
    output = model(x, edge_index)
    output[:, 1] += 5
    with pytest.raises(FullGraphMismatch) as error:
        verify(inputs_of(x, edge_index), output, forward=model, engine=model, hops=2, name="Net", seeds=300)
    text = str(error.value)
    node = int(text.split()[1].rstrip(","))
    assert text.startswith(f"node {node}, column 1: pyg_fullgraph gives {float(output[node, 1]):.6g}, Net.forward")
    assert "more than the tolerance" in text and "300 of 900" in text and "explain" in text


def test_too_few_hops_would_not_agree() -> None:
    """The neighbourhood is no larger than it must be: one hop less gives other numbers, and only the whole agrees."""
    torch.manual_seed(1)
    x, edge_index = random_graph(60, 300)
    model = Recorded(Net().eval())
    found = verify(inputs_of(x, edge_index), model(x, edge_index), forward=model, engine=model, hops=1)
    assert (found.how, found.nodes, found.edges) == ("whole", 60, 300)


def test_unknown_depth_follows_all_edges() -> None:
    x, edge_index = random_graph(60, 300)
    model = Recorded(Net().eval())
    output = model(x, edge_index)
    assert verify(inputs_of(x, edge_index), output, forward=model, engine=model, hops=None).how == "neighbourhood"


def test_rows_of_asked_nodes() -> None:
    x, edge_index = random_graph()
    model = Recorded(Net().eval())
    nodes = torch.tensor([7, 7, 299, 0, 12])
    output = model(x, edge_index)[nodes]
    inputs = inputs_of(x, edge_index)
    assert verify(inputs, output, forward=model, engine=model, hops=2, nodes=nodes).nodes == 5
    with pytest.raises(FullGraphMismatch):
        verify(inputs, output.flip(0), forward=model, engine=model, hops=2, nodes=nodes)


def test_a_budget_turns_to_a_subgraph_of_both() -> None:
    x, edge_index = random_graph()
    forward, engine = Recorded(Net().eval()), Recorded(None)
    engine.call = forward.call
    output = engine(x, edge_index)
    result = verify(inputs_of(x, edge_index), output, forward=forward, engine=engine, hops=2, budget=10)
    assert result.how == "subgraph"
    assert "more than 10 edges" in result.reason
    assert forward.sizes == engine.sizes[1:]
    assert forward.sizes[0][1] <= 10
    engine.call = lambda *args: forward.call(*args) + 0.1
    with pytest.raises(FullGraphMismatch, match="a subgraph of"):
        verify(inputs_of(x, edge_index), output, forward=forward, engine=engine, hops=2, budget=10)


def test_graph_wide_statistics_take_the_subgraph() -> None:
    x, edge_index = random_graph()
    model = Recorded(GCN(COLUMNS, 8, 2, 3, norm="graph_norm").eval())
    output = model(x, edge_index)
    result = verify(inputs_of(x, edge_index), output, forward=model, engine=model, hops=2, global_reduction=True)
    assert (result.how, result.reason) == ("subgraph", "a value is reduced over all nodes")
    result = verify(inputs_of(x, edge_index), output, forward=model, engine=model, hops=2)
    assert result.how == "whole"  # the neighbourhood disagreed
    with pytest.raises(FullGraphMismatch):
        verify(inputs_of(x, edge_index), output + 0.1, forward=model, engine=model, hops=2)


def test_one_row_for_the_whole_graph_takes_the_subgraph() -> None:
    x, edge_index = random_graph()
    model = Recorded(lambda x, edge_index: x.sum(dim=0))
    result = verify(inputs_of(x, edge_index), model(x, edge_index), forward=model, engine=model, hops=1)
    assert result.how == "subgraph"


def test_a_parameter_per_node_keeps_all_nodes() -> None:
    x, edge_index = random_graph()
    table = torch.randn(300, COLUMNS)
    conv = SAGEConv(COLUMNS, 3).eval()
    model = Recorded(lambda x, edge_index: conv(x + table, edge_index))
    result = verify(inputs_of(x, edge_index), model(x, edge_index), forward=model, engine=model, hops=1)
    assert result.how == "neighbourhood"
    assert model.sizes[-1][0] == 300


def test_a_forward_that_fails_on_parts_says_so() -> None:
    x, edge_index = random_graph()

    def fails(x: Tensor, edge_index: Tensor) -> Tensor:
        if edge_index.size(1) != 700:
            raise RuntimeError("all edges\nor none")
        return x

    assert verify(inputs_of(x, edge_index), x, forward=fails, engine=fails, hops=1).how == "whole"
    result = verify(inputs_of(x, edge_index), x, forward=fails, engine=fails, hops=1, budget=299)
    assert result.how == "none"
    assert "RuntimeError: all edges" in str(result) and "or none" not in str(result)


def test_a_forward_that_fails_on_the_very_call_is_a_finding() -> None:
    x, edge_index = random_graph()

    def fails(x: Tensor, edge_index: Tensor) -> Tensor:
        raise IndexError("index 3 is out of bounds")

    with pytest.raises(FullGraphMismatch, match="forward itself raises IndexError: index 3"):
        verify(inputs_of(x, edge_index), x, forward=fails, engine=lambda x, e: x, hops=1)


def test_too_little_memory_is_no_finding() -> None:
    x, edge_index = random_graph()

    def fails(x: Tensor, edge_index: Tensor) -> Tensor:
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes")

    assert verify(inputs_of(x, edge_index), x, forward=fails, engine=lambda x, e: x, hops=1).how == "none"


@pytest.mark.parametrize("nodes", [None, torch.tensor([299, 3, 3])], ids=["all", "nodes"])
def test_numbers_of_nodes_keep_all_nodes(nodes: Tensor | None) -> None:
    x, edge_index = random_graph()
    conv = SAGEConv(COLUMNS, 3).eval()
    model = Recorded(lambda x, e: conv(torch.where(torch.arange(x.size(0)).view(-1, 1) < 120, x, -x), e))
    output = model(x, edge_index) if nodes is None else model(x, edge_index)[nodes]
    # beyond the budget of the whole, all nodes with fewer edges is the last way
    options: dict[str, Any] = {"forward": model, "engine": model, "hops": 1, "nodes": nodes, "budget": 200}
    assert verify(inputs_of(x, edge_index), output, **options).how == "neighbourhood"
    assert model.sizes[-1][0] == 300 and model.sizes[-1][1] < 100
    with pytest.raises(FullGraphMismatch):
        verify(inputs_of(x, edge_index), output + 0.1, **options)


def test_numbers_of_edges_take_the_subgraph_of_both() -> None:
    """Where the whole is too large; and only where they are known to be computed with."""
    x, edge_index = random_graph()
    model = Recorded(lambda x, e: GraphConv.forward(conv, x, e, torch.arange(e.size(1)) % 3 * 1.0))
    conv = GraphConv(COLUMNS, 3).eval()
    options: dict[str, Any] = {"forward": model, "engine": model, "hops": 1}
    output = model(x, edge_index)
    assert verify(inputs_of(x, edge_index), output, **options).how == "whole"
    found = verify(inputs_of(x, edge_index), output, budget=200, counted=True, **options)
    assert (found.how, found.reason) == ("subgraph", "the number of edges is computed with")
    with pytest.raises(FullGraphMismatch):
        verify(inputs_of(x, edge_index), output, budget=200, **options)


def test_rows_that_are_no_nodes_are_compared_too() -> None:
    x, edge_index = random_graph()
    model = Recorded(lambda x, e: (x, x[e[0]] * 2, torch.ones(3)))
    output = model(x, edge_index)
    options: dict[str, Any] = {"forward": model, "hops": 1}
    assert verify(inputs_of(x, edge_index), output, engine=model, **options).how == "neighbourhood"
    for wrong in ((1.0, 1.1, 1.0), (1.0, 1.0, 1.1)):
        broken = lambda *args, by=wrong: tuple(a * b for a, b in zip(model(*args), by, strict=True))  # noqa: E731
        with pytest.raises(FullGraphMismatch):
            verify(inputs_of(x, edge_index), broken(x, edge_index), engine=broken, **options)


@pytest.mark.parametrize("steps", [1e-1, 1e3])
def test_a_forward_that_moves_is_refused(steps: float) -> None:
    """Its own runs must not set the tolerance; small and large moves alike."""
    x, edge_index = random_graph()
    calls: list[int] = []

    class Moves(Net):
        def forward(self, *args: Tensor) -> Tensor:
            calls.append(1)
            return super().forward(*args) * (1 + steps * len(calls))

    model = Moves().eval()
    with torch.no_grad():
        output = model(x, edge_index)
    with pytest.raises(Unsteady, match="another result at every call"):
        verify(inputs_of(x, edge_index), output, forward=model, engine=model, hops=2)


def test_what_a_forward_leaves_behind_is_seen() -> None:
    """A counter on the model is put back after each run, so that one run tells nothing."""

    class Counts(Net):
        count = 0

        def forward(self, *args: Tensor) -> Tensor:
            self.count += 1
            return super().forward(*args) * self.count

    model, (x, edge_index) = Counts().eval(), random_graph()
    with torch.no_grad():
        output = Net.forward(model, x, edge_index)
    options: dict[str, Any] = {"forward": model, "engine": model, "hops": 2}
    assert verify(inputs_of(x, edge_index), output, **options).how == "neighbourhood"
    with pytest.raises(Unsteady):
        verify(inputs_of(x, edge_index), output, writes=True, **options)
    assert model.count == 0


@pytest.mark.parametrize(
    "wrong",
    [lambda out: out.double(), lambda out: (out, out), lambda out: out.to(torch.complex64)],
    ids=["type", "two", "complex"],
)
def test_other_types_and_numbers_of_tensors_are_caught(wrong: Any) -> None:
    x, edge_index = random_graph()
    model = Recorded(Net().eval())
    with pytest.raises(FullGraphMismatch):
        verify(inputs_of(x, edge_index), wrong(model(x, edge_index)), forward=model, engine=model, hops=2)


def test_imaginary_parts_are_compared() -> None:
    x, edge_index = random_graph()
    model = Recorded(lambda x, e: torch.complex(x, x))
    with pytest.raises(FullGraphMismatch):
        verify(inputs_of(x, edge_index), torch.complex(x, -x), forward=model, engine=model, hops=0)
    assert verify(inputs_of(x, edge_index), torch.complex(x, x), forward=model, engine=model, hops=0).worst == 0


@pytest.mark.parametrize("name", NASTY)
def test_nasty_graphs(name: str) -> None:
    num_nodes, edge_index = NASTY[name]
    x = torch.randn(num_nodes, COLUMNS)
    model = Recorded(Net().eval())
    result = verify(inputs_of(x, edge_index), model(x, edge_index), forward=model, engine=model, hops=2)
    assert result.how == ("none" if num_nodes == 0 else "neighbourhood")


@pytest.mark.parametrize(
    ("dtype", "error"),
    [(torch.float64, 1e-7), (torch.float32, 1e-3), (torch.bfloat16, 0.2), (torch.int64, 1)],
    ids=str,
)
def test_tolerance_follows_the_dtype(dtype: torch.dtype, error: float) -> None:
    edge_index = torch.tensor([[0], [1]])
    x = torch.ones(4, COLUMNS)
    forward = Recorded(lambda x, edge_index: torch.ones_like(x, dtype=dtype))
    right = torch.ones(4, COLUMNS, dtype=dtype)
    inputs = inputs_of(x, edge_index)
    assert verify(inputs, right, forward=forward, engine=forward, hops=1).how == "neighbourhood"
    with pytest.raises(FullGraphMismatch):
        verify(inputs, (right + error).to(dtype), forward=forward, engine=forward, hops=1)


def test_several_edge_types_are_left_alone() -> None:
    edges = torch.tensor([[0], [1]])
    inputs = Inputs([edges, edges.clone()], [(2, "E:a"), (2, "E:b")], lambda tensors: (tuple(tensors), {}))
    result = verify(inputs, torch.ones(2, 2), forward=lambda a, b: a, engine=lambda a, b: a, hops=1)
    assert result == Verification("none", reason="more than one node or edge type")


def test_the_same_seed_takes_the_same_nodes() -> None:
    x, edge_index = random_graph()
    model = Recorded(Net().eval())
    output = model(x, edge_index)
    for seed in (0, 0, 1):
        verify(inputs_of(x, edge_index), output, forward=model, engine=model, hops=1 + 1, seed=seed)
    first, second, third = model.sizes[1:]
    assert first == second
    assert first != third


class Amplifies(torch.nn.Module):
    """A sum whose small differences are all that is left: what float32 rounds off is as large as the result."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = SAGEConv(COLUMNS, 3, aggr="sum")

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        h = self.conv(x, edge_index)
        return (h + 3e4) - 3e4


def test_amplified_rounding_is_judged_in_float64() -> None:
    model, (x, edge_index) = Amplifies().eval(), random_graph()
    with torch.no_grad():
        exact = model.conv(x, edge_index)
    found = verify(inputs_of(x, edge_index), exact, forward=model, engine=model, hops=1)
    assert found.amplified and found.worst <= found.allowed and "float64" in str(found)
    with pytest.raises(FullGraphMismatch):
        verify(inputs_of(x, edge_index), exact + 0.1, forward=model, engine=model, hops=1)
    assert not verify(inputs_of(x, edge_index), exact, forward=model.conv, engine=model.conv, hops=1).amplified


def test_overflow_excuses_nothing() -> None:
    theirs, exact = torch.tensor([[1.0], [float("inf")]]), torch.tensor([[1.0], [1e39]], dtype=torch.float64)
    ours = torch.tensor([[9.0], [float("inf")]])
    with pytest.raises(FullGraphMismatch):
        compare(pairs_of(ours, theirs), torch.arange(2), "Model", "a part", Again(lambda: None, lambda: [exact]))


def test_amplified_rounding_is_bounded() -> None:
    exact = torch.tensor([[1.0], [2.0]], dtype=torch.float64)
    theirs, ours = torch.tensor([[1.5], [2.0]]), torch.tensor([[1.0], [2.3]])
    with pytest.raises(FullGraphMismatch):  # ten times 0.5 would allow anything
        compare(pairs_of(ours, theirs), torch.arange(2), "Model", "a part", Again(lambda: None, lambda: [exact]))


def test_float64_is_not_asked_where_it_cannot_run() -> None:
    class Fixed(Amplifies):
        def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
            assert x.dtype == torch.float32
            return super().forward(x, edge_index)

    model, (x, edge_index) = Fixed().eval(), random_graph()
    with torch.no_grad():
        exact = model.conv(x, edge_index)
    with pytest.raises(FullGraphMismatch):
        verify(inputs_of(x, edge_index), exact, forward=model, engine=model, hops=1)
