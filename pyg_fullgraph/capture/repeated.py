"""Functions of torch_geometric that every layer calls anew with the same edges: traced once.

In a network of 60 graph convolutions the edges are normalised 60 times, and what is traced costs milliseconds for
each operator, although equal operators are merged later. Here a second call with the very same tensors, unwritten
since, hands out copies of the first result. Copies, so that a layer may write into its own: the pass that cleans a
trace takes those out that nobody writes into.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor
from torch_geometric import utils
from torch_geometric.nn.conv import gcn_conv

_FUNCTIONS = {
    name: getattr(utils, name)
    for name in (
        "add_remaining_self_loops", "add_self_loops", "remove_self_loops", "degree", "get_laplacian", "to_undirected",
    )
    if hasattr(utils, name)
}  # fmt: skip
_FUNCTIONS |= {"gcn_norm": gcn_conv.gcn_norm} if hasattr(gcn_conv, "gcn_norm") else {}


#: Layers of one class from which torch's cache of fake results repays what its entries cost. Measured: a trace of one
#: or two layers is a third shorter without it, one of fourteen a third longer; they meet at three.
_MANY = 4


def many_alike(modules: Iterable[torch.nn.Module]) -> bool:
    """Whether a trace of these will ask for the same fake results again and again."""
    return max(Counter(type(module) for module in modules).values(), default=0) >= _MANY


def remembered() -> dict[str, tuple[Any, Any]]:
    """Name -> (torch_geometric's function, the same with a memory of its own for one trace)."""
    return {name: (function, _Remembered(function)) for name, function in _FUNCTIONS.items()}


class _Remembered:
    """A function of tensors that has no state and writes into nothing."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function = function
        self.__name__, self.__module__ = function.__name__, function.__module__
        self._calls: dict[Any, tuple[list[Tensor], Any, list[int]]] = {}

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        key, tensors = _key((args, tuple(kwargs.items())))
        if key is None:
            return self.function(*args, **kwargs)
        known = self._calls.get(key)
        if known is not None and _versions(known[1]) == known[2]:
            return _copies(known[1], tensors)
        result = self.function(*args, **kwargs)
        if _is_new(result, tensors):
            self._calls[key] = (tensors, result, _versions(result))
        return result


def _key(call: Any) -> tuple[Any, list[Tensor]]:
    """What two equal calls have in common; None where that cannot be told."""
    tensors: list[Tensor] = []
    try:
        return _part(call, tensors), tensors
    except TypeError:  # a sparse matrix, a tensor of another kind
        return None, tensors


def _part(item: Any, tensors: list[Tensor]) -> Any:
    if isinstance(item, (tuple, list)):
        return tuple(_part(each, tensors) for each in item)
    if type(item) is FakeTensor and item.layout is torch.strided:
        tensors.append(item)
        return "tensor", id(item), item._version
    if isinstance(item, torch.SymInt):
        return "size", item.node.expr
    if item is None or isinstance(item, (bool, int, float, str, torch.dtype, torch.device)):
        return type(item).__name__, item
    raise TypeError


def _leaves(result: Any) -> list[Any]:
    return list(result) if isinstance(result, (tuple, list)) else [result]


def _versions(result: Any) -> list[int]:
    return [leaf._version for leaf in _leaves(result) if isinstance(leaf, Tensor)]


def _is_new(result: Any, given: list[Tensor]) -> bool:
    """True where every tensor of the result is one of the arguments, or has memory of its own."""
    memory = {tensor.untyped_storage()._cdata for tensor in given}
    for leaf in _leaves(result):
        if type(leaf) is FakeTensor and leaf.layout is torch.strided:
            own = leaf.untyped_storage()._cdata not in memory and leaf._base is None
            if not own and not any(leaf is tensor for tensor in given):
                return False
        elif leaf is not None:
            return False
    return type(result) in (tuple, list, FakeTensor)


def _copies(result: Any, given: list[Tensor]) -> Any:
    """The same values as new tensors; an argument that was handed on is handed on."""
    made = [
        leaf.clone() if isinstance(leaf, Tensor) and not any(leaf is tensor for tensor in given) else leaf
        for leaf in _leaves(result)
    ]
    return type(result)(made) if isinstance(result, (tuple, list)) else made[0]
