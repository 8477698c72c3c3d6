"""What the nodes of a traced graph depend on: the features of the call, the model's parameters, or neither."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, fx

from pyg_fullgraph.capture.nodes import args_of, expressions
from pyg_fullgraph.capture.problems import Problem

aten = torch.ops.aten


class Origin(enum.IntFlag):
    """What a value depends on beside the graph's structure (integer arguments and sizes)."""

    STRUCTURE = 0
    PARAMETERS = 1
    FEATURES = 2


def origins(graph: fx.Graph, parameters: set[fx.Node]) -> dict[fx.Node, Origin]:
    """The origin of every node.

    Args:
        graph: functional.
        parameters: placeholders of parameters, buffers and tensor attributes.
    """
    found: dict[fx.Node, Origin] = {}
    for node in graph.nodes:
        if node.op == "placeholder":
            found[node] = Origin.PARAMETERS if node in parameters else _of_argument(node)
        elif node.target is aten.sym_size.int:
            found[node] = Origin.STRUCTURE  # of what gave the value its size, which is checked where it does
        else:
            found[node] = Origin.STRUCTURE
            for source in node.all_input_nodes:
                found[node] |= found[source]
    return found


def _of_argument(node: fx.Node) -> Origin:
    value = node.meta.get("val")
    real = isinstance(value, Tensor) and (value.is_floating_point() or value.is_complex())
    return Origin.FEATURES if real else Origin.STRUCTURE


def sizes_from_values(graph: fx.Graph, origin: Mapping[fx.Node, Origin], spaces: Mapping[str, Any]) -> list[Problem]:
    """Sizes that are found in features or parameters, as in `x[x[:, 0] > 0]` or `int(x.argmax())`.

    Such a size differs from call to call on one graph, and everything that is kept with the graph counts on it.

    Args:
        graph: functional and without dead code.
        origin: of its nodes.
        spaces: the sizes of the arguments, by name.
    """
    known = {symbol for size in spaces.values() for symbol in getattr(size, "free_symbols", ())}
    problems = []
    for node in graph.nodes:
        if node.op != "call_function":
            continue
        symbols = {symbol for size in _sizes(node.meta.get("val")) for symbol in getattr(size, "free_symbols", ())}
        if symbols <= known:
            continue
        known |= symbols
        if any(origin[source] != Origin.STRUCTURE for source in _deciding(node)):
            problems.append(_found_at(node))
    return problems


def _deciding(node: fx.Node) -> list[fx.Node]:
    """The arguments of an operator that decide how many rows it gives."""
    packet = getattr(node.target, "overloadpacket", None)
    if packet in (aten.index, aten.masked_select):
        picked = args_of(node)[1]
        return [item for item in (picked if isinstance(picked, (list, tuple)) else [picked]) if item is not None]
    return node.all_input_nodes


def _sizes(value: Any) -> list[Any]:
    if isinstance(value, (list, tuple)):
        return [size for item in value for size in _sizes(item)]
    if isinstance(value, Tensor):
        return list(expressions(value))
    return [value.node.expr] if isinstance(value, torch.SymInt) else []


def _found_at(node: fx.Node) -> Problem:
    number = node.target is aten._local_scalar_dense.default
    name = getattr(node.target, "_schema", None)
    what = "an integer" if number else f"the operator '{name.name if name is not None else node.target}'"
    why = "is read from features or parameters"
    if not number:
        why = "gives a number of rows that depends on features or parameters"
    advice = (
        "Keep all rows and weight or mask them (torch.where, masked_fill), take a fixed number (topk), or do this "
        "outside of the model and pass the result."
    )
    if number:
        advice = "Keep it a tensor (x[index.view(1)]), or pass the number as an argument or an attribute of the model."
    return Problem(what, why, advice, node.meta.get("place"), node.meta.get("number", 0))
