"""Exact inference over a whole graph for any PyTorch Geometric model.

Importing this package costs nothing: torch and torch_geometric are imported at the first use of a name.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

#: Public name -> the module that defines it.
_HOMES = {
    "inference": "api",
    "compile": "api",
    "accelerate": "api",
    "accelerated": "api",
    "restore": "api",
    "dynamo_options": "dynamo",
    "Engine": "engine",
    "Graph": "graph",
    "FullGraphError": "errors",
    "CaptureError": "errors",
    "FullGraphMismatch": "errors",
    "GraphError": "errors",
    "InputError": "errors",
    "KernelError": "errors",
    "OperatorError": "errors",
}
_MODULES = (
    "api",
    "capture",
    "cli",
    "dynamo",
    "engine",
    "errors",
    "front",
    "graph",
    "ir",
    "nn",
    "ops",
    "passes",
    "plan",
    "report",
    "runtime",
)

__all__ = [
    "CaptureError",
    "Engine",
    "FullGraphError",
    "FullGraphMismatch",
    "Graph",
    "GraphError",
    "InputError",
    "KernelError",
    "OperatorError",
    "__version__",
    "accelerate",
    "accelerated",
    "compile",
    "dynamo_options",
    "inference",
    "restore",
]

if TYPE_CHECKING:  # for type checkers and editors, which do not run __getattr__
    from pyg_fullgraph.api import accelerate, accelerated, compile, inference, restore
    from pyg_fullgraph.dynamo import dynamo_options
    from pyg_fullgraph.engine import Engine
    from pyg_fullgraph.errors import (
        CaptureError,
        FullGraphError,
        FullGraphMismatch,
        GraphError,
        InputError,
        KernelError,
        OperatorError,
    )
    from pyg_fullgraph.graph import Graph


def __getattr__(name: str) -> Any:
    """Imports a public name at its first use (PEP 562)."""
    if name in _HOMES:
        value = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
        globals()[name] = value
        return value
    if name in _MODULES:
        return import_module(f"{__name__}.{name}")
    raise AttributeError(f"module '{__name__}' has no attribute '{name}'")


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
