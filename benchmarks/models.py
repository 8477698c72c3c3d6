"""The models that `whole_model.py` measures, the graphs that they run on, and which peers can take them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from graphs import EdgeDict, Source, edges_of, typed_edges_of
from torch import Tensor, nn
from torch_geometric.nn import DeepGCNLayer, GENConv, HGTConv, RGCNConv, TransformerConv
from torch_geometric.nn.models import GAT, GCN, GIN, PNA, EdgeCNN, GraphSAGE

LAYERS = 3
HEADS = 4
RELATIONS = 4
#: Share of the nodes that each type has.
NODE_TYPES = {"paper": 0.5, "author": 0.25, "field": 0.25}
EDGE_TYPES = [(source, "to", target) for source in NODE_TYPES for target in NODE_TYPES]

XDict = dict[str, Tensor]


@dataclass(frozen=True)
class Setting:
    """One model on one graph; small enough to send to another process.

    Attributes:
        model: one of `MODELS`.
        source: the graph. The features of a real one are not used: with random ones of one width, times on different
            graphs compare.
        width: columns of the features, of every hidden layer and of the output.
    """

    model: str
    source: Source
    width: int = 128

    def generator(self) -> torch.Generator:
        """The source of all random numbers but the graph's own."""
        return torch.Generator().manual_seed(self.source.seed)


class Stack(nn.Module):
    """Layers with a ReLU between them; what forward takes beside ``x`` goes to every layer."""

    def __init__(self, layers: list[nn.Module]) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)

    def forward(self, x: Tensor, *graph: Tensor) -> Tensor:
        for layer in self.layers[:-1]:
            x = layer(x, *graph).relu()
        return self.layers[-1](x, *graph)


class DeepGCN(nn.Module):
    """GENConv layers with softmax aggregation and pre-activation skips, as PyG's example for ogbn-proteins."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            DeepGCNLayer(
                GENConv(width, width, aggr="softmax", learn_t=True), nn.LayerNorm(width), nn.ReLU(), block="res+"
            )
            for _ in range(LAYERS)
        )
        self.out = nn.Linear(width, width)

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        x = self.layers[0].conv(x, edge_index)
        for layer in self.layers[1:]:
            x = layer(x, edge_index)
        return self.out(self.layers[0].act(self.layers[0].norm(x)))


class HGT(nn.Module):
    """Heterogeneous graph transformer: HGTConv layers, then one linear layer per node type."""

    def __init__(self, width: int, kinds: list[str], relations: list[tuple[str, str, str]]) -> None:
        super().__init__()
        metadata = (kinds, relations)
        self.convs = nn.ModuleList(HGTConv(width, width, metadata, heads=HEADS) for _ in range(LAYERS))
        self.out = nn.ModuleDict({kind: nn.Linear(width, width) for kind in kinds})

    def forward(self, x_dict: XDict, edge_index_dict: EdgeDict) -> XDict:
        for conv in self.convs:
            x_dict = conv(x_dict, edge_index_dict)
        return {kind: self.out[kind](x) for kind, x in x_dict.items()}


def typed(edge_index: Tensor, num_nodes: int) -> tuple[dict[str, int], EdgeDict]:
    """Gives the nodes of a graph types by their numbers: the first half are papers, a quarter each authors and fields.

    R-MAT numbers its nodes at random, so consecutive numbers are a random set of nodes; every relation then
    has degrees as skewed as the whole graph's. No edge is lost: the relations are all ordered pairs of types.

    Args:
        edge_index: ``[2, E]``.
        num_nodes: N.

    Returns:
        The number of nodes of every type, and ``edge_index`` ``[2, E_r]`` of every relation.
    """
    bounds = [0, *(round(num_nodes * share) for share in torch.tensor(list(NODE_TYPES.values())).cumsum(0).tolist())]
    kinds = torch.bucketize(edge_index, torch.tensor(bounds[1:]), right=True)
    relation = kinds[0] * len(NODE_TYPES) + kinds[1]
    edges: EdgeDict = {}
    for number, triple in enumerate(EDGE_TYPES):
        first = torch.tensor([bounds[number // len(NODE_TYPES)], bounds[number % len(NODE_TYPES)]])
        edges[triple] = edge_index[:, relation == number] - first.view(2, 1)
    return {kind: bounds[i + 1] - bounds[i] for i, kind in enumerate(NODE_TYPES)}, edges


def takes_graph(model: str, source: Source) -> bool:
    """Whether the model runs on the graph: a graph whose nodes have types needs a model that knows types."""
    return model == "hgt" or not source.hetero


def build_inputs(setting: Setting) -> tuple[Any, ...]:
    """The arguments of the model's forward.

    ``x`` ``[N, F]`` and ``edge_index`` ``[2, E]``, for rgcn also ``edge_type`` ``[E]``; for hgt ``x_dict`` and
    ``edge_index_dict``.
    """
    generator, source = setting.generator(), setting.source
    if setting.model == "hgt":
        sizes, edges = typed_graph(source)
        return {kind: torch.randn(n, setting.width, generator=generator) for kind, n in sizes.items()}, edges
    graph = edges_of(source)
    x = torch.randn(graph.num_nodes, setting.width, generator=generator)
    if setting.model == "rgcn":
        return x, graph.edge_index, relations_of(setting)
    return x, graph.edge_index


def tiny_inputs(setting: Setting) -> tuple[Any, ...]:
    """Arguments of the same kinds as those of `build_inputs`, on a graph small enough to warm up with."""
    if not setting.source.hetero:
        return build_inputs(replace(setting, source=Source(8, 4, setting.source.seed)))
    sizes, edges = typed_edges_of(setting.source)
    generator = setting.generator()
    # Not one tensor for all relations: an engine takes that for another model and traces again.
    tiny = {triple: torch.randint(0, 64, (2, 256), generator=generator) for triple in edges}
    return {kind: torch.zeros(64, setting.width) for kind in sizes}, tiny


def typed_graph(source: Source) -> tuple[dict[str, int], EdgeDict]:
    """The graph with types of nodes: its own, or those of `typed`."""
    if source.hetero:
        return typed_edges_of(source)
    graph = edges_of(source)
    return typed(graph.edge_index, graph.num_nodes)


def relations_of(setting: Setting) -> Tensor:
    """The type of every edge ``[E]``: the graph's own, or random ones."""
    graph = edges_of(setting.source)
    if graph.edge_type is not None:
        return graph.edge_type
    return torch.randint(0, RELATIONS, (graph.edge_index.size(1),), generator=setting.generator())


