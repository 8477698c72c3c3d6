"""What a forward takes that hands its `*args` and `**kwargs` on: the parameters of what it calls with them."""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections.abc import Callable
from types import MethodType
from typing import Any

import torch

_VARIADIC = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
_DEEPEST = 8  # wrappers around wrappers


def parameters_of(function: Callable[..., Any], depth: int = 0) -> list[inspect.Parameter]:
    """The parameters that a call of a bound method (or function) takes by name.

    ``forward(self, *args, **kwargs)`` that calls ``self.encoder(*args, **kwargs)`` takes what the encoder takes. The
    first such call in its text counts; where there is none the parameters are those of the function itself.

    Returns:
        The parameters in order; variadic ones left out unless nothing is known of what they are handed to. Those that
        are handed on by ``**kwargs`` alone are keyword-only.
    """
    own = list(inspect.signature(function).parameters.values())
    named = [parameter for parameter in own if parameter.kind not in _VARIADIC]
    rest = {parameter.kind: parameter.name for parameter in own if parameter.kind in _VARIADIC}
    found = _handed_on(function, rest) if rest and depth < _DEEPEST else None
    if found is None:
        return own
    callee, taken = found
    inner = _parameters(callee, depth + 1)
    known = {parameter.name for parameter in named} | {key for key in taken if isinstance(key, str)}
    inner = inner[sum(isinstance(key, int) for key in taken) :]
    if inspect.Parameter.VAR_POSITIONAL not in rest:
        inner = [p.replace(kind=p.KEYWORD_ONLY) if p.kind not in _VARIADIC else p for p in inner]
    return named + [parameter for parameter in inner if parameter.name not in known]


def _parameters(callee: Any, depth: int) -> list[inspect.Parameter]:
    """The parameters of a module's forward, or of a function."""
    if not isinstance(callee, torch.nn.Module):
        return parameters_of(callee, depth)
    declared = getattr(getattr(callee, "signature", None), "param_dict", None)  # torch_geometric.nn.Sequential
    if declared is not None:
        return [inspect.Parameter(name, inspect.Parameter.POSITIONAL_OR_KEYWORD) for name in declared]
    return parameters_of(callee.forward, depth)


def _handed_on(function: Callable[..., Any], rest: dict[Any, str]) -> tuple[Any, list[int | str]] | None:
    """What a function calls with its variadic arguments; what else it gives it, by position or name."""
    owner = getattr(function, "__self__", None)
    text = _source(function)
    if owner is None or text is None or not text.args.args:
        return None
    selfname = text.args.args[0].arg
    for call in (node for node in ast.walk(text) if isinstance(node, ast.Call)):
        stars = [item.value for item in call.args if isinstance(item, ast.Starred)]
        stars += [item.value for item in call.keywords if item.arg is None]
        if not any(isinstance(star, ast.Name) and star.id in rest.values() for star in stars):
            continue
        callee = _resolved(call.func, selfname, owner, function)
        if callable(callee):
            before: list[int | str] = [i for i, item in enumerate(call.args) if not isinstance(item, ast.Starred)]
            return callee, before + [item.arg for item in call.keywords if item.arg is not None]
    return None


def _source(function: Callable[..., Any]) -> ast.FunctionDef | None:
    """The text of a function, None where there is none."""
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(inspect.unwrap(getattr(function, "__func__", function)))))
    except (OSError, TypeError, SyntaxError):
        return None
    return tree.body[0] if tree.body and isinstance(tree.body[0], ast.FunctionDef) else None


def _resolved(node: ast.expr, selfname: str, owner: Any, function: Any) -> Any:
    """The object that an expression like ``self.net.encoder`` or ``super().forward`` names; None for all others."""
    if isinstance(node, ast.Name):
        return owner if node.id == selfname else None
    if isinstance(node, ast.Attribute):
        below = _resolved(node.value, selfname, owner, function)
        return getattr(below, node.attr, None) if below is not None else None
    if isinstance(node, ast.Subscript) and isinstance(node.slice, ast.Constant):
        parts, key = _resolved(node.value, selfname, owner, function), node.slice.value
        if isinstance(parts, torch.nn.ModuleList) and isinstance(key, int):
            return parts[key]
        return parts[key] if isinstance(parts, torch.nn.ModuleDict) and isinstance(key, str) else None
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "super":
        plain = inspect.unwrap(getattr(function, "__func__", function))
        defined = next((cls for cls in type(owner).__mro__ if vars(cls).get(plain.__name__) is plain), None)
        return super(defined, owner) if defined is not None else None
    return None


def is_method(function: Any) -> bool:
    """Whether this is a method bound to a module."""
    return isinstance(function, MethodType) and isinstance(function.__self__, torch.nn.Module)
