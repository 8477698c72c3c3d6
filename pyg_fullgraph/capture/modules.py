"""The model itself: what must hold before a trace, what a trace must leave as it was, and what identifies a
model.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.nn.parameter import UninitializedBuffer, UninitializedParameter

from pyg_fullgraph.capture.matrices import is_matrix
from pyg_fullgraph.capture.problems import Problem, Problems
from pyg_fullgraph.errors import InputError

_CONTAINERS = (dict, list, set)
_PRIMITIVES = (bool, int, float, complex, str, bytes, type(None), torch.dtype, torch.device)
_VOLATILE = frozenset(
    ["_use_segment_matmul_heuristic_output", "_timing_cache", "_backward_hooks", "_is_full_backward_hook"]
)


def check_ready(model: torch.nn.Module) -> None:
    """Refuse a model whose captured program would not be its eager forward.

    Raises:
        InputError: in train mode, or with parameters that are not initialised yet.
    """
    training = [name or type(model).__name__ for name, module in model.named_modules() if module.training]
    if training:
        raise InputError(
            f"The model is in train mode ({len(training)} modules, '{training[0]}' first): dropout and "
            "batch statistics "
            "would be random. Call model.eval() first."
        )
    lazy = [n for n, p in _tensors(model).items() if isinstance(p, (UninitializedParameter, UninitializedBuffer))]
    if lazy:
        raise InputError(
            f"{len(lazy)} lazy parameters have no shape yet ('{lazy[0]}' first). Run the model once on a "
            "small batch of "
            "its data, as torch_geometric asks for lazy layers."
        )


def hook_problems(model: torch.nn.Module) -> Problems:
    """Message-passing hooks and explanation masks, which torch_geometric skips in a traced forward."""
    found = Problems()
    for name, module in model.named_modules():
        for problem in _hooks(name or type(module).__name__, module):
            found.add(problem)
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
def preserved(model: torch.nn.Module) -> Iterator[None]:
    """Put every attribute of every module back on exit: forwards store (then fake) tensors on modules."""
    saved: list[tuple[torch.nn.Module, dict[str, Any], list[tuple[Any, Any]]]] = []
    for module in model.modules():
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


def _tensors(model: torch.nn.Module) -> dict[str, Tensor]:
    """Parameters and buffers by name, but for sparse matrices (`capture.sparse.held`)."""
    found = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    return {name: tensor for name, tensor in found.items() if not is_matrix(tensor)}


def lifted_tensors(model: torch.nn.Module) -> dict[str, Tensor]:
    """Everything a trace lifts to inputs: parameters, buffers (shared ones once) and plain tensor
    attributes.
    """
    return {**_tensors(model), **plain_tensors(model)}


def resolve(model: torch.nn.Module, qualified_name: str) -> Tensor:
    """The tensor of a qualified name as it is now."""
    owner, _, attribute = qualified_name.rpartition(".")
    module = model.get_submodule(owner) if owner else model
    return getattr(module, attribute)


def module_fingerprint(model: torch.nn.Module) -> tuple[Any, ...]:
    """What a trace depends on besides the call: a changed fingerprint forces a new trace.

    Covers the class, `training` flag and primitive attributes (numbers, strings, None, functions, and
    containers of them) of every module, and names, shapes, dtypes and devices of parameters and buffers, not
    their values.
    """
    parts: list[Any] = []
    for name, module in model.named_modules():
        parts.append((name, type(module), _attributes(module)))
    for name, tensor in lifted_tensors(model).items():
        lazy = isinstance(tensor, (UninitializedParameter, UninitializedBuffer))
        parts.append((name, None if lazy else tuple(tensor.shape), tensor.dtype, str(tensor.device)))
    return tuple(parts)


def _attributes(module: torch.nn.Module) -> tuple[Any, ...]:
    out = []
    for key, value in vars(module).items():
        if key in _VOLATILE or key.startswith("_cached") or key in ("_parameters", "_buffers", "_modules"):
            continue
        frozen = _frozen(value)
        if frozen is not None:
            out.append((key, frozen))
    return tuple(out)


def _frozen(value: Any, depth: int = 0) -> Any:
    """A hashable stand-in for a primitive value; None where the value is not one."""
    if isinstance(value, _PRIMITIVES):
        return (type(value).__name__, repr(value))
    if depth < 3 and isinstance(value, (list, tuple)):
        return (type(value).__name__, tuple(_frozen(item, depth + 1) for item in value))
    if depth < 3 and isinstance(value, dict):
        return ("dict", tuple((repr(key), _frozen(item, depth + 1)) for key, item in value.items()))
    if callable(value) and not isinstance(value, torch.nn.Module):
        return ("callable", getattr(value, "__qualname__", ""), id(getattr(value, "__func__", value)))
    return None
