"""Layers of torch_geometric that loop over their relations, as one pass over pairs of a relation and a destination.

`RGCNConv` filters the edges of every relation, aggregates them, multiplies by the relation's matrix and adds up::

    out[i] = sum over r of  aggregate(x[j] for edges j -> i of relation r) @ weight[r]

A trace of that loop grows with the number of relations, and it multiplies all nodes for each of them. Only pairs
(r, i) with an edge matter: the others aggregate to zero. So the edges are numbered by their pair, the layer's own
`propagate` aggregates into pairs, and every pair is multiplied by the matrix of its relation (`typed_linear`; pairs are
in the order of relations, so that these are a few large products) before it is added to its node::

    pair[e] = number of (edge_type[e], i) among those that occur            structure, computed once per graph
    out[i]  = sum over pairs p of i of  aggregate(x[j] for edges of p) @ weight[relation of p]

It is the same but for the order of sums. Layers of a few relations keep their loop, where nothing has to be sorted and
products stay in the cache; so do sub-classes that change any of the methods, sparse matrices, and hooks.

Where the relations are computed from features or parameters, which pairs occur differs from call to call, and so does
how many edges a relation has: then all pairs of a relation and a node are taken, whose number is known.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import torch
import torch_geometric
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor
from torch_geometric.nn import FiLMConv, MessagePassing, RGCNConv, aggr
from torch_geometric.nn.dense import Linear

from pyg_fullgraph.capture.modules import replaced
from pyg_fullgraph.capture.operators import linear_by_type
from pyg_fullgraph.capture.values import depends_on_values

FEW = 8  # relations up to which a loop is no slower, see docs/log.md
_METHODS = ("forward", "message", "aggregate", "update", "propagate", "message_and_aggregate")
_ZERO_OF_NONE = (aggr.SumAggregation, aggr.MeanAggregation, aggr.MaxAggregation, aggr.MinAggregation)


@contextlib.contextmanager
def grouped_relations() -> Iterator[None]:
    """`RGCNConv` and `FiLMConv` without their loops."""
    drops = getattr(torch_geometric.backend, "use_segment_matmul", None) is not None
    with contextlib.ExitStack() as stack:
        for cls, grouped in ((RGCNConv, _rgcn), (FiLMConv, _film)):
            stack.enter_context(replaced(cls, "forward", _instead(cls, cls.forward, grouped, drops)))
        yield


def _instead(cls: type, original: Callable[..., Any], grouped: Callable[..., Any], drops: bool) -> Callable[..., Any]:
    def forward(self: Any, x: Any, edge_index: Any, edge_type: Any = None) -> Any:
        dense = type(edge_index) is FakeTensor and edge_index.layout is torch.strided
        typed = type(edge_type) is FakeTensor and edge_type.dim() == 1 and not edge_type.dtype.is_floating_point
        if not dense or not typed or not _is_plain(self, cls):
            return original(self, x, edge_index, edge_type)
        if self.num_relations <= FEW and not depends_on_values(edge_type):
            return original(self, x, edge_index, edge_type)
        out = grouped(self, x, edge_index, edge_type, drops)
        return original(self, x, edge_index, edge_type) if out is None else out

    return forward


def _is_plain(layer: Any, cls: type) -> bool:
    """True for a layer whose methods are torch_geometric's own, and whose aggregation of no edges is zero."""
    own = all(getattr(type(layer), name) is getattr(cls, name) for name in _METHODS)
    own = own and not any(name in vars(layer) for name in _METHODS)
    return own and type(layer.aggr_module) in _ZERO_OF_NONE and layer.decomposed_layers == 1


