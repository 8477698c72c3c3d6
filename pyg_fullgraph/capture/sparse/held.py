"""Sparse matrices in the attributes of a model's modules: where they are, and others in their places for one call."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from pyg_fullgraph.capture.matrices import is_matrix

_DEEPEST = 6  # containers and objects in one another
_STRUCTURE = ("_buffers", "_parameters", "_modules")

Place = tuple[Any, ...]  # the name of a module, of its attribute, and keys of containers


class Attribute(str):
    """An attribute's name within a place, as opposed to the key of a dictionary."""


def places_of(model: torch.nn.Module) -> tuple[Place, ...]:
    """Where the modules of a model hold sparse matrices.

    Attributes, also of classes, buffers, parameters, and what lists, tuples, dictionaries and objects in these hold.
    """
    found: list[Place] = []
    for name, module in model.named_modules():
        seen: dict[int, Any] = {}
        for key, value in _attributes(module).items():
            if not key.startswith("_cached"):
                found += _inside(value, (name, Attribute(key)), seen)
    return tuple(found)


def _attributes(module: torch.nn.Module) -> dict[str, Any]:
    classes = [vars(base) for base in type(module).__mro__[::-1] if not _is_foreign(base)]
    of_class = {key: value for names in classes for key, value in names.items() if is_matrix(value)}
    own = {key: value for key, value in vars(module).items() if key not in _STRUCTURE}
    return {**of_class, **own, **module._buffers, **module._parameters}


def _inside(value: Any, place: Place, seen: dict[int, Any]) -> list[Place]:
    if is_matrix(value):
        return [place]
    items = _items(value)
    if not items or id(value) in seen or len(place) > _DEEPEST:
        return []
    seen[id(value)] = value
    return [found for key, item in items for found in _inside(item, (*place, key), seen)]


def _items(value: Any) -> list[tuple[Any, Any]]:
    """What a container or an object of the user's holds, by key; nothing for anything else."""
    if isinstance(value, dict):
        return list(value.items())
    if isinstance(value, (list, tuple)):
        return list(enumerate(value))
    if isinstance(value, (Tensor, torch.nn.Module, type)) or _is_foreign(type(value)):
        return []
    held = getattr(value, "__dict__", None)
    return [(Attribute(key), item) for key, item in held.items()] if isinstance(held, dict) else []


def _is_foreign(kind: type) -> bool:
    """Whether a class is of a library, whose objects do not hold what forward multiplies by."""
    top = kind.__module__.split(".")[0]
    return top in ("torch", "numpy", "scipy", "pandas", "builtins", "logging", "threading", "weakref", "functools")


class Held:
    """The places of a model's matrices, looked for again where the model is another."""

    def __init__(self) -> None:
        self._state: int | None = None
        self._places: tuple[Place, ...] = ()

    def places(self, model: torch.nn.Module, state: int) -> tuple[Place, ...]:
        """Where matrices are now; `state` is the model's, see `ModelState`."""
        if state != self._state or not all(is_matrix(held_at(model, place)) for place in self._places):
            self._state, self._places = state, places_of(model)
        return self._places


def held_at(model: torch.nn.Module, place: Place) -> Any:
    """What is at a place now; None where there is no such place any more."""
    name, *keys = place
    try:
        value: Any = model.get_submodule(name) if name else model
        for key in keys:
            value = _at(value, key)
    except (AttributeError, LookupError, TypeError):
        return None
    return value


def _at(value: Any, key: Any) -> Any:
    return getattr(value, key) if isinstance(key, Attribute) else value[key]


def name_of(place: Place) -> str:
    """`self.layers.0.adj`, as an error calls it."""
    return ".".join(["self", *(str(part) for part in place if part != "")])


@contextlib.contextmanager
def in_place(model: torch.nn.Module, matrices: Mapping[Place, Any]) -> Iterator[None]:
    """Other matrices at their places, for the time of the context."""
    undo: list[Callable[[], Any]] = []
    try:
        for (name, *keys), matrix in matrices.items():
            _put(model.get_submodule(name) if name else model, keys, matrix, undo)
        yield
    finally:
        for back in reversed(undo):
            back()


def _put(container: Any, keys: list[Any], matrix: Any, undo: list[Callable[[], Any]]) -> None:
    """Write into a container or an object; a tuple on the way is made anew."""
    key, *rest = keys
    old = _at(container, key)
    new = _changed(old, rest, matrix, undo) if rest else matrix
    if new is not old:
        holder = _holder(container, key)
        if not isinstance(holder, dict) or key in holder:
            undo.append(lambda: holder.__setitem__(key, old))
        else:  # of the class
            undo.append(lambda: holder.pop(key))
        holder[key] = new


def _holder(container: Any, key: Any) -> Any:
    """What an item is written into: the dictionary of an attribute, or the container itself."""
    if not isinstance(key, Attribute):
        return container
    if not isinstance(container, torch.nn.Module):
        return vars(container)
    return next((held for held in (container._buffers, container._parameters) if key in held), vars(container))


def _changed(value: Any, keys: list[Any], matrix: Any, undo: list[Callable[[], Any]]) -> Any:
    """The same container where it can be written, a new one for a tuple."""
    if not isinstance(value, tuple):
        _put(value, keys, matrix, undo)
        return value
    items, (key, *rest) = list(value), keys
    items[key] = _changed(items[key], rest, matrix, undo) if rest else matrix
    return type(value)(*items) if hasattr(value, "_fields") else tuple(items)
