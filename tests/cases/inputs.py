"""The arguments of forwards, made for any graph: ``make((num_nodes, edge_index)) -> (args, kwargs)``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch_geometric.data import Data, HeteroData

from tests.cases.case import GraphLike, Inputs

Maker = Callable[[GraphLike], Inputs]

F_IN, F_OUT, F_EDGE, RELATIONS = 16, 8, 3, 4
METADATA = (
    ["paper", "author"],
    [("paper", "cites", "paper"), ("author", "writes", "paper"), ("paper", "rev_writes", "author")],
)


def _generator(num_nodes: int, salt: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(1000 + num_nodes + 7919 * salt)


def features(num_nodes: int, width: int = F_IN, salt: int = 0) -> Tensor:
    """Normal features that depend only on the arguments."""
    return torch.randn(num_nodes, width, generator=_generator(num_nodes, salt))


def sorted_by_destination(edge_index: Tensor) -> Tensor:
    return edge_index[:, edge_index[1].argsort(stable=True)]


# What forwards take beside x and edge_index: name -> (num_nodes, num_edges) -> value --------------

EXTRAS: dict[str, Callable[[int, int], Any]] = {
    "edge_weight": lambda n, e: torch.rand(e, generator=_generator(e, 1)) + 0.1,
    "edge_attr": lambda n, e: torch.randn(e, F_EDGE, generator=_generator(e, 2)),
    "edge_attr_x": lambda n, e: torch.randn(e, F_IN, generator=_generator(e, 3)),
    "pseudo": lambda n, e: torch.rand(e, F_EDGE, generator=_generator(e, 4)),
    "edge_type": lambda n, e: torch.randint(0, RELATIONS, (e,), generator=_generator(e, 5)),
    "sorted_type": lambda n, e: torch.arange(e) * RELATIONS // max(e, 1),
    "node_type": lambda n, e: torch.randint(0, 2, (n,), generator=_generator(n, 6)),
    "pos": lambda n, e: torch.randn(n, 3, generator=_generator(n, 7)),
    "normal": lambda n, e: F.normalize(torch.randn(n, 3, generator=_generator(n, 8)), dim=-1),
    "x_0": lambda n, e: torch.randn(n, F_IN, generator=_generator(n, 9)),
    "batch": lambda n, e: torch.arange(n) * 3 // max(n, 1),
    "gaps": lambda n, e: torch.arange(n) * 3 // max(n, 1) * 2,  # graphs 1 and 3 have no nodes
    "labels": lambda n, e: torch.arange(n) % 5,
    "mask": lambda n, e: torch.arange(n) % 3 == 0,
    "num_nodes": lambda n, e: n,
}


def plain(*extras: str, by_keyword: bool = False, **renamed: str) -> Maker:
    """`forward(x, edge_index, extras...)`; `renamed` passes an extra under another keyword."""

    def make(graph: GraphLike) -> Inputs:
        n, edge_index = graph
        e = edge_index.size(1)
        given = {name: EXTRAS[name](n, e) for name in extras}
        keywords = {key: EXTRAS[name](n, e) for key, name in renamed.items()}
        if by_keyword:
            return (features(n), edge_index), given | keywords
        return (features(n), edge_index, *given.values()), keywords

    return make


def of(*order: str, **constants: Any) -> Maker:
    """Positional arguments in any order, `x` and `edge_index` among them; `-` stands for None."""

    def make(graph: GraphLike) -> Inputs:
        n, edge_index = graph
        known = {"x": features(n), "edge_index": edge_index, "-": None}
        return tuple(known[k] if k in known else EXTRAS[k](n, edge_index.size(1)) for k in order), dict(constants)

    return make


def with_constants(make: Maker, **constants: Any) -> Maker:
    """The same call with more keywords."""

    def more(graph: GraphLike) -> Inputs:
        args, kwargs = make(graph)
        return args, {**kwargs, **constants}

    return more


# Two kinds of nodes --------------------------------------------------------------------------------


def folded(graph: GraphLike) -> tuple[int, int, Tensor]:
    """Sources, fewer destinations, and the edges between them."""
    n, edge_index = graph
    targets = max(1, n // 2)
    return n, targets, torch.stack([edge_index[0], edge_index[1] % targets])


def bipartite(graph: GraphLike) -> Inputs:
    """`((x_src, x_dst), edge_index)`: fewer destinations than sources."""
    n, targets, edge_index = folded(graph)
    return ((features(n), features(targets, salt=1)), edge_index), {}


def bipartite_narrow(graph: GraphLike) -> Inputs:
    (pair, edge_index), _ = bipartite(graph)
    return ((pair[0], pair[1][:, :6].contiguous()), edge_index), {}


def sides(*extras: str, narrow: bool = False) -> Maker:
    """`((x_src, x_dst), edge_index, extras...)`."""

    def make(graph: GraphLike) -> Inputs:
        args, kwargs = (bipartite_narrow if narrow else bipartite)(graph)
        return (*args, *(EXTRAS[name](graph[0], graph[1].size(1)) for name in extras)), kwargs

    return make


def sources(*extras: str) -> Maker:
    """`((x_src, None), edge_index, extras..., size=(N, M))`."""

    def make(graph: GraphLike) -> Inputs:
        n, targets, edge_index = folded(graph)
        given = (EXTRAS[name](n, edge_index.size(1)) for name in extras)
        return ((features(n), None), edge_index, *given), {"size": (n, targets)}

    return make


def point_sides(*between: str, x: bool = True) -> Maker:
    """`((x_src, x_dst), (pos_src, pos_dst), between..., edge_index)`; features may be None."""

    def make(graph: GraphLike) -> Inputs:
        n, targets, edge_index = folded(graph)
        pairs = [
            (EXTRAS[name](n, 0), EXTRAS[name](targets, 0) + (0.25 if name == "pos" else 0.0))
            for name in ("pos", *between)
        ]
        return ((features(n), features(targets, salt=1)) if x else None, *pairs, edge_index), {}

    return make


# Special graphs ------------------------------------------------------------------------------------


def static(*extras: str) -> Maker:
    """Features over time on one graph: `x [T, N, F]`."""

    def make(graph: GraphLike) -> Inputs:
        n, edge_index = graph
        x = torch.stack([features(n, salt=k) for k in range(3)])
        return (x, edge_index, *(EXTRAS[name](n, edge_index.size(1)) for name in extras)), {}

    return make


def sorted_plain(graph: GraphLike) -> Inputs:
    return (features(graph[0]), sorted_by_destination(graph[1])), {}


def sorted_batch(graph: GraphLike) -> Inputs:
    return (features(graph[0]), sorted_by_destination(graph[1]), EXTRAS["batch"](graph[0], 0)), {}


def own_self_loops(graph: GraphLike) -> Inputs:
    """One self-loop per node, put there by the user."""
    n, edge_index = graph
    loops = torch.arange(n).expand(2, n)
    return (features(n), torch.cat([edge_index[:, edge_index[0] != edge_index[1]], loops], dim=1)), {}


def ring(graph: GraphLike) -> Inputs:
    """A cycle added, so that no node is without in-edges: the median of torch_geometric fails on a first
    empty row.
    """
    n, edge_index = graph
    cycle = torch.stack([torch.arange(n), (torch.arange(n) + 1) % n])
    return (features(n), torch.cat([edge_index, cycle], dim=1)), {}


def signed(graph: GraphLike) -> Inputs:
    n, edge_index = graph
    return (features(n), edge_index, edge_index.flip(0)[:, ::2].contiguous()), {}


def signed_sides(graph: GraphLike) -> Inputs:
    (pair, edge_index), _ = bipartite(graph)
    return (pair, edge_index, edge_index[:, ::2].contiguous()), {}


def hyper(with_attributes: bool) -> Maker:
    """Nodes to hyperedges; every node and hyperedge index that sizes the result is present."""

    def make(graph: GraphLike) -> Inputs:
        n, edge_index = graph
        count = max(1, n // 2)
        hyperedge_index = torch.stack([edge_index[0], edge_index[1] % count])
        every = torch.stack([torch.zeros(count, dtype=torch.long), torch.arange(count)])
        hyperedge_index = torch.cat([hyperedge_index, every], dim=1)
        if not with_attributes:
            return (features(n), hyperedge_index), {}
        weight, attributes = torch.rand(count, generator=_generator(count, 1)), features(count, F_IN, 2)
        return (features(n), hyperedge_index, weight, attributes), {"num_edges": count}

    return make


def dna(graph: GraphLike) -> Inputs:
    """Every node's own history: `x [N, L, F]`."""
    return (torch.stack([features(graph[0], salt=k) for k in range(3)], dim=1), graph[1]), {}


