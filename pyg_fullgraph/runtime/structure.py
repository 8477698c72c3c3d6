"""`Structure`: what depends only on the graph, computed once and kept with it.

Sizes, self-loops, degrees, normalisation weights, and for every aggregation its in-edges in CSR order. What is large is
made range by range (`runtime.tiles`): no temporary has a row for every edge.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import sympy
import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map

from pyg_fullgraph.errors import InputError
from pyg_fullgraph.ir import Program, Stage
from pyg_fullgraph.ir.extents import Extent
from pyg_fullgraph.ir.program import is_symbolic
from pyg_fullgraph.plan import Plan
from pyg_fullgraph.runtime.bounds import Bounds
from pyg_fullgraph.runtime.evaluate import evaluate
from pyg_fullgraph.runtime.in_edges import InEdges, sort_edges
from pyg_fullgraph.runtime.products import TypeRanges
from pyg_fullgraph.runtime.tiles import Tiles


class Structure:
    """Evaluates a program's STRUCT values for one graph, and sorts its edges.

    Args:
        program: gives the values.
        inputs: name of every tensor argument -> tensor.
    """

    def __init__(self, program: Program, inputs: dict[str, Tensor]) -> None:
        self.program = program
        self._numbers: dict[sympy.Expr, int | float] = {}  # of `size_of`: sympy takes half a millisecond for each
        self.plan: Plan | None = None
        self._local: dict[sympy.Symbol, int | float] | None = None  # sizes where only some rows are here
        self.sizes: dict[sympy.Symbol, int | float] = {}
        self.values: dict[str, Any] = {}
        self.in_edges: dict[str, InEdges] = {}
        self._ranges: dict[str, TypeRanges] = {}
        self._make_anew()
        self.measured: tuple[float, ...] = ()  # seconds of each superstep of the last run on this graph
        self._bind_sizes(inputs)
        for value in program:
            if value.op == "input" and value.stage is Stage.STRUCT:
                self.values[value.name] = inputs[value.args[0]]
        self._theirs = {t.untyped_storage().data_ptr() for t in self.values.values()}  # until it is sealed

    def restricted(self, rows: Mapping[sympy.Symbol, int]) -> Structure:
        """A structure of the same graph, of which only some rows of some spaces are here; it holds nothing yet.

        Args:
            rows: how many are here, by space. `size_of` still tells how many there are.
        """
        small = Structure.__new__(Structure)
        small.program, small._numbers, small.plan = self.program, dict(self._numbers), None
        small.sizes, small.values, small.in_edges, small._ranges = self.sizes, {}, {}, {}
        small._local = {**self.sizes, **rows}
        small._make_anew()
        return small

    def _make_anew(self) -> None:
        """Forget what making values has left; what makes them does not keep the structure, as such cycles live long."""
        self.tiles = Tiles(weakref.proxy(self))
        self.bounds = Bounds(self.tiles)

    def _bind_sizes(self, inputs: dict[str, Tensor]) -> None:
        told: dict[sympy.Symbol, str] = {}
        for value in self.program:
            if value.op != "input":
                continue
            tensor = inputs[value.args[0]]
            for dim, (size, actual) in enumerate(zip(value.shape, tensor.shape, strict=True)):
                if not is_symbolic(size) or not size.is_Symbol:
                    continue
                if self.sizes.setdefault(size, actual) != actual:
                    raise InputError(
                        f"'{value.args[0]}' has {actual} rows at dimension {dim}, but '{told[size]}' says that there "
                        f"are {self.sizes[size]} of {self.program.space_name(size)}. Pass arguments of one graph."
                    )
                told.setdefault(size, value.args[0])

    def size_of(self, expr: sympy.Expr) -> int | float:
        """The number that a symbolic size, or arithmetic on sizes, has for this graph."""
        known = self._numbers.get(expr)
        if known is not None:
            return known
        for symbol in expr.free_symbols:
            if symbol not in self.sizes:
                self._define(symbol)
        number = expr.subs(self.sizes)
        self._numbers[expr] = int(number) if number.is_integer else float(number)
        return self._numbers[expr]

    def _define(self, symbol: sympy.Symbol) -> None:
        """Learn a size that a value decides."""
        count = self.tiles.counts(symbol)
        if count is None:
            self.value(self.program.definers[symbol])
        else:
            self.sizes[symbol] = count

    def rows_of(self, expr: sympy.Expr) -> int:
        """How many rows of a space are here: all of them, but in a structure made by `restricted`."""
        return int(self.size_of(expr) if self._local is None else expr.subs(self._local))

    def extent(self, space: sympy.Expr) -> Extent | None:
        """The rows of a space; None where only the run tells how many there are."""
        definers = (self.program.definers.get(symbol) for symbol in space.free_symbols)
        if any(name is not None and self.program[name].stage is Stage.DATA for name in definers):
            return None
        local = self.rows_of(space)
        return Extent(int(self.size_of(space)), local, local)

    def planned(self, make: Callable[[], Plan]) -> Plan:
        """The plan of a run on this graph, made at its first."""
        if self.plan is None:
            self.plan = make()
        return self.plan

    def value(self, name: str) -> Any:
        """A STRUCT value in its original order."""
        if name not in self.values:
            self._evaluate(name)
        return self.values[name]

    def _evaluate(self, name: str) -> None:
        by_range: dict[str, bool] = {}  # for each value that is needed
        stack = [name]
        while stack:
            item = stack.pop()
            if item in by_range or item in self.values:
                continue
            by_range[item] = self.tiles.makes(item)
            if not by_range[item]:  # what is made range by range asks for what it needs itself
                stack += self.program[item].refs()
        for value in list(self.program):
            if value.name not in by_range or value.name in self.values:
                continue
            if value.op == "const":
                self.values[value.name] = value.args[0]
                continue
            if by_range[value.name]:
                result = self.tiles.whole(value.name)
            else:
                result = evaluate(value, self.values.__getitem__, self.size_of)
            self.values[value.name] = result
            self._learn_sizes(value.name, result)

    def _learn_sizes(self, name: str, result: Any) -> None:
        value = self.program[name]
        if value.target is torch.ops.aten._local_scalar_dense.default:
            for symbol, definer in self.program.definers.items():
                if definer == name and self.sizes.get(symbol) != result:
                    self.sizes[symbol] = result
                    self._numbers.clear()
            return
        if value.multi:  # its shape is that of the first
            result = next((item for item in result if isinstance(item, Tensor)), None)
        if not isinstance(result, Tensor):
            return
        for size, actual in zip(value.shape, result.shape, strict=True):
            if is_symbolic(size) and size.is_Symbol and size not in self.sizes:
                self.sizes[size] = actual

    def learn(self, name: str, result: Any) -> None:
        """Take note of sizes that only a DATA value's evaluation tells."""
        self._learn_sizes(name, result)

    def size_of_if_known(self, space: sympy.Expr) -> None:
        """Evaluate the structure that determines a size, unless a DATA value does."""
        for symbol in space.free_symbols:
            if symbol not in self.sizes and self.program[self.program.definers[symbol]].stage is Stage.STRUCT:
                self._define(symbol)

    def sort_edges(self, index: str, space: sympy.Expr, values: Iterable[str], permuted: bool) -> None:
        """Sort the edges by the destination index `index`, which counts rows of `space`.

        Args:
            index, space: of the destinations.
            values: structural edge values to keep in this order.
            permuted: whether to keep the order itself.
        """
        kept = {name: self._kept_as(name) for name in values}
        self.in_edges[index] = sort_edges(self.tiles, index, int(self.size_of(space)), kept, permuted)

    def _kept_as(self, name: str) -> torch.dtype | None:
        """int32 for numbers that fit, None for everything else."""
        value = self.program[name]
        narrow = value.dtype is torch.int64 and len(value.shape) == 1 and self.bounds.fit(name, torch.int32)
        return torch.int32 if narrow else None

    def edge_value(self, name: str, index: str) -> Tensor:
        """A structural edge value in the order of the edges sorted by `index`, rows first."""
        return self.in_edges[index].values[name]

    def type_ranges(self, name: str) -> TypeRanges:
        """Where a STRUCT value of row types changes."""
        if name not in self._ranges:
            self._ranges[name] = TypeRanges(self.value(name))
        return self._ranges[name]

    def seal(self, keep: set[str]) -> None:
        """Drop structural values that no superstep reads in their original order, and own what stays.

        The user may write into an argument, after which it is another graph's, or let go of it.
        """
        theirs = self._theirs

        def own(item: Any) -> Any:
            shared = isinstance(item, Tensor) and item.untyped_storage().data_ptr() in theirs
            return item.clone() if shared else item

        self.values = {name: tree_map(own, item) for name, item in self.values.items() if name in keep}
        self._make_anew()

    def nbytes(self) -> int:
        """Bytes of everything kept, also of what a view is kept of."""
        kept = [t for t in tree_leaves(self.values) if isinstance(t, Tensor)]
        kept += [t for edges in self.in_edges.values() for t in edges.tensors()]
        storages = {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in kept}
        return sum(storages.values())
