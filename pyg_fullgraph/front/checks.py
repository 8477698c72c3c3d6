"""What is checked before any work: the mode of the model, the loader's settings, the width of the
features."""

from __future__ import annotations

import traceback
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import RandomSampler
from torch_geometric.data import Data, HeteroData

from pyg_fullgraph.capture.hooks import silent
from pyg_fullgraph.errors import InputError
from pyg_fullgraph.front.calls import Given
from pyg_fullgraph.front.fill import Call
from pyg_fullgraph.front.forward import Forward
from pyg_fullgraph.front.own import pristine
from pyg_fullgraph.front.uses import label


@contextmanager
def evaluating(model: torch.nn.Module, force_eval: bool) -> Iterator[None]:
    """Runs its body with the model in evaluation mode.

    Args:
        model: the model.
        force_eval: switch a model in training mode to evaluation and back; else it is an error.

    Raises:
        InputError: if the model, or a part of it, is in training mode and ``force_eval`` is not set.
    """
    training = [(name, module) for name, module in model.named_modules() if module.training]
    if training and not force_eval:
        if all("parametrizations" in name for name, _ in training):
            raise InputError(
                f"'{training[0][0]}' is in training mode: it was registered (weight_norm, spectral_norm) after "
                "model.eval(). Call model.eval() again, or pass force_eval=True."
            )
        name, module = training[0]
        part = "The model is" if not name else f"{label(name, module)} is"
        raise InputError(
            f"{part} in training mode: dropout and batch normalisation would make inference random. Call "
            "model.eval() first, or pass force_eval=True to evaluate and switch back."
        )
    for _, module in training:
        module.training = False
    try:
        yield
    finally:
        for _, module in training:
            module.training = True


def warn_about_loader(loader: Any) -> None:
    """Warns of the loader's settings that a run over the whole graph does not follow.

    Raises:
        InputError: if every seed has its own time, so that there is no one graph for all.
    """
    if getattr(loader, "input_time", None) is not None:
        raise InputError(
            "input_time differs per node, so every node has a graph of its own; a whole-graph run has one "
            "for all. Use sampling (NeighborLoader(disjoint=True)), or one run per time on the edges up to "
            "it."
        )
    ignored = []
    if isinstance(getattr(loader, "sampler", None), RandomSampler):
        ignored.append("shuffle=True: output rows are in node order (PyG's own inference() would return them permuted)")
    fan_out = _fan_out(loader)
    if any(size != -1 for size in fan_out):
        ignored.append(f"num_neighbors={fan_out}: neighbours are not sampled, all are used")
    if getattr(loader, "drop_last", False):
        ignored.append("drop_last=True: every node gets its row")
    if getattr(loader, "transform", None) is not None:
        ignored.append("transform: it is made for batches; apply it to the data yourself")
    if _is_subset(loader):
        ignored.append("input_nodes: every node gets its row; pass nodes= to compute only some")
    for text in ignored:
        warnings.warn(f"loader.{text}.", UserWarning, stacklevel=4)


def _fan_out(loader: Any) -> list[int]:
    """The numbers of neighbours to sample, of whatever kind of loader."""
    sampler = getattr(loader, "node_sampler", None) or getattr(loader, "link_sampler", None)
    numbers = getattr(sampler, "num_neighbors", None)
    if numbers is None:
        numbers = getattr(loader, "sizes", [])
    if not isinstance(numbers, (dict, list, tuple)):  # torch_geometric.sampler.NumNeighbors
        numbers = numbers.values
    if isinstance(numbers, dict):
        numbers = [size for sizes in numbers.values() for size in sizes]
    return [int(size) for size in numbers]


def _is_subset(loader: Any) -> bool:
    """Whether the loader has seeds, and fewer than there are nodes."""
    seeds, data = getattr(loader, "input_nodes", None), getattr(loader, "data", None)
    if seeds is None:
        return False
    if isinstance(data, HeteroData):  # all nodes of one type, or some: the others never are seeds
        kind, seeds = seeds if isinstance(seeds, tuple) else (seeds, None)
        return seeds is not None and kind in data.node_types and len(loader.dataset) < (data[kind].num_nodes or 0)
    if not isinstance(data, Data) or ("x" not in data and "num_nodes" not in data):
        return False
    return isinstance(seeds, Tensor) and len(loader.dataset) < (data.num_nodes or 0)


