"""A plain function as a module, so that it is captured like any model.

A trace reads the parameters of modules and the arguments of forward at every call; whatever else a function reads
from outside would be copied into the trace and go stale. So the modules that a function reads become sub-modules,
and tensors, graphs and data objects that it reads are refused, with what to do.
"""

from __future__ import annotations

import dis
import functools
import sys
from collections.abc import Callable, Iterator, Mapping
from types import CodeType, FunctionType, MethodType, ModuleType
from typing import Any

import torch
from torch import Tensor
from torch_geometric.data import Data, HeteroData

from pyg_fullgraph.errors import InputError
from pyg_fullgraph.graph import Graph

_DEEPEST = 4  # containers, objects and helper functions that are looked into


class Function(torch.nn.Module):
    """A function as a module whose forward it is; always in evaluation mode.

    Args:
        function: a function, method or callable object on tensors, `Graph`s and what else a forward takes.

    Raises:
        InputError: if it reads a tensor, a graph or a data object that is not among its arguments.
    """

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__()
        self.training = False  # not eval(): the modules it reads stay as they are
        modules, refused = _read_by(function)
        if refused:
            raise InputError(
                f"{name_of(function)} reads {', '.join(refused)} from outside. Pass every tensor and graph as an "
                "argument, or keep tensors in a torch.nn.Module: a compiled function reads its arguments and the "
                "parameters of modules at every call, and would never see the rest change."
            )
        for name, module in modules.items():
            self.add_module(f"{name}_" if hasattr(self, name) else name, module)
        self.forward = function

    @property
    def calls_only(self) -> torch.nn.Module | None:
        """The model that this is a method of: names of submodules are its own."""
        owner = getattr(self.forward, "__self__", None)
        return owner if isinstance(owner, torch.nn.Module) else None


def as_module(function: Callable[..., Any]) -> torch.nn.Module:
    """Returns a `Function` whose class bears the function's name, as it is shown in messages.

    Args:
        function: see `Function`.
    """
    named: type[Function] = type(name_of(function), (Function,), {"__module__": __name__})
    return named(function)


def name_of(function: Callable[..., Any]) -> str:
    """What a callable is called."""
    while isinstance(function, functools.partial):
        function = function.func
    return str(getattr(function, "__name__", type(function).__name__)).strip("<>")


def _read_by(function: Callable[..., Any]) -> tuple[dict[str, torch.nn.Module], list[str]]:
    """The modules that a function reads from outside, by name; and what it must not read, in words."""
    modules: dict[str, torch.nn.Module] = {}
    refused: dict[int, str] = {}
    seen: dict[int, Any] = {}
    stack = [("function", function, 0)]
    while stack:
        name, value, depth = stack.pop()
        if id(value) in seen or depth > _DEEPEST:
            continue
        seen[id(value)] = value
        if isinstance(value, torch.nn.Module):
            stem = name.replace(".", "_").strip("_") or "module"
            modules[stem if stem not in modules else f"{stem}_{len(modules)}"] = value
        elif isinstance(value, (Tensor, Graph, Data, HeteroData)):
            kind = "the tensor" if isinstance(value, Tensor) else f"the {type(value).__name__}"
            refused[id(value)] = f"{kind} '{name}'"
        else:
            stack += [(label, item, depth + 1) for label, item in _inside(name, value)]
    return modules, sorted(refused.values())


def _inside(name: str, value: Any) -> Iterator[tuple[str, Any]]:
    """What a value that is no tensor and no module gives access to, by name."""
    if isinstance(value, functools.partial):
        yield name, value.func
        yield from ((f"{name}.args[{i}]", item) for i, item in enumerate(value.args))
        yield from value.keywords.items()
    elif isinstance(value, MethodType):
        yield "self", value.__self__
        yield name, value.__func__
    elif isinstance(value, FunctionType):
        if not _is_foreign(value.__module__):
            yield from _outer_names(value)
    elif isinstance(value, Mapping):
        yield from ((f"{name}[{key!r}]", item) for key, item in value.items())
    elif isinstance(value, (list, tuple, set, frozenset)):
        yield from ((f"{name}[{i}]", item) for i, item in enumerate(value))
    elif not isinstance(value, (type, ModuleType)) and not _is_foreign(type(value).__module__):
        yield from ((f"{name}.{key}", item) for key, item in getattr(value, "__dict__", {}).items())
        if callable(value):
            yield name, getattr(type(value).__call__, "__func__", type(value).__call__)


def _outer_names(function: FunctionType) -> Iterator[tuple[str, Any]]:
    """The globals and the variables of enclosing functions that a function reads, with their values."""
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        try:
            yield name, cell.cell_contents
        except ValueError:  # not assigned yet
            continue
    yield from ((f"{function.__name__}'s default", item) for item in function.__defaults__ or ())
    for code in _codes(function.__code__):
        for instruction in dis.get_instructions(code):
            if instruction.opname not in ("LOAD_GLOBAL", "LOAD_NAME"):
                continue
            name = str(instruction.argval)
            value = function.__globals__.get(name)
            if isinstance(value, ModuleType) and not _is_foreign(value.__name__):
                names = [attribute for attribute in code.co_names if attribute in vars(value)]
                yield from ((f"{name}.{attribute}", vars(value)[attribute]) for attribute in names)
            elif value is not None:
                yield name, value


def _codes(code: CodeType) -> Iterator[CodeType]:
    """A function's code, and that of the functions inside it."""
    yield code
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _codes(constant)


def _is_foreign(module: str | None) -> bool:
    """Whether code is neither the user's nor reads the user's tensors: libraries."""
    top = (module or "builtins").split(".")[0]
    libraries = ("torch", "torch_geometric", "torch_scatter", "numpy", "scipy", "sympy", "pyg_fullgraph")
    return top in libraries or (top in sys.stdlib_module_names and top != "__main__")
