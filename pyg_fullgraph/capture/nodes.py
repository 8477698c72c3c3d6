"""Small tools for fx nodes that carry fake values."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, fx


def args_of(node: fx.Node) -> tuple[Any, ...]:
    """The positional arguments of a node, whose declared type is too wide to work with."""
    return node.args


def target_of(node: fx.Node) -> Any:
    """What a node calls."""
    return node.target


def fake_of(node: fx.Node) -> Any:
    """The fake value of a node: a tensor, a symbolic number, or a list of them."""
    return node.meta["val"]


def dtype_of(node: fx.Node) -> torch.dtype | None:
    value = node.meta.get("val")
    return value.dtype if isinstance(value, Tensor) else None


def expression(size: Any) -> Any:
    """A size in comparable form: sympy for symbolic sizes. Comparing the sizes themselves would ask about
    the data.
    """
    return size.node.expr if isinstance(size, torch.SymInt) else size


def expressions(value: Tensor) -> tuple[Any, ...]:
    return tuple(expression(size) for size in value.shape)


def same_shape(left: Tensor, right: Tensor) -> bool:
    """Equal shapes as far as is known without asking about the data."""
    return expressions(left) == expressions(right)


def insert(
    graph: fx.Graph,
    before: fx.Node,
    target: Any,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    *,
    like: fx.Node,
) -> fx.Node:
    """A new call in front of `before`, with the value and the source line of `like`."""
    with graph.inserting_before(before):
        node = graph.call_function(target, args, kwargs)
    node.meta["val"] = like.meta["val"]
    node.meta["where"] = before.meta.get("where", "") or like.meta.get("where", "")
    node.meta["layer"] = before.meta.get("layer", "") or like.meta.get("layer", "")
    return node


def shape_args(graph: fx.Graph, before: fx.Node, of: fx.Node) -> list[Any]:
    """The sizes of `of` as arguments: numbers, and `sym_size` nodes for the symbolic ones."""
    out: list[Any] = []
    for axis, size in enumerate(fake_of(of).shape):
        if not isinstance(size, torch.SymInt) or expression(size).is_Integer:
            out.append(int(size))
            continue
        with graph.inserting_before(before):
            node = graph.call_function(torch.ops.aten.sym_size.int, (of, axis))
        node.meta.update(val=size, where=before.meta.get("where", ""), layer=before.meta.get("layer", ""))
        out.append(node)
    return out


def emit(graph: fx.Graph, before: fx.Node, target: Any, *args: Any, **kwargs: Any) -> fx.Node:
    """A new call in front of `before`; its value is found by running the operator on the fake values."""
    with graph.inserting_before(before):
        node = graph.call_function(target, args, kwargs)
    tensors = [fake_of(arg) for arg in node.all_input_nodes if isinstance(fake_of(arg), Tensor)]
    fakes = fx.map_arg((args, kwargs), fake_of)
    with tensors[0].fake_mode if tensors else fake_of(before).fake_mode:
        node.meta["val"] = target(*fakes[0], **fakes[1])
    for key in ("where", "layer", "place", "number"):
        if key in before.meta:
            node.meta[key] = before.meta[key]
    return node
