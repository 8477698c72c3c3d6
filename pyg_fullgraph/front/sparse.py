"""``adj_t``: a sparse adjacency matrix in place of ``edge_index``, turned into an edge list and a value.

A layer that is given a matrix reads its values as edge weights. The traced model is given the edge list, and
a plain tensor carries the values into the layers: a pre-hook on each, alive only while forward runs, adds
them as the ``edge_weight`` or ``edge_attr`` of the layer. Where PyG itself computes something else from a
matrix than from the same edges, the run is refused, with the layer's name.

| layer, given a matrix | PyG computes | here |
| --- | --- | --- |
| takes ``edge_weight`` (GCN, GraphConv, TAG, SG, APPNP, ...) | weights = values | ``edge_weight=values`` |
| takes ``edge_attr``, built with ``edge_dim`` | attributes = values, 1-d ``torch.sparse``: none | the same |
| no weights, ``SparseTensor`` (SAGE, GIN, ...) | values dropped | values dropped |
| no weights, ``torch.sparse`` with values other than 1 | weighted sum | refused |
| ``gcn_norm`` adds self-loops, ``torch.sparse`` that has some | the loops are added twice | refused |
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch_geometric.nn import MessagePassing

from pyg_fullgraph.errors import InputError
from pyg_fullgraph.front.uses import label, message_layers, uses_gcn_norm
from pyg_fullgraph.graph.convert import is_sparse_tensor, to_edges

VALUE = "edge_value"
_CARRIERS = frozenset(["edge_weight", "edge_attr", "edge_type"])


@dataclass(frozen=True)
class Adjacency:
    """A sparse adjacency matrix as edges.

    Attributes:
        edge_index: ``[2, E]`` int64, row 0 the sources.
        value: ``[E, ...]`` or ``None``.
        size: ``(num_src, num_dst)``.
        kind: ``"SparseTensor"``, ``"coo"``, ``"csr"`` or ``"csc"``.
        original: the class of the matrix.
    """

    edge_index: Tensor
    value: Tensor | None
    size: tuple[int, int]
    kind: str
    original: type

    @property
    def weighted(self) -> bool:
        """Whether some value is not 1."""
        return self.value is not None and not bool((self.value == 1).all())

    @property
    def loops(self) -> int:
        """How many self-loops it holds."""
        return int((self.edge_index[0] == self.edge_index[1]).sum())

    def rebuild(self, edge_index: Tensor, value: Tensor | None, num_nodes: int) -> Any:
        """Returns a matrix of the same kind over other edges, for PyG's own forward (CSR for CSC, which it
        often refuses).

        Args:
            edge_index: ``[2, E']``.
            value: ``[E', ...]`` or ``None``.
            num_nodes: rows and columns.
        """
        source, destination = edge_index[0], edge_index[1]
        if self.kind == "SparseTensor":
            sizes = (num_nodes, num_nodes)
            return self.original(row=destination, col=source, value=value, sparse_sizes=sizes)
        if value is None:  # all were 1
            assert self.value is not None
            value = self.value.new_ones((edge_index.size(1), *self.value.shape[1:]))
        shape = (num_nodes, num_nodes, *value.shape[1:])
        matrix = torch.sparse_coo_tensor(torch.stack([destination, source]), value, shape).coalesce()
        return matrix if self.kind == "coo" else matrix.to_sparse_csr()


def read_adjacency(graph: Any, name: str) -> Adjacency:
    """Returns a ``SparseTensor`` or ``torch.sparse`` matrix (row = destination) as edges.

    Raises:
        InputError: if it is not coalesced: PyG's layers disagree on what duplicate entries mean.
    """
    edges = to_edges(graph, transposed=True, name=name)
    if is_sparse_tensor(graph):
        kind = "SparseTensor"
    else:
        kind = str(graph.layout).removeprefix("torch.sparse_")
        if kind == "coo" and not graph.is_coalesced() and _has_duplicates(edges.edge_index):
            raise InputError(
                f"'{name}' is a COO matrix with duplicate entries, which PyG's layers treat each in their "
                f"own way. Pass {name}.coalesce(), or edge_index to keep parallel edges."
            )
    assert edges.size is not None
    return Adjacency(edges.edge_index.long(), edges.value, edges.size, kind, type(graph))


def _has_duplicates(edge_index: Tensor) -> bool:
    return torch.unique(edge_index, dim=1).size(1) != edge_index.size(1)


def carriers(model: torch.nn.Module, adjacency: Adjacency) -> dict[str, str]:
    """Returns which argument of which layer (by qualified name) carries the values of the matrix.

    Raises:
        InputError: if a layer computes something from the matrix that no argument of it can express.
    """
    found: dict[str, str] = {}
    loops = adjacency.loops
    for name, layer in message_layers(model):
        _check_loops(name, layer, adjacency, loops)
        if adjacency.value is None:
            continue
        carrier = _carrier(name, layer, adjacency)
        if carrier is not None:
            found[name] = carrier
    return found


def _check_loops(name: str, layer: MessagePassing, adjacency: Adjacency, loops: int) -> None:
    """``gcn_norm`` treats existing self-loops of a matrix in another way than those of an edge list."""
    if loops == 0 or not (uses_gcn_norm(layer) and getattr(layer, "add_self_loops", False)):
        return
    if getattr(layer, "normalize", True) is False:
        return
    plain = adjacency.kind == "SparseTensor" and not adjacency.weighted and not getattr(layer, "improved", False)
    if not plain:
        raise InputError(
            f"The adjacency matrix has {loops:,} self-loops, and {label(name, layer)} adds its own: given a "
            "matrix, PyG counts them in another way than given edge_index. Pass edge_index (and "
            "edge_weight), or remove the loops before the matrix is built."
        )


def _carrier(name: str, layer: MessagePassing, adjacency: Adjacency) -> str | None:
    """The argument of one layer that takes the values; ``None`` where PyG drops them or they are all 1."""
    value = adjacency.value
    assert value is not None
    parameters = inspect.signature(layer.forward).parameters
    built_in = type(layer).__module__.startswith("torch_geometric")
    if "edge_weight" in parameters:
        return None if built_in and not adjacency.weighted else "edge_weight"
    if "edge_attr" in parameters:
        dropped = adjacency.kind != "SparseTensor" and value.dim() == 1
        return None if dropped or getattr(layer, "edge_dim", 0) is None else "edge_attr"
    if "edge_type" in parameters:
        return "edge_type"
    if _reads_values(layer, adjacency) and (adjacency.weighted or not layer.fuse):
        raise InputError(
            f"{label(name, layer)} multiplies by the values of the matrix, but takes no 'edge_weight', so "
            "they cannot be handed to it. Pass edge_index without weights, a matrix of ones, or use a layer "
            "with edge_weight (GraphConv, GCNConv)."
        )
    return None


def _reads_values(layer: MessagePassing, adjacency: Adjacency) -> bool:
    """Whether a layer without an argument for weights computes with the values all the same."""
    if not layer.fuse:
        return not {*layer._user_args, *layer._edge_user_args}.isdisjoint(_CARRIERS)
    if adjacency.kind != "SparseTensor":
        return True
    return "set_value" not in inspect.unwrap(type(layer).message_and_aggregate).__code__.co_names


class ValuedModel(torch.nn.Module):
    """A model together with the layers that take the values of its adjacency matrix.

    Its forward takes the arguments of the model's forward by name, with the edge list in place of the matrix,
    and ``edge_value`` ``[E, ...]`` or ``None``.

    Args:
        model: the user's model; its parameters stay its own.
        layers: qualified layer name -> the argument that takes the values.
        adjacency: the matrix; only its kind matters later.
        graph: the parameter of forward that takes the matrix; ``None`` where it is inside a ``Data``.
        features: the parameter of forward that takes the features.
    """

    def __init__(
        self,
        model: torch.nn.Module,
        layers: Mapping[str, str],
        adjacency: Adjacency,
        graph: str | None,
        features: str | None,
    ) -> None:
        super().__init__()
        self.model = model
        self.layers = dict(layers)
        self.adjacency = replace(adjacency, edge_index=adjacency.edge_index[:, :0], value=_none_of(adjacency.value))
        self.graph = graph
        self.features = features
        self.training = model.training

    def forward(self, edge_value: Tensor | None, **kwargs: Any) -> Any:
        """Runs the model with ``edge_value`` injected into its layers."""
        if edge_value is None:
            return self.model(**kwargs)
        with self._injected(edge_value):
            return self.model(**kwargs)

    def oracle(self, edge_value: Tensor | None, **kwargs: Any) -> Any:
        """Runs the model as PyG does, on a matrix; what `forward` must equal."""
        if self.graph is None or self.features is None:
            return self(edge_value, **kwargs)
        matrix = self.adjacency.rebuild(kwargs[self.graph], edge_value, kwargs[self.features].size(0))
        return self.model(**{**kwargs, self.graph: matrix})

    @property
    def calls_only(self) -> torch.nn.Module:
        """The user's model: names of submodules are its own."""
        return self.model

    @contextmanager
    def _injected(self, value: Tensor) -> Iterator[None]:
        """Hooks that last for one call, so that the model is the user's again afterwards."""
        with ExitStack() as stack:
            for name, argument in self.layers.items():
                layer = self.model.get_submodule(name)
                handle = layer.register_forward_pre_hook(_Inject(argument, value), with_kwargs=True)
                stack.callback(handle.remove)
            yield


def _none_of(value: Tensor | None) -> Tensor | None:
    """No rows, but dtype and columns."""
    return None if value is None else value[:0]


class _Inject:
    """A pre-hook that adds an argument where the caller left it out or ``None``."""

    def __init__(self, argument: str, value: Tensor) -> None:
        self.argument = argument
        self.value = value

    def __call__(
        self, layer: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        bound = inspect.signature(layer.forward).bind_partial(*args, **kwargs)
        if bound.arguments.get(self.argument) is None:
            bound.arguments[self.argument] = self.value
        return bound.args, bound.kwargs