def dna_weight(graph: GraphLike) -> Inputs:
    args, _ = dna(graph)
    return (*args, EXTRAS["edge_weight"](graph[0], graph[1].size(1))), {}


def mesh(graph: GraphLike) -> Inputs:
    """MeshCNN: edges are rows, four neighbours each."""
    n = max(graph[0], 5)
    around = torch.stack([(torch.arange(n) + k) % n for k in (1, 2, 3, 4)], dim=1).reshape(-1)
    return (features(n), torch.stack([around, torch.arange(n).repeat_interleave(4)])), {}


def adjs(graph: GraphLike) -> Inputs:
    n, edge_index = graph
    layer = (edge_index, torch.arange(edge_index.size(1)), (n, n))
    return (features(n), [layer, layer]), {}


def whole_data(graph: GraphLike) -> Inputs:
    n, edge_index = graph
    e = edge_index.size(1)
    return (Data(x=features(n), edge_index=edge_index, edge_attr=EXTRAS["edge_attr"](n, e)),), {}


def relational_ids(graph: GraphLike) -> Inputs:
    n, edge_index = graph
    return (torch.arange(n) % 32, edge_index, EXTRAS["edge_type"](n, edge_index.size(1))), {}


def of_40_nodes(*extras: str) -> Maker:
    """The edges folded onto 40 nodes, for models with a parameter per node."""

    def make(graph: GraphLike) -> Inputs:
        edge_index = graph[1] % 40
        return (features(40), edge_index, *(EXTRAS[name](40, edge_index.size(1)) for name in extras)), {}

    return make


