"""What a forward returns, taken apart into tensors and numbers, and put together again around others.

Tuples, lists and dictionaries, their sub-classes, named tuples, the named results of torch (`torch.return_types`),
dataclasses, attrs classes, namespaces, mappings with attributes, and all that is registered with torch's pytree come
back as what they were: the same class, the same fields and keys in the same order, and one tensor where one tensor
stood twice. No `__init__` and no `__post_init__` runs again, unless the class is registered with torch's pytree.
"""

from __future__ import annotations

import dataclasses
from argparse import Namespace
from collections import OrderedDict, defaultdict, deque
from collections.abc import Callable, Iterator, Mapping
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

_MADE_BY_A_CLASS_STATEMENT = 1 << 9  # CPython's Py_TPFLAGS_HEAPTYPE: all others are written in C
#: Puts an object together again around the values it had under the same names, in their order.
Build = Callable[[list[Any]], Any]


@dataclasses.dataclass(frozen=True)
class Packing:
    """How the leaves of a result are put together.

    Args:
        number: of a leaf among the leaves; of the first where one object stands several times. None for an object.
        names: of what is in the object: keys, fields, positions.
        children: the same for each of these.
        build: makes the object.
        plain: makes a tuple, a list or a dictionary in its place.
    """

    number: int | None = None
    names: tuple[Any, ...] = ()
    children: tuple[Packing, ...] = ()
    build: Build | None = None
    plain: Build | None = None

    def pack(self, leaves: list[Any]) -> Any:
        """The result around these leaves."""
        if self.build is None:
            return leaves[self.number or 0]
        return self.build([child.pack(leaves) for child in self.children])

    def simple(self, leaves: list[Any]) -> Any:
        """The leaves in nested tuples, lists and dictionaries: all of them, each in its place."""
        return self._simple(iter(leaves))

    def _simple(self, leaves: Any) -> Any:
        if self.plain is None:
            return next(leaves)
        return self.plain([child._simple(leaves) for child in self.children])

    def of_simple(self, tree: Any) -> Any:
        """The result around what `simple` has made of its leaves, or what that has become."""
        leaves: list[Any] = []
        self._collect(tree, leaves)
        return self.pack(leaves)

    def _collect(self, tree: Any, leaves: list[Any]) -> None:
        if self.plain is None:
            leaves.append(tree)
            return
        for child, item in zip(self.children, tree.values() if isinstance(tree, dict) else tree, strict=True):
            child._collect(item, leaves)


@dataclasses.dataclass(frozen=True)
class _Opened:
    """An object one level deep."""

    names: tuple[Any, ...]
    items: list[Any]
    build: Build
    plain: Build


def unpack(result: Any) -> tuple[list[Any], Packing]:
    """The leaves of a result in their order, and how they are put together."""
    leaves: list[Any] = []
    packing = _unpack(result, leaves, {})
    return leaves, packing


def _unpack(value: Any, leaves: list[Any], seen: dict[int, int]) -> Packing:
    opened = _open(value)
    if opened is not None:
        children = tuple(_unpack(item, leaves, seen) for item in opened.items)
        return Packing(None, opened.names, children, opened.build, opened.plain)
    number = seen.setdefault(id(value), len(leaves)) if isinstance(value, Tensor) else len(leaves)
    leaves.append(value)
    return Packing(number)


def mapped(function: Callable[[Any], Any], result: Any) -> Any:
    """The result with each leaf replaced by what the function makes of it."""
    if isinstance(result, Tensor):
        return function(result)
    leaves, packing = unpack(result)
    return packing.pack([function(leaf) for leaf in leaves])


def tensors_of(result: Any) -> list[Tensor]:
    """The tensors of a result in their order."""
    return [leaf for leaf in unpack(result)[0] if isinstance(leaf, Tensor)]


def paths_of(result: Any) -> list[tuple[tuple[Any, ...], Any]]:
    """Every leaf of a result behind the names that lead to it."""
    leaves, packing = unpack(result)
    return list(zip(_paths(packing, ()), leaves, strict=True))


def _paths(part: Packing, path: tuple[Any, ...]) -> Iterator[tuple[Any, ...]]:
    if part.plain is None:
        yield path
    for name, child in zip(part.names, part.children, strict=True):
        yield from _paths(child, (*path, name))


# One level ----------------------------------------------------------------------------------------------------