def num_nodes(inputs: tuple[Any, ...]) -> int:
    """All nodes of a call, whatever their type."""
    return sum(x.size(0) for x in inputs[0].values()) if isinstance(inputs[0], dict) else inputs[0].size(0)


def num_edges(inputs: tuple[Any, ...]) -> int:
    """All edges of a call, whatever their type."""
    graph = inputs[1]
    return sum(e.size(1) for e in graph.values()) if isinstance(graph, dict) else graph.size(1)


def _basic(kind: type, **options: Any) -> Callable[[Setting], nn.Module]:
    """One of PyG's ready models."""

    def build(setting: Setting) -> nn.Module:
        width = setting.width
        return kind(width, width, LAYERS, width, **options)

    return build


def _pna(setting: Setting) -> nn.Module:
    """PNA reads the graph's degrees."""
    graph = edges_of(setting.source)
    degrees = torch.bincount(torch.bincount(graph.edge_index[1], minlength=graph.num_nodes))
    lists = {"aggregators": ["mean", "min", "max", "std"], "scalers": ["identity", "amplification", "attenuation"]}
    return _basic(PNA, **lists, deg=degrees)(setting)


def _rgcn(setting: Setting) -> nn.Module:
    own = edges_of(setting.source).edge_type
    relations = RELATIONS if own is None else int(own.max()) + 1
    return Stack([RGCNConv(setting.width, setting.width, relations) for _ in range(LAYERS)])


def _hgt(setting: Setting) -> nn.Module:
    sizes, edges = typed_graph(setting.source)
    return HGT(setting.width, list(sizes), list(edges))


def _transformer(setting: Setting) -> nn.Module:
    width = setting.width
    return Stack([TransformerConv(width, width // HEADS, heads=HEADS, beta=True) for _ in range(LAYERS)])


MODELS: dict[str, Callable[[Setting], nn.Module]] = {
    "sage": _basic(GraphSAGE),
    "gcn": _basic(GCN),
    "gin": _basic(GIN),
    "gat": _basic(GAT, heads=HEADS),
    "gatv2": _basic(GAT, heads=HEADS, v2=True),
    "pna": _pna,
    "edgeconv": _basic(EdgeCNN),
    "transformer": _transformer,
    "gen": lambda setting: DeepGCN(setting.width),
    "rgcn": _rgcn,
    "hgt": _hgt,
}

#: Models that take an adjacency matrix in place of edge_index.
TAKES_MATRIX = frozenset(MODELS) - {"rgcn", "hgt"}
#: Models with an `inference()`: PyG gives it to its ready models only.
HAS_INFERENCE = frozenset(["sage", "gcn", "gin", "gat", "gatv2", "pna", "edgeconv"])
#: Models that sampled mini-batches are emulated for: those that take only ``x`` and ``edge_index``.
SAMPLED = TAKES_MATRIX


def build_model(setting: Setting) -> nn.Module:
    """The model with random weights, in evaluation mode."""
    torch.manual_seed(setting.source.seed)
    return MODELS[setting.model](setting).eval()
