"""Running a traced graph on another graph, and comparing it with the model's own forward."""

from __future__ import annotations

from typing import Any

import torch
import torch.utils._pytree as pytree
from torch import Tensor

from pyg_fullgraph.capture import Signature, Traced, bind, trace
from pyg_fullgraph.capture.walk import Walk


def capture(module: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any] | None = None) -> Traced:
    return trace(module, bind(module, args, kwargs or {})[0])


def replay(
    module: torch.nn.Module, traced: Traced, args: tuple[Any, ...], kwargs: dict[str, Any] | None = None
) -> list[Tensor]:
    """The outputs' tensors, computed by the traced graph with the real sizes and the parameters of now."""
    signature, tensors = bind(module, args, kwargs or {})
    assert_same_call(traced, signature)
    traced.check(signature.sizes(tensors))
    named = {**Walk(module).tensors, **traced.held}
    parameters = [named[name] for name in traced.param_names.values()]
    with torch.no_grad():
        return list(torch.fx.Interpreter(traced.module()).run(*parameters, *tensors))


def assert_same_call(traced: Traced, signature: Signature) -> None:
    assert tuple(traced.input_names.values()) == signature.leaves


def eager(module: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any] | None = None) -> list[Tensor]:
    with torch.no_grad():
        result = module(*args, **(kwargs or {}))
    return [leaf for leaf in pytree.tree_leaves(result) if isinstance(leaf, Tensor)]


def assert_equal(got: list[Tensor], expected: list[Tensor]) -> None:
    """Element by element, within 1e-4 of the largest magnitude."""
    assert len(got) == len(expected)
    for one, other in zip(got, expected, strict=True):
        assert one.shape == other.shape and one.dtype == other.dtype
        scale = float(other.abs().nan_to_num(posinf=0.0).max()) if other.numel() else 1.0
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4 * max(scale, 1e-3), equal_nan=True)
