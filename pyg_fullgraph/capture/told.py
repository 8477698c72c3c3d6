"""How single values are told apart: by value, by identity, by their contents."""

from __future__ import annotations

import pickle
import warnings
import weakref
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import numpy as np
import torch
from torch import Tensor

#: Attributes that layers of torch and torch_geometric keep for themselves; caches are not used by a trace.
UNSEEN = frozenset(
    ["_use_segment_matmul_heuristic_output", "_timing_cache", "_backward_hooks", "_is_full_backward_hook"]
)
ATOMS = frozenset([bool, int, float, complex, str, bytes, type(None), type(Ellipsis), type(NotImplemented)])
BY_VALUE = (torch.dtype, torch.device, torch.layout, torch.memory_format, np.dtype, Fraction, range)
#: Packages and modules whose objects are told apart by identity alone: what they hold decides nothing in a forward.
KEPT_BY_IDENTITY = (
    "threading",
    "_thread",
    "logging",
    "queue",
    "_queue",
    "socket",
    "subprocess",
    "multiprocessing",
    "concurrent",
    "asyncio",
    "_asyncio",
    "contextvars",
    "_contextvars",
    "io",
    "_io",
    "tempfile",
    "re",
    "random",
    "numpy.random",
    "numpy.ufunc",
    "abc",
    "_abc",
    "inspect",
    "torch.fx",
    "torch._C",
    "torch.cuda",
    "torch.Generator",
    "torch._ops",
    "torch._library",
    "torch.jit",
    "torch.utils.tensorboard",
    "torch_geometric.inspector",
    "pyg_fullgraph.engine",
    "pyg_fullgraph.front",
    "pyg_fullgraph.nn",
    "pyg_fullgraph.dynamo",
)
_LARGEST_PICKLE = 2**20


class Identity:
    """Equal to itself for the same living object only; keeps it alive only where it cannot be referred to weakly."""

    __slots__ = ("_hash", "_of")

    def __init__(self, value: Any) -> None:
        self._hash = id(value)
        self._of: Callable[[], Any]
        try:
            self._of = weakref.ref(value)
        except TypeError:
            self._of = lambda: value

    def __hash__(self) -> int:
        return self._hash

    def __eq__(self, other: object) -> bool:
        mine = self._of()
        return isinstance(other, Identity) and mine is not None and mine is other._of()


def atom(value: Any) -> Any:
    """A plain value with its type: `1`, `True` and `1.0` are equal, and so are `0.0` and `-0.0`."""
    return (type(value), repr(value) if isinstance(value, (float, complex)) else value)


def is_seen(key: str) -> bool:
    return key not in UNSEEN and not key.startswith(("_cached", "_fullgraph"))


def within(kind: type, places: tuple[str, ...]) -> bool:
    full = f"{kind.__module__}.{kind.__qualname__}"
    return any(full == place or full.startswith(f"{place}.") for place in places)


def slots_of(kind: type) -> tuple[str, ...]:
    found: dict[str, None] = {}
    for base in kind.__mro__:
        slots = vars(base).get("__slots__", ())
        for key in (slots,) if isinstance(slots, str) else tuple(slots):
            if key not in ("__dict__", "__weakref__"):
                private = key.startswith("__") and not key.endswith("__")
                found[f"_{base.__name__.lstrip('_')}{key}" if private else key] = None
    return tuple(found)


def hashable(value: Any) -> bool:
    try:
        hash(value)
    except TypeError:
        return False
    return True


def order_of(value: Any) -> tuple[str, str]:
    """An order of the items of a set that does not depend on where they lie in memory, as far as it can be had."""
    return type(value).__qualname__, repr(value) if hashable(value) else ""


def values_of(tensor: Tensor) -> str:
    """All values of a tensor; those of a few elements are meant."""
    return str(tensor.detach().tolist())


def items_of(value: Any) -> tuple[int, ...]:
    return tuple(map(id, value.ravel().tolist()))


def pickled(value: Any) -> bytes | None:
    """What an object would write into a file; None where it cannot, or where that is too long to do at each call."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            text = pickle.dumps(value, pickle.HIGHEST_PROTOCOL)
    except Exception:  # an object that cannot be written may raise anything: it is told as opaque
        return None
    return text if len(text) <= _LARGEST_PICKLE else None
