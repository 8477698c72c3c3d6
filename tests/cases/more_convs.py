"""Further options of every layer of torch_geometric.nn.conv: everything that changes what is computed."""

from __future__ import annotations

import torch
import torch_geometric.nn as gnn

from tests.cases import nets
from tests.cases.build import DEGREES, conv, mlp
from tests.cases.case import Case
from tests.cases.inputs import (
    EXTRAS,
    F_EDGE,
    F_IN,
    F_OUT,
    METADATA,
    RELATIONS,
    bipartite,
    bipartite_narrow,
    dna,
    dna_weight,
    hetero,
    hetero_weighted,
    hyper,
    mesh,
    of,
    own_self_loops,
    plain,
    point_sides,
    ring,
    sides,
    signed_sides,
    sorted_plain,
    sources,
    static,
    with_constants,
)

_LIB = "needs pyg-lib"
BOTH = (F_IN, F_IN)
WITH_ATTENTION = {"return_attention_weights": True}

SIMPLE: list[Case] = [
    conv("SimpleConv-sum_root-weight", lambda: gnn.SimpleConv("mean", combine_root="sum"), plain("edge_weight")),
    conv("SimpleConv-cat-bipartite", lambda: gnn.SimpleConv("max", combine_root="cat"), bipartite),
    conv("SimpleConv-sources", lambda: gnn.SimpleConv("mean"), sources("edge_weight"), resized=True),
    conv("SimpleConv-t2s", lambda: gnn.SimpleConv("sum", flow="target_to_source")),
]

