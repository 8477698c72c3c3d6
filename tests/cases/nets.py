"""Small networks around layers, norms, aggregations and pools, and the odd arguments that some layers take."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import torch
import torch_geometric.nn as gnn
from torch import Tensor
from torch.nn import Linear, Module
from torch_geometric.data import Data
from torch_geometric.utils import to_dense_batch

from tests.cases.case import GraphLike, Inputs
from tests.cases.inputs import EXTRAS, F_IN, F_OUT, Maker, features

# Arguments -----------------------------------------------------------------------------------------


def cheb_lambda(per_graph: bool) -> Maker:
    """ChebConv's largest eigenvalue, one for all or one per graph of the batch."""

    def make(graph: GraphLike) -> Inputs:
        n, edge_index = graph
        if not per_graph:
            return (features(n), edge_index, None, None, torch.tensor(3.0)), {}
        within = EXTRAS["batch"](n, 0)
        edge_index = edge_index[:, within[edge_index[0]] == within[edge_index[1]]]
        return (features(n), edge_index, None, within, torch.tensor([2.0, 3.0, 2.5])), {}

    return make


def hyper_weight(graph: GraphLike) -> Inputs:
    n, edge_index = graph
    count = max(1, n // 2)
    every = torch.stack([torch.zeros(count, dtype=torch.long), torch.arange(count)])
    folded_index = torch.cat([torch.stack([edge_index[0], edge_index[1] % count]), every], dim=1)
    return (features(n), folded_index, EXTRAS["edge_weight"](0, count)), {}


def node_ids(count: int) -> Maker:
    """No features: the layer has one row of weights per node, so that the graph has `count` nodes."""

    def make(graph: GraphLike) -> Inputs:
        n, edge_index = graph
        return (None, edge_index % count, EXTRAS["edge_type"](n, edge_index.size(1))), {}

    return make


def chosen_ids(graph: GraphLike) -> Inputs:
    """Integer features: every node names a row of the layer's weights."""
    n, edge_index = graph
    return (torch.arange(n) * 7 % 40, edge_index, EXTRAS["edge_type"](n, edge_index.size(1))), {}


def layers_of(graph: GraphLike) -> Inputs:
    """The outputs of three layers, for jumping knowledge."""
    return ([features(graph[0], salt=k) for k in range(3)],), {}


def layers_of_types(graph: GraphLike) -> Inputs:
    sizes = {"paper": graph[0], "author": graph[0] // 2 + 1}
    return ({key: [features(n, salt=k) for k in range(3)] for key, n in sizes.items()},), {}


def graph_level(graph: GraphLike) -> Inputs:
    """MetaLayer: edge states, and one row per graph."""
    n, edge_index = graph
    extras = [EXTRAS["edge_attr"](n, edge_index.size(1)), features(3, 5, salt=4), EXTRAS["batch"](n, 0)]
    return (features(n), edge_index, *extras), {}


def quadruples(graph: GraphLike) -> Inputs:
    """RENet: events and the histories of their two ends."""
    n, edge_index = graph
    events = max(edge_index.size(1) // 4, 1)
    history = EXTRAS["edge_type"](n, edge_index.size(1))
    data = Data(
        sub=torch.arange(events) % 40,
        rel=torch.arange(events) % 4,
        obj=torch.arange(events) * 3 % 40,
        h_sub=edge_index[0] % 40,
        h_sub_t=history % 3,
        h_sub_batch=torch.arange(edge_index.size(1)) % events,
        h_obj=edge_index[1] % 40,
        h_obj_t=history * 2 % 3,
        h_obj_batch=torch.arange(edge_index.size(1)) * 5 % events,
    )
    return (data,), {}


def batched_data(graph: GraphLike) -> Inputs:
    n, edge_index = graph
    targets = {"y": features(n, 4), "y_graph": features(3, 5)}
    return (Data(x=features(n), edge_index=edge_index, batch=EXTRAS["batch"](n, 0), **targets),), {}


def dense(count: int, *extras: str) -> Maker:
    """Batches of small graphs as dense matrices: `x [B, M, F]`, `adj [B, M, M]`; the nodes are the graphs."""

    def make(graph: GraphLike) -> Inputs:
        n, _ = graph
        x = features(n * count).view(n, count, F_IN)
        adj = (features(n * count, count, salt=3).view(n, count, count) > 0.3).float()
        known = {
            "mask": (torch.arange(n * count) % 5 != 0).view(n, count),
            "s": features(n * count, 3).view(n, count, 3),
        }
        return (x, adj, *(known[name] for name in extras)), {}

    return make


# Layers --------------------------------------------------------------------------------------------


def multi_attention() -> Module:
    """Several aggregations combined by attention."""
    combine = {"in_channels": F_IN, "out_channels": F_IN, "num_heads": 2}
    return gnn.SAGEConv(F_IN, F_OUT, aggr=["mean", "max", "std"], aggr_kwargs={"mode": "attn", "mode_kwargs": combine})


def mesh_kernels(width: int, out: int) -> torch.nn.ModuleList:
    return torch.nn.ModuleList(torch.nn.Sequential(Linear(width, out), torch.nn.ReLU()) for _ in range(5))


def near(pos: Tensor, batch: Tensor) -> tuple[Tensor, Tensor]:
    """All pairs of a graph that are close: a radius graph in plain torch."""
    distance = (pos.unsqueeze(1) - pos.unsqueeze(0)).norm(dim=-1)
    edge_index = ((distance < 2.0) & (batch.unsqueeze(1) == batch.unsqueeze(0))).nonzero().t()
    return edge_index, (pos[edge_index[0]] - pos[edge_index[1]]).norm(dim=-1)


def initialised(module: Module) -> Module:
    """RGATConv leaves one of its parameters as the memory it found."""
    with torch.no_grad():
        module.l2.normal_()
    return module


class OwnLayer(gnn.MessagePassing):
    """A layer of the user: an edge updater, an aggregation of one's own, and an update with more arguments."""

    def __init__(self, width: int, out: int) -> None:
        super().__init__(aggr="add")
        self.lin, self.edge, self.gate = Linear(width, out), Linear(2 * width + 3, out), Linear(width, out)

    def forward(self, x: Tensor, edge_index: Tensor, edge_attr: Tensor) -> Tensor:
        weight = self.edge_updater(edge_index, x=x, edge_attr=edge_attr)
        return self.propagate(edge_index, x=self.lin(x), weight=weight, root=x, size=None)

    def edge_update(self, x_i: Tensor, x_j: Tensor, edge_attr: Tensor) -> Tensor:
        return torch.sigmoid(self.edge(torch.cat([x_i, x_j, edge_attr], dim=-1)))

    def message(self, x_j: Tensor, weight: Tensor) -> Tensor:
        return weight * x_j

    def aggregate(
        self, inputs: Tensor, index: Tensor, ptr: Tensor | None = None, dim_size: int | None = None
    ) -> Tensor:
        total = self.aggr_module(inputs, index, ptr=ptr, dim_size=dim_size, dim=self.node_dim)
        count = self.aggr_module(torch.ones_like(inputs[:, :1]), index, ptr=ptr, dim_size=dim_size, dim=self.node_dim)
        return total / (count + 1)

    def update(self, inputs: Tensor, root: Tensor) -> Tensor:
        return inputs + self.gate(root)


class HeadsFirst(gnn.MessagePassing):
    """`node_dim=0` with two axes of features behind it."""

    def __init__(self) -> None:
        super().__init__(aggr="max", node_dim=0)

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        return self.propagate(edge_index, x=x.view(-1, 4, F_IN // 4)).flatten(1)


# Networks ------------------------------------------------------------------------------------------


class NormNet(Module):
    """A layer, the norm, and another layer; the norm may be told which graph a node is in."""

    def __init__(self, norm: Module) -> None:
        super().__init__()
        self.first, self.norm, self.last = gnn.SAGEConv(F_IN, 12), norm, gnn.SAGEConv(12, F_OUT)

    def forward(self, x: Tensor, edge_index: Tensor, batch: Tensor | None = None) -> Tensor:
        h = self.first(x, edge_index)
        h = self.norm(h) if batch is None else self.norm(h, batch)
        return self.last(h.relu(), edge_index)


class MessageNormNet(Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm, self.lin = gnn.SimpleConv(), gnn.MessageNorm(learn_scale=True), Linear(F_IN, F_OUT)

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        return self.lin(x + self.norm(x, self.conv(x, edge_index)))


class Readout(Module):
    """A layer, and an aggregation of the nodes of every graph."""

    def __init__(self, aggr: Any) -> None:
        super().__init__()
        self.conv, self.aggr = gnn.SAGEConv(F_IN, F_IN), aggr

    def forward(self, x: Tensor, edge_index: Tensor, batch: Tensor | None = None) -> Tensor:
        return self.aggr(self.conv(x, edge_index).relu(), batch)


class Around(Module):
    """`wrapped(layer output, batch)` and one more layer after it: pooling that keeps or drops nodes."""

    def __init__(self, pool: Module) -> None:
        super().__init__()
        self.first, self.pool, self.last = gnn.GCNConv(F_IN, F_IN), pool, gnn.SAGEConv(F_IN, F_OUT)

    def forward(self, x: Tensor, edge_index: Tensor, batch: Tensor) -> Tensor:
        x = self.first(x, edge_index).relu()
        x, edge_index, *_ = self.pool(x, edge_index, batch=batch)
        return self.last(x, edge_index)


class Call(Module):
    """A function as a module, which it gets as its first argument."""

    def __init__(self, function: Callable[..., Any], **modules: Module) -> None:
        super().__init__()
        self.function = function
        for name, module in modules.items():
            setattr(self, name, module)

    def forward(self, x: Any, *rest: Any) -> Any:
        return self.function(self, x, *rest)


class Attended(Module):
    """A layer, then attention among the nodes of every graph."""

    def __init__(self, attention: Module) -> None:
        super().__init__()
        self.conv, self.attention = gnn.SAGEConv(F_IN, F_IN), attention

    def forward(self, x: Tensor, edge_index: Tensor, batch: Tensor | None = None) -> Tensor:
        dense, mask = to_dense_batch(self.conv(x, edge_index), batch)
        if "mask" in inspect.signature(self.attention.forward).parameters:
            return self.attention(dense, mask)[mask]
        return self.attention(dense)[mask]


class Encoder(Module):
    """A variational encoder: mean and logarithm of the deviation."""

    def __init__(self) -> None:
        super().__init__()
        self.shared, self.mu, self.log = gnn.GCNConv(F_IN, 12), gnn.GCNConv(12, F_OUT), gnn.GCNConv(12, F_OUT)

    def forward(self, x: Tensor, edge_index: Tensor) -> tuple[Tensor, Tensor]:
        h = self.shared(x, edge_index).relu()
        return self.mu(h, edge_index), self.log(h, edge_index)


class Encode(Module):
    """What users of an autoencoder call: `encode`, then `decode` of the edges."""

    def __init__(self, autoencoder: Module) -> None:
        super().__init__()
        self.autoencoder = autoencoder

    def forward(self, x: Tensor, edge_index: Tensor) -> tuple[Tensor, Tensor]:
        z = self.autoencoder.encode(x, edge_index)
        return z, self.autoencoder.decode(z, edge_index)


class Smooth(Module):
    """Correct, then smooth, with the labels of masked nodes."""

    def __init__(self, **options: Any) -> None:
        super().__init__()
        self.steps = gnn.CorrectAndSmooth(3, 0.8, 2, 0.6, **options)

    def forward(self, x: Tensor, edge_index: Tensor, labels: Tensor, train: Tensor, edge_weight: Tensor) -> Tensor:
        soft = x.softmax(dim=-1)
        soft = self.steps.correct(soft, labels, train, edge_index, edge_weight)
        return self.steps.smooth(soft, labels, train, edge_index, edge_weight)


def smoothing(graph: GraphLike) -> Inputs:
    """Training nodes by number: every fourth."""
    n, edge_index = graph
    train = torch.arange(0, n, 4)
    return (features(n), edge_index, train % 5, train, EXTRAS["edge_weight"](n, edge_index.size(1))), {}


def smoothing_mask(graph: GraphLike) -> Inputs:
    n, edge_index = graph
    train = torch.arange(n) % 4 == 0
    labels = torch.arange(int(train.sum())) % 5
    return (features(n), edge_index, labels, train, EXTRAS["edge_weight"](n, edge_index.size(1))), {}


class EdgeModel(Module):
    def __init__(self) -> None:
        super().__init__()
        self.lin = Linear(2 * F_IN + 3 + 5, 6)

    def forward(self, src: Tensor, dst: Tensor, edge_attr: Tensor, u: Tensor, batch: Tensor) -> Tensor:
        return self.lin(torch.cat([src, dst, edge_attr, u[batch]], dim=1)).relu()


class NodeModel(Module):
    def __init__(self) -> None:
        super().__init__()
        self.message, self.out = Linear(F_IN + 6, 12), Linear(F_IN + 12 + 5, F_IN)

    def forward(self, x: Tensor, edge_index: Tensor, edge_attr: Tensor, u: Tensor, batch: Tensor) -> Tensor:
        row, col = edge_index
        out = self.message(torch.cat([x[row], edge_attr], dim=1)).relu()
        mean = gnn.aggr.MeanAggregation()
        return self.out(torch.cat([x, mean(out, col, dim_size=x.size(0), dim=0), u[batch]], dim=1))


class GlobalModel(Module):
    def __init__(self) -> None:
        super().__init__()
        self.lin = Linear(5 + F_IN, 5)

    def forward(self, x: Tensor, edge_index: Tensor, edge_attr: Tensor, u: Tensor, batch: Tensor) -> Tensor:
        return self.lin(torch.cat([u, gnn.global_mean_pool(x, batch, u.size(0))], dim=1))


class GraphTransformer(Module):
    """torch's own transformer layer over the nodes of every graph."""

    def __init__(self, width: int, out: int) -> None:
        super().__init__()
        layer = torch.nn.TransformerEncoderLayer(width, nhead=2, dim_feedforward=24, batch_first=True)
        self.conv, self.layer, self.lin = gnn.SAGEConv(width, width), layer, Linear(width, out)

    def forward(self, x: Tensor, edge_index: Tensor, batch: Tensor | None = None) -> Tensor:
        x = self.conv(x, edge_index).relu()
        dense, mask = to_dense_batch(x, batch)
        return self.lin(self.layer(dense, src_key_padding_mask=~mask)[mask])


class JumpNet(Module):
    """Three layers whose outputs jumping knowledge joins."""

    def __init__(self, mode: str) -> None:
        super().__init__()
        self.convs = torch.nn.ModuleList(gnn.GCNConv(F_IN, F_IN) for _ in range(3))
        self.jump = gnn.JumpingKnowledge(mode, F_IN, 3)

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        xs = []
        for conv in self.convs:
            x = conv(x, edge_index).relu()
            xs.append(x)
        return self.jump(xs)


class Deep(Module):
    """DeepGCNLayer in one of its block types."""

    def __init__(self, block: str) -> None:
        super().__init__()
        wide = 2 * F_IN if block == "dense" else F_IN
        layer = lambda width: gnn.DeepGCNLayer(  # noqa: E731
            gnn.GENConv(width, F_IN),
            torch.nn.LayerNorm(width if block == "res+" else F_IN),
            torch.nn.ReLU(),
            block,
            0.1,
        )
        self.layers = torch.nn.ModuleList([layer(F_IN), layer(wide)])

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        for layer in self.layers:
            x = layer(x, edge_index)
        return x


class Rev(Module):
    """Group-wise reversible layers."""

    def __init__(self, disable: bool) -> None:
        super().__init__()
        self.lin = Linear(F_IN, 2 * F_OUT)
        self.convs = torch.nn.ModuleList(
            gnn.GroupAddRev(gnn.SAGEConv(F_OUT, F_OUT), num_groups=2, disable=disable) for _ in range(2)
        )

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        x = self.lin(x)
        for conv in self.convs:
            x = conv(x, edge_index)
        return x
