"""What a forward writes into that outlives the call: attributes, lists and dictionaries, global names.

A captured program writes nothing, and what is written while it is traced or verified is no value of the user's graph:
tensors without memory, or the rows of a few nodes. So `Writes` puts that back, and says by name what was written.
"""

from __future__ import annotations

import dis
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from types import CodeType, FunctionType, MethodType, ModuleType
from typing import Any

import torch
from torch import Tensor

from pyg_fullgraph.capture.codes import LIBRARIES

_CONTAINERS = (list, dict, set, deque)
_TRACED = (Tensor, torch.SymInt, torch.SymFloat, torch.SymBool)
_LIBRARIES = LIBRARIES | {"builtins", "collections", "logging"}  # a namespace of argparse is the user's
_DEEPEST = 5
_ABSENT = object()
_STORE_GLOBAL = dis.opmap["STORE_GLOBAL"]


class Writes:
    """A context: what the code of a model writes meanwhile.

    Args:
        model: its attributes are looked at, and what its classes' code and its hooks name from outside.
        everything: put back all that was written, not only what tensors were written into.
    """

    def __init__(self, model: torch.nn.Module, everything: bool = False) -> None:
        self.model, self.everything = model, everything
        self._places: list[_Place] = []
        self._written: list[_Place] = []

    def __enter__(self) -> Writes:
        self._written = []
        self._places = list(_places(self.model))
        return self

    def __exit__(self, *error: Any) -> None:
        for place in self._places:
            changed, tensors = place.compared()
            if tensors or (changed and self.everything):
                place.put_back()
            if changed:
                self._written.append(place)
        self._places = []

    def names(self, apart: Iterable[Callable[..., Any]] = ()) -> list[str]:
        """What was written to, but for what these functions (hooks) name."""
        excused = {place.key for function in apart for place in _reached(function, "")}
        told = [name for place in self._written if place.key not in excused for name in place.labels()]
        return list(dict.fromkeys(told))


class _Place:
    """Something that can be written to, and what it held."""

    def __init__(self, key: Any, name: str, target: Any) -> None:
        self.key, self.name, self.target = key, name, target
        self.before = self._now()

    def labels(self) -> list[str]:
        """What users may call it."""
        return [self.name]

    def _now(self) -> Any:
        raise NotImplementedError

    def put_back(self) -> None:
        """As it was."""
        raise NotImplementedError

    def compared(self) -> tuple[bool, bool]:
        """Whether something else is in it than was, and whether that is a tensor, or a number of a trace."""
        before, now = self.before, self._now()
        known = {id(item) for item in before}
        new = [item for item in now if id(item) not in known]
        changed = len(now) != len(before) or any(a is not b for a, b in zip(now, before, strict=True))
        return changed, any(_has_tensor(item) for item in new)


class _Container(_Place):
    """A list, dictionary, set or deque."""

    def _now(self) -> list[Any]:
        held = self.target
        if isinstance(held, dict):
            return [item for pair in held.items() for item in pair]
        return sorted(held, key=id) if isinstance(held, set) else list(held)

    def put_back(self) -> None:
        before = self.before
        self.target.clear()
        if isinstance(self.target, dict):
            self.target.update(zip(before[::2], before[1::2], strict=True))
        elif isinstance(self.target, set):
            self.target.update(before)
        else:
            self.target.extend(before)


class _Global(_Place):
    """A global name."""

    def _now(self) -> list[Any]:
        return [self.target.get(self.name, _ABSENT)]

    def put_back(self) -> None:
        if self.before[0] is _ABSENT:
            self.target.pop(self.name, None)
        else:
            self.target[self.name] = self.before[0]


class _Attributes(_Place):
    """All attributes of a module, which come and go."""

    def _now(self) -> list[Any]:
        return [item for pair in sorted(self.target.items(), key=lambda pair: str(pair[0])) for item in pair]

    def compared(self) -> tuple[bool, bool]:
        """`preserved` puts them back."""
        before = dict(zip(self.before[::2], self.before[1::2], strict=True))
        self.changed = [
            key
            for key, value in self.target.items()
            if not key.startswith(("_cached", "_use_segment")) and value is not before.get(key, _ABSENT)
        ]
        return bool(self.changed), False

    def labels(self) -> list[str]:
        return [f"{self.name}.{key}" if self.name else f"self.{key}" for key in self.changed]

    def put_back(self) -> None:
        """Left to `preserved`."""


