"""What a model's layers use: edge weights, edge attributes, graph-wide statistics, sampled degrees, depth."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from typing import Any

import torch
from torch_geometric.nn import MessagePassing

#: Layers of torch_geometric whose statistics run over all nodes; LayerNorm only in its 'graph' mode.
_GRAPH_WIDE = (
    "GraphNorm",
    "InstanceNorm",
    "PairNorm",
    "MeanSubtractionNorm",
    "DiffGroupNorm",
    "GraphSizeNorm",
)


def message_layers(model: torch.nn.Module) -> Iterator[tuple[str, MessagePassing]]:
    """Yields the message passing layers by qualified name."""
    for name, module in model.named_modules():
        if isinstance(module, MessagePassing):
            yield name, module


def label(name: str, module: torch.nn.Module) -> str:
    """A layer as messages name it: ``GCNConv 'convs.0'``."""
    return f"{type(module).__name__} '{name}'" if name else type(module).__name__


def uses(model: torch.nn.Module, name: str) -> bool:
    """Tells whether passing an optional argument of forward changes what the model computes.

    PyG's models take ``edge_weight`` and ``edge_attr`` for all layers and say which of them their layer
    supports; layers built without ``edge_dim`` ignore ``edge_attr`` or fail on it. Any other model is taken
    at its word.

    Args:
        model: the model, without wrappers.
        name: the parameter of forward.
    """
    supported = getattr(model, f"supports_{name}", None)
    if supported is False:
        return False
    if name == "batch" and hasattr(model, "supports_norm_batch"):
        return bool(model.supports_norm_batch)
    if name == "edge_attr":
        takers = [layer for _, layer in message_layers(model) if "edge_attr" in _parameters(layer)]
        return not takers or any(_wants_edge_attr(layer) for layer in takers)
    return True


def edge_layers_want(model: torch.nn.Module) -> str | None:
    """Returns the first layer that was built for edge features, as ``GATConv 'convs.0' (edge_dim=5)``."""
    for name, layer in message_layers(model):
        width = getattr(layer, "edge_dim", None)
        if width is not None and "edge_attr" in _parameters(layer):
            return f"{label(name, layer)} (edge_dim={width})"
    return None


def layers_of(model: torch.nn.Module, loader: Any = None) -> int | None:
    """Returns how many layers a ``forward(x, adjs)`` runs, or ``None`` where nothing says so.

    Args:
        model: its ``num_layers``, else the length of its first list of message passing layers, else their
            number.
        loader: a NeighborSampler that samples more than one hop says it itself.
    """
    sizes = getattr(loader, "sizes", None)
    if isinstance(sizes, (list, tuple)) and len(sizes) > 1:
        return len(sizes)
    declared = getattr(model, "num_layers", None)
    if isinstance(declared, int):
        return declared
    for module in model.modules():
        if isinstance(module, torch.nn.ModuleList) and any(isinstance(item, MessagePassing) for item in module):
            return len(module)
    return sum(1 for _ in message_layers(model)) or None


def sampled_degree_layers(model: torch.nn.Module) -> list[str]:
    """Returns the layers that normalise by degrees on the fly, which sampled blocks get wrong."""
    return [
        label(name, layer)
        for name, layer in message_layers(model)
        if getattr(layer, "normalize", True) is True and uses_gcn_norm(layer)
    ]


def uses_gcn_norm(layer: torch.nn.Module) -> bool:
    """Tells whether a layer calls ``gcn_norm`` in its forward."""
    code = inspect.unwrap(type(layer).forward).__code__
    return "gcn_norm" in code.co_names


def graph_wide_layers(model: torch.nn.Module) -> list[str]:
    """Returns the normalisation layers whose statistics run over the whole graph."""
    found = []
    for name, module in model.named_modules():
        kind = type(module).__name__
        whole = kind in _GRAPH_WIDE or (kind == "LayerNorm" and getattr(module, "mode", None) == "graph")
        if whole and type(module).__module__.startswith("torch_geometric"):
            found.append(label(name, module))
    return found


def _parameters(layer: torch.nn.Module) -> dict[str, inspect.Parameter]:
    return dict(inspect.signature(layer.forward).parameters)


def _wants_edge_attr(layer: torch.nn.Module) -> bool:
    """Required by its forward, or optional and built for."""
    if _parameters(layer)["edge_attr"].default is inspect.Parameter.empty:
        return True
    return not hasattr(layer, "edge_dim") or layer.edge_dim is not None