def pairs(count: int = 40) -> Maker:
    """`(head, rel, tail)`: links between the rows of an embedding table."""

    def make(graph: GraphLike) -> Inputs:
        n, edge_index = graph
        return (edge_index[0] % count, EXTRAS["edge_type"](n, edge_index.size(1)), edge_index[1] % count), {}

    return make


# Heterogeneous graphs -----------------------------------------------------------------------------


def hetero_parts(graph: GraphLike) -> tuple[dict[str, Tensor], dict[tuple[str, str, str], Tensor]]:
    """x_dict and edge_index_dict: the graph as citations, and two bipartite foldings of it."""
    n, edge_index = graph
    authors = n // 2 + 1
    author = edge_index[0] % authors
    return {"paper": features(n), "author": features(authors, salt=1)}, {
        METADATA[1][0]: edge_index,
        METADATA[1][1]: torch.stack([author, edge_index[1]])[:, ::2].contiguous(),
        METADATA[1][2]: torch.stack([edge_index[1], author])[:, 1::2].contiguous(),
    }


def hetero(graph: GraphLike) -> Inputs:
    return hetero_parts(graph), {}


def hetero_weighted(graph: GraphLike) -> Inputs:
    """With `edge_weight_dict`, as layers inside HeteroConv take it."""
    x_dict, edge_index_dict = hetero_parts(graph)
    weights = {key: EXTRAS["edge_weight"](0, e.size(1)) for key, e in edge_index_dict.items()}
    return (x_dict, edge_index_dict), {"edge_weight_dict": weights}


def hetero_data(graph: GraphLike) -> Inputs:
    x_dict, edge_index_dict = hetero_parts(graph)
    data = HeteroData()
    for key, x in x_dict.items():
        data[key].x = x
    for triple, edge_index in edge_index_dict.items():
        data[triple].edge_index = edge_index
    return (data,), {}
