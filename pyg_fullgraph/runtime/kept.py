"""What is kept with a graph, as long as its integer tensors are the very same and unchanged."""

from __future__ import annotations

import contextlib
import weakref
from collections import OrderedDict
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from torch import Tensor

from pyg_fullgraph.capture.signature import Signature

T = TypeVar("T")

_KEPT_GRAPHS = 4  # per captured call, the least recently used goes first


@dataclass(frozen=True)
class Key:
    """Which graph a call is about.

    Args:
        value: identities and versions of the integer tensors, and all shapes.
        integers: these tensors.
        tracked: False where one was made in inference mode, so that a change would leave no trace.
    """

    value: tuple[Any, ...]
    integers: tuple[Tensor, ...]
    tracked: bool

    @classmethod
    def of(cls, signature: Signature, tensors: list[Tensor], *options: Any) -> Key:
        """The key of a call, for what also depends on `options`."""
        found = [t for leaf, t in zip(signature.leaves, tensors, strict=True) if leaf.value_class == "int"]
        numbers = tuple(int(t) for t in found if t.dim() == 0)  # sizes among the arguments, made at every call
        integers = tuple(t for t in found if t.dim())
        shapes = tuple(tuple(t.shape) for t in tensors)
        tracked = not any(t.is_inference() for t in integers)
        versions = tuple((id(t), t._version if tracked else 0) for t in integers)
        return cls((*versions, numbers, shapes, *options), integers, tracked)


class Kept(Generic[T]):
    """The last few graphs' something, each until one of its graph's tensors is gone; none is kept alive by this."""

    def __init__(self) -> None:
        self._items: OrderedDict[tuple[Any, ...], tuple[list[weakref.ref[Tensor]], T]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._items)

    def get(self, key: Key) -> T | None:
        """What was put for this graph, None if it has changed since or is no longer kept."""
        hit = self._items.get(key.value) if key.tracked else None
        if hit is None or not all(ref() is t for ref, t in zip(hit[0], key.integers, strict=True)):
            return None
        with contextlib.suppress(KeyError):  # another thread's graphs have taken its place
            self._items.move_to_end(key.value)
        return hit[1]

    def put(self, key: Key, item: T) -> None:
        """Keep `item` with this graph, unless changes of it would leave no trace."""
        if not key.tracked:
            return
        items, value = self._items, key.value

        def gone(_tensor: weakref.ref[Tensor]) -> None:
            items.pop(value, None)

        items[value] = ([weakref.ref(t, gone) for t in key.integers], item)
        while len(items) > _KEPT_GRAPHS:
            items.popitem(last=False)
