"""About 120 layers and models, built as torch_geometric's own tests build them, each replayable on any graph.

`Case.build()` gives the module in eval mode with fixed weights; `Case.make_inputs((num_nodes, edge_index))`
gives the arguments of its forward for that graph. `kind` is conv, model, user or hetero. `refused` says why
a case must raise `CaptureError`.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
import torch_geometric.nn as gnn
from torch import Tensor
from torch_geometric.data import Data, HeteroData

from tests.capture import user_models as user

GraphLike = tuple[int, Tensor]
Inputs = tuple[tuple[Any, ...], dict[str, Any]]

F_IN, F_OUT, F_EDGE, RELATIONS = 16, 8, 3, 4
METADATA = (
    ["paper", "author"],
    [("paper", "cites", "paper"), ("author", "writes", "paper"), ("paper", "rev_writes", "author")],
)


@dataclass(frozen=True)
class Case:
    """One configuration; see the module."""

    id: str
    build: Callable[[], torch.nn.Module]
    make_inputs: Callable[[GraphLike], Inputs]
    kind: str
    refused: str = ""
    needs_edges: bool = False  # the module's own forward fails on a graph without edges

    def __repr__(self) -> str:
        return self.id


def _generator(num_nodes: int, salt: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(1000 + num_nodes + 7919 * salt)


def features(num_nodes: int, width: int = F_IN, salt: int = 0) -> Tensor:
    """Normal features that depend only on the arguments."""
    return torch.randn(num_nodes, width, generator=_generator(num_nodes, salt))


def sorted_by_destination(edge_index: Tensor) -> Tensor:
    return edge_index[:, edge_index[1].argsort(stable=True)]


# What forwards take beside x and edge_index: name -> (num_nodes, num_edges) -> value --------------

_EXTRAS: dict[str, Callable[[int, int], Any]] = {
    "edge_weight": lambda n, e: torch.rand(e, generator=_generator(e, 1)) + 0.1,
    "edge_attr": lambda n, e: torch.randn(e, F_EDGE, generator=_generator(e, 2)),
    "edge_attr_x": lambda n, e: torch.randn(e, F_IN, generator=_generator(e, 3)),
    "pseudo": lambda n, e: torch.rand(e, F_EDGE, generator=_generator(e, 4)),
    "edge_type": lambda n, e: torch.randint(0, RELATIONS, (e,), generator=_generator(e, 5)),
    "node_type": lambda n, e: torch.randint(0, 2, (n,), generator=_generator(n, 6)),
    "pos": lambda n, e: torch.randn(n, 3, generator=_generator(n, 7)),
    "normal": lambda n, e: F.normalize(torch.randn(n, 3, generator=_generator(n, 8)), dim=-1),
    "x_0": lambda n, e: torch.randn(n, F_IN, generator=_generator(n, 9)),
    "batch": lambda n, e: torch.arange(n) * 3 // max(n, 1),
    "labels": lambda n, e: torch.arange(n) % 5,
}


def plain(*extras: str, by_keyword: bool = False, **renamed: str) -> Callable[[GraphLike], Inputs]:
    """`forward(x, edge_index, extras...)`; `renamed` passes an extra under another keyword."""

    def make(graph: GraphLike) -> Inputs:
        n, edge_index = graph
        e = edge_index.size(1)
        given = {name: _EXTRAS[name](n, e) for name in extras}
        keywords = {key: _EXTRAS[name](n, e) for key, name in renamed.items()}
        if by_keyword:
            return (features(n), edge_index), given | keywords
        return (features(n), edge_index, *given.values()), keywords

    return make


def of(*order: str) -> Callable[[GraphLike], Inputs]:
    """Positional arguments in any order, `x` and `edge_index` among them; `-` stands for None."""

    def make(graph: GraphLike) -> Inputs:
        n, edge_index = graph
        known = {"x": features(n), "edge_index": edge_index, "-": None}
        return tuple(known[k] if k in known else _EXTRAS[k](n, edge_index.size(1)) for k in order), {}

    return make


def bipartite(graph: GraphLike) -> Inputs:
    """`((x_src, x_dst), edge_index)`: fewer destinations than sources."""
    n, edge_index = graph
    targets = max(1, n // 2)
    folded = torch.stack([edge_index[0], edge_index[1] % targets])
    return ((features(n), features(targets, salt=1)), folded), {}


def bipartite_narrow(graph: GraphLike) -> Inputs:
    (pair, edge_index), _ = bipartite(graph)
    return ((pair[0], pair[1][:, :6].contiguous()), edge_index), {}


def sorted_plain(graph: GraphLike) -> Inputs:
    return (features(graph[0]), sorted_by_destination(graph[1])), {}


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


def hyper(with_attributes: bool) -> Callable[[GraphLike], Inputs]:
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
    return (torch.stack([features(graph[0], salt=k) for k in range(3)], dim=1), graph[1]), {}


def mesh(graph: GraphLike) -> Inputs:
    """MeshCNN: edges are rows, four neighbours each."""
    n = max(graph[0], 5)
    around = torch.stack([(torch.arange(n) + k) % n for k in (1, 2, 3, 4)], dim=1).reshape(-1)
    return (features(n), torch.stack([around, torch.arange(n).repeat_interleave(4)])), {}


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


def hetero_data(graph: GraphLike) -> Inputs:
    x_dict, edge_index_dict = hetero_parts(graph)
    data = HeteroData()
    for key, x in x_dict.items():
        data[key].x = x
    for triple, edge_index in edge_index_dict.items():
        data[triple].edge_index = edge_index
    return (data,), {}


def whole_data(graph: GraphLike) -> Inputs:
    n, edge_index = graph
    e = edge_index.size(1)
    return (Data(x=features(n), edge_index=edge_index, edge_attr=_EXTRAS["edge_attr"](n, e)),), {}


def adjs(graph: GraphLike) -> Inputs:
    n, edge_index = graph
    layer = (edge_index, torch.arange(edge_index.size(1)), (n, n))
    return (features(n), [layer, layer]), {}


def relational_ids(graph: GraphLike) -> Inputs:
    n, edge_index = graph
    return (torch.arange(n) % 32, edge_index, _EXTRAS["edge_type"](n, edge_index.size(1))), {}


# The table ----------------------------------------------------------------------------------------


def _mlp(*widths: int) -> torch.nn.Sequential:
    layers: list[torch.nn.Module] = []
    for left, right in itertools.pairwise(widths):
        layers += [torch.nn.Linear(left, right), torch.nn.ReLU()]
    return torch.nn.Sequential(*layers[:-1])


DEGREES = torch.tensor([1, 3, 6, 4, 2, 1])
PNA_ARGS: dict[str, Any] = {
    "aggregators": ["sum", "mean", "min", "max", "var", "std"],
    "scalers": ["identity", "amplification", "attenuation", "linear", "inverse_linear"],
    "deg": DEGREES,
}


def _conv(
    case_id: str,
    build: Callable[[], torch.nn.Module],
    inputs: Callable[[GraphLike], Inputs] | None = None,
    **more: Any,
) -> Case:
    return Case(case_id, build, inputs or plain(), "conv", **more)


CONVS = [
    _conv("SimpleConv", lambda: gnn.SimpleConv()),
    _conv("SimpleConv-mean+max-cat", lambda: gnn.SimpleConv(["mean", "max"], combine_root="cat")),
    _conv("SimpleConv-self_loop", lambda: gnn.SimpleConv("sum", combine_root="self_loop")),
    _conv("GCNConv", lambda: gnn.GCNConv(F_IN, F_OUT)),
    _conv("GCNConv-weight", lambda: gnn.GCNConv(F_IN, F_OUT), plain("edge_weight")),
    _conv("GCNConv-noloops", lambda: gnn.GCNConv(F_IN, F_OUT, add_self_loops=False)),
    _conv("GCNConv-improved-t2s", lambda: gnn.GCNConv(F_IN, F_OUT, improved=True, flow="target_to_source")),
    _conv("GCNConv-decomposed", lambda: gnn.GCNConv(F_IN, F_OUT, decomposed_layers=2)),
    _conv("ChebConv", lambda: gnn.ChebConv(F_IN, F_OUT, K=3)),
    _conv("ChebConv-weight-rw", lambda: gnn.ChebConv(F_IN, F_OUT, K=3, normalization="rw"), plain("edge_weight")),
    _conv("SAGEConv", lambda: gnn.SAGEConv(F_IN, F_OUT)),
    _conv("SAGEConv-max-project", lambda: gnn.SAGEConv(F_IN, F_OUT, aggr="max", project=True)),
    _conv("SAGEConv-bipartite", lambda: gnn.SAGEConv((F_IN, F_IN), F_OUT), bipartite),
    _conv("SAGEConv-normalize", lambda: gnn.SAGEConv(F_IN, F_OUT, normalize=True)),
    _conv("SAGEConv-softmax", lambda: gnn.SAGEConv(F_IN, F_OUT, aggr="softmax")),
    _conv("SAGEConv-median", lambda: gnn.SAGEConv(F_IN, F_OUT, aggr="median"), ring, needs_edges=True),
    _conv("SAGEConv-lstm", lambda: gnn.SAGEConv(F_IN, F_OUT, aggr="lstm"), sorted_plain, needs_edges=True),
    _conv("SAGEConv-mean+std+mul", lambda: gnn.SAGEConv(F_IN, F_OUT, aggr=["mean", "std", "mul"])),
    _conv("GraphConv", lambda: gnn.GraphConv(F_IN, F_OUT)),
    _conv("GraphConv-weight-max", lambda: gnn.GraphConv(F_IN, F_OUT, aggr="max"), plain("edge_weight")),
    _conv("GatedGraphConv", lambda: gnn.GatedGraphConv(F_IN, num_layers=3)),
    _conv("ResGatedGraphConv", lambda: gnn.ResGatedGraphConv(F_IN, F_OUT)),
    _conv("GATConv", lambda: gnn.GATConv(F_IN, F_OUT, heads=2)),
    _conv("GATConv-mean", lambda: gnn.GATConv(F_IN, F_OUT, heads=3, concat=False)),
    _conv("GATConv-edge", lambda: gnn.GATConv(F_IN, F_OUT, heads=2, edge_dim=F_EDGE), plain("edge_attr")),
    _conv("GATConv-noloops", lambda: gnn.GATConv(F_IN, F_OUT, heads=2, add_self_loops=False)),
    _conv(
        "GATConv-bipartite",
        lambda: gnn.GATConv((F_IN, 6), F_OUT, heads=2, add_self_loops=False),
        bipartite_narrow,
    ),
    _conv("GATConv-residual", lambda: gnn.GATConv(F_IN, F_OUT, heads=2, residual=True)),
    _conv("GATv2Conv", lambda: gnn.GATv2Conv(F_IN, F_OUT, heads=2)),
    _conv("GATv2Conv-edge", lambda: gnn.GATv2Conv(F_IN, F_OUT, heads=2, edge_dim=F_EDGE), plain("edge_attr")),
    _conv("TransformerConv", lambda: gnn.TransformerConv(F_IN, F_OUT, heads=2, beta=True)),
    _conv(
        "TransformerConv-edge",
        lambda: gnn.TransformerConv(F_IN, F_OUT, 2, edge_dim=F_EDGE),
        plain("edge_attr"),
    ),
    _conv("AGNNConv", lambda: gnn.AGNNConv()),
    _conv("TAGConv", lambda: gnn.TAGConv(F_IN, F_OUT)),
    _conv("GINConv", lambda: gnn.GINConv(_mlp(F_IN, F_OUT, F_OUT), train_eps=True)),
    _conv("GINEConv", lambda: gnn.GINEConv(_mlp(F_IN, F_OUT), edge_dim=F_EDGE), plain("edge_attr")),
    _conv("ARMAConv", lambda: gnn.ARMAConv(F_IN, F_OUT, num_stacks=2, num_layers=2)),
    _conv("SGConv", lambda: gnn.SGConv(F_IN, F_OUT, K=3)),
    _conv("SSGConv", lambda: gnn.SSGConv(F_IN, F_OUT, alpha=0.1, K=3)),
    _conv("APPNP", lambda: gnn.APPNP(K=3, alpha=0.1)),
    _conv("APPNP-cached", lambda: gnn.APPNP(K=3, alpha=0.1, cached=True)),
    _conv("MFConv", lambda: gnn.MFConv(F_IN, F_OUT, max_degree=4)),
    _conv("RGCNConv", lambda: gnn.RGCNConv(F_IN, F_OUT, RELATIONS), plain("edge_type")),
    _conv("RGCNConv-bases", lambda: gnn.RGCNConv(F_IN, F_OUT, RELATIONS, num_bases=2), plain("edge_type")),
    _conv("RGCNConv-blocks", lambda: gnn.RGCNConv(F_IN, F_OUT, RELATIONS, num_blocks=4), plain("edge_type")),
    _conv("FastRGCNConv", lambda: gnn.FastRGCNConv(F_IN, F_OUT, RELATIONS), plain("edge_type")),
    _conv("RGATConv", lambda: gnn.RGATConv(F_IN, F_OUT, RELATIONS, heads=2), plain("edge_type")),
    _conv("SignedConv-first", lambda: gnn.SignedConv(F_IN, F_OUT, first_aggr=True), signed),
    _conv("SignedConv-next", lambda: gnn.SignedConv(F_IN // 2, F_OUT, first_aggr=False), signed),
    _conv("DNAConv", lambda: gnn.DNAConv(F_IN, heads=4, groups=2), dna),
    _conv("PointNetConv", lambda: gnn.PointNetConv(_mlp(F_IN + 3, F_OUT)), of("x", "pos", "edge_index")),
    _conv("GMMConv", lambda: gnn.GMMConv(F_IN, F_OUT, dim=F_EDGE, kernel_size=4), plain("pseudo")),
    _conv("NNConv", lambda: gnn.NNConv(F_IN, F_OUT, _mlp(F_EDGE, F_IN * F_OUT)), plain("edge_attr")),
    _conv("CGConv", lambda: gnn.CGConv(F_IN, dim=F_EDGE, batch_norm=True), plain("edge_attr")),
    _conv("EdgeConv", lambda: gnn.EdgeConv(_mlp(2 * F_IN, F_OUT))),
    _conv("PPFConv", lambda: gnn.PPFConv(_mlp(F_IN + 4, F_OUT)), of("x", "pos", "normal", "edge_index")),
    _conv("FeaStConv", lambda: gnn.FeaStConv(F_IN, F_OUT, heads=2)),
    _conv("PointTransformerConv", lambda: gnn.PointTransformerConv(F_IN, F_OUT), of("x", "pos", "edge_index")),
    _conv("HypergraphConv", lambda: gnn.HypergraphConv(F_IN, F_OUT), hyper(False)),
    _conv(
        "HypergraphConv-attention",
        lambda: gnn.HypergraphConv(F_IN, F_OUT, use_attention=True, heads=2),
        hyper(True),
    ),
    _conv("LEConv", lambda: gnn.LEConv(F_IN, F_OUT), plain("edge_weight")),
    _conv("PNAConv", lambda: gnn.PNAConv(F_IN, F_OUT, towers=2, edge_dim=F_EDGE, **PNA_ARGS), plain("edge_attr")),
    _conv("ClusterGCNConv", lambda: gnn.ClusterGCNConv(F_IN, F_OUT, diag_lambda=1.0)),
    _conv(
        "GENConv-softmax",
        lambda: gnn.GENConv(F_IN, F_OUT, "softmax", learn_t=True, edge_dim=F_EDGE),
        plain("edge_attr"),
    ),
    _conv("GENConv-powermean", lambda: gnn.GENConv(F_IN, F_OUT, "powermean", learn_p=True)),
    _conv("GCN2Conv", lambda: gnn.GCN2Conv(F_IN, alpha=0.2, theta=0.5, layer=1), of("x", "x_0", "edge_index")),
    _conv("WLConv", lambda: gnn.WLConv(), of("labels", "edge_index"), refused="Python hash of data"),
    _conv("WLConvContinuous", lambda: gnn.WLConvContinuous(), plain("edge_weight")),
    _conv("FiLMConv", lambda: gnn.FiLMConv(F_IN, F_OUT)),
    _conv("FiLMConv-relations", lambda: gnn.FiLMConv(F_IN, F_OUT, num_relations=RELATIONS), plain("edge_type")),
    _conv("SuperGATConv", lambda: gnn.SuperGATConv(F_IN, F_OUT, heads=2, attention_type="MX")),
    _conv("FAConv", lambda: gnn.FAConv(F_IN, eps=0.2), of("x", "x_0", "edge_index")),
    _conv("EGConv", lambda: gnn.EGConv(F_IN, F_OUT, aggregators=["sum", "mean", "max", "symnorm"], num_heads=4)),
    _conv("PDNConv", lambda: gnn.PDNConv(F_IN, F_OUT, F_EDGE, 6), plain("edge_attr")),
    _conv(
        "GeneralConv",
        lambda: gnn.GeneralConv(F_IN, F_OUT, F_EDGE, attention=True, heads=2),
        plain("edge_attr"),
    ),
    _conv(
        "HEATConv",
        lambda: gnn.HEATConv(F_IN, F_OUT, 2, RELATIONS, 4, F_EDGE, 4, heads=2),
        plain("node_type", "edge_type", "edge_attr"),
    ),
    _conv("LGConv", lambda: gnn.LGConv()),
    _conv(
        "PointGNNConv",
        lambda: gnn.PointGNNConv(_mlp(F_IN, 3), _mlp(F_IN + 3, F_OUT), _mlp(F_OUT, F_IN)),
        of("x", "pos", "edge_index"),
    ),
    _conv("GPSConv", lambda: gnn.GPSConv(F_IN, gnn.SAGEConv(F_IN, F_IN), heads=4)),
    _conv(
        "GPSConv-batch",
        lambda: gnn.GPSConv(F_IN, gnn.SAGEConv(F_IN, F_IN), heads=4),
        plain("batch"),
        refused="branch on the number of graphs",
    ),
    _conv(
        "GPSConv-performer",
        lambda: gnn.GPSConv(F_IN, gnn.SAGEConv(F_IN, F_IN), heads=4, attn_type="performer"),
    ),
    _conv("AntiSymmetricConv", lambda: gnn.AntiSymmetricConv(F_IN, num_iters=2)),
    _conv("DirGNNConv", lambda: gnn.DirGNNConv(gnn.SAGEConv(F_IN, F_OUT))),
    _conv("MixHopConv", lambda: gnn.MixHopConv(F_IN, F_OUT, powers=[0, 1, 3])),
    _conv("MeshCNNConv", lambda: gnn.MeshCNNConv(F_IN, F_OUT), mesh),
    _conv("HGTConv", lambda: gnn.HGTConv(F_IN, F_OUT, METADATA, heads=2), hetero),
    _conv("HANConv", lambda: gnn.HANConv(F_IN, F_OUT, METADATA, heads=2), hetero),
]


def _basic(name: str, **options: Any) -> Callable[[], torch.nn.Module]:
    """A `BasicGNN` of three layers."""
    return lambda: getattr(gnn.models, name)(F_IN, 12, 3, F_OUT, **options)


_NORMS: dict[str, dict[str, Any]] = {
    "batch_norm": {},
    "layer_norm": {"mode": "node"},
    "layer_norm/graph": {"mode": "graph"},
    "graph_norm": {},
    "pair_norm": {},
    "instance_norm": {},
    "diff_group_norm": {"groups": 3},
}

MODELS = [
    Case("m.GCN", _basic("GCN"), plain(), "model"),
    Case("m.GCN-weight", _basic("GCN"), plain("edge_weight", by_keyword=True), "model"),
    Case("m.GCN-bn-cat", _basic("GCN", norm="batch_norm", jk="cat"), plain(), "model"),
    Case("m.GraphSAGE-max", _basic("GraphSAGE", jk="max", act="elu"), plain(), "model"),
    Case("m.GraphSAGE-last", _basic("GraphSAGE", jk="last", act="prelu"), plain(), "model"),
    Case("m.GraphSAGE-lstm", _basic("GraphSAGE", jk="lstm", act="leaky_relu"), plain(), "model"),
    *(
        Case(
            f"m.GraphSAGE-{norm}",
            _basic("GraphSAGE", norm=norm.split("/")[0], norm_kwargs=kw or None),
            plain(),
            "model",
        )
        for norm, kw in _NORMS.items()
    ),
    Case(
        "m.GraphSAGE-mean_subtraction",
        lambda: _basic("GraphSAGE", norm=gnn.MeanSubtractionNorm())(),
        plain(),
        "model",
    ),
    Case("m.GraphSAGE-graph_size", lambda: _basic("GraphSAGE", norm=gnn.GraphSizeNorm())(), plain(), "model"),
    Case("m.GAT-act_first-bn", _basic("GAT", heads=2, act_first=True, norm="batch_norm"), plain(), "model"),
    Case("m.GAT-edge", _basic("GAT", heads=2, edge_dim=F_EDGE), plain("edge_attr", by_keyword=True), "model"),
    Case("m.GATv2", _basic("GAT", heads=2, v2=True, jk="cat"), plain(), "model"),
    Case("m.GIN-bn", _basic("GIN", norm="batch_norm"), plain(), "model"),
    Case("m.PNA", _basic("PNA", **PNA_ARGS), plain(), "model"),
    Case("m.EdgeCNN", _basic("EdgeCNN"), plain(), "model"),
    Case(
        "m.GraphUNet",
        lambda: gnn.GraphUNet(F_IN, 12, F_OUT, depth=2),
        plain(),
        "model",
        refused="top-k pooling and coalescing",
    ),
    Case("m.PMLP", lambda: gnn.PMLP(F_IN, 12, F_OUT, num_layers=3), plain(), "model"),
    Case("m.SGFormer", lambda: gnn.SGFormer(F_IN, 12, F_OUT), plain("batch"), "model"),
    Case("m.Polynormer", lambda: gnn.Polynormer(F_IN, 12, F_OUT), plain("batch"), "model"),
    Case(
        "m.AttentiveFP",
        lambda: gnn.AttentiveFP(F_IN, 12, F_OUT, F_EDGE, 2, 2),
        plain("edge_attr", "batch"),
        "model",
    ),
    Case("m.DeepGCN", lambda: user.deep_gcn(F_IN, 12), plain(), "model"),
    Case(
        "m.LabelPropagation",
        lambda: gnn.LabelPropagation(num_layers=2, alpha=0.9),
        of("x", "edge_index"),
        "model",
    ),
    Case("m.CorrectAndSmooth", lambda: user.Smoother(), plain(), "model"),
    Case(
        "m.NeuralFingerprint",
        lambda: gnn.models.NeuralFingerprint(F_IN, 12, F_OUT, 2),
        plain("batch"),
        "model",
    ),
    Case("m.LightGCN-rows", lambda: user.LightRows(), plain(), "model"),
    Case("m.GraphClassifier", lambda: user.GraphClassifier(F_IN, 12, F_OUT), plain("batch"), "model"),
    Case(
        "m.GraphClassifier-batch_size",
        lambda: user.GraphClassifier(F_IN, 12, F_OUT),
        lambda graph: (plain("batch")(graph)[0], {"batch_size": 3}),
        "model",
    ),
]

USERS = [
    Case("u.GCN", lambda: user.TwoLayer(F_IN, 12, F_OUT), plain(), "user"),
    Case("u.Skip", lambda: user.Skip(F_IN, 12, F_OUT), plain(), "user"),
    Case("u.GATSkip", lambda: user.GATSkip(F_IN, 12, F_OUT), plain(), "user"),
    Case("u.CustomMP", lambda: user.CustomMP(F_IN, F_OUT), plain("edge_attr"), "user"),
    Case("u.EdgeUpdate", lambda: user.EdgeStates(F_IN, F_EDGE, F_OUT), plain("edge_attr"), "user"),
    Case("u.RawScatter", lambda: user.RawScatter(F_IN, F_OUT), plain(), "user"),
    Case("u.InPlace", lambda: user.InPlace(F_IN, F_OUT), plain(), "user"),
    Case(
        "u.SparseMM",
        lambda: user.SparseMM(F_IN, F_OUT),
        plain(),
        "user",
        refused="torch.sparse inside forward",
    ),
    Case("u.DataDependent", lambda: user.DataDependent(F_IN, F_OUT), plain(), "user", refused="if on data"),
    Case("u.VirtualNode", lambda: user.VirtualNode(F_IN, 12, F_OUT), plain(), "user"),
    Case("u.APPNP", lambda: user.APPNPNet(F_IN, 12, F_OUT), plain(), "user"),
    Case("u.Sequential", lambda: user.sequential(F_IN, 12, F_OUT), plain(), "user"),
    Case("u.Data", lambda: user.WholeData(F_IN, F_EDGE, F_OUT), whole_data, "user"),
    Case("u.Adjs", lambda: user.Sampled(F_IN, 12, F_OUT), adjs, "user"),
    Case("u.Outputs", lambda: user.ManyOutputs(F_IN, F_OUT), plain(), "user"),
    Case("u.Temporal", lambda: user.Temporal(F_IN, F_OUT), dna, "user"),
]

HETEROS = [
    Case("h.to_hetero-SAGE", lambda: user.to_hetero_sage(METADATA, F_OUT), hetero, "hetero"),
    Case("h.to_hetero-GAT", lambda: user.to_hetero_gat(METADATA, F_OUT), hetero, "hetero"),
    Case("h.to_hetero-basic", lambda: user.to_hetero_basic(METADATA, F_OUT), hetero, "hetero"),
    Case("h.HeteroConv", lambda: user.HeteroNet(METADATA, F_IN, F_OUT), hetero, "hetero"),
    Case("h.HeteroData", lambda: user.HeteroDataNet(METADATA, F_IN, F_OUT), hetero_data, "hetero"),
    Case("h.HGT", lambda: user.HGTNet(METADATA, F_IN, 16, F_OUT), hetero, "hetero"),
    Case("h.HAN", lambda: user.HANNet(METADATA, F_IN, 16, F_OUT), hetero, "hetero"),
    Case("h.RGCN", lambda: user.RGCNNet(32, 12, F_OUT, RELATIONS), relational_ids, "hetero"),
]

CASES = [*CONVS, *MODELS, *USERS, *HETEROS]
BY_ID = {case.id: case for case in CASES}

#: The graph every case is traced on: self-loops, duplicate edges, an isolated node (the last).
TRACE_GRAPH: GraphLike = (
    9,
    torch.tensor([[0, 1, 2, 3, 4, 5, 6, 7, 0, 0, 2, 2, 5, 7, 1, 1], [1, 0, 3, 2, 5, 6, 7, 6, 0, 1, 2, 7, 0, 3, 4, 4]]),
)


def replay_graph(num_nodes: int = 23, num_edges: int = 90, seed: int = 3) -> GraphLike:
    """A larger graph with self-loops, duplicate edges, a hub and an isolated last node."""
    generator = torch.Generator().manual_seed(seed)
    edge_index = torch.randint(0, num_nodes - 1, (2, num_edges), generator=generator)
    edge_index[1, ::5] = 2
    edge_index[:, 3] = 4
    edge_index[:, 7:9] = edge_index[:, 5:7]
    return num_nodes, edge_index


def module_of(case: Case) -> torch.nn.Module:
    """The case's module with fixed weights, lazy layers materialised, in eval mode."""
    torch.manual_seed(12345)
    module = case.build().eval()
    args, kwargs = case.make_inputs(TRACE_GRAPH)
    if any(torch.nn.parameter.is_lazy(p) for p in module.parameters()):
        with torch.no_grad():
            module(*args, **kwargs)
    return module


__all__ = ["BY_ID", "CASES", "TRACE_GRAPH", "Case", "module_of", "replay_graph"]
