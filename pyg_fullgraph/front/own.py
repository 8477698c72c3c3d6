"""The model's own forward, on other graphs and in another type, without a trace of it on the model."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from pyg_fullgraph.capture.modules import preserved
from pyg_fullgraph.front.compare import leaves

Forward = Callable[..., Any]
Call = tuple[tuple[Any, ...], dict[str, Any]]


@contextmanager
def pristine(model: torch.nn.Module) -> Iterator[None]:
    """Lets a model run on another graph and forget it: caches of ``cached=True`` layers are not used or
    filled."""
    with preserved(model):
        for module in model.modules():
            attributes = vars(module)
            if attributes.get("cached") is True:
                attributes["cached"] = False
            for name in [name for name in attributes if name.startswith("_cached")]:
                attributes[name] = None
        yield


def flows(forward: Forward) -> set[int]:
    """The rows of the edge list from which the layers of a module send messages."""
    if not isinstance(forward, torch.nn.Module):
        return set()
    flows = {str(getattr(module, "flow", "")) for module in forward.modules()}
    return {row for row, flow in enumerate(("source_to_target", "target_to_source")) if flow in flows}


def untouched(forward: Forward) -> Forward:
    """The callable to trust, which leaves a module as it was."""
    if not isinstance(forward, torch.nn.Module):
        return forward
    module, trusted = forward, getattr(forward, "oracle", forward)

    def run(*args: Any, **kwargs: Any) -> Any:
        with pristine(module):
            return trusted(*args, **kwargs)

    return run


def in_float64(forward: Forward, call: Call) -> Callable[[], list[Tensor]]:
    """What runs a module in float64 and returns its tensors; none where it does not run in that type.

    Args:
        forward: a module, copied only when it runs; of any other callable there is nothing.
        call: the arguments, positional and by name.
    """

    def run() -> list[Tensor]:
        if not isinstance(forward, torch.nn.Module):
            return []
        args, kwargs = pytree.tree_map(_widened, call)
        try:
            with torch.no_grad():
                return leaves(untouched(copy.deepcopy(forward).double())(*args, **kwargs))
        except Exception:  # the user's code may raise anything; then float32 alone decides
            return []

    return run


def _widened(leaf: Any) -> Any:
    return leaf.double() if isinstance(leaf, Tensor) and leaf.is_floating_point() else leaf
