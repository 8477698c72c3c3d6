"""The model itself: what must hold before a trace, and what a trace must leave as it was."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn.parameter import UninitializedBuffer, UninitializedParameter

from pyg_fullgraph.capture.matrices import is_matrix
from pyg_fullgraph.capture.problems import Problem, Problems
from pyg_fullgraph.errors import InputError

_CONTAINERS = (dict, list, set)
_NONE: Mapping[str, torch.nn.Module] = {}
_LAZY = (UninitializedParameter, UninitializedBuffer)


def check_ready(model: torch.nn.Module) -> None:
    """Refuse a model whose captured program would not be its eager forward.

    Raises:
        InputError: in train mode.
    """
    training = [
        name or type(model).__name__ for name, module in model.named_modules() if getattr(module, "training", False)
    ]
    if training and all("parametrizations" in name for name in training):
        raise InputError(
            f"'{training[0]}' is in train mode: it was registered (weight_norm, spectral_norm) after model.eval(). "
            "Call model.eval() again."
        )
    if training:
        raise InputError(
            f"The model is in train mode ({len(training)} modules, '{training[0]}' first): dropout and "
            "batch statistics "
            "would be random. Call model.eval() first."
        )


def hook_problems(model: torch.nn.Module, more: Mapping[str, torch.nn.Module] = _NONE) -> Problems:
    """Message-passing hooks and explanation masks, which torch_geometric skips in a traced forward.

    Args:
        model: with its registered modules.
        more: modules by name that are not registered (in plain lists).
    """
    found = Problems()
    for name, module in {**dict(model.named_modules()), **more}.items():
        for problem in _hooks(name or type(module).__name__, module):
            found.add(problem)
        if isinstance(module, torch.jit.ScriptModule):
            why = f"in layer '{name or type(module).__name__}' has no Python code that could be captured"
            advice = "Use the eager module that it was compiled from."
            found.add(Problem("what torch.jit compiled", why, advice))
    return found


def _hooks(layer: str, module: torch.nn.Module) -> list[Problem]:
    names = ("propagate", "message", "aggregate", "message_and_aggregate", "edge_update")
    hooked = [
        f"{hook}_forward{when}_hooks"
        for hook in names
        for when in ("_pre", "")
        if any(not _is_of_pyg(function) for function in getattr(module, f"_{hook}_forward{when}_hooks", {}).values())
    ]
    out = []
    if hooked:
        why = "runs Python for every message, which a captured program does not"
        advice = "Remove it (handle.remove()), or move what it does into message() or forward()."
        out.append(Problem(", ".join(hooked), f"of layer '{layer}' {why}", advice))
    if getattr(module, "explain", None) is True:
        advice = "Call torch_geometric.explain.algorithm.utils.clear_masks(model) first."
        out.append(Problem("explain mode", f"of layer '{layer}' has an edge mask that would be left out", advice))
    return out


def _is_of_pyg(hook: Any) -> bool:
    """True for a hook that torch_geometric itself registers (`to_hetero_with_bases`): those are traced."""
    return str(getattr(hook, "__module__", "")).startswith("torch_geometric.")


@contextlib.contextmanager
def replaced(owner: Any, name: str, value: Any) -> Iterator[None]:
    """`owner.name = value` for the time of the context."""
    own = name in vars(owner)
    old = getattr(owner, name)
    setattr(owner, name, value)
    try:
        yield
    finally:
        if own:
            setattr(owner, name, old)
        else:
            delattr(owner, name)


@contextlib.contextmanager
def preserved(model: torch.nn.Module, more: Iterable[torch.nn.Module] = ()) -> Iterator[None]:
    """Put every attribute of every module back on exit: forwards store (then fake) tensors on modules.

    Args:
        model: with its registered modules.
        more: others, in plain lists for instance.
    """
    saved: list[tuple[torch.nn.Module, dict[str, Any], list[tuple[Any, Any]]]] = []
    for module in dict.fromkeys((*model.modules(), *more)):
        attributes = vars(module)
        containers = [(item, item.copy()) for item in attributes.values() if isinstance(item, _CONTAINERS)]
        saved.append((module, dict(attributes), containers))
    try:
        yield
    finally:
        for module, attributes, containers in saved:
            vars(module).clear()
            vars(module).update(attributes)
            for item, copied in containers:
                _restore(item, copied)


def _restore(item: Any, copied: Any) -> None:
    if isinstance(item, list):
        item[:] = copied
    elif isinstance(item, dict):
        if len(item) != len(copied) or any(item.get(key) is not value for key, value in copied.items()):
            item.clear()
            item.update(copied)
    elif item != copied:
        item.clear()
        item.update(copied)


def plain_tensors(model: torch.nn.Module) -> dict[str, Tensor]:
    """Tensors that are plain attributes of modules (`self.mask = tensor`), by qualified name."""
    found: dict[str, Tensor] = {}
    for prefix, module in model.named_modules():
        for key, value in vars(module).items():
            if isinstance(value, Tensor) and not key.startswith("_cached") and not is_matrix(value):
                found[f"{prefix}.{key}" if prefix else key] = value
    return found


def lifted_tensors(model: torch.nn.Module) -> dict[str, Tensor]:
    """What a trace lifts to inputs from the start: parameters, buffers (shared ones once) and plain tensor attributes.

    Lazy parameters without a shape are left out, see `capture.lazy`, and sparse matrices, see `capture.sparse.held`.
    Tensors elsewhere (in lists, in objects) become inputs when the trace has read them, see `capture.adopt`.
    """
    tensors = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    known = {name: t for name, t in tensors.items() if not isinstance(t, _LAZY) and not is_matrix(t)}
    return {**known, **plain_tensors(model)}