class _Cell(_Place):
    """A variable of an enclosing function."""

    def _now(self) -> list[Any]:
        try:
            return [self.target.cell_contents]
        except ValueError:  # not assigned yet
            return [_ABSENT]

    def put_back(self) -> None:
        if self.before[0] is not _ABSENT:
            self.target.cell_contents = self.before[0]


def _has_tensor(item: Any, depth: int = 0) -> bool:
    if isinstance(item, _TRACED):
        return True
    if depth < 3 and isinstance(item, (list, tuple, set, deque)):
        return any(_has_tensor(inner, depth + 1) for inner in item)
    if depth < 3 and isinstance(item, dict):
        return any(_has_tensor(inner, depth + 1) for inner in item.values())
    return False


# Where something may be written ---------------------------------------------------------------------------------


def _places(model: torch.nn.Module) -> Iterator[_Place]:
    seen: set[Any] = set()
    everywhere = torch.nn.modules.module
    for hook in (*everywhere._global_forward_hooks.values(), *everywhere._global_forward_pre_hooks.values()):
        yield from _new(_reached(hook, ""), seen)
    for name, module in model.named_modules():
        own = type(module).__module__.split(".")[0] not in _LIBRARIES
        if own:
            yield _Attributes(("module", id(module)), name, vars(module))
        hooks = {**module._forward_hooks, **module._forward_pre_hooks}
        functions: list[Any] = [function for cls in type(module).__mro__ for function in _functions(cls)]
        functions += [value for value in vars(module).values() if isinstance(value, (FunctionType, MethodType))]
        roots: list[tuple[Any, str]] = [(function, "") for function in (*functions, *hooks.values())]
        if own:
            label = f"{name}." if name else "self."
            roots += [(value, f"{label}{key}") for key, value in vars(module).items() if not key.startswith("_")]
        for value, label in roots:
            yield from _new(_reached(value, label), seen)


def _new(places: Iterable[_Place], seen: set[Any]) -> Iterator[_Place]:
    for place in places:
        if place.key not in seen:
            seen.add(place.key)
            yield place


def _functions(cls: type) -> list[FunctionType]:
    """The methods of a class of the user's."""
    if cls.__module__.split(".")[0] in _LIBRARIES:
        return []
    return [value for value in vars(cls).values() if isinstance(value, FunctionType)]


def _reached(value: Any, name: str) -> Iterator[_Place]:
    """Everything that can be written to by way of a value, a few steps away."""
    stack, met = [(value, name, 0)], set()
    while stack:
        item, label, depth = stack.pop()
        if id(item) in met or depth > _DEEPEST or isinstance(item, (Tensor, type, torch.nn.Module)):
            continue
        met.add(id(item))
        if isinstance(item, _CONTAINERS):
            yield _Container(("in", id(item)), label, item)
            inner = list(item.values()) if isinstance(item, dict) else list(item)
            stack += [(one, label, depth + 1) for one in inner[:1000]]
        elif isinstance(item, MethodType):
            stack += [(item.__self__, f"{label}self", depth + 1), (item.__func__, label, depth + 1)]
        elif isinstance(item, FunctionType):
            for place, one, inside in _named_by(item):
                yield place
                stack.append((one, inside, depth + 1))
        elif not isinstance(item, ModuleType) and type(item).__module__.split(".")[0] not in _LIBRARIES:
            held = getattr(item, "__dict__", None)
            if isinstance(held, dict):
                label = label or type(item).__name__
                yield _Container(("in", id(held)), label, held)
                stack += [(one, f"{label}.{key}", depth + 1) for key, one in held.items()]


def _named_by(function: FunctionType) -> Iterator[tuple[_Place, Any, str]]:
    """The variables around a function, and the global names in its code, with what they hold."""
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        place = _Cell(("cell", id(cell)), name, cell)
        yield place, place.before[0], name
    if str(function.__module__).split(".")[0] in _LIBRARIES:
        return
    names, makes = function.__globals__, _makes_names(function.__code__)
    for name in dict.fromkeys(_names_in(function.__code__)):
        if name in names or makes:
            yield _Global(("global", id(names), name), name, names), names.get(name), name


def _makes_names(code: CodeType) -> bool:
    """Whether a function assigns to global names."""
    inner = [constant for constant in code.co_consts if isinstance(constant, CodeType)]
    return _STORE_GLOBAL in code.co_code[::2] or any(map(_makes_names, inner))


def _names_in(code: CodeType) -> Iterator[str]:
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _names_in(constant)
