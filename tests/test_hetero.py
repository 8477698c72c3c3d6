"""Heterogeneous models are first class: dicts in, dicts out, all node types in one pass, on real graphs.

Every result equals the model's own full-batch forward, element by element.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch_geometric.nn as gnn
from torch import Tensor
from torch_geometric.data import HeteroData
from torch_geometric.loader import NeighborLoader
from torch_geometric.transforms import ToUndirected

import pyg_fullgraph as fg
from tests.capture import user_models as user
from tests.graphs import data_folder
from tests.test_exactness import assert_exact, difference, pairs

WIDTH, HIDDEN, OUT = 16, 12, 5
Metadata = tuple[list[str], list[tuple[str, str, str]]]

needs_data = pytest.mark.skipif(data_folder() is None, reason="no folder of real graphs: set PYG_FULLGRAPH_DATA")

# Graphs ------------------------------------------------------------------------------------------------


def arrays_of(name: str) -> dict[str, np.ndarray]:
    """A file of the data folder; skips the test where it is absent."""
    folder = data_folder()
    if folder is None or not (folder / f"{name}.npz").exists():
        pytest.skip(f"{name}.npz is absent")
    with np.load(folder / f"{name}.npz", allow_pickle=False) as arrays:
        return {key: arrays[key] for key in arrays.files if key.startswith(("num_nodes", "edge", "graph", "node", "y"))}


@functools.lru_cache(maxsize=1)
def typed(name: str) -> HeteroData:
    """A real graph with several node types, normal features for each, and every relation in both directions."""
    data, generator = HeteroData(), torch.Generator().manual_seed(0)
    for key, value in arrays_of(name).items():
        kind, _, rest = key.partition("__")
        if kind == "num_nodes":
            data[rest].x = torch.randn(int(value), WIDTH, generator=generator)
        elif kind == "edge_index":
            data[tuple(rest.split("__"))].edge_index = torch.from_numpy(value).long()
    return ToUndirected()(data)


@functools.lru_cache(maxsize=1)
def knowledge(name: str) -> tuple[int, Tensor, Tensor, int]:
    """Nodes, edges and edge types of a knowledge graph with inverse relations, and how many relations it has."""
    arrays = arrays_of(name)
    edge_index, kinds = torch.from_numpy(arrays["edge_index"]).long(), torch.from_numpy(arrays["edge_type"]).long()
    relations = int(kinds.max()) + 1
    both = torch.cat([edge_index, edge_index.flip(0)], dim=1)
    return int(edge_index.max()) + 1, both, torch.cat([kinds, kinds + relations]), 2 * relations


def small(empty: str = "") -> HeteroData:
    """A little graph of three types; `only` sends and does not receive. `empty` names a type or relation to empty."""
    sizes = {"paper": 30, "author": 12, "only": 7}
    data, generator = HeteroData(), torch.Generator().manual_seed(1)
    for kind, size in sizes.items():
        data[kind].x = torch.randn(0 if kind == empty else size, WIDTH, generator=generator)
    for source, relation, target in (
        ("paper", "cites", "paper"),
        ("author", "writes", "paper"),
        ("paper", "rev_writes", "author"),
        ("only", "tags", "paper"),
    ):
        edges = torch.stack([torch.randint(sizes[kind], (50,), generator=generator) for kind in (source, target)])
        keep = 0 if empty in (source, relation, target) else 50
        data[source, relation, target].edge_index = edges[:, :keep]
    return data


# Models ------------------------------------------------------------------------------------------------


def passed_on(
    convs: torch.nn.ModuleList, x_dict: dict[str, Tensor], edge_index_dict: dict[Any, Tensor]
) -> dict[str, Tensor]:
    """Layer after layer; a type that receives nothing keeps the rows it had, and is not in the result."""
    out = x_dict
    for conv in convs:
        out = {key: x.flatten(1).relu() for key, x in conv(x_dict, edge_index_dict).items() if x is not None}
        x_dict = {**x_dict, **out}
    return out


class Convs(torch.nn.Module):
    """Two HeteroConv layers, each relation with a layer of another kind."""

    def __init__(self, metadata: Metadata, aggr: str | None) -> None:
        super().__init__()
        kinds: list[Callable[[], torch.nn.Module]] = [
            lambda: gnn.SAGEConv((-1, -1), HIDDEN),
            lambda: gnn.GATConv((-1, -1), HIDDEN, heads=2, concat=False, add_self_loops=False),
            lambda: gnn.GraphConv((-1, -1), HIDDEN, aggr="max"),
        ]
        self.convs = torch.nn.ModuleList(
            gnn.HeteroConv({key: kinds[i % 3]() for i, key in enumerate(metadata[1])}, aggr) for _ in range(2)
        )

    def forward(self, x_dict: dict[str, Tensor], edge_index_dict: dict[Any, Tensor]) -> dict[str, Tensor]:
        return passed_on(self.convs, x_dict, edge_index_dict)


class TypedRows(torch.nn.Module):
    """All types as one table with a type per row: typed linear layers and norms, and a layer per relation."""

    def __init__(self, metadata: Metadata) -> None:
        super().__init__()
        kinds = len(metadata[0])
        self.first = gnn.HeteroDictLinear({kind: WIDTH for kind in metadata[0]}, HIDDEN)
        self.norm, self.batch_norm = gnn.HeteroLayerNorm(HIDDEN, kinds), gnn.HeteroBatchNorm(HIDDEN, kinds)
        self.lin = gnn.HeteroLinear(HIDDEN, HIDDEN, kinds)
        self.conv = gnn.HeteroConv({key: gnn.SAGEConv((HIDDEN, HIDDEN), OUT) for key in metadata[1]}, "mean")

    def forward(self, x_dict: dict[str, Tensor], edge_index_dict: dict[Any, Tensor]) -> dict[str, Tensor]:
        x_dict = self.first(x_dict)
        kinds = torch.cat([torch.full((x.size(0),), i) for i, x in enumerate(x_dict.values())])
        x = self.norm(torch.cat(list(x_dict.values())), kinds).relu()
        x = self.batch_norm(self.lin(x, kinds), kinds).relu()
        parts = x.split([x.size(0) for x in x_dict.values()])
        return self.conv(dict(zip(x_dict, parts, strict=True)), edge_index_dict)


class Attention(torch.nn.Module):
    """All types to one width, and two layers of HGT or HAN."""

    def __init__(self, metadata: Metadata, kind: type) -> None:
        super().__init__()
        self.first = gnn.HeteroDictLinear({kind: WIDTH for kind in metadata[0]}, HIDDEN)
        self.convs = torch.nn.ModuleList(kind(HIDDEN, HIDDEN, metadata, heads=2) for _ in range(2))

    def forward(self, x_dict: dict[str, Tensor], edge_index_dict: dict[Any, Tensor]) -> dict[str, Tensor]:
        return passed_on(self.convs, self.first(x_dict), edge_index_dict)


def basic(kind: type, **options: Any) -> torch.nn.Module:
    return kind((-1, -1), HIDDEN, 2, OUT, **options)


MODELS: dict[str, Callable[[Metadata], torch.nn.Module]] = {
    "to_hetero-SAGE": lambda m: user.to_hetero_sage(m, OUT),
    "to_hetero-GAT": lambda m: user.to_hetero_gat(m, OUT),
    "to_hetero-GraphSAGE": lambda m: gnn.to_hetero(basic(gnn.GraphSAGE, jk="cat", norm="layer_norm"), m, "max"),
    "to_hetero-GATv2": lambda m: gnn.to_hetero(basic(gnn.GAT, v2=True, heads=2, add_self_loops=False), m, "mean"),
    "to_hetero_with_bases": lambda m: gnn.to_hetero_with_bases(user.homogeneous_sage(OUT), m, 3, {"x": WIDTH}),
    **{
        f"HeteroConv-{aggr}": lambda m, aggr=aggr: Convs(m, aggr) for aggr in ("sum", "mean", "min", "max", "cat", None)
    },
    "typed rows": TypedRows,
    "HGT": lambda m: Attention(m, gnn.HGTConv),
    "HAN": lambda m: Attention(m, gnn.HANConv),
}
ON_GRAPH = {
    "het_acm": list(MODELS),
    "het_imdb": ["to_hetero-GAT", "HGT", "HAN"],
    "het_aminer": ["to_hetero-GraphSAGE", "HeteroConv-max", "typed rows"],
    "het_crates2020": ["to_hetero-SAGE", "HeteroConv-mean"],
}


def build(name: str, data: HeteroData) -> torch.nn.Module:
    """The model in eval mode; lazy layers get their shapes from the graph."""
    torch.manual_seed(0)
    model = MODELS[name](data.metadata()).eval()
    with torch.no_grad():
        model(data.x_dict, data.edge_index_dict)
    return model


def own(model: torch.nn.Module, *args: Any, **kwargs: Any) -> Any:
    with torch.no_grad():
        return model(*args, **kwargs)


# Several node types ------------------------------------------------------------------------------------


@needs_data
@pytest.mark.parametrize(("graph", "name"), [(graph, name) for graph, names in ON_GRAPH.items() for name in names])
def test_every_type_in_one_pass(graph: str, name: str) -> None:
    data = typed(graph)
    model = build(name, data)
    inputs = ((data.x_dict, data.edge_index_dict), {})
    expected = own(model, *inputs[0])
    engine = fg.compile(model)
    got = engine(*inputs[0])
    assert isinstance(got, dict) and list(got) == list(expected) and set(got) <= set(data.node_types)
    assert_exact(f"{name} on {graph}", model, inputs, expected, got)
    assert engine.verification is not None and engine.verification.how != "none", str(engine.verification)
    assert all(torch.equal(a, b) for a, b in pairs(got, engine(*inputs[0])))


@pytest.mark.parametrize("name", ["to_hetero-SAGE", "HeteroConv-sum", "HGT"])
def test_the_three_ways_to_call(name: str) -> None:
    data = small()
    if name == "to_hetero-SAGE":  # it wants every type to receive
        data["paper", "rev_tags", "only"].edge_index = data["only", "tags", "paper"].edge_index.flip(0)
    model = build(name, data)
    expected = own(model, data.x_dict, data.edge_index_dict)
    assert difference(expected, fg.compile(model)(data.x_dict, data.edge_index_dict)) <= 1e-5
    assert difference(expected, fg.inference(model, data)) <= 1e-5
    loader = NeighborLoader(data, num_neighbors=[-1], input_nodes="paper", batch_size=4)
    assert difference(expected, fg.accelerate(model).inference(loader)) <= 1e-5


@pytest.mark.parametrize("name", ["HeteroConv-mean", "HeteroConv-None", "HGT", "HAN"])
def test_types_and_relations_without_rows(name: str) -> None:
    """A type that receives nothing is returned, or left out, exactly as forward does it; so is an empty one."""
    model = build(name, small())
    engine = fg.compile(model)
    for empty in ("", "writes", "cites", "tags", "only", "author"):
        data = small(empty)
        try:
            expected = own(model, data.x_dict, data.edge_index_dict)
        except (RuntimeError, IndexError) as error:  # HAN takes the mean over no nodes
            with pytest.raises(type(error)):
                engine(data.x_dict, data.edge_index_dict)
            continue
        got = engine(data.x_dict, data.edge_index_dict)
        assert list(got) == list(expected) and "only" not in got, empty
        assert difference(expected, got) <= 1e-5, empty
    assert len(engine._captured) == 1


def test_one_trace_for_graphs_of_all_sizes() -> None:
    data = small()
    model = build("HeteroConv-max", data)
    engine = fg.compile(model)
    for count in (30, 3, 17):
        part = data.subgraph({"paper": torch.arange(count), "author": torch.arange(2 + count // 3)})
        expected = own(model, part.x_dict, part.edge_index_dict)
        assert difference(expected, engine(part.x_dict, part.edge_index_dict)) <= 1e-5
    assert len(engine._captured) == 1


def test_rows_of_one_type_can_be_asked_for() -> None:
    class Papers(torch.nn.Module):
        def __init__(self, net: torch.nn.Module) -> None:
            super().__init__()
            self.net = net

        def forward(self, x_dict: dict[str, Tensor], edge_index_dict: dict[Any, Tensor]) -> Tensor:
            return self.net(x_dict, edge_index_dict)["paper"]

    data = small()
    model = Papers(build("HeteroConv-sum", data)).eval()
    wanted = torch.tensor([3, 29, 3])
    expected = own(model, data.x_dict, data.edge_index_dict)[wanted]
    assert difference(expected, fg.inference(model, data, nodes=wanted)) <= 1e-5


# Relations as a vector ---------------------------------------------------------------------------------


class Relational(torch.nn.Module):
    """An embedding per node, one or two relational layers."""

    def __init__(self, num_nodes: int, layers: list[torch.nn.Module]) -> None:
        super().__init__()
        self.table, self.layers = torch.nn.Embedding(num_nodes, WIDTH), torch.nn.ModuleList(layers)

    def forward(self, node_id: Tensor, edge_index: Tensor, edge_type: Tensor) -> Tensor:
        x = self.table(node_id)
        for layer in self.layers:
            x = layer(x, edge_index, edge_type).relu()
        return x


def _rgat(relations: int, mechanism: str, mode: str) -> torch.nn.Module:
    return gnn.RGATConv(
        WIDTH, HIDDEN, relations, num_bases=4, heads=2, attention_mechanism=f"{mechanism}-relation",
        attention_mode=f"{mode}-self-attention",
    )  # fmt: skip


RELATIONAL: dict[str, Callable[[int], list[torch.nn.Module]]] = {
    "RGCN": lambda r: [gnn.RGCNConv(WIDTH, WIDTH, r), gnn.RGCNConv(WIDTH, OUT, r, aggr="sum")],
    "RGCN-bases": lambda r: [gnn.RGCNConv(WIDTH, OUT, r, num_bases=4)],
    "RGCN-blocks": lambda r: [gnn.RGCNConv(WIDTH, HIDDEN, r, num_blocks=4, aggr="max")],
    "FastRGCN": lambda r: [gnn.FastRGCNConv(WIDTH, WIDTH, r, num_bases=4), gnn.FastRGCNConv(WIDTH, OUT, r)],
    "FastRGCN-blocks": lambda r: [gnn.FastRGCNConv(WIDTH, HIDDEN, r, num_blocks=4)],
    "RGAT-across-additive": lambda r: [_rgat(r, "across", "additive")],
    "RGAT-across-multiplicative": lambda r: [_rgat(r, "across", "multiplicative")],
    "RGAT-within-additive": lambda r: [_rgat(r, "within", "additive")],
}
ON_KNOWLEDGE = {
    "kg_aifb": ["RGCN-bases", "FastRGCN", "RGAT-across-additive"],
    "kg_wn18rr": list(RELATIONAL),
    "kg_fb15k237": ["FastRGCN", "RGAT-across-multiplicative"],
}


@needs_data
@pytest.mark.parametrize(("graph", "name"), [(graph, name) for graph, names in ON_KNOWLEDGE.items() for name in names])
def test_knowledge_graphs(graph: str, name: str) -> None:
    num_nodes, edge_index, edge_type, relations = knowledge(graph)
    torch.manual_seed(0)
    model = Relational(num_nodes, RELATIONAL[name](relations)).eval()
    inputs = ((torch.arange(num_nodes), edge_index, edge_type), {})
    expected = own(model, *inputs[0])
    got = fg.compile(model)(*inputs[0])
    assert_exact(f"{name} on {graph}", model, inputs, expected, got)


@needs_data
@pytest.mark.parametrize("kind", [gnn.RGCNConv, gnn.FastRGCNConv])
def test_one_row_of_weights_per_node(kind: type) -> None:
    """No features: `x=None` stands for the identity."""
    num_nodes, edge_index, edge_type, relations = knowledge("kg_wn18rr")
    model = kind(num_nodes, OUT, relations, num_bases=2).eval()
    expected = own(model, None, edge_index, edge_type)
    assert difference(expected, fg.compile(model)(None, edge_index, edge_type)) <= 1e-5


@needs_data
def test_heterogeneous_edge_attention() -> None:
    """HEATConv: a type per node and per edge, and attributes of edges."""
    data = typed("het_acm").to_homogeneous()
    torch.manual_seed(0)
    model = gnn.HEATConv(WIDTH, HIDDEN, 3, 4, 4, 3, 4, heads=2).eval()
    call = (data.x, data.edge_index, data.node_type, data.edge_type, torch.randn(data.num_edges, 3))
    inputs = (call, {})
    assert_exact("HEAT on het_acm", model, inputs, own(model, *call), fg.compile(model)(*call))


# Many small graphs -------------------------------------------------------------------------------------


class Classifier(torch.nn.Module):
    """Embedded node labels, two layers with a norm per graph, three readouts."""

    def __init__(self, labels: int) -> None:
        super().__init__()
        self.table = torch.nn.Embedding(labels, WIDTH)
        self.convs = torch.nn.ModuleList([gnn.GCNConv(WIDTH, HIDDEN), gnn.GINConv(torch.nn.Linear(HIDDEN, HIDDEN))])
        self.norms = torch.nn.ModuleList([gnn.GraphNorm(HIDDEN), gnn.LayerNorm(HIDDEN)])
        self.lin = torch.nn.Linear(3 * HIDDEN, 2)

    def forward(self, labels: Tensor, edge_index: Tensor, batch: Tensor) -> Tensor:
        x = self.table(labels)
        for conv, norm in zip(self.convs, self.norms, strict=True):
            x = norm(conv(x, edge_index), batch).relu()
        pools = (gnn.global_mean_pool, gnn.global_add_pool, gnn.global_max_pool)
        return self.lin(torch.cat([pool(x, batch) for pool in pools], dim=-1))


@needs_data
def test_classifies_the_graphs_of_a_data_set() -> None:
    arrays = arrays_of("tu_dd")
    bounds, edge_index = torch.from_numpy(arrays["graph_ptr"]), torch.from_numpy(arrays["edge_index"]).long()
    batch = torch.arange(bounds.numel() - 1).repeat_interleave(bounds.diff())
    labels = torch.from_numpy(arrays["node_label"]).long()
    torch.manual_seed(0)
    model = Classifier(int(labels.max()) + 1).eval()
    call = (labels, edge_index, batch)
    expected = own(model, *call)
    assert expected.shape == (1178, 2)
    assert_exact("classifier on tu_dd", model, (call, {}), expected, fg.compile(model)(*call))
