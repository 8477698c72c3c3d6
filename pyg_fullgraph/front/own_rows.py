"""The model's own forward where nothing is captured for a call, with the rows that were asked for."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from pyg_fullgraph.capture.hooks import Hidden, tapped
from pyg_fullgraph.capture.signature import Signature
from pyg_fullgraph.errors import CallError, CaptureError
from pyg_fullgraph.front.own import Own, OwnFailed
from pyg_fullgraph.runtime.selection import Nodes, forward_axes

_PLAIN = (
    RuntimeError,
    TypeError,
    ValueError,
    IndexError,
    KeyError,
    AttributeError,
    AssertionError,
    NotImplementedError,
)


def own_instead(error: CaptureError, own: Callable[[], Any]) -> Any:
    """What the model's own forward gives for a call that is not captured.

    Args:
        error: why it is not.
        own: runs the forward.

    Raises:
        CallError: the forward refuses the call as well, by an error of Python or torch, which is its cause. Errors of
            other kinds (the model's own, memory) are raised as they are.
    """
    try:
        return own()
    except Exception as raised:
        if type(raised) not in _PLAIN:
            raise
        if isinstance(error, CallError):  # says what to pass instead
            raise error from raised
        lines = str(raised).strip().splitlines() or [""]
        text = f"The model's own forward raises {type(raised).__name__} for this call: {lines[0]}"
        raise CallError(f"{text} (fallback='eager' ran it, since: {error.problems[0]})") from raised


def own_forward(
    model: torch.nn.Module,
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    nodes: Nodes | None,
    signature: Signature | None = None,
    tensors: list[Tensor] | None = None,
    outputs: tuple[str, ...] = (),
) -> Any:
    """What `model(*args, **kwargs)` gives, of all nodes or of some.

    Args:
        model, args, kwargs: the call.
        nodes: which rows are asked for; all if None.
        signature, tensors: the call, taken apart; None where that cannot be: the rows of the first result are nodes.
        outputs: submodules whose outputs are returned beside the result, see `capture.hooks.tapped`.

    Raises:
        InputError: `nodes` does not fit what the model returns.
    """
    with tapped(model, outputs) as values:
        result = model(*args, **kwargs)
        result = (result, values()) if outputs else result
    if nodes is None:
        return result
    if signature is None or tensors is None:
        return nodes.of_forward(result, *forward_axes(result, {}))
    sizes = signature.sizes(tensors)
    grown = _grown(model, signature, tensors, outputs) if _is_ambiguous(model, signature, sizes) else None
    return nodes.of_forward(result, *forward_axes(result, sizes, grown))


def _is_ambiguous(model: torch.nn.Module, signature: Signature, sizes: Mapping[str, int]) -> bool:
    """Whether a size of a result may be the number of nodes by chance."""
    nodes = [size for space, size in sizes.items() if space.startswith("N")]
    fixed = {dim for leaf in signature.leaves for dim in leaf.dims if not isinstance(dim, str)}
    fixed |= {size for tensor in (*model.parameters(), *model.buffers()) for size in tensor.shape}
    others = {size for space, size in sizes.items() if not space.startswith(("N", "number:"))}
    return bool(set(nodes) & (fixed | others)) or len(set(nodes)) < len(nodes)


def _grown(model: torch.nn.Module, signature: Signature, tensors: list[Tensor], outputs: tuple[str, ...]) -> Any:
    """What forward gives for one more node of every kind, without edges; None where it gives nothing."""
    more = []
    for leaf, tensor in zip(signature.leaves, tensors, strict=True):
        for axis, dim in enumerate(leaf.dims):
            if isinstance(dim, str) and dim.startswith("N"):
                shape = [1 if i == axis else size for i, size in enumerate(tensor.shape)]
                last = tensor.narrow(axis, tensor.size(axis) - 1, 1) if tensor.size(axis) else tensor.new_zeros(shape)
                tensor = torch.cat([tensor, last], axis)
        more.append(tensor)
    try:
        return Own(model, hidden=Hidden(outputs))(lambda: signature.call(more))
    except OwnFailed:  # a model of this one number of nodes may raise anything; sizes decide
        return None


def without_nodes(sizes: Mapping[str, int]) -> bool:
    """True for the empty graph, and for one that lacks all nodes of some type: there is nothing to compute."""
    return any(space.startswith("N") and size == 0 for space, size in sizes.items())
