"""Every model of torch_geometric.nn.models and .kge at its main options."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch_geometric.nn as gnn
from torch_geometric.nn.models.tgn import IdentityMessage, LastAggregator

from tests.capture import user_models as user
from tests.cases import nets
from tests.cases.build import PNA_ARGS
from tests.cases.case import TRACE_GRAPH, Case
from tests.cases.inputs import (
    F_EDGE,
    F_IN,
    F_OUT,
    METADATA,
    Maker,
    features,
    hetero_parts,
    of,
    of_40_nodes,
    pairs,
    plain,
    relational_ids,
    signed,
    static,
    with_constants,
)


def _model(case_id: str, build: Callable[[], torch.nn.Module], inputs: Maker | None = None, **more: Any) -> Case:
    return Case(f"m.{case_id}", build, inputs or plain(), "models", **more)


_LIB = "needs pyg-lib"
_RADIUS = {"not_runnable": "'radius_graph' requires 'pyg-lib", "why": _LIB}
_SELECTS = "which nodes and edges remain depends on the features"


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

CORE_MODELS = [
    _model("GCN", _basic("GCN")),
    _model("GCN-weight", _basic("GCN"), plain("edge_weight", by_keyword=True)),
    _model("GCN-bn-cat", _basic("GCN", norm="batch_norm", jk="cat")),
    _model("GraphSAGE-max", _basic("GraphSAGE", jk="max", act="elu")),
    _model("GraphSAGE-last", _basic("GraphSAGE", jk="last", act="prelu")),
    _model("GraphSAGE-lstm", _basic("GraphSAGE", jk="lstm", act="leaky_relu")),
    *(
        _model(f"GraphSAGE-{norm}", _basic("GraphSAGE", norm=norm.split("/")[0], norm_kwargs=kw or None))
        for norm, kw in _NORMS.items()
    ),
    _model("GraphSAGE-mean_subtraction", lambda: _basic("GraphSAGE", norm=gnn.MeanSubtractionNorm())()),
    _model("GraphSAGE-graph_size", lambda: _basic("GraphSAGE", norm=gnn.GraphSizeNorm())()),
    _model("GAT-act_first-bn", _basic("GAT", heads=2, act_first=True, norm="batch_norm")),
    _model("GAT-edge", _basic("GAT", heads=2, edge_dim=F_EDGE), plain("edge_attr", by_keyword=True)),
    _model("GAT-v2", _basic("GAT", heads=2, v2=True, jk="cat")),
    _model("GIN-bn", _basic("GIN", norm="batch_norm")),
    _model("PNA", _basic("PNA", **PNA_ARGS)),
    _model("EdgeCNN", _basic("EdgeCNN")),
    _model("GraphUNet", lambda: gnn.GraphUNet(F_IN, 12, F_OUT, depth=2), refused="of a sparse matrix at", why=_SELECTS),
    _model("PMLP", lambda: gnn.PMLP(F_IN, 12, F_OUT, num_layers=3)),
    _model("SGFormer", lambda: gnn.SGFormer(F_IN, 12, F_OUT, 1, gnn_num_layers=2), plain("batch")),
    _model("Polynormer", lambda: gnn.Polynormer(F_IN, 12, F_OUT, 2, 1), plain("batch")),
    _model("AttentiveFP", lambda: gnn.AttentiveFP(F_IN, 12, F_OUT, F_EDGE, 2, 2), plain("edge_attr", "batch")),
    _model("DeepGCNLayer", lambda: user.deep_gcn(F_IN, 12)),
    _model("LabelPropagation", lambda: gnn.LabelPropagation(num_layers=2, alpha=0.9), of("x", "edge_index")),
    _model("LabelPropagation-weight", lambda: user.Smoother()),
    _model("NeuralFingerprint", lambda: gnn.models.NeuralFingerprint(F_IN, 12, F_OUT, 2), plain("batch")),
    _model("LightGCN-rows", lambda: user.LightRows()),
]

# Options of the ready models -------------------------------------------------------------------------

_NAMES: dict[str, dict[str, Any]] = {"GCN": {}, "GraphSAGE": {}, "GIN": {}, "GAT": {}, "PNA": PNA_ARGS, "EdgeCNN": {}}

_JUMPS = {"GCN": "lstm", "GraphSAGE": "cat", "GIN": "max", "GAT": "max", "PNA": "cat", "EdgeCNN": "max"}


def _two(name: str, width: int = F_IN, **options: Any) -> Callable[[], torch.nn.Module]:
    """A `BasicGNN` of two layers."""
    return lambda: getattr(gnn.models, name)(width, 12, 2, **options)


BASIC = [
    *(
        _model(f"{name}-{jump}", _two(name, out_channels=F_OUT, jk=jump, act="tanh", **_NAMES[name]))
        for name, jump in _JUMPS.items()
    ),
    *(_model(f"{name}-noout", _two(name, dropout=0.5, **_NAMES[name])) for name in ("GCN", "GAT", "PNA", "EdgeCNN")),
    *(_model(f"{name}-lazy", _two(name, -1)) for name in ("GraphSAGE", "GIN")),
    _model("GCN-static", _two("GCN", norm="layer_norm", norm_kwargs={"mode": "node"}), static()),
    _model("GraphSAGE-act_first", _two("GraphSAGE", act_first=True, norm="graph_norm", act="gelu")),
    _model("GraphSAGE-noact", _two("GraphSAGE", act=None, aggr=["mean", "max"])),
    _model("GraphSAGE-project", _two("GraphSAGE", project=True, normalize=True, bias=False)),
    _model("GCN-cached", _two("GCN", cached=True, improved=True), keeps=True),
    _model("GAT-heads-mean", _two("GAT", heads=2, concat=False, residual=True, add_self_loops=False)),
    _model("GIN-train_eps", _two("GIN", train_eps=True, act="silu", norm="layer_norm")),
    _model(
        "PNA-edge",
        _two("PNA", out_channels=F_OUT, edge_dim=F_EDGE, towers=2, **PNA_ARGS),
        plain("edge_attr", by_keyword=True),
    ),
    _model("EdgeCNN-bn", _two("EdgeCNN", norm="batch_norm", aggr="mean")),
    _model("GraphSAGE-batch", _two("GraphSAGE", norm="graph_norm"), plain("batch", by_keyword=True)),
    _model("MLP", lambda: gnn.MLP([F_IN, 12, F_OUT], act="elu"), of("x")),
    _model("MLP-plain", lambda: gnn.MLP([F_IN, 12, 12, F_OUT], norm=None, plain_last=False, bias=False), of("x")),
    _model("MLP-batch", lambda: gnn.MLP([F_IN, 12, F_OUT], norm="graph_norm", dropout=0.5), of("x", "batch")),
    _model("PMLP-options", lambda: gnn.PMLP(F_IN, 12, F_OUT, num_layers=2, norm=False, bias=False, dropout=0.5)),
]

# The other models --------------------------------------------------------------------------------------

_MLP_HEAD = {"num_layers": 2, "num_node_layers": 2, "num_edge_layers": 2}


def _metapath() -> torch.nn.Module:
    metapath = [METADATA[1][1], METADATA[1][2]]
    edges = hetero_parts(TRACE_GRAPH)[1]
    return gnn.MetaPath2Vec(edges, F_OUT, metapath, 4, 3, num_nodes_dict={"paper": 40, "author": 21})


def _tgn() -> torch.nn.Module:
    """Memory with a past."""
    message = IdentityMessage(raw_msg_dim=F_EDGE, memory_dim=F_OUT, time_dim=4)
    memory = gnn.TGNMemory(40, F_EDGE, F_OUT, 4, message, LastAggregator())
    memory.eval()
    src, dst = TRACE_GRAPH[1]
    with torch.no_grad():
        memory.update_state(src, dst, torch.arange(src.numel()), features(src.numel(), F_EDGE))
    return memory


def _dgi(corruption: Callable[..., Any]) -> Callable[[], torch.nn.Module]:
    return lambda: gnn.DeepGraphInfomax(
        F_OUT,
        encoder=gnn.GCN(F_IN, 12, 2, F_OUT),
        summary=lambda z, *args, **kwargs: z.mean(dim=0).sigmoid(),
        corruption=corruption,
    )


def _gpse(as_pretrained: bool = True) -> torch.nn.Module:
    """Small; the pretrained ones end in a head that returns the encodings."""
    sizes = {"num_node_targets": 4, "num_graph_targets": 5, "multi_head_dim_inner": 6, "virtual_node": False}
    model = gnn.GPSE(F_IN, 9, 12, layers_mp=3, **sizes)
    if as_pretrained:
        model.post_mp = gnn.models.gpse.IdentityHead()  # named here: older versions have no such file
    return model


def _meta_layer() -> torch.nn.Module:
    return gnn.MetaLayer(nets.EdgeModel(), nets.NodeModel(), nets.GlobalModel())


def _captum() -> torch.nn.Module:
    return gnn.to_captum_model(gnn.GCN(F_IN, 12, 2, F_OUT), mask_type="node", output_idx=0)


OTHERS = [
    *(_model(f"JumpingKnowledge-{mode}", lambda mode=mode: nets.JumpNet(mode)) for mode in ("cat", "max", "lstm")),
    _model("JumpingKnowledge-alone", lambda: gnn.JumpingKnowledge("cat"), nets.layers_of),
    *(
        _model(f"HeteroJumpingKnowledge-{mode}",
               lambda mode=mode: gnn.HeteroJumpingKnowledge(["paper", "author"], mode, F_IN, 3), nets.layers_of_types)
        for mode in ("max", "lstm")
    ),
    _model("MetaLayer", _meta_layer, nets.graph_level),
    _model("MetaLayer-nodes", lambda: gnn.MetaLayer(node_model=nets.NodeModel()),
           lambda graph: ((*nets.graph_level(graph)[0][:2], torch.ones(graph[1].size(1), 6),
                           *nets.graph_level(graph)[0][3:]), {})),
    _model("Node2Vec", lambda: gnn.Node2Vec(TRACE_GRAPH[1], F_OUT, 4, 3, num_nodes=40), of("labels"),
           not_runnable="'Node2Vec' requires 'pyg-lib", why=_LIB),
    _model("MetaPath2Vec", _metapath, lambda graph: (("paper", torch.arange(graph[0]) % 40), {})),
    _model("MetaPath2Vec-all", _metapath, lambda graph: (("author",), {})),
    _model("DeepGraphInfomax", _dgi(lambda x, edge_index: (x.flip(0), edge_index))),
    _model("DeepGraphInfomax-random", _dgi(lambda x, edge_index: (x[torch.randperm(x.size(0))], edge_index)),
           refused=r"randperm.*random", why="a random order in forward"),
    _model("DeepGraphInfomax-encoder", lambda: _dgi(lambda *args: args)().encoder),
    _model("InnerProductDecoder", lambda: gnn.InnerProductDecoder(), of("x", "edge_index")),
    _model("InnerProductDecoder-raw", lambda: gnn.InnerProductDecoder(), of("x", "edge_index", sigmoid=False)),
    *(
        _model(f"{kind.__name__}", lambda kind=kind, extra=extra: kind(gnn.GCN(F_IN, 12, 2, F_OUT), *extra))
        for kind, extra in ((gnn.GAE, ()), (gnn.ARGA, (torch.nn.Linear(F_OUT, 1),)))
    ),
    *(
        _model(f"{kind.__name__}", lambda kind=kind, extra=extra: kind(nets.Encoder(), *extra))
        for kind, extra in ((gnn.VGAE, ()), (gnn.ARGVA, (torch.nn.Linear(F_OUT, 1),)))
    ),
    _model("GAE-encode", lambda: nets.Encode(gnn.GAE(gnn.GCN(F_IN, 12, 2, F_OUT)))),
    _model("VGAE-encode", lambda: nets.Encode(gnn.VGAE(nets.Encoder())), keeps=True),
    _model("ARGVA-encode", lambda: nets.Encode(gnn.ARGVA(nets.Encoder(), torch.nn.Linear(F_OUT, 1))), keeps=True),
    _model("SignedGCN", lambda: gnn.SignedGCN(F_IN, 12, num_layers=2), signed),
    _model("RENet", lambda: gnn.RENet(40, 4, F_OUT, seq_len=3), nets.quadruples, resized=True),
    _model("GraphUNet-weight", lambda: gnn.GraphUNet(F_IN, 12, F_OUT, 1, sum_res=False), plain("batch", "edge_weight"),
           refused="of a sparse matrix at", why=_SELECTS),
    _model("SchNet", lambda: gnn.SchNet(16, 16, 2), of("labels", "pos", "batch"), **_RADIUS),
    _model("SchNet-graph", lambda: gnn.SchNet(16, 16, 2, 8, interaction_graph=nets.near),
           of("labels", "pos", "batch"), refused="gives a number of rows that depends on features",
           why="which atoms interact is computed from their positions inside of forward"),
    _model("DimeNet", lambda: gnn.DimeNet(16, 4, 2, 4, 3, 3), of("labels", "pos", "batch"), **_RADIUS),
    _model("DimeNetPlusPlus", lambda: gnn.DimeNetPlusPlus(16, 4, 2, 8, 4, 8, 3, 3), of("labels", "pos", "batch"),
           **_RADIUS),
    _model("GNNFF", lambda: gnn.GNNFF(16, 16, 2), of("labels", "pos", "batch"), **_RADIUS),
    _model("ViSNet", lambda: gnn.ViSNet(hidden_channels=16, num_layers=2), of("labels", "pos", "batch"),
           **_RADIUS),
    _model("GPSE", _gpse, nets.batched_data),
    _model("GPSE-heads", lambda: _gpse(False), nets.batched_data),
    _model("GPSENodeEncoder", lambda: gnn.GPSENodeEncoder(F_IN + 6, 3, 6), of("x", "pos")),
    _model("to_captum_model", _captum, lambda graph: ((features(graph[0]).unsqueeze(0), graph[1]), {})),
    _model("TGNMemory", _tgn, of("labels")),
    _model("LabelPropagation-labels", lambda: gnn.LabelPropagation(3, 0.7), of("labels", "edge_index", "mask")),
    _model("CorrectAndSmooth", lambda: nets.Smooth(), nets.smoothing, resized=True),
    _model("CorrectAndSmooth-mask", lambda: nets.Smooth(), nets.smoothing_mask, resized=True),
    _model("CorrectAndSmooth-fixed", lambda: nets.Smooth(autoscale=False, scale=5.0), nets.smoothing, resized=True),
    _model("AttentiveFP-one", lambda: gnn.AttentiveFP(F_IN, 12, F_OUT, F_EDGE, 1, 1), plain("edge_attr", "batch")),
    _model("RECT_L", lambda: gnn.RECT_L(F_IN, 12), plain("edge_weight")),
    _model("RECT_L-unnormalized", lambda: gnn.RECT_L(F_IN, 12, normalize=False, dropout=0.5)),
    _model("LightGCN", lambda: gnn.LightGCN(40, F_OUT, 2),
           lambda graph: ((graph[1] % 40,), {})),
    _model("LightGCN-labels", lambda: gnn.LightGCN(40, F_OUT, 2, alpha=torch.tensor([0.2, 0.5, 0.3])),
           lambda graph: ((graph[1] % 40, graph[1][:, ::2] % 40, torch.ones(graph[1].size(1))), {})),
    _model("LINKX", lambda: gnn.LINKX(40, F_IN, 12, F_OUT, 2), of_40_nodes("edge_weight")),
    _model("LINKX-layers", lambda: gnn.LINKX(40, F_IN, 12, F_OUT, 1, 2, 2, 0.5), of_40_nodes()),
    _model("MaskLabel", lambda: gnn.MaskLabel(5, F_IN), of("x", "labels", "mask")),
    _model("MaskLabel-concat", lambda: gnn.MaskLabel(5, F_OUT, method="concat"), of("x", "labels", "mask")),
    _model("GroupAddRev", lambda: nets.Rev(disable=False)),
    _model("GroupAddRev-disabled", lambda: nets.Rev(disable=True)),
    _model("NeuralFingerprint-size", lambda: gnn.models.NeuralFingerprint(F_IN, 12, F_OUT, 1),
           with_constants(plain("batch"), batch_size=3)),
    _model("LPFormer", lambda: gnn.LPFormer(F_IN, 12), lambda graph: (
        (graph[1][:, :5], features(graph[0]), graph[1], torch.rand(graph[0], graph[0]).to_sparse()), {}),
        refused="`index_select` of a sparse matrix", why="picks rows of a sparse matrix by number"),
    _model("SGFormer-cat", lambda: gnn.SGFormer(F_IN, 12, F_OUT, 1, 2, gnn_num_layers=1, aggregate="cat"),
           plain("batch")),
    _model("Polynormer-local", lambda: gnn.Polynormer(F_IN, 12, F_OUT, 2, 1, heads=2, local_attn=True, pre_ln=True,
                                                      qk_shared=True, post_bn=False), plain("batch")),
    _model("Polynormer-nobatch", lambda: gnn.Polynormer(F_IN, 12, F_OUT, 1, 1), of("x", "edge_index", "-")),
    _model("ARLinkPredictor", lambda: gnn.ARLinkPredictor(F_IN, 12, F_OUT, attract_ratio=0.25)),
    _model("DeepGCNLayer-dense", lambda: nets.Deep("dense")),
]  # fmt: skip

_KGE = {"KGEModel": None, "TransE": gnn.TransE, "ComplEx": gnn.ComplEx, "DistMult": gnn.DistMult, "RotatE": gnn.RotatE}

KGES = [
    Case(f"k.{name}", lambda kind=kind: kind(40, 4, F_OUT), pairs(), "kge")
    for name, kind in _KGE.items()
    if kind is not None
]

MORE_MODELS = [*BASIC, *OTHERS, *KGES]
__all__ = ["CORE_MODELS", "MORE_MODELS", "relational_ids"]