def _open(value: Any) -> _Opened | None:
    """What is in an object; None for a leaf."""
    if value is None or isinstance(value, (Tensor, type, str, bytes, bool, int, float)):
        return None
    cls = type(value)
    if isinstance(value, tuple):
        return _sequence(value, _tuple_of(value), tuple)
    if isinstance(value, list):
        return _sequence(value, _list_of(value), list)
    if isinstance(value, deque):
        return _sequence(value, lambda items: deque(items, value.maxlen), list)
    if cls in (dict, OrderedDict, defaultdict):
        return _mapping(value)
    registered = pytree.SUPPORTED_NODES.get(cls)
    if registered is not None:
        items, context = registered.flatten_fn(value)
        return _Opened(
            tuple(range(len(items))), list(items), lambda items: registered.unflatten_fn(items, context), tuple
        )
    if isinstance(value, dict):
        return _with_attributes(value, tuple(value), list(value.values()))
    if _has_fields(value):
        return _with_attributes(value, (), [])
    return None


def _has_fields(value: Any) -> bool:
    """Whether an object is made of what its attributes hold."""
    return (
        dataclasses.is_dataclass(value)
        or hasattr(type(value), "__attrs_attrs__")
        or isinstance(value, (SimpleNamespace, Namespace))
        or (isinstance(value, Mapping) and hasattr(value, "__dict__"))
    )


def _sequence(value: Any, build: Build, plain: Callable[[list[Any]], Any]) -> _Opened:
    return _Opened(tuple(range(len(value))), list(value), build, plain)


def _tuple_of(value: tuple[Any, ...]) -> Build:
    cls = type(value)
    if cls is tuple:
        return tuple
    if hasattr(cls, "n_sequence_fields") or cls is torch.Size:  # torch.return_types, os.stat_result
        return cls
    attributes = dict(getattr(value, "__dict__", {}))
    return lambda items: _attributed(tuple.__new__(cls, items), attributes)


def _list_of(value: list[Any]) -> Build:
    cls, attributes = type(value), dict(getattr(value, "__dict__", {}))
    if cls is list:
        return list

    def build(items: list[Any]) -> Any:
        made = cls.__new__(cls)
        list.extend(made, items)
        return _attributed(made, attributes)

    return build


def _mapping(value: dict[Any, Any]) -> _Opened:
    keys = tuple(value)
    empty: Callable[[], Any] = type(value)
    if isinstance(value, defaultdict):
        factory = value.default_factory
        empty = lambda: defaultdict(factory)  # noqa: E731

    def build(items: list[Any]) -> Any:
        made = empty()
        made.update(zip(keys, items, strict=True))
        return made

    return _Opened(keys, list(value.values()), build, lambda items: dict(zip(keys, items, strict=True)))


def _with_attributes(value: Any, keys: tuple[Any, ...], items: list[Any]) -> _Opened:
    """An object that has attributes, and items under keys where it is a dictionary."""
    cls = type(value)
    attributes = _attributes(value)
    names = tuple(attributes)
    shown = (*keys, *(f".{name}" if name in keys else name for name in names))
    put = OrderedDict.__setitem__ if isinstance(value, OrderedDict) else dict.__setitem__
    factory = getattr(value, "default_factory", None)

    def build(values: list[Any]) -> Any:
        made = _new(cls)
        if isinstance(made, defaultdict):
            made.default_factory = factory
        for key, item in zip(keys, values[: len(keys)], strict=True):
            put(made, key, item)
        return _attributed(made, dict(zip(names, values[len(keys) :], strict=True)))

    return _Opened(shown, [*items, *attributes.values()], build, lambda values: dict(zip(shown, values, strict=True)))


def _attributes(value: Any) -> dict[str, Any]:
    """What an object holds, in its `__dict__` and in slots."""
    found = dict(getattr(value, "__dict__", {}))
    for base in type(value).__mro__:
        slots = vars(base).get("__slots__", ())
        for name in (slots,) if isinstance(slots, str) else slots:
            if name not in ("__dict__", "__weakref__") and hasattr(value, name):
                found.setdefault(name, getattr(value, name))
    return found


def _attributed(made: Any, attributes: dict[str, Any]) -> Any:
    """With these attributes, also where it is frozen."""
    for name, item in attributes.items():
        object.__setattr__(made, name, item)
    return made


def _new(cls: type) -> Any:
    """An instance that nothing has initialised."""
    base: Any = next(base for base in cls.__mro__ if not base.__flags__ & _MADE_BY_A_CLASS_STATEMENT)
    return base.__new__(cls)