GCNS: list[Case] = [
    conv("GCNConv-cached-nobias", lambda: gnn.GCNConv(F_IN, F_OUT, cached=True, bias=False), keeps=True),
    conv("GCNConv-unnormalized", lambda: gnn.GCNConv(F_IN, F_OUT, normalize=False), plain("edge_weight")),
    conv("GCNConv-lazy", lambda: gnn.GCNConv(-1, F_OUT)),
    conv("GCNConv-static", lambda: gnn.GCNConv(F_IN, F_OUT), static()),
    conv("GCNConv-static-weight", lambda: gnn.GCNConv(F_IN, F_OUT), static("edge_weight")),
    conv("GCNConv-max", lambda: gnn.GCNConv(F_IN, F_OUT, aggr="max"), plain("edge_weight")),
    conv("ChebConv-K1", lambda: gnn.ChebConv(F_IN, F_OUT, K=1)),
    conv("ChebConv-unnormalized", lambda: gnn.ChebConv(F_IN, F_OUT, 3, None), nets.cheb_lambda(per_graph=False)),
    conv("ChebConv-batch", lambda: gnn.ChebConv(F_IN, F_OUT, K=2, bias=False), nets.cheb_lambda(per_graph=True)),
    conv("TAGConv-weight-K1", lambda: gnn.TAGConv(F_IN, F_OUT, K=1, bias=False), plain("edge_weight")),
    conv("TAGConv-unnormalized", lambda: gnn.TAGConv(F_IN, F_OUT, K=2, normalize=False)),
    conv("ARMAConv-weight", lambda: gnn.ARMAConv(F_IN, F_OUT, 3, 2, shared_weights=True), plain("edge_weight")),
    conv("ARMAConv-lazy-noact", lambda: gnn.ARMAConv(-1, F_OUT, num_stacks=2, act=None, bias=False)),
    conv("SGConv-weight", lambda: gnn.SGConv(F_IN, F_OUT, bias=False), plain("edge_weight")),
    conv("SGConv-cached-noloops", lambda: gnn.SGConv(F_IN, F_OUT, K=2, cached=True, add_self_loops=False), keeps=True),
    conv("SSGConv-weight-noloops", lambda: gnn.SSGConv(F_IN, F_OUT, 0.2, add_self_loops=False), plain("edge_weight")),
    conv("SSGConv-cached", lambda: gnn.SSGConv(F_IN, F_OUT, 0.2, K=2, cached=True, bias=False), keeps=True),
    conv("APPNP-weight", lambda: gnn.APPNP(K=2, alpha=0.3, normalize=False), plain("edge_weight")),
    conv("APPNP-noloops", lambda: gnn.APPNP(K=2, alpha=0.1, add_self_loops=False, dropout=0.3)),
    conv("GCN2Conv-unshared-cached", lambda: gnn.GCN2Conv(F_IN, 0.2, 0.5, 2, shared_weights=False, cached=True),
         of("x", "x_0", "edge_index"), keeps=True),
    conv("GCN2Conv-unnormalized", lambda: gnn.GCN2Conv(F_IN, alpha=0.2, normalize=False),
         of("x", "x_0", "edge_index", "edge_weight")),
    conv("GCN2Conv-noloops", lambda: gnn.GCN2Conv(F_IN, alpha=0.2, add_self_loops=False),
         of("x", "x_0", "edge_index")),
    conv("MixHopConv-weight", lambda: gnn.MixHopConv(F_IN, F_OUT, bias=False), plain("edge_weight")),
    conv("MixHopConv-noloops", lambda: gnn.MixHopConv(F_IN, F_OUT, powers=[1, 2], add_self_loops=False)),
    conv("LGConv-weight", lambda: gnn.LGConv(), plain("edge_weight")),
    conv("LGConv-unnormalized", lambda: gnn.LGConv(normalize=False)),
    conv("ClusterGCNConv-noloops", lambda: gnn.ClusterGCNConv(F_IN, F_OUT, add_self_loops=False, bias=False),
         own_self_loops),
    conv("FAConv-noloops", lambda: gnn.FAConv(F_IN, add_self_loops=False), of("x", "x_0", "edge_index")),
    conv("FAConv-unnormalized", lambda: gnn.FAConv(F_IN, normalize=False),
         of("x", "x_0", "edge_index", "edge_weight")),
    conv("FAConv-attention-cached", lambda: gnn.FAConv(F_IN, cached=True),
         of("x", "x_0", "edge_index", **WITH_ATTENTION), keeps=True),
    conv("PDNConv-unnormalized", lambda: gnn.PDNConv(F_IN, F_OUT, F_EDGE, 6, normalize=False), plain("edge_attr")),
    conv("PDNConv-noloops", lambda: gnn.PDNConv(F_IN, F_OUT, F_EDGE, 6, add_self_loops=False, bias=False),
         plain("edge_attr")),
    conv("EGConv-var-min", lambda: gnn.EGConv(F_IN, F_OUT, ["var", "min"], 2, 3)),
    conv("EGConv-std-noloops", lambda: gnn.EGConv(F_IN, F_OUT, ["std"], add_self_loops=False, bias=False)),
    conv("EGConv-cached", lambda: gnn.EGConv(F_IN, F_OUT, cached=True), keeps=True),
]  # fmt: skip

