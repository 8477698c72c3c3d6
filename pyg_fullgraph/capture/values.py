"""Whether a value of a trace depends on features or parameters, or on the graph alone."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.fx.experimental.proxy_tensor import get_proxy_mode, get_proxy_slot

_SIZES = (torch.ops.aten.sym_size.int, torch.ops.aten.sym_numel.default)


def depends_on_values(value: Tensor) -> bool:
    """True where floating point values of an argument or a parameter decide the entries of a tensor of the trace."""
    mode = get_proxy_mode()
    slot: Any = get_proxy_slot(value, mode.tracer, None) if mode is not None else None
    stack, seen = [slot.proxy.node] if slot is not None else [], set()
    while stack:
        node = stack.pop()
        if node in seen or node.target in _SIZES:
            continue
        seen.add(node)
        known = node.meta.get("val")
        if node.op == "placeholder" and isinstance(known, Tensor) and known.is_floating_point():
            return True
        stack += node.all_input_nodes
    return False
