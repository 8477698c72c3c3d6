"""`Arrangement`: the arguments of a call with the nodes of its graph renumbered, and the way back."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from pyg_fullgraph.graph.order import inverse, order_nodes
from pyg_fullgraph.ir import map_args
from pyg_fullgraph.ir.forms import Form
from pyg_fullgraph.ir.renumber import Renumbering
from pyg_fullgraph.ops import trusted

Edges = tuple[Tensor, Tensor, Any, Any]  # sources, destinations, the space of each


@dataclass(frozen=True)
class Arrangement:
    """A graph's nodes in another order.

    Args:
        renumbering: what the program's arguments and results become.
        orders: for each space of nodes, the node at each new place.
        integers: argument name -> the integer argument in the new order, made once.
        number: of this arrangement, among all that the process made.
    """

    renumbering: Renumbering
    orders: dict[Any, Tensor]
    integers: dict[str, Tensor]
    number: int = field(default_factory=itertools.count().__next__)

    @classmethod
    def of(cls, renumbering: Renumbering, orders: dict[Any, Tensor], inputs: dict[str, Tensor]) -> Arrangement:
        """Arranges the integer arguments among `inputs`."""
        places = {space: inverse(order) for space, order in orders.items()}
        integers = {}
        for name, form in renumbering.inputs.items():
            tensor = inputs[name]
            if not (tensor.is_floating_point() or tensor.is_complex()) and (form.moved or form.numbers is not None):
                made = _relabelled(_permuted(tensor, form, orders), form.numbers, places)
                integers[name] = tensor.clone() if made is tensor else made  # the user's own would keep itself alive
        return cls(renumbering, orders, integers)

    def arranged(self, names: Sequence[str], tensors: Sequence[Tensor]) -> list[Tensor]:
        """The arguments of a call, one row per node in the new order."""
        forms = self.renumbering.inputs
        return [
            self.integers[name] if name in self.integers else _permuted(tensor, forms.get(name, Form()), self.orders)
            for name, tensor in zip(names, tensors, strict=True)
        ]

    def restored(self, result: Any) -> Any:
        """A result of the program on arranged arguments, with its rows and node numbers as they were."""
        forms = iter(self.renumbering.outputs)
        places = {space: inverse(order) for space, order in self.orders.items()}

        def back(leaf: Any) -> Any:
            form = next(forms)
            if form is None or not isinstance(leaf, Tensor):
                return leaf
            return _relabelled(_permuted(leaf, form, places), form.numbers, self.orders)

        return map_args(result, back)

    @property
    def nbytes(self) -> int:
        """Bytes kept."""
        kept = (*self.orders.values(), *self.integers.values())
        return sum(tensor.numel() * tensor.element_size() for tensor in kept)


def joint_order(name: str, edges: Sequence[Edges], sizes: dict[Any, int]) -> dict[Any, Tensor]:
    """An order of the nodes of every space, from one order of them all.

    Args:
        name: see `order_nodes`.
        edges: of all kinds.
        sizes: how many nodes each space has.
    """
    src, dst, first, total = joined(edges, sizes)
    order = order_nodes(name, src, dst, total)
    return {
        space: order[(order >= first[space]) & (order < first[space] + count)] - first[space]
        for space, count in sizes.items()
    }


def joined(edges: Sequence[Edges], sizes: dict[Any, int]) -> tuple[Tensor, Tensor, dict[Any, int], int]:
    """All nodes numbered one kind after the other: sources, destinations, each kind's first number, how many nodes."""
    first, total = {}, 0
    for space, count in sizes.items():
        first[space], total = total, total + count
    none = torch.zeros(0, dtype=torch.int64)
    src = torch.cat([none, *(s + first[a] for s, _, a, _ in edges)])
    dst = torch.cat([none, *(d + first[b] for _, d, _, b in edges)])
    return src, dst, first, total


def _permuted(tensor: Tensor, form: Form, orders: dict[Any, Tensor]) -> Tensor:
    """Rows taken in the order given for each segment's space."""
    if not form.moved or tensor.stride(form.dim) == 0:  # all rows are one
        return tensor
    others = tensor.shape[form.dim] - sum(orders[mark].numel() for _, mark in form.rows if mark in orders)
    parts, at = [], 0
    for _, mark in form.rows:
        part = orders[mark] if mark in orders else torch.arange(others)
        parts.append(part + at)
        at += part.numel()
    index = parts[0] if len(parts) == 1 else torch.cat(parts)
    return trusted.gather(tensor, index) if form.dim == 0 else tensor.index_select(form.dim, index)


def _relabelled(tensor: Tensor, numbers: Any, places: dict[Any, Tensor]) -> Tensor:
    """Node numbers replaced by those of their new places; numbers of other kinds stay."""
    if isinstance(numbers, tuple):
        return torch.stack([_relabelled(row, space, places) for row, space in zip(tensor, numbers, strict=True)])
    if numbers is None:
        return tensor
    return places[numbers].to(tensor.dtype).index_select(0, tensor.reshape(-1)).view(tensor.shape)
