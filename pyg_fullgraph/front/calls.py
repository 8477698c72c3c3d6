"""The arguments of an inference call, recognised by their type, in any order.

PyG's own ``inference(loader, device, ...)`` and the hand-written ones of its examples disagree on the order
of their arguments (pyg-team/pytorch_geometric#7492); what an argument is can be seen from the argument. A
loader is only asked for what it holds, never iterated.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader
from torch_geometric.data import Data, HeteroData

from pyg_fullgraph.errors import InputError
from pyg_fullgraph.front.forward import Forward
from pyg_fullgraph.graph.convert import is_edge_index, is_scipy, is_sparse_adjacency, is_sparse_tensor

#: What tunes a loop over mini-batches and means nothing to a whole-graph run.
_TUNING = frozenset(["batch_size", "num_workers", "cache"])
#: Keyword names that the inference functions in circulation use for a graph, a loader or features.
_ROLES = frozenset(
    [
        "data",
        "graph",
        "loader",
        "subgraph_loader",
        "layer_loader",
        "data_loader",
        "x_all",
        "x",
        "features",
        "feat",
        "edge_index",
        "adj_t",
        "adj",
    ]
)


@dataclass
class Given:
    """What was passed, by kind.

    Attributes:
        data: a ``Data`` or ``HeteroData``, passed or held by the loader.
        loader: the loader, if one was passed.
        graph: an edge list, ``EdgeIndex``, sparse adjacency, dict of them, or list of ``(edge_index, e_id,
            size)``.
        tensors: node features first, then whatever else was passed by position, in order.
        devices: the device to compute on, then the one for the result.
        flags: PyG's ``progress_bar``, then ``cache``.
        named: arguments for forward by name.
        dtype: the floating point type asked for.
        as_edges: whether sparse matrices are edges and dense features here, not what forward is handed.
    """

    data: Data | HeteroData | None = None
    loader: Any = None
    graph: Any = None
    tensors: list[Any] = field(default_factory=list)
    devices: list[torch.device] = field(default_factory=list)
    flags: list[bool] = field(default_factory=list)
    named: dict[str, Any] = field(default_factory=dict)
    dtype: torch.dtype | None = None
    as_edges: bool = False

    @property
    def num_nodes(self) -> int | None:
        """The number of nodes, where the data or the loader says it (not guessed from the edges)."""
        if isinstance(self.data, Data) and any(key in self.data for key in ("num_nodes", "x", "pos", "batch")):
            return self.data.num_nodes
        sampler = getattr(self.loader, "num_nodes", None)
        return sampler if isinstance(sampler, int) else None


def sort_arguments(args: Sequence[Any], kwargs: Mapping[str, Any], forward: Forward) -> Given:
    """Returns the arguments of ``inference(model, *args, **kwargs)`` by kind.

    Args:
        args: in any order: ``Data``, a loader with ``.data``, node features, ``edge_index`` or ``adj_t``, a
            device (``torch.device``, its name, or a rank), ``progress_bar`` as bool; ``None`` is skipped.
        kwargs: arguments of forward by name, or any of the former under the names in circulation.
        forward: what the model's forward takes.

    Raises:
        InputError: if an argument is of no known kind, or two of one kind were passed.
    """
    given = Given()
    if _by_position(args, forward):
        given.named.update(zip(forward.positional, args, strict=False))
        args = args[len(forward.positional) :]
    for value in args:
        _take(given, value, f"a positional argument of type {_type_name(value)}", forward)
    for name, value in kwargs.items():
        if name == forward.data and _is_graph_holder(value):
            _take(given, value, f"'{name}'", forward)
        elif name in forward.parameters:
            given.named[name] = value
        elif name == "dtype" and (value is None or isinstance(value, torch.dtype)):
            given.dtype = value
        elif name in _ROLES or name.endswith("_device") or name == "rank":
            _take(given, value, f"'{name}'", forward)
        elif name in ("progress", "verbose"):
            given.flags.insert(0, bool(value))
        elif forward.open:
            given.named[name] = value
        elif name not in _TUNING:
            raise InputError(
                f"'{name}' is neither an argument of {forward} nor an option of inference. Options: device, "
                f"embedding_device, progress_bar, nodes, verify, fallback, threads, home, out, force_eval."
            )
    return given


def _by_position(args: Sequence[Any], forward: Forward) -> bool:
    """Whether the arguments are sparse matrices and tensors that are told apart by their places alone."""
    groups = [value for value in args if isinstance(value, (list, tuple, dict)) and holds_matrix(value)]
    tensors = all(value is None or isinstance(value, Tensor) for value in args if not any(value is g for g in groups))
    if not tensors or forward.data is not None:
        return False
    graphs = [value for value in args if _is_graph(value)]
    several = len(graphs) > 1 or forward.graph is None
    return bool(groups) or (several and any(is_sparse_adjacency(value) for value in graphs))


def holds_matrix(value: Any) -> bool:
    """Whether an argument is a sparse matrix, or has one in it."""
    if isinstance(value, (Data, HeteroData)):
        return any(holds_matrix(item) for store in value.stores for item in store.values())
    if isinstance(value, Mapping):
        return any(holds_matrix(item) for item in value.values())
    if isinstance(value, (list, tuple)):
        return any(holds_matrix(item) for item in value)
    return is_sparse_adjacency(value)


def _take(given: Given, value: Any, what: str, forward: Forward) -> None:
    """Files one argument under its kind."""
    if value is None:
        return
    if isinstance(value, (Data, HeteroData)):
        _once(given, "data", value, what)
    elif isinstance(value, DataLoader) or hasattr(value, "loader"):
        _take_loader(given, value, what)
    elif isinstance(value, bool):
        given.flags.append(value)
    elif isinstance(value, (torch.device, str, int)):
        given.devices.append(as_device(value))
    elif isinstance(value, torch.dtype):
        given.dtype = value
    elif _is_graph(value) and given.graph is None and forward.graph not in given.named:
        given.graph = value
    elif _is_feature(value):
        given.tensors.append(value)
    else:
        raise InputError(
            f"{what[0].upper()}{what[1:]} was not understood. Pass a torch_geometric Data, a NeighborLoader, "
            f"node features, edge_index or adj_t, or a device; what else {forward} takes is passed by name."
        )


def _once(given: Given, kind: str, value: Any, what: str) -> None:
    if getattr(given, kind) is not None:
        raise InputError(f"{what[0].upper()}{what[1:]} is a second graph; pass one Data or one loader.")
    setattr(given, kind, value)


def _take_loader(given: Given, loader: Any, what: str) -> None:
    """Files a loader with what it holds: its data, or the edges of the older NeighborSampler."""
    while not isinstance(loader, DataLoader) and hasattr(loader, "loader"):  # CachedLoader, PrefetchLoader
        loader = loader.loader
    _once(given, "loader", loader, what)
    if hasattr(loader, "sizes") and hasattr(loader, "edge_index"):  # torch_geometric.loader.NeighborSampler
        if given.graph is None:
            given.graph = _sampler_graph(loader)
        return
    data = getattr(loader, "data", None)
    if data is None:
        data = _only_graph(loader)
    if not isinstance(data, (Data, HeteroData)):
        raise InputError(
            f"{type(loader).__name__} keeps its graph in a {_type_name(data)}, which cannot be read whole. "
            "Pass the Data itself: inference(model, data)."
        )
    if given.data is None:  # a Data that was passed as well is what the user means
        given.data = data


def _sampler_graph(loader: Any) -> Any:
    """The graph of a NeighborSampler: the edge list it was given, or its matrix with the values it took
    away."""
    if not is_sparse_tensor(loader.edge_index):
        return loader.edge_index
    value = vars(loader).get("__val__")
    return loader.adj_t if value is None else loader.adj_t.set_value(value, layout="coo")


def _only_graph(loader: Any) -> Any:
    """The one graph of a loader over a list of graphs."""
    dataset: Any = getattr(loader, "dataset", None)
    if isinstance(dataset, Sequence) or hasattr(dataset, "get"):
        if len(dataset) == 1 and isinstance(dataset[0], (Data, HeteroData)):
            return dataset[0]
        if len(dataset) > 1 and isinstance(dataset[0], (Data, HeteroData)):
            raise InputError(
                f"{type(loader).__name__} holds {len(dataset):,} graphs, not one. Join them first: "
                f"inference(model, Batch.from_data_list(list(dataset)))."
            )
    raise InputError(
        f"{type(loader).__name__} has no '.data', so the whole graph cannot be read from it (it would have "
        "to be iterated). Pass the Data as well: inference(model, data)."
    )


def as_device(value: torch.device | str | int) -> torch.device:
    """Returns a device from its name or the rank of a process on this machine (the CPU where there is no
    other).

    Raises:
        InputError: if a string names no device.
    """
    if isinstance(value, int):
        return torch.device("cuda", value) if torch.cuda.is_available() else torch.device("cpu")
    try:
        return torch.device(value)
    except RuntimeError as error:
        raise InputError(
            f"'{value}' is not a device. Strings are device names such as 'cpu' or 'cuda:0'; to read a graph "
            "from a file use `pyg-fullgraph infer --graph FILE`."
        ) from error


def is_layered(value: Any) -> bool:
    """Whether ``value`` is a list of ``(edge_index, e_id, size)``, as a NeighborSampler gives."""
    if not isinstance(value, (list, tuple)) or not value:
        return False
    return all(isinstance(item, tuple) and len(item) == 3 and _is_graph(item[0]) for item in value)


def _is_graph_holder(value: Any) -> bool:
    return isinstance(value, (Data, HeteroData, DataLoader)) or hasattr(value, "loader")


def _is_graph(value: Any) -> bool:
    """An edge list, a sparse matrix, a dict of them by edge type, or one per layer."""
    if isinstance(value, Mapping):
        return bool(value) and all(isinstance(key, tuple) or "__" in str(key) for key in value)
    if is_sparse_adjacency(value) or is_scipy(value) or is_edge_index(value):
        return True
    if isinstance(value, Tensor):
        integer = not (value.is_floating_point() or value.is_complex() or value.dtype == torch.bool)
        return integer and value.dim() == 2 and value.size(0) == 2
    return is_layered(value)


def _is_feature(value: Any) -> bool:
    """A tensor, an array, a dict by node type, or a store of rows such as ``quiver.Feature``."""
    if isinstance(value, (Tensor, np.ndarray, Mapping)):
        return True
    rows = hasattr(value, "shape") or callable(getattr(value, "size", None))
    return rows and hasattr(value, "__getitem__")


def _type_name(value: Any) -> str:
    kind = type(value)
    return kind.__name__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__name__}"
