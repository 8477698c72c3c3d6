"""Writing through a view: for every view operator, the base that results when the view is given a new value.

`INVERSES[inverse_name(link)](graph, link, source, new, at)` adds, in front of `at`, the nodes that compute
what `source` becomes when `link(source)` is overwritten with `new`.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import torch
from torch import fx

from pyg_fullgraph.capture.nodes import args_of, fake_of, insert, same_shape, shape_args, target_of

aten = torch.ops.aten


Inverse = Callable[[fx.Graph, fx.Node, fx.Node, fx.Node, fx.Node], fx.Node]


def inverse_name(link: fx.Node) -> str:
    if link.target is operator.getitem:
        return "getitem"
    name = target_of(link)._schema.name.split("::")[-1]
    if name == "expand" and same_shape(fake_of(link), fake_of(args_of(link)[0])):
        return "alias"
    return name


def _same(graph: fx.Graph, link: fx.Node, source: fx.Node, new: fx.Node, at: fx.Node) -> fx.Node:
    return new


def _scatter(packet: Any) -> Inverse:
    def inverse(graph: fx.Graph, link: fx.Node, source: fx.Node, new: fx.Node, at: fx.Node) -> fx.Node:
        return insert(graph, at, packet.default, (source, new, *args_of(link)[1:]), dict(link.kwargs), like=source)

    return inverse


def _reshape_back(graph: fx.Graph, link: fx.Node, source: fx.Node, new: fx.Node, at: fx.Node) -> fx.Node:
    sizes = shape_args(graph, at, source)
    return insert(graph, at, aten.reshape.default, (new, sizes), {}, like=source)


def _transpose_back(graph: fx.Graph, link: fx.Node, source: fx.Node, new: fx.Node, at: fx.Node) -> fx.Node:
    return insert(graph, at, link.target, (new, *args_of(link)[1:]), {}, like=source)


def _permute_back(graph: fx.Graph, link: fx.Node, source: fx.Node, new: fx.Node, at: fx.Node) -> fx.Node:
    order = [axis % len(args_of(link)[1]) for axis in args_of(link)[1]]
    back = [order.index(axis) for axis in range(len(order))]
    return insert(graph, at, aten.permute.default, (new, back), {}, like=source)


def _part_back(graph: fx.Graph, link: fx.Node, source: fx.Node, new: fx.Node, at: fx.Node) -> fx.Node:
    """`unbind(x, dim)[i]` and `split(x, n, dim)[i]`: the getitem hands its value on, the list operator
    places it.
    """
    new.meta["part_of"] = link, source
    return new


def _list_back(graph: fx.Graph, link: fx.Node, source: fx.Node, new: fx.Node, at: fx.Node) -> fx.Node:
    part, parts = new.meta.pop("part_of")
    number = args_of(part)[1]
    name = target_of(link)._schema.name.split("::")[-1]
    position = 1 if name == "unbind" else 2
    dim = args_of(link)[position] if len(args_of(link)) > position else link.kwargs.get("dim", 0)
    if name == "unbind":
        return insert(graph, at, aten.select_scatter.default, (source, new, dim, number), {}, like=source)
    count = len(fake_of(link))
    number %= count
    sizes = [fake_of(link)[i].shape[dim] for i in range(number + 1)]
    if any(isinstance(size, torch.SymInt) for size in sizes):  # counted in the data: put the parts together again
        others = [insert(graph, at, operator.getitem, (parts, i), {}, like=part) for i in range(count)]
        for i, other in enumerate(others):
            other.meta["val"] = fake_of(link)[i]
        joined = [*others[:number], new, *others[number + 1 :]]
        return insert(graph, at, aten.cat.default, (joined, dim), {}, like=source)
    start, end = sum(sizes[:-1]), sum(sizes)
    return insert(graph, at, aten.slice_scatter.default, (source, new, dim, start, end), {}, like=source)


INVERSES: dict[str, Inverse] = {
    **dict.fromkeys(("alias", "detach", "lift_fresh", "lift", "view_as", "contiguous"), _same),
    **dict.fromkeys(("view", "_unsafe_view", "reshape", "unsqueeze", "squeeze", "_reshape_alias"), _reshape_back),
    **dict.fromkeys(("t", "transpose"), _transpose_back),
    "permute": _permute_back,
    "select": _scatter(aten.select_scatter),
    "slice": _scatter(aten.slice_scatter),
    "diagonal": _scatter(aten.diagonal_scatter),
    "getitem": _part_back,
    **dict.fromkeys(("unbind", "split", "split_with_sizes"), _list_back),
}