class _Pairs:
    """The pairs of a relation and a node that occur among some edges.

    Args:
        nodes: the node of every edge `[E]`.
        kinds: its relation `[E]`.
        size: how many nodes there are.

    Attributes:
        of_edge: the pair of every edge `[E]`.
        node, kind: of every pair `[P]`, in the order of relations.
    """

    def __init__(self, nodes: Tensor, kinds: Tensor, size: Any) -> None:
        keys, self.of_edge = torch.unique(kinds.long() * size + nodes.long(), return_inverse=True)
        edges = torch.arange(nodes.size(0), device=nodes.device)
        some = torch.zeros_like(keys).scatter(0, self.of_edge, edges)  # an edge of each pair: its node is read there,
        self.node, self.kind = nodes.index_select(0, some), kinds.index_select(0, some)  # and seen to be an end of it

    @property
    def count(self) -> Any:
        """How many there are to aggregate into."""
        return self.node.size(0)

    def added(self, values: Tensor, size: Any, dtype: torch.dtype) -> Tensor:
        """The values of pairs `[P, F]`, added up for every node."""
        zeros = torch.zeros(size, values.size(1), dtype=dtype, device=values.device)
        return zeros.index_add(0, self.node, values.to(dtype))


class _AllPairs(_Pairs):
    """All pairs of a relation and a node, and behind them those of edges that are dropped."""

    def __init__(self, nodes: Tensor, kinds: Tensor, size: Any, relations: int) -> None:
        self.of_edge = kinds.long() * size + nodes.long()
        every = torch.arange(relations * size, device=nodes.device)
        self.kind = torch.div(every, size, rounding_mode="floor")
        self.node = every - self.kind * size
        self._count = (relations + 1) * size

    @property
    def count(self) -> Any:
        return self._count


def _pairs(layer: Any, nodes: Tensor, kinds: Tensor, size: Any) -> _Pairs:
    if depends_on_values(kinds):
        return _AllPairs(nodes, kinds, size, layer.num_relations)
    return _Pairs(nodes, kinds, size)


def _ends(layer: MessagePassing, edge_index: Tensor, edge_type: Tensor, dropped: bool) -> tuple[Tensor, ...]:
    """Senders, receivers and relations of the edges.

    A relation that does not exist has no edges in a loop, and its edges are `dropped`. Otherwise it is an error, as it
    is of the layer itself: relations are looked up in a table, and indices are checked against their tables.
    """
    edge_type = edge_type.long()
    if dropped and depends_on_values(edge_type):
        exists = (edge_type >= 0) & (edge_type < layer.num_relations)
        edge_type = torch.where(exists, edge_type, layer.num_relations)
    elif dropped:
        kept = (edge_type >= 0) & (edge_type < layer.num_relations)
        edge_index, edge_type = edge_index[:, kept], edge_type[kept]
    else:
        edge_type = torch.arange(layer.num_relations, device=edge_type.device).index_select(0, edge_type)
    receiver = 1 if layer.flow == "source_to_target" else 0
    return edge_index[1 - receiver], edge_index[receiver], edge_type


def _paired(layer: MessagePassing, senders: Tensor, receivers: Tensor) -> Tensor:
    both = [senders, receivers] if layer.flow == "source_to_target" else [receivers, senders]
    return torch.stack(both)


def _sized(layer: MessagePassing, senders: Any, receivers: Any) -> tuple[Any, Any]:
    return (senders, receivers) if layer.flow == "source_to_target" else (receivers, senders)