SAGES: list[Case] = [
    conv("SAGEConv-noroot-nobias", lambda: gnn.SAGEConv(F_IN, F_OUT, root_weight=False, bias=False)),
    conv("SAGEConv-lazy", lambda: gnn.SAGEConv((-1, -1), F_OUT), bipartite_narrow),
    conv("SAGEConv-sources", lambda: gnn.SAGEConv(BOTH, F_OUT), sources(), resized=True),
    conv("SAGEConv-static", lambda: gnn.SAGEConv(F_IN, F_OUT), static()),
    conv("SAGEConv-t2s", lambda: gnn.SAGEConv(F_IN, F_OUT, "max", flow="target_to_source")),
    conv("SAGEConv-project-bipartite", lambda: gnn.SAGEConv((F_IN, 6), F_OUT, project=True), bipartite_narrow),
    conv("SAGEConv-softmax-learn",
         lambda: gnn.SAGEConv(F_IN, F_OUT, aggr="softmax", aggr_kwargs={"learn": True, "channels": F_IN})),
    *(
        conv(f"SAGEConv-multi_{mode}",
             lambda mode=mode: gnn.SAGEConv(F_IN, F_OUT, ["mean", "max", "std"], aggr_kwargs={"mode": mode}))
        for mode in ("sum", "max")
    ),
    conv("SAGEConv-multi_attn", lambda: nets.multi_attention(), sorted_plain),
    conv("SAGEConv-gru", lambda: gnn.SAGEConv(F_IN, F_OUT, gnn.aggr.GRUAggregation(F_IN, F_IN)), sorted_plain,
         needs_edges=True),
    conv("SAGEConv-quantile", lambda: gnn.SAGEConv(F_IN, F_OUT, gnn.aggr.QuantileAggregation(0.75)), ring,
         needs_edges=True),
    conv("GraphConv-mean-nobias", lambda: gnn.GraphConv(F_IN, F_OUT, aggr="mean", bias=False), plain("edge_weight")),
    conv("GraphConv-bipartite", lambda: gnn.GraphConv((F_IN, 6), F_OUT), sides("edge_weight", narrow=True)),
    conv("GraphConv-sources", lambda: gnn.GraphConv(BOTH, F_OUT), sources(), resized=True),
    conv("GraphConv-static", lambda: gnn.GraphConv(F_IN, F_OUT), static()),
    conv("GraphConv-lazy", lambda: gnn.GraphConv(-1, F_OUT)),
    conv("GatedGraphConv-weight", lambda: gnn.GatedGraphConv(F_IN + 4, 2, "mean", bias=False), plain("edge_weight")),
    conv("ResGatedGraphConv-edge", lambda: gnn.ResGatedGraphConv(F_IN, F_OUT, torch.tanh, F_EDGE, root_weight=False),
         plain("edge_attr")),
    conv("ResGatedGraphConv-bipartite", lambda: gnn.ResGatedGraphConv((F_IN, 6), F_OUT, bias=False), bipartite_narrow),
    conv("MFConv-bipartite", lambda: gnn.MFConv((F_IN, 6), F_OUT, max_degree=2), bipartite_narrow),
    conv("MFConv-sources-nobias", lambda: gnn.MFConv(BOTH, F_OUT, max_degree=3, bias=False), sources(), resized=True),
    conv("LEConv-bipartite", lambda: gnn.LEConv((F_IN, 6), F_OUT, bias=False), bipartite_narrow),
    conv("LEConv-plain", lambda: gnn.LEConv(F_IN, F_OUT)),
    conv("WLConvContinuous-bipartite", lambda: gnn.WLConvContinuous(), bipartite),
    conv("WLConvContinuous-sources", lambda: gnn.WLConvContinuous(), sources("edge_weight"), resized=True),
    conv("FeaStConv-noloops", lambda: gnn.FeaStConv(F_IN, F_OUT, heads=3, add_self_loops=False, bias=False)),
    conv("FeaStConv-bipartite", lambda: gnn.FeaStConv(F_IN, F_OUT, heads=2), bipartite),
    conv("SignedConv-first-bipartite", lambda: gnn.SignedConv(F_IN, F_OUT, True, bias=False), signed_sides),
    conv("SignedConv-next-bipartite", lambda: gnn.SignedConv(F_IN // 2, F_OUT, first_aggr=False), signed_sides),
    conv("FiLMConv-bipartite", lambda: gnn.FiLMConv((F_IN, 6), F_OUT, act=None, aggr="sum"), bipartite_narrow),
    conv("FiLMConv-nn", lambda: gnn.FiLMConv(F_IN, F_OUT, nn=mlp(F_IN, 2 * F_OUT), aggr="max")),
    conv("AntiSymmetricConv-phi", lambda: gnn.AntiSymmetricConv(F_IN, gnn.GATConv(F_IN, F_IN), act="relu", bias=False)),
    conv("DirGNNConv-gat", lambda: gnn.DirGNNConv(gnn.GATConv(F_IN, F_OUT, add_self_loops=False), 0.3, False)),
    conv("DirGNNConv-gcn", lambda: gnn.DirGNNConv(gnn.GCNConv(F_IN, F_OUT))),
    conv("MeshCNNConv-kernels", lambda: gnn.MeshCNNConv(F_IN, F_OUT, nets.mesh_kernels(F_IN, F_OUT)), mesh),
    conv("MessagePassing-own", lambda: nets.OwnLayer(F_IN, F_OUT), plain("edge_attr")),
    conv("MessagePassing-node_dim0", lambda: nets.HeadsFirst(), plain()),
]  # fmt: skip

ATTENTIONS: list[Case] = [
    conv("GATConv-attention", lambda: gnn.GATConv(F_IN, F_OUT, 2), with_constants(plain(), **WITH_ATTENTION)),
    conv("GATConv-fill_add", lambda: gnn.GATConv(F_IN, F_OUT, 2, edge_dim=F_EDGE, fill_value="add"),
         plain("edge_attr")),
    conv("GATConv-fill_half", lambda: gnn.GATConv(F_IN, F_OUT, edge_dim=F_EDGE, fill_value=0.5, bias=False),
         plain("edge_attr")),
    conv("GATConv-edge-noloops", lambda: gnn.GATConv(F_IN, F_OUT, 2, edge_dim=F_EDGE, add_self_loops=False),
         plain("edge_attr")),
    conv("GATConv-edge-attention", lambda: gnn.GATConv(F_IN, F_OUT, 2, edge_dim=F_EDGE),
         with_constants(plain("edge_attr"), **WITH_ATTENTION)),
    conv("GATConv-lazy-residual", lambda: gnn.GATConv(-1, F_OUT, 2, concat=False, residual=True)),
    conv("GATConv-sources", lambda: gnn.GATConv(BOTH, F_OUT, 2, add_self_loops=False), sources(), resized=True),
    conv("GATConv-bipartite-loops", lambda: gnn.GATConv(BOTH, F_OUT, 2), bipartite),
    conv("GATConv-residual-bipartite",
         lambda: gnn.GATConv((F_IN, 6), F_OUT, 2, add_self_loops=False, residual=True), bipartite_narrow),
    conv("GATConv-t2s", lambda: gnn.GATConv(F_IN, F_OUT, 2, flow="target_to_source")),
    conv("GATv2Conv-mean", lambda: gnn.GATv2Conv(F_IN, F_OUT, heads=3, concat=False, bias=False)),
    conv("GATv2Conv-shared", lambda: gnn.GATv2Conv(F_IN, F_OUT, heads=2, share_weights=True, residual=True)),
    conv("GATv2Conv-noloops", lambda: gnn.GATv2Conv(-1, F_OUT, heads=2, add_self_loops=False)),
    conv("GATv2Conv-attention", lambda: gnn.GATv2Conv(F_IN, F_OUT, 2, edge_dim=F_EDGE, fill_value="min"),
         with_constants(plain("edge_attr"), **WITH_ATTENTION)),
    conv("GATv2Conv-bipartite", lambda: gnn.GATv2Conv((F_IN, 6), F_OUT, 2, add_self_loops=False), bipartite_narrow),
    conv("TransformerConv-mean", lambda: gnn.TransformerConv(F_IN, F_OUT, 3, concat=False, beta=True, bias=False)),
    conv("TransformerConv-noroot", lambda: gnn.TransformerConv(F_IN, F_OUT, heads=2, root_weight=False)),
    conv("TransformerConv-bipartite", lambda: gnn.TransformerConv((F_IN, 6), F_OUT, heads=2), bipartite_narrow),
    conv("TransformerConv-attention", lambda: gnn.TransformerConv(F_IN, F_OUT, 2, edge_dim=F_EDGE, beta=True),
         with_constants(plain("edge_attr"), **WITH_ATTENTION)),
    conv("AGNNConv-noloops", lambda: gnn.AGNNConv(requires_grad=False, add_self_loops=False)),
    conv("SuperGATConv-SD", lambda: gnn.SuperGATConv(F_IN, F_OUT, 2, concat=False, attention_type="SD", bias=False)),
    conv("SuperGATConv-noloops", lambda: gnn.SuperGATConv(F_IN, F_OUT, 2, add_self_loops=False, is_undirected=True)),
    conv("GeneralConv-plain", lambda: gnn.GeneralConv(F_IN, F_OUT)),
    conv("GeneralConv-dot", lambda: gnn.GeneralConv(F_IN, F_OUT, attention=True, heads=2, attention_type="dot_product",
                                                    l2_normalize=True, bias=False)),
    conv("GeneralConv-undirected", lambda: gnn.GeneralConv(F_IN, F_OUT, F_EDGE, "mean", directed_msg=False),
         plain("edge_attr")),
    conv("GeneralConv-skip", lambda: gnn.GeneralConv(F_IN, F_IN, aggr="max", skip_linear=True, heads=3)),
    conv("GeneralConv-bipartite", lambda: gnn.GeneralConv(BOTH, F_OUT, attention=True), bipartite),
    conv("DNAConv-plain", lambda: gnn.DNAConv(F_IN, add_self_loops=False, bias=False), dna),
    conv("DNAConv-weight-cached", lambda: gnn.DNAConv(F_IN, heads=2, groups=4, cached=True), dna_weight, keeps=True),
    conv("GPSConv-noconv", lambda: gnn.GPSConv(F_IN, None, heads=2, norm=None)),
    conv("GPSConv-gin-layer_norm",
         lambda: gnn.GPSConv(F_IN, gnn.GINEConv(mlp(F_IN, F_IN), edge_dim=F_EDGE), norm="layer_norm", act="elu"),
         plain(edge_attr="edge_attr")),
    conv("GPSConv-graph_norm-batch", lambda: gnn.GPSConv(F_IN, gnn.SAGEConv(F_IN, F_IN), norm="graph_norm"),
         plain("batch")),
    conv("GPSConv-performer-batch",
         lambda: gnn.GPSConv(F_IN, gnn.GCNConv(F_IN, F_IN), heads=2, attn_type="performer"), plain("batch")),
    conv("HypergraphConv-edge_attention",
         lambda: gnn.HypergraphConv(F_IN, F_OUT, True, "edge", heads=2, concat=False, bias=False), hyper(True),
         resized=True),
    conv("HypergraphConv-weight", lambda: gnn.HypergraphConv(F_IN, F_OUT), nets.hyper_weight),
]  # fmt: skip

_RGAT = [
    (mechanism, mode)
    for mechanism in ("within-relation", "across-relation")
    for mode in ("additive-self-attention", "multiplicative-self-attention")
]
_MODS = ("additive", "scaled", "f-scaled")

RELATIONAL: list[Case] = [
    *(
        conv(f"{kind.__name__}-{label}", lambda kind=kind, kw=kw: kind(F_IN, F_OUT, RELATIONS, **kw),
             plain("edge_type"))
        for kind in (gnn.RGCNConv, gnn.FastRGCNConv)
        for label, kw in (
            ("sum", {"aggr": "sum", "root_weight": False}),
            ("max", {"aggr": "max", "bias": False}),
            ("bases-sum", {"num_bases": 3, "aggr": "sum"}),
        )
        if not (kind is gnn.FastRGCNConv and label == "max")
    ),
    conv("FastRGCNConv-blocks", lambda: gnn.FastRGCNConv(F_IN, F_OUT, RELATIONS, num_blocks=4), plain("edge_type")),
    conv("RGCNConv-sorted", lambda: gnn.RGCNConv(F_IN, F_OUT, RELATIONS, is_sorted=True), plain("sorted_type")),
    conv("RGCNConv-bipartite", lambda: gnn.RGCNConv((F_IN, F_IN), F_OUT, RELATIONS), sides("edge_type")),
    conv("RGCNConv-ids", lambda: gnn.RGCNConv(40, F_OUT, RELATIONS, num_bases=2), nets.node_ids(40)),
    conv("FastRGCNConv-ids", lambda: gnn.FastRGCNConv(40, F_OUT, RELATIONS), nets.node_ids(40)),
    conv("FastRGCNConv-bipartite", lambda: gnn.FastRGCNConv(BOTH, F_OUT, RELATIONS), sides("edge_type")),
    *(
        conv(f"RGATConv-{mechanism.split('-')[0]}-{mode.split('-')[0]}",
             lambda mechanism=mechanism, mode=mode: gnn.RGATConv(
                 F_IN, F_OUT, RELATIONS, num_bases=2, attention_mechanism=mechanism, attention_mode=mode, heads=2),
             plain("edge_type"))
        for mechanism, mode in _RGAT
    ),
    *(
        conv(f"RGATConv-mod_{mod}",
             lambda mod=mod: nets.initialised(
                 gnn.RGATConv(F_IN, F_OUT, RELATIONS, num_blocks=4, mod=mod, heads=2, concat=False)),
             plain("edge_type"))
        for mod in _MODS
    ),
    conv("RGATConv-edge-attention",
         lambda: gnn.RGATConv(F_IN, F_OUT, RELATIONS, edge_dim=F_EDGE, heads=2, dim=2,
                              attention_mode="multiplicative-self-attention", bias=False),
         plain("edge_type", "edge_attr", by_keyword=False)),
    conv("RGATConv-attention", lambda: gnn.RGATConv(F_IN, F_OUT, RELATIONS),
         with_constants(plain("edge_type"), **WITH_ATTENTION)),
    conv("HEATConv-mean", lambda: gnn.HEATConv(F_IN, F_OUT, 2, RELATIONS, 4, F_EDGE, 4, heads=2, concat=False,
                                               root_weight=False, bias=False),
         plain("node_type", "edge_type", "edge_attr")),
]  # fmt: skip

POINTS: list[Case] = [
    conv("PointNetConv-nox", lambda: gnn.PointNetConv(mlp(3, F_OUT), mlp(F_OUT, F_OUT)), of("-", "pos", "edge_index")),
    conv("PointNetConv-noloops", lambda: gnn.PointNetConv(add_self_loops=False), of("x", "pos", "edge_index")),
    conv("PointNetConv-bipartite", lambda: gnn.PointNetConv(mlp(F_IN + 3, F_OUT)), point_sides()),
    conv("PPFConv-nox", lambda: gnn.PPFConv(mlp(4, F_OUT), mlp(F_OUT, F_OUT)), of("-", "pos", "normal", "edge_index")),
    conv("PPFConv-bipartite", lambda: gnn.PPFConv(mlp(F_IN + 4, F_OUT), add_self_loops=False), point_sides("normal")),
    conv("PointTransformerConv-nn",
         lambda: gnn.PointTransformerConv(F_IN, F_OUT, mlp(3, F_OUT), mlp(F_OUT, F_OUT), add_self_loops=False),
         of("x", "pos", "edge_index")),
    conv("PointTransformerConv-bipartite", lambda: gnn.PointTransformerConv(BOTH, F_OUT), point_sides()),
    conv("PointGNNConv-edgeless", lambda: gnn.PointGNNConv(mlp(F_IN, 3), mlp(F_IN + 3, F_IN), mlp(F_IN, F_IN)),
         of("x", "pos", "edge_index")),
    conv("SplineConv", lambda: gnn.SplineConv(F_IN, F_OUT, dim=3, kernel_size=5), plain("pseudo"),
         not_runnable="'SplineConv' requires 'pyg-lib", why=_LIB),
    conv("GravNetConv", lambda: gnn.GravNetConv(F_IN, F_OUT, 3, 8, k=4), of("x"),
         not_runnable="'GravNetConv' requires 'pyg-lib", why=_LIB),
    conv("DynamicEdgeConv", lambda: gnn.DynamicEdgeConv(mlp(2 * F_IN, F_OUT), k=4), of("x"),
         not_runnable="'DynamicEdgeConv' requires 'pyg-lib", why=_LIB),
    conv("XConv", lambda: gnn.XConv(F_IN, F_OUT, dim=3, kernel_size=4), of("x", "pos"),
         not_runnable="'XConv' requires 'pyg-lib", why=_LIB),
]  # fmt: skip

EDGES: list[Case] = [
    conv("GINConv-eps", lambda: gnn.GINConv(mlp(F_IN, F_OUT), eps=1.0, aggr="max")),
    conv("GINConv-bipartite", lambda: gnn.GINConv(mlp(F_IN, F_OUT)), bipartite),
    conv("GINConv-sources", lambda: gnn.GINConv(mlp(F_IN, F_OUT)), sources(), resized=True),
    conv("GINEConv-same", lambda: gnn.GINEConv(mlp(F_IN, F_OUT), eps=0.5, train_eps=True), plain("edge_attr_x")),
    conv("GINEConv-bipartite", lambda: gnn.GINEConv(mlp(F_IN, F_OUT), edge_dim=F_EDGE), sides("edge_attr")),
    conv("GINEConv-sources", lambda: gnn.GINEConv(mlp(F_IN, F_OUT), edge_dim=F_EDGE), sources("edge_attr"),
         resized=True),
    conv("GMMConv-separate", lambda: gnn.GMMConv(F_IN, F_OUT, F_EDGE, 3, separate_gaussians=True), plain("pseudo")),
    conv("GMMConv-lazy-bipartite", lambda: gnn.GMMConv((-1, -1), F_OUT, F_EDGE, 3, bias=False), sides("pseudo")),
    conv("GMMConv-lazy-max", lambda: gnn.GMMConv(-1, F_OUT, F_EDGE, 2, aggr="max"), plain("pseudo")),
    conv("NNConv-mean", lambda: gnn.NNConv(F_IN, F_OUT, mlp(F_EDGE, 12, F_IN * F_OUT), "mean", root_weight=False),
         plain("edge_attr")),
    conv("NNConv-bipartite", lambda: gnn.NNConv((F_IN, 6), F_OUT, mlp(F_EDGE, F_IN * F_OUT), bias=False),
         sides("edge_attr", narrow=True)),
    conv("NNConv-sources", lambda: gnn.NNConv(BOTH, F_OUT, mlp(F_EDGE, F_IN * F_OUT)), sources("edge_attr"),
         resized=True),
    conv("CGConv-noedge", lambda: gnn.CGConv(F_IN, aggr="mean", bias=False)),
    conv("CGConv-bipartite", lambda: gnn.CGConv((F_IN, F_IN), dim=F_EDGE), sides("edge_attr")),
    *(conv(f"EdgeConv-{a}", lambda a=a: gnn.EdgeConv(mlp(2 * F_IN, F_OUT), aggr=a)) for a in ("mean", "sum", "std")),
    conv("EdgeConv-bipartite", lambda: gnn.EdgeConv(mlp(2 * F_IN, F_OUT, F_OUT)), bipartite),
    conv("PNAConv-plain", lambda: gnn.PNAConv(F_IN, F_OUT, ["mean", "max"], ["identity", "linear"], DEGREES)),
    conv("PNAConv-divide",
         lambda: gnn.PNAConv(F_IN, F_OUT, ["sum", "std"], ["amplification"], DEGREES, F_EDGE, 4, 2, 2, True, "elu"),
         plain("edge_attr")),
    conv("PNAConv-train_norm", lambda: gnn.PNAConv(F_IN, F_OUT, ["min"], ["attenuation"], DEGREES, train_norm=True)),
    *(
        conv(f"GENConv-{label}", lambda kw=kw: gnn.GENConv(F_IN, F_OUT, **kw))
        for label, kw in (
            ("default", {}),
            ("softmax_sg", {"aggr": "softmax_sg", "t": 0.7, "num_layers": 1}),
            ("layer", {"norm": "layer", "aggr": "max"}),
            ("msg_norm", {"msg_norm": True, "learn_msg_scale": True, "aggr": "add"}),
            ("instance", {"norm": "instance", "expansion": 1, "bias": True, "eps": 0.1}),
            ("softmax+powermean", {"aggr": ["softmax", "powermean", "std"]}),
        )
    ),
    conv("GENConv-bipartite", lambda: gnn.GENConv((F_IN, 6), F_OUT, edge_dim=F_EDGE), sides("edge_attr", narrow=True)),
    conv("GENConv-sources", lambda: gnn.GENConv(BOTH, F_OUT), sources(), resized=True),
    conv("GENConv-same", lambda: gnn.GENConv(F_IN, F_IN), plain("edge_attr_x")),
]  # fmt: skip

_GAT = {"add_self_loops": False}

HETERO: list[Case] = [
    conv("HGTConv-dict", lambda: gnn.HGTConv({"paper": F_IN, "author": F_IN}, F_IN, METADATA, heads=4), hetero),
    conv("HGTConv-lazy", lambda: gnn.HGTConv(-1, F_OUT, METADATA), hetero),
    conv("HANConv-semantic", lambda: gnn.HANConv({"paper": F_IN, "author": F_IN}, F_OUT, METADATA, heads=2),
         with_constants(hetero, return_semantic_attention_weights=True)),
    conv("HANConv-lazy", lambda: gnn.HANConv(-1, F_OUT, METADATA, negative_slope=0.1), hetero),
    *(
        conv(f"HeteroConv-{a}",
             lambda a=a: gnn.HeteroConv({k: gnn.SAGEConv((-1, -1), F_OUT) for k in METADATA[1]}, aggr=a), hetero)
        for a in ("sum", "max", "cat", None)
    ),
    conv("HeteroConv-weights",
         lambda: gnn.HeteroConv({k: gnn.GraphConv((-1, -1), F_OUT) for k in METADATA[1]}), hetero_weighted),
    conv("HeteroConv-mixed",
         lambda: gnn.HeteroConv({
             METADATA[1][0]: gnn.GCNConv(-1, F_OUT),
             METADATA[1][1]: gnn.GATConv((-1, -1), F_OUT, **_GAT),
             METADATA[1][2]: gnn.SAGEConv((-1, -1), F_OUT),
         }), hetero),
]  # fmt: skip

_CUGRAPH = {"not_runnable": "requires 'pylibcugraphops>=", "why": "needs cugraph"}

NOT_RUNNABLE: list[Case] = [
    conv("CuGraphSAGEConv", lambda: gnn.CuGraphSAGEConv(F_IN, F_OUT), plain(), **_CUGRAPH),
    conv("CuGraphGATConv", lambda: gnn.CuGraphGATConv(F_IN, F_OUT), plain(), **_CUGRAPH),
    conv("CuGraphRGCNConv", lambda: gnn.CuGraphRGCNConv(F_IN, F_OUT, 4), plain(), **_CUGRAPH),
    conv("FusedGATConv", lambda: gnn.conv.FusedGATConv(F_IN, F_OUT, add_self_loops=False), plain(),
         not_runnable="No module named 'dgNN'", why="needs dgNN"),
    conv("PANConv", lambda: gnn.PANConv(F_IN, F_OUT, filter_size=2), plain(),
         not_runnable="'SparseTensor' requires 'torch-sparse'", why="needs torch-sparse"),
]  # fmt: skip

MORE_CONVS = [
    *SIMPLE, *GCNS, *SAGES, *ATTENTIONS, *RELATIONAL, *POINTS, *EDGES, *HETERO, *NOT_RUNNABLE,
]  # fmt: skip

__all__ = ["EXTRAS", "MORE_CONVS"]