def check_width(model: torch.nn.Module, forward: Forward, call: Call, given: Given) -> None:
    """Checks the number of feature columns against the first layer, before any work.

    Where the first layer of the model does not fit the features, the model's forward is run on two nodes
    without edges, and only if it fails there too is the run refused: the layers of a model need not run in
    the order they were defined in.

    Raises:
        InputError: naming the layer that failed and both widths.
    """
    features = _features_of(forward, call)
    if features is None or features.dim() != 2 or not features.is_floating_point():
        return
    first = next(((n, m) for n, m in model.named_modules() if n and _width(m) is not None), None)
    if first is None or _width(first[1]) == features.size(1):
        return
    failed = _failing_layer(model, forward, call, features)
    if failed is not None and _width(failed[1]) != features.size(1):
        where = "data.x" if given.data is not None and not given.named.get(forward.features or "") else "x"
        raise InputError(
            f"{where} has {features.size(1):,} columns, but {label(*failed)} expects {_width(failed[1]):,} "
            f"(in_channels). Pass the features that the model was trained on."
        )


def _features_of(forward: Forward, call: Call) -> Tensor | None:
    """The node features among the arguments of the call."""
    values = {**dict(zip(forward.positional, call.args, strict=False)), **call.kwargs}
    if forward.data is not None:
        found = getattr(values.get(forward.data), "x", None)
    else:
        found = values.get(forward.features or "")
    return found if isinstance(found, Tensor) else None


def _width(module: torch.nn.Module) -> int | None:
    """How many columns a layer expects, if it says so."""
    for name in ("in_channels", "in_features"):
        width = getattr(module, name, None)
        if isinstance(width, (tuple, list)) and width:
            width = width[0]
        if isinstance(width, int) and width > 0:
            return width
    return None


def _failing_layer(
    model: torch.nn.Module, forward: Forward, call: Call, features: Tensor
) -> tuple[str, torch.nn.Module] | None:
    """The layer in which forward fails on two nodes without edges; ``None`` where it does not fail."""
    rows, edges = features.size(0), _edge_count(forward, call)
    args = tuple(_tiny(value, rows, edges) for value in call.args)
    kwargs = {name: _tiny(value, rows, edges) for name, value in call.kwargs.items()}
    try:
        with pristine(model), silent(model) as hooked, torch.no_grad():
            model.forward(*args, **kwargs)
    except Exception as error:  # whatever the user's forward raises: only where it came from matters
        return None if hooked else _innermost_layer(model, error)
    return None


def _innermost_layer(model: torch.nn.Module, error: BaseException) -> tuple[str, torch.nn.Module] | None:
    """The innermost message passing layer (or the layer itself) with a width on the way to the error."""
    names = {id(module): name for name, module in model.named_modules()}
    found = None
    for frame, _ in traceback.walk_tb(error.__traceback__):
        module = frame.f_locals.get("self")
        if isinstance(module, torch.nn.Module) and names.get(id(module)) and _width(module) is not None:
            outer = found
            found = (names[id(module)], module)
            if outer is not None and found[0].startswith(outer[0] + ".") and _width(outer[1]) == _width(module):
                found = outer  # GCNConv says more than the Linear inside it
    return found


def _edge_count(forward: Forward, call: Call) -> int | None:
    values = {**dict(zip(forward.positional, call.args, strict=False)), **call.kwargs}
    graph = values.get(forward.graph or "")
    if isinstance(graph, list) and graph:
        graph = graph[0][0]
    return graph.size(1) if isinstance(graph, Tensor) and graph.dim() == 2 else None


def _tiny(value: Any, rows: int, edges: int | None) -> Any:
    """The argument for two nodes and no edge."""
    if isinstance(value, Tensor) and value.dim() > 0:
        if value.dim() == 2 and value.size(0) == 2 and not value.is_floating_point() and value.size(1) == edges:
            return value[:, :0]
        if value.size(0) == edges and (edges != rows or not value.is_floating_point()):
            return value[:0]
        return value[:2] if value.size(0) == rows else value
    if isinstance(value, tuple) and value == (rows, rows):
        return tuple(min(2, size) for size in value)
    if isinstance(value, (tuple, list)) and not hasattr(value, "_fields"):
        return type(value)(_tiny(item, rows, edges) for item in value)
    if isinstance(value, Data):
        keep = torch.arange(min(2, rows))
        return value.subgraph(keep)
    if isinstance(value, HeteroData):
        return value
    return value
