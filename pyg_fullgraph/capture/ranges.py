"""Which integer arguments of a forward select rows, and of how many: out of range they are the caller's mistake.

Read from the recorded operators before anything is taken out of the graph: a forward that counts its relations by
`scatter(ones, edge_type)` and throws the counts away still fails for a relation that it does not have, and so does
the engine. Where no operator of the forward selects by a number, none is refused: `edge_type == i` in a loop leaves
out what it does not know, as the forward does.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import sympy
import torch
from torch import Tensor, fx

from pyg_fullgraph.capture.required import Shaped
from pyg_fullgraph.errors import GraphError, InputError

aten = torch.ops.aten

#: Operator -> positions of the table, of the axis (None: the first) and of the index.
_SELECTING: dict[Any, tuple[int, int | None, int]] = {
    aten.index_select: (0, 1, 2),
    aten.embedding: (0, None, 1),
    aten.gather: (0, 1, 2),
    **dict.fromkeys((aten.scatter, aten.scatter_add, aten.scatter_reduce), (0, 1, 2)),
    **dict.fromkeys((aten.index_add, aten.index_copy, aten.index_reduce, aten.index_fill), (0, 1, 2)),
}
_WRAPPING = (aten.index, aten.index_put)  # they count negative numbers from the end
_SAME_VALUES = (
    *(aten.expand, aten.unsqueeze, aten.view, aten.reshape, aten._unsafe_view, aten.squeeze, aten.clone),
    *(aten.alias, aten.detach, aten.contiguous, aten.lift_fresh_copy),
)
_SIMPLE = (
    *_SAME_VALUES,
    *(aten.select, aten.slice, aten.t, aten.transpose, aten.permute, aten._to_copy, aten.sym_size),
    *(aten.add, aten.sub, aten.mul, aten.remainder, aten.floor_divide, aten.clamp, aten.where, aten.neg),
)
_MOST_STEPS = 16


@dataclass(frozen=True)
class _Step:
    """One operator of how an index is made of the arguments; `leaf` alone for an argument itself."""

    leaf: int | None = None
    target: Any = None
    args: tuple[Any, ...] = ()
    kwargs: tuple[tuple[str, Any], ...] = ()

    def value(self, tensors: Sequence[Tensor]) -> Any:
        """The value for a call's tensors."""
        if self.leaf is not None:
            return tensors[self.leaf]
        args = [_valued(arg, tensors) for arg in self.args]
        return self.target(*args, **{key: _valued(arg, tensors) for key, arg in self.kwargs})

    def leaves(self) -> set[int]:
        """The arguments that it reads."""
        if self.leaf is not None:
            return {self.leaf}
        found: set[int] = set()
        for arg in (*self.args, *(value for _, value in self.kwargs)):
            for item in arg if isinstance(arg, tuple) else (arg,):
                found |= item.leaves() if isinstance(item, _Step) else set()
        return found


def _valued(arg: Any, tensors: Sequence[Tensor]) -> Any:
    if isinstance(arg, tuple):
        return [_valued(item, tensors) for item in arg]
    return arg.value(tensors) if isinstance(arg, _Step) else arg


@dataclass(frozen=True)
class Range:
    """An index made of integer arguments.

    Args:
        index: how it is made.
        rows: how many rows there are to select, None where that is found in the data.
        wraps: whether negative numbers count from the end.
        where: the line that selects.
    """

    index: _Step
    rows: sympy.Expr | None
    wraps: bool
    where: str

    @property
    def is_row(self) -> bool:
        """Whether the index is a row of an argument, as the ends of edges are."""
        return getattr(self.index.target, "overloadpacket", None) is aten.select


def ranges(graph: fx.Graph, leaves: Sequence[fx.Node], sizes: Mapping[str, sympy.Symbol]) -> tuple[Range, ...]:
    """All selections by integer arguments.

    Args:
        graph: a recorded forward, functional, nothing taken out.
        leaves: the placeholders of the signature's leaves.
        sizes: space name -> the symbol of its size.
    """
    reader, known = _Reader(leaves), set(sizes.values())
    found: dict[tuple[Any, ...], Range] = {}
    for node in graph.nodes:
        for table, axis, index in _selections(node):
            step = reader.step(_same_values(index))
            shape = table.meta["val"].shape
            if step is None or not shape:
                continue
            expr = shape[axis]
            rows: Any = sympy.sympify(expr.node.expr if isinstance(expr, torch.SymInt) else expr)
            rows = rows if rows.free_symbols <= known else None
            wraps = node.target.overloadpacket in _WRAPPING
            where = node.meta.get("where", "")
            found.setdefault((step, rows, wraps), Range(step, rows, wraps, where))
    return tuple(found.values())


