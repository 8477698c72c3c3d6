"""The models that `whole_model.py` measures, the graphs that they run on, and which peers can take them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch_geometric.nn import DeepGCNLayer, GENConv, HGTConv, RGCNConv, TransformerConv
from torch_geometric.nn.models import GAT, GCN, GIN, PNA, EdgeCNN, GraphSAGE

from pyg_fullgraph.graph.generate import rmat

LAYERS = 3
HEADS = 4
RELATIONS = 4
#: Share of the nodes that each type has.
NODE_TYPES = {"paper": 0.5, "author": 0.25, "field": 0.25}
EDGE_TYPES = [(source, "to", target) for source in NODE_TYPES for target in NODE_TYPES]

XDict = dict[str, Tensor]
EdgeDict = dict[tuple[str, str, str], Tensor]


@dataclass(frozen=True)
class Setting:
    """One model on one graph; small enough to send to another process.

    Attributes:
        model: one of `MODELS`.
        log2_nodes: the graph has ``2**log2_nodes`` nodes, all types together.
        degree: the mean in-degree.
        width: columns of the features, of every hidden layer and of the output.
        seed: of graph, features and weights.
    """

    model: str
    log2_nodes: int
    degree: int
    width: int = 128
    seed: int = 0

    def generator(self) -> torch.Generator:
        """The source of all random numbers but the graph's own."""
        return torch.Generator().manual_seed(self.seed)


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

    def __init__(self, width: int) -> None:
        super().__init__()
        metadata = (list(NODE_TYPES), EDGE_TYPES)
        self.convs = nn.ModuleList(HGTConv(width, width, metadata, heads=HEADS) for _ in range(LAYERS))
        self.out = nn.ModuleDict({kind: nn.Linear(width, width) for kind in NODE_TYPES})

    def forward(self, x_dict: XDict, edge_index_dict: EdgeDict) -> XDict:
        for conv in self.convs:
            x_dict = conv(x_dict, edge_index_dict)
        return {kind: self.out[kind](x) for kind, x in x_dict.items()}


def typed_rmat(log2_nodes: int, degree: int, *, seed: int = 0) -> tuple[dict[str, int], EdgeDict]:
    """An R-MAT graph whose nodes have types: a random half are papers, a quarter each authors and fields.

    R-MAT numbers its nodes at random, so consecutive numbers are a random set of nodes; every relation then
    has degrees as skewed as the whole graph's. No edge is lost: the relations are all ordered pairs of types.

    Args:
        log2_nodes: the base-2 logarithm of the number of all nodes.
        degree: the mean in-degree over all relations.
        seed: of the random numbers.

    Returns:
        The number of nodes of every type, and ``edge_index`` ``[2, E_r]`` of every relation.
    """
    edge_index = rmat(log2_nodes, degree, seed=seed)
    total = 1 << log2_nodes
    bounds = [0, *(round(total * share) for share in torch.tensor(list(NODE_TYPES.values())).cumsum(0).tolist())]
    kinds = torch.bucketize(edge_index, torch.tensor(bounds[1:]), right=True)
    relation = kinds[0] * len(NODE_TYPES) + kinds[1]
    edges: EdgeDict = {}
    for number, triple in enumerate(EDGE_TYPES):
        first = torch.tensor([bounds[number // len(NODE_TYPES)], bounds[number % len(NODE_TYPES)]])
        edges[triple] = edge_index[:, relation == number] - first.view(2, 1)
    return {kind: bounds[i + 1] - bounds[i] for i, kind in enumerate(NODE_TYPES)}, edges


def build_inputs(setting: Setting) -> tuple[Any, ...]:
    """The arguments of the model's forward.

    ``x`` ``[N, F]`` and ``edge_index`` ``[2, E]``, for rgcn also ``edge_type`` ``[E]``; for hgt ``x_dict`` and
    ``edge_index_dict``.
    """
    generator = setting.generator()
    if setting.model == "hgt":
        sizes, edges = typed_rmat(setting.log2_nodes, setting.degree, seed=setting.seed)
        return {kind: torch.randn(n, setting.width, generator=generator) for kind, n in sizes.items()}, edges
    edge_index = rmat(setting.log2_nodes, setting.degree, seed=setting.seed)
    x = torch.randn(1 << setting.log2_nodes, setting.width, generator=generator)
    if setting.model == "rgcn":
        return x, edge_index, torch.randint(0, RELATIONS, (edge_index.size(1),), generator=generator)
    return x, edge_index


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
    edge_index = build_inputs(setting)[1]
    degrees = torch.bincount(torch.bincount(edge_index[1], minlength=1 << setting.log2_nodes))
    lists = {"aggregators": ["mean", "min", "max", "std"], "scalers": ["identity", "amplification", "attenuation"]}
    return _basic(PNA, **lists, deg=degrees)(setting)


def _rgcn(setting: Setting) -> nn.Module:
    return Stack([RGCNConv(setting.width, setting.width, RELATIONS) for _ in range(LAYERS)])


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
    "hgt": lambda setting: HGT(setting.width),
}

#: Models that take an adjacency matrix in place of edge_index.
TAKES_MATRIX = frozenset(MODELS) - {"rgcn", "hgt"}
#: Models with an `inference()`: PyG gives it to its ready models only.
HAS_INFERENCE = frozenset(["sage", "gcn", "gin", "gat", "gatv2", "pna", "edgeconv"])
#: Models that sampled mini-batches are emulated for: those that take only ``x`` and ``edge_index``.
SAMPLED = TAKES_MATRIX


def build_model(setting: Setting) -> nn.Module:
    """The model with random weights, in evaluation mode."""
    torch.manual_seed(setting.seed)
    return MODELS[setting.model](setting).eval()
