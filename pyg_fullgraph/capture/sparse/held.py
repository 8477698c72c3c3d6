"""Sparse matrices in the attributes of a model's modules: where they are, and others in their places for one call."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any

import torch

from pyg_fullgraph.capture.matrices import is_matrix

_DEEPEST = 3  # lists and dictionaries in one another

Place = tuple[Any, ...]  # the name of a module, of its attribute, and keys of containers


def places_of(model: torch.nn.Module) -> tuple[Place, ...]:
    """Where the modules of a model hold sparse matrices: attributes, buffers, parameters, lists and dictionaries."""
    found: list[Place] = []
    for name, module in model.named_modules():
        for attributes in (vars(module), module._buffers, module._parameters):
            for key, value in attributes.items():
                if key not in ("_buffers", "_parameters", "_modules") and not key.startswith("_cached"):
                    found += _inside(value, (name, key), 0)
    return tuple(found)


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


def _inside(value: Any, place: Place, depth: int) -> list[Place]:
    if is_matrix(value):
        return [place]
    if depth == _DEEPEST or not isinstance(value, (list, tuple, dict)):
        return []
    items = value.items() if isinstance(value, dict) else enumerate(value)
    return [found for key, item in items for found in _inside(item, (*place, key), depth + 1)]


def held_at(model: torch.nn.Module, place: Place) -> Any:
    """What is at a place now; None where there is no such place any more."""
    name, attribute, *keys = place
    try:
        value = getattr(model.get_submodule(name) if name else model, attribute)
        for key in keys:
            value = value[key]
    except (AttributeError, LookupError, TypeError):
        return None
    return value


def name_of(place: Place) -> str:
    """`self.layers.0.adj`, as an error calls it."""
    return ".".join(["self", *(str(part) for part in place if part != "")])


@contextlib.contextmanager
def in_place(model: torch.nn.Module, matrices: Mapping[Place, Any]) -> Iterator[None]:
    """Other matrices at their places, for the time of the context; all places of one attribute at a time."""
    undo: list[tuple[dict[str, Any], str, Any]] = []
    try:
        for owner, attribute in dict.fromkeys((place[0], place[1]) for place in matrices):
            module = model.get_submodule(owner) if owner else model
            own = next(item for item in (vars(module), module._buffers, module._parameters) if attribute in item)
            undo.append((own, attribute, own[attribute]))
            inside = {place[2:]: matrix for place, matrix in matrices.items() if place[:2] == (owner, attribute)}
            own[attribute] = _with(own[attribute], inside, ())
        yield
    finally:
        for own, attribute, value in reversed(undo):
            own[attribute] = value


def _with(value: Any, inside: Mapping[Place, Any], at: Place) -> Any:
    """A container with other matrices; a new one, the user's own is left as it is."""
    if at in inside:
        return inside[at]
    if not any(place[: len(at)] == at for place in inside):
        return value
    if isinstance(value, dict):
        made = value.copy()
        made.update({key: _with(item, inside, (*at, key)) for key, item in value.items()})
        return made
    items = [_with(item, inside, (*at, number)) for number, item in enumerate(value)]
    if isinstance(value, list):
        return items
    return type(value)(*items) if hasattr(value, "_fields") else tuple(items)
