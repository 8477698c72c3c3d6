"""Putting a call of a Python handle into the graph that is being traced."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.fx.experimental.proxy_tensor import get_proxy_mode, get_proxy_slot, track_tensor_tree
from torch.utils._python_dispatch import _disable_current_modes

from pyg_fullgraph.capture.operators import OpaqueAggregation


def record_opaque(
    handle: OpaqueAggregation,
    parameters: dict[str, Tensor],
    x: Tensor,
    index: Tensor,
    dim_size: Any,
    dim: int,
) -> Tensor:
    """Add `handle(x, index, dim_size, dim)` as one node and return its fake result.

    The number of output columns is found by running the module once on two rows of zeros.

    Args:
        handle: the node's target.
        parameters: the module's real parameters and buffers, by name.
        x, index, dim_size: fake, as the traced forward has them.
        dim: the axis of `x` that is aggregated.
    """
    mode = get_proxy_mode()
    assert mode is not None
    dim = dim + x.dim() if dim < 0 else dim
    columns = _output_columns(handle, parameters, x, dim)
    result = x.new_empty([*x.shape[:dim], dim_size, *columns])
    proxies = [_proxy_of(item, mode.tracer) for item in (x, index, dim_size)]
    proxy = mode.tracer.create_proxy("call_function", handle, (*proxies, dim), {})
    return track_tensor_tree(result, proxy, constant=None, tracer=mode.tracer)


def _output_columns(handle: OpaqueAggregation, parameters: dict[str, Tensor], x: Tensor, dim: int) -> list[Any]:
    """The sizes behind the aggregated axis; those that the graph decides are those of `x`."""
    small = _tiny_columns(handle, parameters, x, dim, 1)
    if not any(isinstance(size, torch.SymInt) for size in x.shape[dim + 1 :]):
        return small
    larger = _tiny_columns(handle, parameters, x, dim, 2)
    return [
        one if one == two else x.shape[dim + 1 + axis]
        for axis, (one, two) in enumerate(zip(small, larger, strict=True))
    ]


def _tiny_columns(
    handle: OpaqueAggregation, parameters: dict[str, Tensor], x: Tensor, dim: int, unknown: int
) -> list[int]:
    """The columns for two rows of zeros, with `unknown` in the place of sizes that the graph decides."""
    shape = [unknown if isinstance(size, torch.SymInt) else int(size) for size in x.shape]
    shape[dim] = 2
    with _disable_current_modes(), torch.no_grad():
        tiny = torch.zeros(shape, dtype=x.dtype, device=x.device)
        index = torch.zeros(2, dtype=torch.long, device=x.device)
        call_kwargs = {"index": index, "dim_size": 1, "dim": dim}
        out = torch.func.functional_call(handle.module, parameters, (tiny,), call_kwargs)
    return list(out.shape[dim + 1 :])


def _proxy_of(value: Any, tracer: Any) -> Any:
    if isinstance(value, Tensor):
        return get_proxy_slot(value, tracer).proxy
    if isinstance(value, torch.SymInt):
        return get_proxy_slot(value, tracer).force()
    return value
