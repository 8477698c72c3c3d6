"""What is kept with a graph: found by what the graph's integer tensors hold, wherever they lie, however written."""

from __future__ import annotations

import weakref
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor

from pyg_fullgraph.capture.signature import Signature
from pyg_fullgraph.graph.contents import fingerprints
from pyg_fullgraph.ops.forked import lock_whole_at_fork

T = TypeVar("T")

_KEPT_GRAPHS = 4  # per captured call, the least recently used goes first
_LOCK = lock_whole_at_fork()  # a tensor may die, and be forgotten, within any statement

Region = tuple[int, int, tuple[int, ...], tuple[int, ...]]


@dataclass(frozen=True)
class Key:
    """Which graph a call is about.

    Args:
        value: fingerprints of the integer tensors, all shapes, and options.
        largest: the largest integer tensor's storage, as long as which what is kept is worth keeping; None for a
            call without any.
        region: where in memory that tensor lies.
        contents: its fingerprint.
    """

    value: tuple[Any, ...]
    largest: torch.UntypedStorage | None
    region: Region
    contents: bytes

    @classmethod
    def of(cls, signature: Signature, tensors: list[Tensor], threads: int | None = None) -> Key:
        """The key of a call; every integer among its arguments is read."""
        found = [t for leaf, t in zip(signature.leaves, tensors, strict=True) if leaf.value_class == "int"]
        numbers = tuple(int(t) for t in found if t.dim() == 0)  # sizes among the arguments, made at every call
        integers = [t for t in found if t.dim()]
        contents = fingerprints(integers, threads)
        value = (*contents, numbers, tuple(tuple(t.shape) for t in tensors))
        if not integers:
            return cls(value, None, (0, 0, (), ()), b"")
        at = max(range(len(integers)), key=lambda i: integers[i].nbytes)
        tensor = integers[at]
        storage = tensor.untyped_storage()
        region = (id(storage), int(tensor.storage_offset()), tuple(tensor.shape), tensor.stride())
        return cls(value, storage, region, contents[at])

    def also(self, *options: Any) -> Key:
        """The key of what depends on `options` as well."""
        return replace(self, value=(*self.value, *options))


class _Entry(Generic[T]):
    """Something kept, and in which places of memory what it belongs to was last seen."""

    def __init__(self, item: T, contents: bytes) -> None:
        self.item, self.contents = item, contents
        self.places: dict[Region, weakref.ref[torch.UntypedStorage]] = {}


class Kept(Generic[T]):
    """The last few graphs' something.

    Each is kept as long as some memory is alive in which its largest integer tensor was seen, unless that was seen to
    hold something else since; nothing is kept alive by this.
    """

    def __init__(self) -> None:
        self._items: OrderedDict[tuple[Any, ...], _Entry[T]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._items)

    def get(self, key: Key) -> T | None:
        """What was put for a graph of these contents, None if it is no longer kept."""
        with _LOCK:
            entry = self._items.get(key.value)
            if entry is None:
                self._forget_overwritten(key)
                return None
            self._items.move_to_end(key.value)
            self._seen(key, entry)
            return entry.item

    def put(self, key: Key, item: T) -> None:
        """Keep `item` with this graph."""
        with _LOCK:
            entry = self._items[key.value] = _Entry(item, key.contents)
            self._seen(key, entry)
            while len(self._items) > _KEPT_GRAPHS:
                self._items.popitem(last=False)

    def _seen(self, key: Key, entry: _Entry[T]) -> None:
        if key.largest is None or key.region in entry.places:
            return
        self._forget_overwritten(key)
        entry.places[key.region] = weakref.ref(key.largest, _when_gone(self, key))

    def _forget_overwritten(self, key: Key) -> None:
        """What was kept for other contents of the same memory, as these are gone."""
        for value, entry in list(self._items.items()):
            if entry.contents != key.contents and key.region in entry.places:
                self._leave(value, entry, key.region)

    def _leave(self, value: tuple[Any, ...], entry: _Entry[T], region: Region) -> None:
        entry.places.pop(region, None)
        if not entry.places and self._items.get(value) is entry:
            del self._items[value]

    def gone(self, value: tuple[Any, ...], region: Region) -> None:
        """Some memory was freed."""
        with _LOCK:
            entry = self._items.get(value)
            if entry is not None and region in entry.places:
                self._leave(value, entry, region)


def _when_gone(kept: Kept[Any], key: Key) -> Callable[[Any], None]:
    """What a weak reference calls; it must keep neither what is kept nor the memory."""
    owner, value, region = weakref.ref(kept), key.value, key.region

    def gone(_storage: Any) -> None:
        alive = owner()
        if alive is not None:
            alive.gone(value, region)

    return gone
