"""`Unchanged`: whether all that a walk over a model met is still as it was, asked at every call.

Containers are compared by the identity of what they hold, in C; memory that can be written without a trace of it in
Python (NumPy arrays) by its bytes. An equal object in place of another counts as a change, which costs a new walk and
is right all the same.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Mapping
from operator import is_, itemgetter
from types import CodeType, FunctionType, GetSetDescriptorType, MemberDescriptorType
from typing import Any

import numpy as np
import torch
import xxhash
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor

_MISSING = object()
_EMPTY = object()
_EQUAL_IF_SAME = (FunctionType, staticmethod, classmethod, property, GetSetDescriptorType, MemberDescriptorType)
_SMALL = 2**12  # bytes that are kept as they are; more are kept as a hash


def described(tensor: Tensor) -> tuple[Any, ...]:
    """What a trace depends on; data may be swapped in place (`model.half()`)."""
    dense = tensor.layout is torch.strided
    return type(tensor), tensor.shape, tensor.dtype, tensor.device, tensor.layout, tensor.stride() if dense else None


def content_of(value: Any) -> tuple[Any, ...] | None:
    """The bytes of an array or of other memory, and what they mean; None for an array of objects."""
    if isinstance(value, (np.ndarray, np.generic)):
        if value.dtype.hasobject:
            return None
        about: tuple[Any, ...] = (value.dtype, value.shape)
        held = value.tobytes() if value.nbytes <= _SMALL else memoryview(np.ascontiguousarray(value).data).cast("B")
    else:
        about, held = (getattr(value, "typecode", ""),), memoryview(value).cast("B")
    if len(held) <= _SMALL:
        return (*about, bytes(held))
    return (*about, xxhash.xxh3_128_digest(held))


def ambient() -> tuple[Any, ...]:
    """Settings of torch that a forward may depend on without naming them."""
    moved = torch._C._len_torch_function_stack()  # a default device is a mode; asking for it costs 15 microseconds
    return torch.get_default_dtype(), torch.get_default_device() if moved else None


class Unchanged:
    """A list of things to look at, and how each was.

    Attributes:
        identities: objects and their classes.
        tensors: and what a trace depends on of each.
        slots: objects, names of slots, and their values.
        functions: and their code and defaults.
        contents: objects, what reads their contents, and what that gave.
    """

    def __init__(self) -> None:
        self.identities: list[tuple[Any, type]] = []
        self.tensors: list[tuple[Tensor, tuple[Any, ...]]] = []
        self.slots: list[tuple[Any, tuple[str, ...], tuple[Any, ...]]] = []
        self.functions: list[tuple[FunctionType, CodeType, Any, Any]] = []
        self.contents: list[tuple[Any, Callable[[Any], Any], Any]] = []
        self._ambient = ambient()
        self._empty: list[Any] = []
        self._empty_names: list[str] = []
        self._dicts: list[tuple[Any, list[Any], list[Any], str]] = []
        self._items: list[tuple[Any, list[Any], str]] = []
        self._objects: list[tuple[Any, type, Any]] = []
        self._names: list[tuple[Any, Any, tuple[Any, ...], tuple[str, ...], str]] = []
        self._cells: list[tuple[Any, Any, str]] = []
        self._classes: list[tuple[Any, list[Any], Any, tuple[Any, ...]]] = []

    # -- what to look at --------------------------------------------------------------------------------------

    def watch_object(self, value: Any, held: dict[str, Any], name: str = "") -> None:
        """The class of an object, and that `held` is its `__dict__`."""
        self._objects.append((value, type(value), held))

    def watch_names(self, held: dict[str, Any], names: Iterable[str], name: str = "") -> None:
        """Some names of a dictionary, there or not."""
        present = [key for key in names if key in held]
        absent = tuple(key for key in names if key not in held)
        if not present:
            present = [next(iter(held))] if held else []
        if present:
            getter = itemgetter(*present, present[0])  # a tuple for one name as well
            self._names.append((held, getter, getter(held), absent, name))

    def watch_dict(self, value: Mapping[Any, Any], name: str = "") -> None:
        """All keys and values of a dictionary."""
        if value:
            self._dicts.append((value, list(value), list(value.values()), name))
        else:
            self._empty.append(value)
            self._empty_names.append(name)

    def watch_items(self, value: Any, name: str = "") -> None:
        """The items of a list, a set, a deque."""
        if value:
            self._items.append((value, list(value), name))
        else:
            self._empty.append(value)
            self._empty_names.append(name)

    def watch_slots(self, value: Any, names: tuple[str, ...]) -> None:
        """The slots of an object."""
        self.identities.append((value, type(value)))
        self.slots.append((value, names, tuple(getattr(value, key, _MISSING) for key in names)))

    def watch_cell(self, cell: Any, name: str = "") -> Any:
        """The variable of an enclosing function; its value, None before there is one."""
        value = _content_of_cell(cell)
        self._cells.append((cell, value, name))
        return None if value is _EMPTY else value

    def watch_class(self, value: type) -> None:
        """The attributes of a class."""
        held = vars(value)
        plain = [key for key, item in held.items() if not isinstance(item, _EQUAL_IF_SAME)] or ["__module__"]
        getter = itemgetter(*plain, plain[0])
        self._classes.append((held, list(held.values()), getter, getter(held)))

    # -- looking ----------------------------------------------------------------------------------------------

    def holds(self) -> bool:
        """Whether nothing was changed since."""
        if any(self._empty) or ambient() != self._ambient:
            return False
        for value, kind in self.identities:
            if type(value) is not kind:
                return False
        for value, kind, held in self._objects:
            if type(value) is not kind or value.__dict__ is not held:
                return False
        for held, getter, values, absent, _ in self._names:
            try:
                now = getter(held)
            except KeyError:
                return False
            if not all(map(is_, now, values)) or not held.keys().isdisjoint(absent):
                return False
        for held, keys, items, _ in self._dicts:
            if len(held) != len(keys) or not all(map(is_, held.values(), items)) or not all(map(is_, held, keys)):
                return False
        for container, items, _ in self._items:
            if len(container) != len(items) or not all(map(is_, container, items)):
                return False
        return self._code_holds() and self._contents_hold()

    def _code_holds(self) -> bool:
        for held, items, getter, plain in self._classes:
            try:  # lists compare what is the same without a call; what could be equal and another is compared again
                if [*held.values()] != items or not all(map(is_, getter(held), plain)):
                    return False
            except (KeyError, RuntimeError, ValueError):  # an attribute is gone; arrays are neither equal nor unequal
                return False
        for function, code, defaults, named in self.functions:
            if function.__code__ is not code or function.__defaults__ is not defaults:
                return False
            if function.__kwdefaults__ is not named:
                return False
        return all(_content_of_cell(cell) is value for cell, value, _ in self._cells)

    def _contents_hold(self) -> bool:
        for tensor, about in self.tensors:
            if described(tensor) != about:
                return False
        for value, names, values in self.slots:
            if not all(map(is_, (getattr(value, key, _MISSING) for key in names), values)):
                return False
        return all(read(value) == before for value, read, before in self.contents)

    # -- after a trace ----------------------------------------------------------------------------------------

    def changed(self) -> dict[str, Any]:
        """What was changed since in containers, global names, variables and slots: by name, the container or value.

        What a forward left there that means nothing outside of a trace is taken out again.
        """
        found: dict[str, Any] = {}
        for held, keys, items, name in self._dicts:
            same = len(held) == len(keys) and all(map(is_, held.values(), items)) and all(map(is_, held, keys))
            if not same and not _cleared(held, dict(zip(keys, items, strict=True))):
                found[name] = held
        for container, items, name in self._items:
            same = len(container) == len(items) and all(map(is_, container, items))
            if not same and not _cleared(container, items):
                found[name] = container
        for container, name in zip(self._empty, self._empty_names, strict=True):
            if container and not _cleared(container, ()):
                found[name] = container
        for held, getter, values, absent, name in self._names:
            before = dict(zip(getter.__reduce__()[1], values, strict=True)) | dict.fromkeys(absent, _MISSING)
            for key, value in before.items():
                if held.get(key, _MISSING) is not value and not _renamed(held, key, value):
                    found[f"{name}'{key}'"] = held.get(key)
        for cell, value, name in self._cells:
            if _content_of_cell(cell) is not value:
                if _of_a_trace(_content_of_cell(cell)):
                    cell.cell_contents = None if value is _EMPTY else value
                else:
                    found[name] = cell
        return found


def _cleared(container: Any, before: Any) -> bool:
    """Whether a container held what is of a trace only, and so was put back."""
    items = container.values() if isinstance(container, Mapping) else container
    if not hasattr(container, "clear") or not any(map(_of_a_trace, items)):
        return False
    container.clear()
    container.extend(before) if isinstance(container, (list, deque)) else container.update(before)
    return True


def _renamed(held: dict[str, Any], key: str, before: Any) -> bool:
    if not _of_a_trace(held.get(key)):
        return False
    if before is _MISSING:
        del held[key]
    else:
        held[key] = before
    return True


def _of_a_trace(value: Any) -> bool:
    if isinstance(value, (tuple, list)):
        return any(map(_of_a_trace, value))
    return isinstance(value, (FakeTensor, torch.SymInt, torch.SymFloat, torch.SymBool))


def _content_of_cell(cell: Any) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # not assigned yet
        return _EMPTY
