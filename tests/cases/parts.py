"""Every norm, aggregation, pooling and dense layer of torch_geometric.nn, each inside a small network."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch_geometric.nn as gnn
from torch.nn import Module
from torch_geometric.data import Data
from torch_geometric.nn import aggr

from tests.capture import user_models as user
from tests.cases import nets
from tests.cases.build import DEGREES, mlp
from tests.cases.case import Case, GraphLike, Inputs
from tests.cases.inputs import (
    F_IN,
    F_OUT,
    METADATA,
    features,
    hetero,
    of,
    plain,
    ring,
    sorted_batch,
    sorted_plain,
)

# Norms -------------------------------------------------------------------------------------------------

_NORMS: dict[str, Callable[[], Module]] = {
    "BatchNorm": lambda: gnn.BatchNorm(12),
    "BatchNorm-single": lambda: gnn.BatchNorm(12, affine=False, allow_single_element=True),
    "BatchNorm-untracked": lambda: gnn.BatchNorm(12, track_running_stats=False),
    "InstanceNorm": lambda: gnn.InstanceNorm(12),
    "InstanceNorm-affine": lambda: gnn.InstanceNorm(12, affine=True),
    "InstanceNorm-tracked": lambda: gnn.InstanceNorm(12, track_running_stats=True),
    "LayerNorm": lambda: gnn.LayerNorm(12),
    "LayerNorm-node": lambda: gnn.LayerNorm(12, mode="node"),
    "LayerNorm-plain": lambda: gnn.LayerNorm(12, affine=False),
    "GraphNorm": lambda: gnn.GraphNorm(12),
    "GraphSizeNorm": lambda: gnn.GraphSizeNorm(),
    "PairNorm": lambda: gnn.PairNorm(),
    "PairNorm-individual": lambda: gnn.PairNorm(scale=2.0, scale_individually=True),
    "MeanSubtractionNorm": lambda: gnn.MeanSubtractionNorm(),
    "DiffGroupNorm": lambda: gnn.DiffGroupNorm(12, groups=3),
    "DiffGroupNorm-untracked": lambda: gnn.DiffGroupNorm(12, groups=3, track_running_stats=False),
}
_WITH_BATCH = ("InstanceNorm", "LayerNorm", "GraphNorm", "GraphSizeNorm", "PairNorm", "MeanSubtractionNorm")


def _norm(case_id: str, build: Callable[[], Module], *extras: str, **more: Any) -> Case:
    return Case(f"n.{case_id}", build, plain(*extras), "norm", **more)


#: Those that every model of PyG can be given are run inside one.
_ALONE = [name for name in _NORMS if "-" in name or name in ("BatchNorm", "DiffGroupNorm", "MeanSubtractionNorm")]

NORMS = [
    *(_norm(name, lambda norm=_NORMS[name]: nets.NormNet(norm())) for name in _ALONE),
    *(_norm(f"{name}-batch", lambda norm=_NORMS[name]: nets.NormNet(norm()), "batch") for name in _WITH_BATCH),
    *(
        _norm(f"{name}-gaps", lambda norm=norm: nets.NormNet(norm()), "gaps")
        for name, norm in _NORMS.items()
        if name.startswith(_WITH_BATCH)
    ),
    _norm("HeteroBatchNorm", lambda: nets.NormNet(gnn.HeteroBatchNorm(12, 2)), "node_type"),
    _norm("HeteroBatchNorm-plain", lambda: nets.NormNet(gnn.HeteroBatchNorm(12, 2, affine=False)), "node_type"),
    _norm("HeteroBatchNorm-untracked",
          lambda: nets.NormNet(gnn.HeteroBatchNorm(12, 2, track_running_stats=False)), "node_type"),
    _norm("HeteroLayerNorm", lambda: nets.NormNet(gnn.HeteroLayerNorm(12, 2)), "node_type"),
    _norm("HeteroLayerNorm-plain", lambda: nets.NormNet(gnn.HeteroLayerNorm(12, 2, affine=False)), "node_type"),
    _norm("MessageNorm", lambda: nets.MessageNormNet()),
]  # fmt: skip

# Aggregations ------------------------------------------------------------------------------------------

_Aggr = Callable[[], Any]

#: name -> (of messages of F_IN columns, whether it wants its index sorted)
_AGGRS: dict[str, tuple[_Aggr, bool]] = {
    "SumAggregation": (aggr.SumAggregation, False),
    "MeanAggregation": (aggr.MeanAggregation, False),
    "MaxAggregation": (aggr.MaxAggregation, False),
    "MinAggregation": (aggr.MinAggregation, False),
    "MulAggregation": (aggr.MulAggregation, False),
    "VarAggregation": (aggr.VarAggregation, False),
    "StdAggregation": (aggr.StdAggregation, False),
    "SoftmaxAggregation": (aggr.SoftmaxAggregation, False),
    "SoftmaxAggregation-learn": (lambda: aggr.SoftmaxAggregation(0.5, True, channels=F_IN), False),
    "PowerMeanAggregation": (aggr.PowerMeanAggregation, False),
    "PowerMeanAggregation-learn": (lambda: aggr.PowerMeanAggregation(2.0, True, F_IN), False),
    "MultiAggregation": (lambda: aggr.MultiAggregation(["mean", "std", "max"], mode="sum"), False),
    "MultiAggregation-proj": (
        lambda: aggr.MultiAggregation(
            ["mean", "max"], mode="proj", mode_kwargs={"in_channels": F_IN, "out_channels": F_IN}
        ),
        False,
    ),
    "DegreeScalerAggregation": (
        lambda: aggr.DegreeScalerAggregation(["mean", "max"], ["identity", "linear", "amplification"], DEGREES),
        False,
    ),
    "AttentionalAggregation": (lambda: aggr.AttentionalAggregation(mlp(F_IN, 1), mlp(F_IN, F_IN)), False),
    "DeepSetsAggregation": (lambda: aggr.DeepSetsAggregation(mlp(F_IN, F_IN), mlp(F_IN, F_IN)), False),
    "VariancePreservingAggregation": (lambda: aggr.VariancePreservingAggregation(), False),
    "Set2Set": (lambda: aggr.Set2Set(F_IN, processing_steps=2), True),
    "EquilibriumAggregation": (lambda: aggr.EquilibriumAggregation(F_IN, F_IN, [8], grad_iter=2), False),
    "LSTMAggregation": (lambda: aggr.LSTMAggregation(F_IN, F_IN), True),
    "GRUAggregation": (lambda: aggr.GRUAggregation(F_IN, F_IN), True),
    "SortAggregation": (lambda: aggr.SortAggregation(k=3), True),
    "MLPAggregation": (lambda: aggr.MLPAggregation(F_IN, F_IN, 40, num_layers=1), True),
    "LCMAggregation": (lambda: aggr.LCMAggregation(F_IN, F_IN), True),
    "GraphMultisetTransformer": (lambda: aggr.GraphMultisetTransformer(F_IN, k=4, heads=2), True),
    "SetTransformerAggregation": (lambda: aggr.SetTransformerAggregation(F_IN, 2, 1, 1, heads=2), True),
    "PatchTransformerAggregation": (lambda: aggr.PatchTransformerAggregation(F_IN, F_IN, 2, 8, heads=2), True),
}
_WIDTHS = {"DegreeScalerAggregation": 6 * F_IN, "Set2Set": 2 * F_IN, "SortAggregation": 3 * F_IN,
           "SetTransformerAggregation": 2 * F_IN}  # fmt: skip


class _Messages(Module):
    """The aggregation of messages, with a linear layer behind it."""

    def __init__(self, name: str, aggregation: Any) -> None:
        super().__init__()
        self.conv = gnn.SimpleConv(aggr=aggregation)
        self.lin = torch.nn.Linear(_WIDTHS.get(name, F_IN), F_OUT)

    def forward(self, x: torch.Tensor, edge_index: torch.Tensor) -> torch.Tensor:
        return self.lin(self.conv(x, edge_index))


def _aggr(case_id: str, build: Callable[[], Module], inputs: Any, **more: Any) -> Case:
    return Case(f"a.{case_id}", build, inputs, "aggr", **more)


AGGRS = [
    *(
        _aggr(f"{name}-messages", lambda name=name, build=build: _Messages(name.split("-")[0], build()),
              sorted_plain if is_sorted else plain())
        for name, (build, is_sorted) in _AGGRS.items()
    ),
    *(
        _aggr(f"{name}-readout", lambda build=build: nets.Readout(build()),
              sorted_batch if is_sorted else plain("batch"))
        for name, (build, is_sorted) in _AGGRS.items()
    ),
    _aggr("MeanAggregation-whole", lambda: nets.Readout(aggr.MeanAggregation()), plain()),
    _aggr("MedianAggregation-messages", lambda: _Messages("", aggr.MedianAggregation()), ring),
    _aggr("MedianAggregation-readout", lambda: nets.Readout(aggr.MedianAggregation()), plain("batch")),
    _aggr("QuantileAggregation-messages", lambda: _Messages("", aggr.QuantileAggregation(0.3, "lower")), ring),
    _aggr("QuantileAggregation-readout", lambda: nets.Readout(aggr.QuantileAggregation([0.2, 0.9])), plain("batch")),
]  # fmt: skip

# Pools and dense layers --------------------------------------------------------------------------------


def _pool(case_id: str, build: Callable[[], Module], inputs: Any = None, **more: Any) -> Case:
    return Case(f"p.{case_id}", build, inputs or plain("batch"), "pool", **more)


def _function(case_id: str, function: Callable[..., Any], inputs: Any, **more: Any) -> Case:
    return _pool(case_id, lambda: nets.Call(function), inputs, **more)


_POOLS = (gnn.global_add_pool, gnn.global_mean_pool, gnn.global_max_pool)
_SELECTS = "which nodes and edges remain depends on the features"
_SELECTED = "depends on (the )?(data|features)"
_CLUSTERS = "how many clusters there are is read from the data; give `size`"
_SPARSE = "of a sparse matrix at"
_LIB = {"not_runnable": "requires ['`](pyg-lib|torch-cluster)", "why": "needs pyg-lib"}


def _cluster_data(graph: GraphLike) -> Inputs:
    n, edge_index = graph
    return (
        torch.arange(n) // 2,
        Data(x=features(n), edge_index=edge_index, batch=torch.arange(n) * 3 // max(n, 1)),
    ), {}


def _two_clouds(graph: GraphLike) -> Inputs:
    return (features(graph[0], 3), features(max(graph[0] // 2, 1), 3, salt=1)), {}


POOLS = [
    *(_pool(pool.__name__, lambda pool=pool: nets.Readout(pool)) for pool in _POOLS),
    _pool("global_mean_pool-whole", lambda: nets.Readout(gnn.global_mean_pool), plain()),
    _function("global_max_pool-size", lambda self, x, e, batch: gnn.global_max_pool(x, batch, 5), plain("batch")),
    _pool("TopKPooling", lambda: nets.Around(gnn.TopKPooling(F_IN)), refused=_SELECTED, why=_SELECTS),
    _pool("SAGPooling", lambda: nets.Around(gnn.SAGPooling(F_IN)), refused=_SELECTED, why=_SELECTS),
    _pool("ASAPooling", lambda: nets.Around(gnn.ASAPooling(F_IN)), refused=_SPARSE, why=_SELECTS),
    _pool("EdgePooling", lambda: nets.Around(gnn.EdgePooling(F_IN)), refused=r"edge_pool\.py", why=_SELECTS),
    _pool("ClusterPooling", lambda: nets.Around(gnn.ClusterPooling(F_IN)), refused="to_scipy_sparse", why=_SELECTS),
    _pool("PANPooling", lambda: nets.Call(lambda self, x, e: self.pool(*self.conv(x, e)),
                                          conv=gnn.PANConv(F_IN, F_IN, 2), pool=gnn.PANPooling(F_IN)), plain(),
          not_runnable="'SparseTensor' requires 'torch-sparse'", why="needs torch-sparse"),
    _pool("MemPooling", lambda: gnn.MemPooling(F_IN, F_OUT, heads=2, num_clusters=3), of("x", "batch")),
    _function("max_pool_x", lambda self, x, e, cluster, batch: gnn.max_pool_x(cluster, x, batch),
              plain("labels", "batch"), resized=True),
    _function("avg_pool_x", lambda self, x, e, cluster, batch: gnn.avg_pool_x(cluster, x, batch),
              plain("labels", "batch"), resized=True),
    _function("max_pool_x-size", lambda self, x, e, cluster, batch: gnn.max_pool_x(cluster, x, batch, 3, 5),
              plain("labels", "batch")),
    _function("avg_pool_x-size", lambda self, x, e, cluster, batch: gnn.avg_pool_x(cluster, x, batch, 3, 5),
              plain("labels", "batch")),
    _function("max_pool", lambda self, cluster, data: gnn.max_pool(cluster, data).x, _cluster_data,
              refused=r"pool\.py:\d+ in pool_edge", why=_CLUSTERS),
    _function("avg_pool", lambda self, cluster, data: gnn.avg_pool(cluster, data).x, _cluster_data,
              refused=r"pool\.py:\d+ in pool_edge", why=_CLUSTERS),
    _function("max_pool_neighbor_x", lambda self, cluster, data: gnn.max_pool_neighbor_x(data.clone()).x,
              _cluster_data),
    _function("avg_pool_neighbor_x", lambda self, cluster, data: gnn.avg_pool_neighbor_x(data.clone()).x,
              _cluster_data),
    _function("graclus", lambda self, x, e: gnn.graclus(e), plain(), **_LIB),
    _function("voxel_grid", lambda self, x, pos: gnn.voxel_grid(pos, 0.5), of("x", "pos"), **_LIB),
    _function("fps", lambda self, x, pos: gnn.fps(pos), of("x", "pos"), **_LIB),
    _function("knn", lambda self, x, y: gnn.knn(x, y, 2), _two_clouds, **_LIB),
    _function("knn_graph", lambda self, x, pos: gnn.knn_graph(pos, 2), of("x", "pos"), **_LIB),
    _function("approx_knn", lambda self, x, y: gnn.approx_knn(x, y, 2), _two_clouds,
              not_runnable="No module named 'pynndescent'", why="needs pynndescent"),
    _function("approx_knn_graph", lambda self, x, pos: gnn.approx_knn_graph(pos, 2), of("x", "pos"),
              not_runnable="No module named 'pynndescent'", why="needs pynndescent"),
    _function("radius", lambda self, x, y: gnn.radius(x, y, 1.0), _two_clouds, **_LIB),
    _function("radius_graph", lambda self, x, pos: gnn.radius_graph(pos, 1.0), of("x", "pos"), **_LIB),
    _function("nearest", lambda self, x, y: gnn.nearest(x, y), _two_clouds, **_LIB),
    Case("q.knn_interpolate", lambda: nets.Call(lambda self, x, y: gnn.knn_interpolate(x, x, y, k=2)), _two_clouds,
         "unpool", **_LIB),
]  # fmt: skip

_ATTENTIONS = {
    "PerformerAttention": lambda: gnn.attention.PerformerAttention(F_IN, heads=2, head_channels=4),
    "SGFormerAttention": lambda: gnn.attention.SGFormerAttention(F_IN, heads=2, head_channels=F_IN),
    "PolynormerAttention": lambda: gnn.attention.PolynormerAttention(F_IN, heads=2, head_channels=8),
    "QFormer": lambda: gnn.attention.QFormer(F_IN, 24, F_IN, num_heads=2, num_layers=2),
}

ATTENTIONS = [
    Case(f"t.{name}{suffix}", lambda build=build: nets.Attended(build()), inputs, "attention")
    for name, build in _ATTENTIONS.items()
    for suffix, inputs in (("", plain()), ("-batch", plain("batch")))
]

DENSE = [
    Case("d.Linear", lambda: gnn.Linear(-1, F_OUT), of("x"), "dense"),
    Case("d.HeteroLinear", lambda: gnn.HeteroLinear(F_IN, F_OUT, 2), of("x", "node_type"), "dense"),
    Case("d.HeteroLinear-lazy", lambda: gnn.HeteroLinear(-1, F_OUT, 2, bias=False), of("x", "node_type"), "dense"),
    Case("d.HeteroDictLinear", lambda: gnn.HeteroDictLinear({"paper": F_IN, "author": F_IN}, F_OUT),
         lambda graph: (hetero(graph)[0][:1], {}), "dense"),
    Case("d.HeteroDictLinear-lazy", lambda: gnn.HeteroDictLinear(-1, F_OUT, types=METADATA[0]),
         lambda graph: (hetero(graph)[0][:1], {}), "dense"),
    Case("d.DenseGCNConv", lambda: gnn.DenseGCNConv(F_IN, F_OUT), nets.dense(6, "mask"), "dense"),
    Case("d.DenseGINConv", lambda: gnn.DenseGINConv(mlp(F_IN, F_OUT)), nets.dense(6, "mask"), "dense"),
    Case("d.DenseGraphConv", lambda: gnn.DenseGraphConv(F_IN, F_OUT, aggr="max"), nets.dense(6, "mask"), "dense"),
    Case("d.DenseSAGEConv", lambda: gnn.DenseSAGEConv(F_IN, F_OUT, normalize=True), nets.dense(6, "mask"), "dense"),
    Case("d.DenseGATConv", lambda: gnn.DenseGATConv(F_IN, F_OUT, heads=2), nets.dense(6, "mask"), "dense"),
    Case("d.dense_diff_pool", lambda: nets.Call(lambda self, x, adj, s: gnn.dense_diff_pool(x, adj, s)),
         nets.dense(6, "s"), "dense"),
    Case("d.dense_mincut_pool", lambda: nets.Call(lambda self, x, adj, s: gnn.dense_mincut_pool(x, adj, s)),
         nets.dense(6, "s"), "dense"),
    Case("d.DMoNPooling", lambda: gnn.DMoNPooling(F_IN, 3), nets.dense(6), "dense"),
]  # fmt: skip


TOP = [
    Case("f.Sequential", lambda: user.sequential(F_IN, 12, F_OUT), plain(), "nn"),
    Case("f.to_hetero", lambda: gnn.to_hetero(user.homogeneous_sage(F_OUT), METADATA), hetero, "nn"),
    Case("f.to_hetero-max", lambda: gnn.to_hetero(gnn.GAT(-1, 12, 2, F_OUT, add_self_loops=False), METADATA, "max"),
         hetero, "nn"),
    *(
        Case(f"f.to_hetero_with_bases-{label}",
             lambda inputs=inputs: gnn.to_hetero_with_bases(user.homogeneous_sage(F_OUT), METADATA, 3, inputs), hetero,
             "nn")
        for label, inputs in (("plain", None), ("in_channels", {"x": F_IN}))
    ),
    Case("f.PositionalEncoding", lambda: nets.Call(lambda self, x, e: self.encoding(x[:, 0]),
                                                   encoding=gnn.PositionalEncoding(F_OUT)), plain(), "nn"),
    Case("f.TemporalEncoding", lambda: nets.Call(lambda self, x, e: self.encoding(x[:, 0]),
                                                 encoding=gnn.TemporalEncoding(F_OUT)), plain(), "nn"),
    Case("f.Reshape", lambda: gnn.Sequential("x, edge_index", [
        (gnn.SAGEConv(F_IN, F_OUT), "x, edge_index -> x"), (gnn.Reshape(-1, 2, F_OUT // 2), "x -> x")]), plain(), "nn"),
]  # fmt: skip

PARTS = [*NORMS, *AGGRS, *POOLS, *ATTENTIONS, *DENSE, *TOP]