def _selections(node: fx.Node) -> list[tuple[fx.Node, int, fx.Node]]:
    """(table, axis, index) for every axis that an operator selects along by number."""
    packet = getattr(node.target, "overloadpacket", None)
    if packet in _SELECTING:
        at, axis, index = _SELECTING[packet]
        if len(node.args) <= max(at, index) or not isinstance(node.args[index], fx.Node):
            return []
        along: Any = 0 if axis is None else node.args[axis]
        return [(node.args[at], along, node.args[index])]  # type: ignore[list-item]
    if packet in _WRAPPING and len(node.args) > 1:
        table, listed = node.args[0], node.args[1]
        indices = enumerate(listed) if isinstance(listed, (tuple, list)) else ()
        pairs = [(place, item) for place, item in indices if isinstance(item, fx.Node)]
        if any(item.meta["val"].dtype in (torch.bool, torch.uint8) for _, item in pairs):
            return []  # masks take up other axes than their own
        return [(table, place, item) for place, item in pairs]  # type: ignore[misc]
    return []


def _same_values(node: fx.Node) -> fx.Node:
    """The index before it was only repeated or given another shape."""
    while getattr(node.target, "overloadpacket", None) in _SAME_VALUES and isinstance(node.args[0], fx.Node):
        node = node.args[0]
    return node


class _Reader:
    """Reads how values are made of integer arguments by a few simple operators."""

    def __init__(self, leaves: Sequence[fx.Node]) -> None:
        self.leaves = {node: i for i, node in enumerate(leaves)}

    def step(self, node: fx.Node) -> _Step | None:
        """How a value is made; None where it depends on anything else."""
        return self._step(node, [_MOST_STEPS])

    def _step(self, node: fx.Node, left: list[int]) -> _Step | None:
        if node in self.leaves:
            value = node.meta.get("val")
            floating = not isinstance(value, Tensor) or value.is_floating_point() or value.is_complex()
            return None if floating else _Step(leaf=self.leaves[node])
        left[0] -= 1
        if node.op != "call_function" or getattr(node.target, "overloadpacket", None) not in _SIMPLE or left[0] < 0:
            return None
        args = [self._argument(arg, left) for arg in node.args]
        kwargs = [(key, self._argument(arg, left)) for key, arg in node.kwargs.items()]
        if any(arg is NotImplemented for arg in args) or any(arg is NotImplemented for _, arg in kwargs):
            return None
        return _Step(None, node.target, tuple(args), tuple(kwargs))

    def _argument(self, arg: Any, left: list[int]) -> Any:
        if isinstance(arg, fx.Node):
            made = self._step(arg, left)
            return NotImplemented if made is None else made
        if isinstance(arg, (list, tuple)):
            items = tuple(self._argument(item, left) for item in arg)
            return NotImplemented if any(item is NotImplemented for item in items) else items
        plain = arg is None or isinstance(arg, (bool, int, float, str, torch.dtype, torch.device, torch.layout))
        return arg if plain or isinstance(arg, torch.memory_format) else NotImplemented


def check_ranges(
    found: Sequence[Range],
    leaves: Sequence[Shaped],
    tensors: Sequence[Tensor],
    symbols: Mapping[str, sympy.Symbol],
    sizes: Mapping[str, int],
) -> None:
    """Refuse numbers of rows that there are not; done before any work, once for every graph.

    Raises:
        InputError: names the argument, the first such entry and the range.
        GraphError: the same, for numbers of nodes or edges.
    """
    real = {symbol: sizes[space] for space, symbol in symbols.items() if space in sizes}
    for item in found:
        index = item.index.value(tensors)
        if index.numel() == 0:
            continue
        rows = None if item.rows is None else int(item.rows.subs(real))
        lowest, highest = (int(value) for value in torch.aminmax(index))
        least = 0 if not item.wraps else (lowest if rows is None else -rows)
        if lowest >= least and (rows is None or highest < rows):
            continue
        wrong = (index < least) if rows is None else ((index < least) | (index >= rows))
        at = [int(i) for i in wrong.nonzero()[0]]
        names = [leaves[i].name for i in sorted(item.index.leaves())]
        entry = f"{names[0]}{at}" if item.index.leaf is not None else f"The entry {at} of an index made of {names[0]}"
        valid = f"0 to {rows - 1:,}" if rows else "none: there are no rows" if rows == 0 else "0 and up"
        at_line = f" at {item.where}" if item.where else ""
        of_graph = item.rows is not None and bool(item.rows.free_symbols)  # a node or an edge that does not exist
        raise (GraphError if of_graph else InputError)(
            f"{entry} is {int(index[tuple(at)])}, but the model selects by it{at_line}; valid numbers: {valid} "
            f"({int(wrong.sum()):,} of {index.numel():,} are out of range). Correct '{names[0]}': numbers count "
            "from 0, and a missing label needs a number of its own or its rows left out."
        )
