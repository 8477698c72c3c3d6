"""Models as users write them, homogeneous and heterogeneous."""

from __future__ import annotations

from tests.capture import user_models as user
from tests.cases import nets
from tests.cases.case import Case
from tests.cases.inputs import (
    F_EDGE,
    F_IN,
    F_OUT,
    METADATA,
    RELATIONS,
    adjs,
    dna,
    hetero,
    hetero_data,
    plain,
    relational_ids,
    whole_data,
)

USERS = [
    Case("u.GraphClassifier", lambda: user.GraphClassifier(F_IN, 12, F_OUT), plain("batch"), "user"),
    Case(
        "u.GraphClassifier-batch_size",
        lambda: user.GraphClassifier(F_IN, 12, F_OUT),
        lambda graph: (plain("batch")(graph)[0], {"batch_size": 3}),
        "user",
    ),
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
    ),
    Case(
        "u.DataDependent",
        lambda: user.DataDependent(F_IN, F_OUT),
        plain(),
        "user",
        refused=r"user_models\.py:\d+ in DataDependent",
        why="a branch on the data",
    ),
    Case("u.VirtualNode", lambda: user.VirtualNode(F_IN, 12, F_OUT), plain(), "user"),
    Case("u.APPNP", lambda: user.APPNPNet(F_IN, 12, F_OUT), plain(), "user"),
    Case("u.Sequential", lambda: user.sequential(F_IN, 12, F_OUT), plain(), "user"),
    Case("u.Data", lambda: user.WholeData(F_IN, F_EDGE, F_OUT), whole_data, "user"),
    Case("u.Adjs", lambda: user.Sampled(F_IN, 12, F_OUT), adjs, "user"),
    Case("u.Outputs", lambda: user.ManyOutputs(F_IN, F_OUT), plain(), "user"),
    Case("u.Transformer", lambda: nets.GraphTransformer(F_IN, F_OUT), plain("batch"), "user"),
    Case("u.Transformer-whole", lambda: nets.GraphTransformer(F_IN, F_OUT), plain(), "user"),
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
