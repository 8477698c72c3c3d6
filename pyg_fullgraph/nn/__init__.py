"""Drop-in layers: `fg.nn.GCNConv` for `torch_geometric.nn.GCNConv`, and so on for every convolution of PyG.

The same constructor, parameters and `state_dict`; in evaluation mode without gradients a layer runs through the engine.
`wrap` does it for any layer, `patch` for all layers of a model. Nothing is imported before a name is used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__all__ = ["patch", "patched", "unpatch", "unwrap", "wrap"]

if TYPE_CHECKING:  # for type checkers and editors, which do not run __getattr__
    from pyg_fullgraph.nn.layers import patch, patched, unpatch, unwrap, wrap


def __getattr__(name: str) -> Any:
    """Makes a layer's class at its first use (PEP 562)."""
    if name.startswith("__"):
        raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
    layers = import_module(f"{__name__}.layers")
    value = getattr(layers, name) if name in __all__ else layers.layer_class(name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, *import_module(f"{__name__}.layers").layer_names()})
