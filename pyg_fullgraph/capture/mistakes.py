"""Usual mistakes in a call, recognised after its trace has failed: edges of another type or shape, features of
another type than the parameters.

Nothing here decides whether a call is right: only the model's forward does. Where it raised in the trace, for a type
or a shape and not for something that only a trace cannot do, the arguments are looked at for what is usual.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx

from pyg_fullgraph.capture.arguments import Branch, Const, describe
from pyg_fullgraph.capture.failures import ONLY_IN_A_TRACE, first_of
from pyg_fullgraph.capture.kinds import unknown_kinds
from pyg_fullgraph.capture.required import is_edge_list, misshapen, shape_of
from pyg_fullgraph.capture.signature import Leaf, Signature
from pyg_fullgraph.errors import FullGraphError

aten = torch.ops.aten

_PRODUCTS: dict[Any, tuple[int, ...]] = {  # the arguments whose types must be one
    **dict.fromkeys((aten.mm, aten.bmm, aten.mv, aten.dot, aten.matmul, aten.linear), (0, 1)),
    **dict.fromkeys((aten.addmm, aten.baddbmm, aten.addmv, aten.addbmm), (0, 1, 2)),
}
_FLOATS = re.compile(
    r"(^|_)(x|h|z|pos|feat\w*|features?|node_attr\w*|node_feat\w*|edge_weight\w*|edge_attr\w*|weight|ea|ew)(_|$)"
)


def mistake(model: torch.nn.Module, signature: Signature, sizes: Mapping[str, int], error: BaseException | None) -> str:
    """What is probably wrong with a call whose trace ended with an error; nothing where that is not known.

    Args:
        model: whose forward was traced.
        signature: of the call.
        sizes: real size per space.
        error: what the forward raised; None for products of two types.
    """
    if error is not None:
        first = first_of(error)
        if isinstance(first, (FullGraphError, *ONLY_IN_A_TRACE)):
            return ""
    for path, value in _constants(signature.spec):
        if isinstance(value, np.ndarray):
            name = describe(path)
            return f"{name} is a numpy array; pass a tensor: torch.from_numpy({name})."
    if error is not None and (
        text := unknown_kinds(model, signature.spec, inspect.signature(model.forward).parameters)
    ):
        return text
    if not sizes:
        return ""
    return _edges(signature.leaves, sizes) or _types(model, signature.leaves, sizes)


def _edges(leaves: Sequence[Leaf], sizes: Mapping[str, int]) -> str:
    for leaf in leaves:
        if not is_edge_list(leaf.name):
            continue
        found = f"{_plain(leaf.dtype)} {shape_of(leaf, sizes)}"
        if leaf.dtype not in (torch.int64, torch.int32):
            swapped = [each for each in leaves if each is not leaf and _is_pairs(each, sizes)]
            if swapped and leaf.value_class == "float":
                other = f"{swapped[0].name} is {_plain(swapped[0].dtype)} {shape_of(swapped[0], sizes)}"
                return (
                    f"{other} and {leaf.name} is {found}: are they in another order than in forward? Pass each by its "
                    "name."
                )
            return f"{leaf.name} is {found}; it must be int64: {leaf.name}.long()."
        if text := misshapen(leaf, sizes):
            return text
    return ""


def _is_pairs(leaf: Leaf, sizes: Mapping[str, int]) -> bool:
    shape = shape_of(leaf, sizes)
    return leaf.dtype in (torch.int64, torch.int32) and len(shape) == 2 and shape[0] == 2


def _types(model: torch.nn.Module, leaves: Sequence[Leaf], sizes: Mapping[str, int]) -> str:
    """Features or weights of another type than the parameters."""
    layer, dtype = _first_parameter(model)
    if dtype is None:
        return ""
    wanted = _plain(dtype)
    cast = {torch.float32: "float", torch.float64: "double", torch.float16: "half"}.get(dtype)
    cast = f"{cast}()" if cast else f"to(torch.{wanted})"
    for leaf in leaves:
        if leaf.value_class == "float" and leaf.dtype != dtype:
            kind = _plain(leaf.dtype)
            other = {"float64": "double()", "float16": "half()"}.get(kind, f"to(torch.{kind})")
            whole = "" if leaf.dtype.is_complex else f" or model.{other}"
            return f"{leaf.name} is {kind}, the parameters are {wanted}. Pass {leaf.name}.{cast}{whole}."
    for leaf in leaves:
        if leaf.value_class == "int" and leaf.dims and _FLOATS.search(leaf.name) and not is_edge_list(leaf.name):
            return (
                f"{leaf.name} is {_plain(leaf.dtype)} {shape_of(leaf, sizes)}, but {layer} computes in {wanted}. Pass "
                f"{leaf.name}.{cast}."
            )
    return ""


def mixed_product(graph: fx.Graph) -> fx.Node | None:
    """The first product of two types: torch refuses it, where its shapes alone do not."""
    for node in graph.nodes:
        places = _PRODUCTS.get(getattr(node.target, "overloadpacket", None), ())
        given = [node.args[i] for i in places if i < len(node.args)]
        values = [arg.meta.get("val") for arg in given if isinstance(arg, fx.Node)]
        if len({value.dtype for value in values if isinstance(value, Tensor)}) > 1:
            found: fx.Node = node
            return found
    return None


def types_of(node: fx.Node) -> str:
    """The types that meet in a product, for the text of an error."""
    values = [arg.meta.get("val") for arg in node.args if isinstance(arg, fx.Node)]
    return " and ".join(dict.fromkeys(_plain(value.dtype) for value in values if isinstance(value, Tensor)))


def _first_parameter(model: torch.nn.Module) -> tuple[str, torch.dtype | None]:
    """The first layer that has parameters, as a user knows it, and their type."""
    for name, module in model.named_modules():
        found = next((p for p in module.parameters(recurse=False) if p.is_floating_point()), None)
        if found is None:
            continue
        while "." in name and not _is_layer(model.get_submodule(name)):
            name = name.rpartition(".")[0]
        module = model.get_submodule(name)
        return f"{type(module).__name__} '{name}'" if name else type(module).__name__, found.dtype
    return "", None


def _is_layer(module: torch.nn.Module) -> bool:
    """A message passing layer says more than the linear map or the parameters inside of it."""
    return hasattr(module, "propagate")


def _constants(node: Any) -> Iterator[tuple[Any, Any]]:
    if isinstance(node, Const):
        yield node.path, node.value
    elif isinstance(node, Branch):
        for child in node.children:
            yield from _constants(child)


def _plain(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