def _rgcn(layer: Any, x: Any, edge_index: Tensor, edge_type: Tensor, drops: bool) -> Tensor | None:
    """`RGCNConv.forward` by pairs."""
    left, right = x if isinstance(x, tuple) else (x, None)
    if left is None:
        left = torch.arange(layer.in_channels_l, device=layer.weight.device)
    right = left if right is None else right
    if layer.num_blocks is not None and not right.is_floating_point():
        return None  # an error of the layer's own
    if left.is_floating_point() != right.is_floating_point() or left.dim() != (2 if left.is_floating_point() else 1):
        return None
    if left is not right and layer.flow != "source_to_target":
        return None
    rows = right.size(0)
    dropped = drops or layer.num_blocks is not None
    senders, receivers, kinds = _ends(layer, edge_index, edge_type, dropped)
    weight = layer.weight
    if layer.num_bases is not None:
        weight = (layer.comp @ weight.flatten(1)).view(layer.num_relations, layer.in_channels_l, layer.out_channels)
    pairs = _pairs(layer, receivers, kinds, rows)
    if right.is_floating_point():
        values = _aggregated(layer, left, senders, pairs)
        values = _times(values, weight, pairs.kind, layer.num_blocks)
    else:
        table = weight.reshape(-1, layer.out_channels)
        values = _aggregated(layer, table, _row_of(kinds, left[senders], layer), pairs)
    out = torch.zeros(right.size(0), layer.out_channels, device=right.device)
    out = out + pairs.added(values, rows, torch.promote_types(out.dtype, values.dtype))
    if layer.root is not None:
        out = out + (right @ layer.root if right.is_floating_point() else layer.root[right])
    return out if layer.bias is None else out + layer.bias


def _aggregated(layer: Any, table: Tensor, rows: Tensor, pairs: _Pairs) -> Tensor:
    """The layer's own aggregation of rows of a table, into pairs `[P, F]`."""
    size = _sized(layer, table.size(0), pairs.count)
    made = layer.propagate(_paired(layer, rows, pairs.of_edge), x=table, edge_type_ptr=None, size=size)
    return made[: pairs.node.size(0)] if isinstance(pairs, _AllPairs) else made


def _row_of(kinds: Tensor, nodes: Tensor, layer: Any) -> Tensor:
    """The row of a node's vector for a relation, where every node has one for each; any for edges that are dropped."""
    return kinds.clamp(max=layer.num_relations - 1) * layer.in_channels_l + nodes


def _times(values: Tensor, weight: Tensor, kinds: Tensor, blocks: int | None) -> Tensor:
    """Every row by the matrix of its relation, or by its blocks."""
    if blocks is None:
        return linear_by_type(values, weight, None, kinds)
    parts = values.view(-1, blocks, weight.size(2))
    kinds = kinds.unsqueeze(1) * blocks + torch.arange(blocks, device=kinds.device)
    return linear_by_type(parts, weight.flatten(0, 1), None, kinds).flatten(1)


def _film(layer: Any, x: Any, edge_index: Tensor, edge_type: Tensor, drops: bool) -> Tensor | None:
    """`FiLMConv.forward` by pairs: of a relation and the destination, and of a relation and the source."""
    if not all(type(part) is Linear for part in (*layer.lins, *layer.films)):
        return None
    left, right = x if isinstance(x, tuple) else (x, x)
    if left.dim() != 2 or right.dim() != 2 or depends_on_values(edge_type):
        return None
    beta, gamma = layer.film_skip(right).split(layer.out_channels, dim=-1)
    out = gamma * layer.lin_skip(right) + beta
    out = out if layer.act is None else layer.act(out)
    senders, receivers, kinds = _ends(layer, edge_index, edge_type, True)
    rows, columns = right.size(0), layer.out_channels
    into, from_ = _Pairs(receivers, kinds, rows), _Pairs(senders, kinds, left.size(0))
    sent = _by_kind(layer.lins, left[from_.node], from_.kind)
    beta, gamma = _by_kind(layer.films, right[into.node], into.kind).split(columns, dim=-1)
    ends = _paired(layer, from_.of_edge, into.of_edge)
    size = _sized(layer, from_.node.size(0), into.node.size(0))
    made = layer.propagate(ends, x=sent, beta=beta, gamma=gamma, size=size)
    return out + into.added(made, rows, made.dtype)


def _by_kind(layers: Any, x: Tensor, kinds: Tensor) -> Tensor:
    """Every row by the linear layer of its relation."""
    weight = torch.stack([part.weight for part in layers]).transpose(1, 2)
    bias = None if layers[0].bias is None else torch.stack([part.bias for part in layers])
    return linear_by_type(x, weight, bias, kinds)
