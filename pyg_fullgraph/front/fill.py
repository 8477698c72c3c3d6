"""From what was given to a call of forward: every parameter gets its argument, or the user an answer.

What was passed by name wins over what was passed by type, and that over what the data holds.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch_geometric.data import Data, HeteroData

from pyg_fullgraph.errors import InputError
from pyg_fullgraph.front.calls import Given, holds_matrix, is_layered
from pyg_fullgraph.front.forward import OPTIONAL_FROM_DATA, Forward
from pyg_fullgraph.front.sparse import Adjacency, read_adjacency
from pyg_fullgraph.front.uses import edge_layers_want, layers_of, uses
from pyg_fullgraph.graph.convert import is_scipy, is_sparse_adjacency, to_edges


@dataclass
class Call:
    """A call of the model's forward over the whole graph.

    Attributes:
        args: positional arguments of forward.
        kwargs: the others, by name.
        adjacency: the sparse matrix that the graph was passed as, or ``None`` for an edge list.
        source: where the features came from; results go there unless asked otherwise.
        passed: optional arguments that were taken from the data.
        assumed: the features where the data has none, so that None is passed for them.
    """

    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    adjacency: Adjacency | None = None
    source: torch.device = field(default_factory=lambda: torch.device("cpu"))
    passed: tuple[str, ...] = ()
    assumed: str | None = None

    @property
    def has_matrix(self) -> bool:
        """Whether forward is handed a sparse matrix."""
        return any(holds_matrix(value) for value in (*self.args, *self.kwargs.values()))


def fill(given: Given, forward: Forward, model: torch.nn.Module) -> Call:
    """Returns the call of forward that ``given`` stands for, on the device of the model.

    Args:
        given: the arguments by kind.
        forward: what the model's forward takes.
        model: the model, without wrappers; tells which optional edge arguments its layers use.

    Raises:
        InputError: if a required argument is missing, too many were passed, or sizes contradict each other.
    """
    values = dict(given.named)
    adjacency, assumed = None, None
    if forward.data is not None:
        if forward.data not in values:
            values[forward.data], adjacency = _whole(given, forward)
        passed: tuple[str, ...] = ()
    else:
        adjacency = _graph(values, given, forward, model)
        assumed = _features(values, given, forward)
        _positional(values, given, forward)
        passed = _optional(values, given, forward, model, adjacency)
    _require(values, given, forward)
    source = _first_device(values)
    args, kwargs = _arrange(_moved(values, given, forward, model), forward)
    return Call(args, kwargs, adjacency, source, passed, assumed)


def _whole(given: Given, forward: Forward) -> tuple[Any, Adjacency | None]:
    """The data object for ``forward(data)``: a shallow copy with features and edges as given."""
    data = given.data
    if data is None:
        if given.graph is None or not given.tensors:
            raise InputError(f"{forward} takes a whole Data object, but none was passed. Call inference(model, data).")
        data = Data()
    data = type(data)() if not data.keys() else data.__copy__()
    if given.tensors:
        data.x = _rows(given.tensors[0], given)
    if given.graph is not None:
        data.edge_index = given.graph
    if isinstance(data, HeteroData):
        return data, None
    if given.as_edges and isinstance(data.x, Tensor) and data.x.layout != torch.strided:
        data.x = data.x.to_dense()
    adjacency = None
    for name in ("adj_t", "edge_index"):
        graph = getattr(data, name, None)
        if is_sparse_adjacency(graph) and not _is_kept(graph, given):
            adjacency = read_adjacency(graph, f"data.{name}")
            setattr(data, name, adjacency.edge_index)
    return data, adjacency


def _is_kept(graph: Any, given: Given) -> bool:
    """Whether a matrix is handed to forward as it is, not as edges."""
    capturable = isinstance(graph, Tensor) or "torch_sparse" in sys.modules
    return not given.as_edges and capturable and is_sparse_adjacency(graph)


def _graph(values: dict[str, Any], given: Given, forward: Forward, model: torch.nn.Module) -> Adjacency | None:
    """Puts the graph into ``values``; returns the sparse matrix it was, if it was one."""
    name = forward.graph
    if name is None:
        return None
    graph = values.get(name, given.graph)
    if graph is None:
        graph = _graph_of_data(given.data, name)
    if graph is None:
        if text := _meant_as_edges(name, given.tensors):
            raise InputError(text)
        raise InputError(
            f"{forward} needs '{name}', but no graph was passed ({_found(given.data)}). Pass a Data, a "
            "NeighborLoader or edge_index: inference(model, data)."
        )
    adjacency = None
    if is_scipy(graph):
        graph = _scipy(graph, values, forward)
    elif is_sparse_adjacency(graph) and (forward.layered or not _is_kept(graph, given)):
        adjacency = read_adjacency(graph, name)
        graph = adjacency.edge_index
    elif isinstance(graph, Mapping):
        graph = {key: edges if _is_kept(edges, given) else _typed_edges(key, edges) for key, edges in graph.items()}
    if forward.layered and not is_layered(graph) and not holds_matrix(graph):
        graph = _layers(graph, given, model, forward)
    values[name] = graph
    return adjacency


def _meant_as_edges(name: str, tensors: Sequence[Any]) -> str:
    """What is wrong with an array that was probably meant as edges; nothing where none looks like it."""
    for value in tensors:
        shape = list(getattr(value, "shape", ()))
        if len(shape) != 2 or not isinstance(value, (Tensor, np.ndarray)):
            continue
        kind = str(value.dtype).removeprefix("torch.")
        integer = kind.startswith(("int", "uint"))
        if isinstance(value, np.ndarray) and integer and 2 in shape:
            turned = "" if shape[0] == 2 else ".t().contiguous()"
            return f"{name} is a numpy array {shape}; pass a tensor: torch.from_numpy({name}){turned}."
        if integer and shape[1] == 2:
            return f"{name} has shape {shape}; it must be [2, E]. Pass {name}.t().contiguous()."
        if integer and shape[0] in (3, 4) and shape[1] > 4:
            return f"{name} has shape {shape}; it must be [2, E]. Pass {name}[:2], the other rows by name."
        if shape[0] == 2 and not integer and len(tensors) > 1:
            return f"{name} is {kind} {shape}; it must be int64: {name}.long()."
    return ""


def _graph_of_data(data: Any, name: str) -> Any:
    """``edge_index`` or ``adj_t`` of the data; the one that forward names first."""
    own = None if isinstance(data, HeteroData) else getattr(data, name, None)
    if own is not None:
        return own
    order = ("adj_t", "edge_index") if name.startswith("adj_t") else ("edge_index", "adj_t")
    for key in order:
        if isinstance(data, HeteroData):
            found = {edge_type: store[key] for edge_type, store in data.edge_items() if key in store}
            if found:
                return found
        elif data is not None and getattr(data, key, None) is not None:
            return getattr(data, key)
    return None


def _typed_edges(key: Any, edges: Any) -> Any:
    """The edge list of one edge type."""
    if not is_sparse_adjacency(edges):
        return edges
    adjacency = read_adjacency(edges, f"adj_t[{key}]")
    if adjacency.weighted:
        raise InputError(
            f"The adjacency matrix of edge type {key} has values, which cannot be handed to the layers of "
            "one edge type. Pass edge_index and edge_weight instead of adj_t."
        )
    return adjacency.edge_index


def _scipy(graph: Any, values: dict[str, Any], forward: Forward) -> Tensor:
    """The edge list of a SciPy matrix; its values go to ``edge_weight``."""
    edges = to_edges(graph)
    value = edges.value
    if value is not None and not bool((value == 1).all()):
        if "edge_weight" not in forward.parameters:
            raise InputError(
                f"The SciPy matrix has values other than 1, but {forward} takes no 'edge_weight'. Pass a "
                "matrix of ones: (matrix != 0)."
            )
        values.setdefault("edge_weight", value.to(torch.get_default_dtype()))
    return edges.edge_index.long()


def _layers(graph: Any, given: Given, model: torch.nn.Module, forward: Forward) -> list[tuple[Any, Any, Any]]:
    """One identical whole-graph triple per layer, for ``forward(x, adjs)``."""
    count = layers_of(model, given.loader)
    if count is None:
        raise InputError(
            f"{forward} takes one (edge_index, e_id, size) per layer, but how many layers it has is not to "
            "be seen. Set model.num_layers, or pass adjs=[(edge_index, None, (N, N))] * L."
        )
    named = next((given.named[n] for n in (forward.features,) if n in given.named), None)
    rows = named if named is not None else (given.tensors[0] if given.tensors else getattr(given.data, "x", None))
    num_nodes = given.num_nodes if rows is None else len(_rows(rows, given))
    ids = torch.arange(graph.size(1), device=graph.device)
    return [(graph, ids, (num_nodes, num_nodes)) for _ in range(count)]


def _features(values: dict[str, Any], given: Given, forward: Forward) -> str | None:
    """Puts the node features into ``values``; returns their name where the data has none, and None is passed."""
    name = forward.features
    if name is None:
        return None
    if name not in values and given.tensors:
        values[name] = given.tensors.pop(0)
    if name not in values:
        usual = "x_dict" if name.endswith("_dict") else "x"
        found = _attribute(given.data, name)
        if found is None and usual not in forward.parameters:  # data.x is for the parameter of its own name
            found = _attribute(given.data, usual)
        if found is None and not forward.required(name):
            return None
        if found is None and isinstance(given.data, Data) and (name == usual or usual not in forward.parameters):
            values[name] = None
            return name
        if found is None:
            raise InputError(no_features(forward, given))
        values[name] = found
    values[name] = _rows(values[name], given)
    expected = given.num_nodes
    rows = values[name]
    if isinstance(rows, Tensor) and rows.dim() > 0 and expected is not None and rows.size(0) != expected:
        raise InputError(
            f"'{name}' has {rows.size(0):,} rows, but the graph has {expected:,} nodes. Pass one row per node."
        )
    return None


def no_features(forward: Forward, given: Given) -> str:
    """What to say where the node features are missing."""
    name = forward.features
    return (
        f"{forward} needs node features '{name}', but none were passed and {_found(given.data)}. Set "
        f"data.{name}, or pass them: inference(model, {name}, data)."
    )


def _positional(values: dict[str, Any], given: Given, forward: Forward) -> None:
    """Hands the other tensors that came by position to the parameters still open, in the order of forward."""
    free = [name for name in forward.positional if name not in values]
    if len(given.tensors) > len(free):
        raise InputError(
            f"{len(given.tensors)} more arrays were passed than {forward} has parameters for. Pass them by name."
        )
    for name, value in zip(free, given.tensors, strict=False):
        values[name] = _rows(value, given)


def _optional(
    values: dict[str, Any],
    given: Given,
    forward: Forward,
    model: torch.nn.Module,
    adjacency: Adjacency | None,
) -> tuple[str, ...]:
    """Takes from the data what forward requires and, of its optional arguments, what the model uses."""
    passed = []
    for name, default in forward.parameters.items():
        if name in values:
            continue
        wanted = name in OPTIONAL_FROM_DATA and default is None and uses(model, name)
        if not (forward.required(name) or wanted):
            continue
        found = _attribute(given.data, name)
        if found is not None:
            values[name] = found
            if wanted:
                passed.append(name)
    optional = "edge_attr" in forward.parameters and not forward.required("edge_attr")
    of_matrix = adjacency is not None or is_sparse_adjacency(values.get(forward.graph or ""))
    if optional and "edge_attr" not in values and not of_matrix:
        layer = edge_layers_want(model)
        if layer is not None:
            raise InputError(
                f"{layer} was built with edge features, but {_found(given.data)}. Set data.edge_attr [E, "
                "columns] or pass edge_attr=...; edge_attr=None runs the model without."
            )
    return tuple(passed)


def _require(values: dict[str, Any], given: Given, forward: Forward) -> None:
    """Every required parameter has its argument, and edge arguments one row per edge."""
    missing = [name for name in forward.parameters if forward.required(name) and name not in values]
    if missing:
        hint = _hint(missing[0], given.data)
        raise InputError(
            f"{forward} needs '{missing[0]}', but {_found(given.data)}. Set data.{missing[0]} or pass "
            f"{missing[0]}=... to inference.{hint}"
        )
    graph = values.get(forward.graph) if forward.graph is not None else None
    if not isinstance(graph, Tensor) or graph.dim() != 2 or graph.layout != torch.strided:
        return
    for name, value in values.items():
        if name not in ("edge_weight", "edge_attr", "edge_type") or not isinstance(value, Tensor):
            continue
        if value.dim() > 0 and value.size(0) != graph.size(1):
            raise InputError(
                f"'{name}' has {value.size(0):,} rows, but the graph has {graph.size(1):,} edges. Pass one "
                f"row per edge, in the order of '{forward.graph}'."
            )


def _hint(name: str, data: Any) -> str:
    """A likely other name of a missing edge argument."""
    twins = {"edge_weight": "edge_attr", "edge_attr": "edge_weight"}
    twin = twins.get(name)
    if twin is None or _attribute(data, twin) is None:
        return ""
    return f" If data.{twin} is what you mean: {name}=data.{twin}."


def _attribute(data: Any, name: str) -> Any:
    """An attribute of the data; of a HeteroData, a dict over the types that have it."""
    if isinstance(data, HeteroData):
        found = data.collect(name.removesuffix("_dict"), allow_empty=True)
        return found or None
    found = getattr(data, name, None) if not isinstance(data, Data) or name not in data else data[name]
    return None if callable(found) and not isinstance(found, torch.nn.Module) else found  # a method of Data


def _found(data: Any) -> str:
    """What the data has, for messages."""
    if data is None:
        return "no Data was passed"
    if isinstance(data, HeteroData):
        return f"the data has only node types {data.node_types} and edge types {data.edge_types}"
    shapes = [f"{key} {list(value.shape)}" for key, value in data.to_dict().items() if isinstance(value, Tensor)]
    return f"data has no such attribute (found: {', '.join(shapes) or 'nothing'})"


def _rows(value: Any, given: Given) -> Any:
    """Features as a tensor: arrays and stores of rows are read, sparse tensors kept where forward may take them."""
    if isinstance(value, Tensor):
        return value if value.layout == torch.strided or not given.as_edges else value.to_dense()
    if isinstance(value, np.ndarray):
        return torch.from_numpy(np.ascontiguousarray(value))
    if isinstance(value, Mapping):
        return {key: _rows(item, given) for key, item in value.items()}
    if hasattr(value, "__getitem__") and not isinstance(value, (list, tuple)):
        size = getattr(value, "size", None)
        count = given.num_nodes
        if count is None:
            count = int(size(0)) if callable(size) else int(value.shape[0])
        return value[torch.arange(count)]
    return value


def _moved(values: dict[str, Any], given: Given, forward: Forward, model: torch.nn.Module) -> dict[str, Any]:
    """Everything on the device of the model, features in the dtype asked for."""
    parameter = next(model.parameters(), None)
    device = given.devices[0] if given.devices else None
    if parameter is not None:
        if device is not None and not _same_device(device, parameter.device):
            raise InputError(
                f"device={device} was asked for, but the model is on {parameter.device}. Call "
                f"model.to('{device}') first (the model is not moved behind your back)."
            )
        device = parameter.device
    if given.dtype is not None and forward.features in values:
        if parameter is not None and parameter.dtype != given.dtype:
            raise InputError(
                f"dtype={given.dtype} was asked for, but the model's parameters are {parameter.dtype}. "
                f"Convert the model: model.to({given.dtype})."
            )
        values[forward.features] = _to(values[forward.features], None, given.dtype)
    return {name: _to(value, device, None) for name, value in values.items()}


def _same_device(asked: torch.device, actual: torch.device) -> bool:
    return asked.type == actual.type and (asked.index is None or asked.index == (actual.index or 0))


def _to(value: Any, device: torch.device | None, dtype: torch.dtype | None) -> Any:
    """Tensors anywhere inside a value, moved; integers keep their dtype."""
    if isinstance(value, Tensor):
        wanted = dtype if dtype is not None and value.is_floating_point() else value.dtype
        return value.to(device=device if device is not None else value.device, dtype=wanted)
    if isinstance(value, (Data, HeteroData)):
        return value if device is None else value.__copy__().to(device)
    if isinstance(value, Mapping):
        return {key: _to(item, device, dtype) for key, item in value.items()}
    if isinstance(value, (list, tuple)) and not hasattr(value, "_fields"):
        return type(value)(_to(item, device, dtype) for item in value)
    return value


def _first_device(values: Mapping[str, Any]) -> torch.device:
    """The device of the first tensor among the arguments."""
    for value in values.values():
        if isinstance(value, Tensor):
            return value.device
        if isinstance(value, Data):
            return next((v.device for v in value.to_dict().values() if isinstance(v, Tensor)), torch.device("cpu"))
        if isinstance(value, Mapping):
            return _first_device(value)
    return torch.device("cpu")


def _arrange(values: dict[str, Any], forward: Forward) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Positional arguments as far as they go without a gap, the rest by name."""
    args: list[Any] = []
    for name in forward.positional:
        if name not in values:
            break
        args.append(values.pop(name))
    return tuple(args), values
