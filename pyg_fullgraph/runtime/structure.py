"""`Structure`: what depends only on the graph, computed once and kept with it.

Sizes, self-loops, degrees, normalisation weights, and for every aggregation its in-edges in CSR order.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import sympy
import torch
from torch import Tensor
from torch.utils._pytree import tree_map

from pyg_fullgraph import ops
from pyg_fullgraph.errors import InputError
from pyg_fullgraph.ir import Program, Stage
from pyg_fullgraph.ir.extents import Extent
from pyg_fullgraph.ir.program import is_symbolic, symbols_of
from pyg_fullgraph.plan import Plan
from pyg_fullgraph.runtime.evaluate import evaluate
from pyg_fullgraph.runtime.products import TypeRanges

_INT32 = 2**31 - 1


@dataclass
class InEdges:
    """The edges of one aggregation, sorted by destination.

    Args:
        rowptr: int64 [rows + 1].
        perm: [E], the original edge at each position.
        values: structural edge values in this order, by name; indices as int32 where they fit.
        whole: the edges that these are a part of, where they are.
    """

    rowptr: Tensor
    perm: Tensor
    values: dict[str, Tensor] = field(default_factory=dict)
    whole: InEdges | None = None

    @property
    def num_edges(self) -> int:
        return int(self.perm.numel())

    @cached_property
    def largest(self) -> int:
        """How many edges the row with the most of them has, of all rows of the graph: some aggregations pad to it."""
        if self.whole is not None:
            return self.whole.largest
        return int(self.rowptr.diff().max()) if self.rowptr.numel() > 1 else 0

    def nbytes(self) -> int:
        return sum(t.numel() * t.element_size() for t in (self.rowptr, self.perm, *self.values.values()))


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
        return small

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
        missing = [s for s in expr.free_symbols if s not in self.sizes]
        for symbol in missing:
            self.value(self.program.definers[symbol])
        number = expr.subs(self.sizes)
        self._numbers[expr] = int(number) if number.is_integer else float(number)
        return self._numbers[expr]

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
        needed: set[str] = set()
        stack = [name]
        while stack:
            item = stack.pop()
            if item in needed or item in self.values:
                continue
            needed.add(item)
            value = self.program[item]
            stack += value.refs()
            stack += [self.program.definers[s] for s in symbols_of(value) if s in self.program.definers]
        for value in list(self.program):
            if value.name not in needed or value.name in self.values:
                continue
            if value.op == "const":
                self.values[value.name] = value.args[0]
                continue
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
        definers = [self.program.definers[s] for s in space.free_symbols if s not in self.sizes]
        for name in definers:
            if self.program[name].stage is Stage.STRUCT:
                self.value(name)

    def edges_of(self, index: str, space: sympy.Expr) -> InEdges:
        """The edges sorted by the destination index `index`, which counts rows of `space`."""
        if index not in self.in_edges:
            destination = self.value(index)
            rowptr, perm = ops.csr(destination.contiguous(), int(self.size_of(space)))
            self.in_edges[index] = InEdges(rowptr, perm)
        return self.in_edges[index]

    def edge_value(self, name: str, index: str) -> Tensor:
        """A structural edge value in the order of `edges_of(index)`, rows first."""
        edges = self.in_edges[index]
        if name not in edges.values:
            value, tensor = self.program[name], self.value(name)
            row_dim = value.row_dim or 0
            if tensor.dim() == 1 and not tensor.dtype.is_floating_point and _fits_int32(tensor):
                tensor = tensor.to(torch.int32)
            edges.values[name] = tensor.index_select(row_dim, edges.perm)
        return edges.values[name]

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

    def nbytes(self) -> int:
        """Bytes of everything kept."""
        kept = {id(t): t for t in self.values.values() if isinstance(t, Tensor)}
        return sum(e.nbytes() for e in self.in_edges.values()) + sum(
            t.numel() * t.element_size() for t in kept.values()
        )


def _fits_int32(index: Tensor) -> bool:
    return index.numel() == 0 or (int(index.max()) <= _INT32 and int(index.min()) >= -_INT32)
