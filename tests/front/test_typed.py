"""Verification of calls with several kinds of nodes: what it recomputes, what it catches, what it leaves alone."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch_geometric.nn import HeteroConv, SAGEConv, SignedConv

from pyg_fullgraph.errors import FullGraphMismatch
from pyg_fullgraph.front.attempts import Verification
from pyg_fullgraph.front.typed import _typed, neighborhood, verify
from pyg_fullgraph.front.verify import Inputs

SIZES = {"paper": 40, "author": 25}
WRITES, CITES, REV = ("author", "writes", "paper"), ("paper", "cites", "paper"), ("paper", "rev", "author")


def graph() -> tuple[dict[str, Tensor], dict[tuple[str, str, str], Tensor]]:
    edges = {
        key: torch.stack([torch.randint(SIZES[key[0]], (count,)), torch.randint(SIZES[key[2]], (count,))])
        for key, count in ((WRITES, 60), (CITES, 50), (REV, 30))
    }
    return {kind: torch.randn(size, 6) for kind, size in SIZES.items()}, edges


def inputs_of(x_dict: dict[str, Tensor], edge_index_dict: dict[Any, Tensor]) -> Inputs:
    """A call `forward(x_dict, edge_index_dict)`."""
    kinds, keys = list(x_dict), list(edge_index_dict)
    dims: list[tuple[int | str, ...]] = [(f"N:{kind}", 6) for kind in kinds]
    dims += [(2, f"E:{'__'.join(key)}") for key in keys]

    def rebuild(tensors: list[Tensor]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        return (dict(zip(kinds, tensors)), dict(zip(keys, tensors[len(kinds) :]))), {}

    return Inputs([*x_dict.values(), *edge_index_dict.values()], dims, rebuild)


class Net(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = (
            HeteroConv({key: SAGEConv((width, width), 4) for key in (WRITES, CITES, REV)}) for width in (6, 4)
        )

    def forward(self, x_dict: dict[str, Tensor], edge_index_dict: dict[Any, Tensor]) -> dict[str, Tensor]:
        return self.last({key: x.relu() for key, x in self.first(x_dict, edge_index_dict).items()}, edge_index_dict)


def check(model: torch.nn.Module, engine: Any, inputs: Inputs, **options: Any) -> Verification:
    """Verifies what `engine` returns for the call."""
    args, kwargs = inputs.rebuild(list(inputs.tensors))
    with torch.no_grad():
        output = engine(*args, **kwargs)
        return verify(inputs, output, forward=model, engine=engine, **{"hops": 2, **options})


def test_recomputes_seeds_of_every_kind() -> None:
    model = Net().eval()
    found = check(model, model, inputs_of(*graph()))
    assert (found.how, found.nodes) == ("neighbourhood", 16)
    assert found.worst <= found.allowed


@pytest.mark.parametrize("kind", SIZES)
def test_catches_a_wrong_row_of_any_kind(kind: str) -> None:
    model = Net().eval()

    def wrong(*args: Any) -> Any:
        out = model(*args)
        return {key: x + 0.1 * (key == kind) for key, x in out.items()}

    with pytest.raises(FullGraphMismatch, match="in-neighbourhood"):
        check(model, wrong, inputs_of(*graph()))
    with pytest.raises(FullGraphMismatch, match="drawn edges"):
        check(model, wrong, inputs_of(*graph()), global_reduction=True)


@pytest.mark.parametrize("options", [{"global_reduction": True}, {"budget": 3}, {"senders": {0, 1}}], ids=str)
def test_draws_edges_where_the_neighbourhood_is_not_enough(options: dict[str, Any]) -> None:
    model, (x_dict, edges) = Net().eval(), graph()
    found = check(model, model, inputs_of(x_dict, edges), **options)
    ends = {(kind, n) for key, e in edges.items() for kind, row in zip(key[::2], e.tolist()) for n in row}
    assert (found.how, found.edges, found.nodes) == ("subgraph", 140, len(ends))
    assert found.reason


def brute_force(edges: dict[Any, Tensor], seeds: dict[str, set[int]], hops: int) -> dict[str, set[int]]:
    """Nodes of every kind that the seeds read over so many hops."""
    inside = {kind: set(seeds.get(kind, ())) for kind in SIZES}
    for _ in range(hops):
        before = {kind: set(nodes) for kind, nodes in inside.items()}
        for (source, _, target), edge_index in edges.items():
            inside[source] |= {s for s, d in edge_index.t().tolist() if d in before[target]}
    return inside


@pytest.mark.parametrize("hops", [1, 2, 3])
def test_neighbourhood_holds_all_that_is_read(hops: int) -> None:
    x_dict, edges = graph()
    call = _typed(inputs_of(x_dict, edges), 0)
    assert not isinstance(call, str)
    kept = neighborhood(call, {"N:paper": torch.tensor([3, 7])}, hops, 10**6)
    read = brute_force(edges, {"paper": {3, 7}}, hops)
    into = brute_force(edges, {"paper": {3, 7}}, hops + 1)
    assert kept is not None
    for kind, nodes in into.items():
        assert nodes <= set(kept[f"N:{kind}"].tolist()) <= nodes | {0}
    for (source, relation, target), edge_index in edges.items():
        wanted = [i for i, d in enumerate(edge_index[1].tolist()) if d in read[target]]
        assert kept[f"E:{source}__{relation}__{target}"].tolist() == wanted


def test_edges_of_two_kinds_between_the_same_nodes() -> None:
    x, edges = torch.randn(30, 6), [torch.randint(30, (2, count)) for count in (70, 40)]
    model = SignedConv(6, 4, first_aggr=True).eval()
    inputs = Inputs([x, *edges], [("N", 6), (2, "E"), (2, "E:neg_edge_index")], lambda t: (tuple(t), {}))
    assert check(model, model, inputs, hops=1).how == "neighbourhood"


def test_says_why_nothing_was_compared() -> None:
    x_dict, edges = graph()
    unknown = inputs_of(x_dict, edges)
    named = Inputs(unknown.tensors, [*unknown.dims[:2], (2, "E:a"), (2, "E:b"), (2, "E:c")], unknown.rebuild)
    model = Net().eval()
    found = check(model, model, named)
    assert found.how == "whole" and "which nodes 'E:a' is between" in found.reason
    found = check(model, model, named, budget=55)
    assert found.how == "none" and "which nodes 'E:a' is between" in found.reason
    empty = inputs_of({**x_dict, "author": torch.randn(0, 6)}, {key: e[:, :0] for key, e in edges.items()})
    assert "a kind of nodes is empty" in check(model, model, empty).reason


def test_a_relation_without_edges_is_kept() -> None:
    x_dict, edges = graph()
    model = Net().eval()
    found = check(model, model, inputs_of(x_dict, {**edges, CITES: edges[CITES][:, :0]}))
    assert (found.how, found.nodes) == ("neighbourhood", 16)


def test_a_forward_that_fails_on_a_part_is_reported() -> None:
    class Picky(Net):
        whole = False

        def forward(self, x_dict: dict[str, Tensor], edge_index_dict: dict[Any, Tensor]) -> dict[str, Tensor]:
            assert x_dict["paper"].size(0) == SIZES["paper"], "not my graph"
            assert not self.whole, "not my graph"
            return super().forward(x_dict, edge_index_dict)

    model = Picky().eval()
    assert check(model, model, inputs_of(*graph())).how == "neighbourhood"  # with all nodes
    model.whole = True
    found = check(model, lambda *args: Net.forward(model, *args), inputs_of(*graph()), budget=55)
    assert found.how == "none" and "not my graph" in found.reason


@pytest.mark.parametrize("kind", SIZES)
def test_rows_of_asked_nodes_are_compared(kind: str) -> None:
    model, inputs = Net().eval(), inputs_of(*graph())
    nodes = {f"N:{kind}": torch.tensor([SIZES[kind] - 1, 3, 3])}

    def asked(shift: int) -> Any:
        def run(*args: Any) -> Any:
            out = model(*args)
            return {key: x.roll(shift, 0)[nodes[f"N:{key}"]] if f"N:{key}" in nodes else x for key, x in out.items()}

        return run

    found = check(model, asked(0), inputs, nodes=nodes)
    assert (found.how, found.nodes) == ("neighbourhood", 3 + 8)
    with pytest.raises(FullGraphMismatch):
        check(model, asked(1), inputs, nodes=nodes)


def test_numbers_of_nodes_keep_all_nodes() -> None:
    class Numbered(Net):
        def forward(self, x_dict: dict[str, Tensor], edge_index_dict: dict[Any, Tensor]) -> dict[str, Tensor]:
            signs = {key: (torch.arange(x.size(0)) % 2).view(-1, 1) for key, x in x_dict.items()}
            return super().forward({key: x * signs[key] for key, x in x_dict.items()}, edge_index_dict)

    model = Numbered().eval()
    assert check(model, model, inputs_of(*graph())).how == "neighbourhood"
    with pytest.raises(FullGraphMismatch):
        check(model, lambda *args: {key: x + 0.1 for key, x in model(*args).items()}, inputs_of(*graph()))
