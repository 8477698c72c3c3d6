"""Raise a traced ATen graph to the vocabulary: gathers, segment reductions and row values, each with its stage.

``index_select`` by an integer endpoint becomes ``gather``; ``scatter_add``, ``index_add``, ``scatter_reduce`` and
``index_put`` onto an empty base become ``reduce``. Everything else stays the ATen operator it is.
"""

from __future__ import annotations

import operator
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import sympy
import torch
from torch import fx

from pyg_fullgraph import ops
from pyg_fullgraph.capture.operators import OpaqueAggregation
from pyg_fullgraph.capture.trace import Traced
from pyg_fullgraph.ir import Dim, Program, Ref, Stage, Value, map_args, refs_of
from pyg_fullgraph.ir.build import joined_stage
from pyg_fullgraph.ir.locality import is_row_local
from pyg_fullgraph.ir.program import is_symbolic

assert ops.library  # importing it registers the operators that are looked up next
aten, fullgraph = torch.ops.aten, torch.ops.pyg_fullgraph

_ALIASES = {aten.detach.default, aten.alias.default, aten.lift_fresh.default, aten.lift_fresh_copy.default}
_REDUCES = {"sum": "sum", "add": "sum", "mean": "mean", "amax": "max", "amin": "min", "prod": "mul"}
_INDEX_VIEWS = {"expand", "view", "unsqueeze", "_unsafe_view", "reshape", "clone", "alias", "detach"}


def raise_program(traced: Traced, sizes: Mapping[str, int] | None = None) -> Program:
    """The IR program of a traced model.

    Args:
        traced: functional ATen graph with symbolic sizes.
        sizes: space name -> its size in a graph that the model will run on, for choices by cost.

    Returns:
        A program whose values carry shape, stage, locality and source line.
    """
    program = _Raiser(traced).run()
    if sizes is not None:
        program.likely = {expr: sizes[name] for name, expr in traced.symbols.items() if name in sizes}
    return program


class _Raiser:
    def __init__(self, traced: Traced) -> None:
        self.traced = traced
        self.names: dict[fx.Node, Any] = {}  # node -> Ref, Dim or constant
        spaces = {
            expr: name for name, expr in traced.symbols.items() if is_symbolic(expr) and name not in traced.copies
        }
        self.program = Program({}, None, spaces, list(traced.model_notes))
        self.known = set(spaces)
        self.fixed = {traced.symbols[space]: sympy.Integer(size) for space, size in traced.copies.items()}

    def run(self) -> Program:
        for node in self.traced.graph.nodes:
            if node.op == "output":
                continue
            self.names[node] = self._raise(node)
        self.program.outputs = map_args(self.traced.outputs, self._convert)
        self.program.drop_dead()
        return self.program

    # -- one node ---------------------------------------------------------------------------------------------

    def _raise(self, node: fx.Node) -> Any:
        if node.op == "placeholder":
            return self._leaf(node)
        if node.op == "get_attr":
            return self._constant(node)
        val = node.meta.get("val")
        if node.target in _ALIASES:
            below = node.args[0]
            assert isinstance(below, fx.Node)
            return self.names[below]
        if isinstance(val, (torch.SymInt, torch.SymFloat, torch.SymBool, int, float, bool)):
            return self._scalar(node, val)
        if val is None:  # an assertion on sizes: the trace's own bookkeeping
            return None
        return self._tensor(node, val)

    def _leaf(self, node: fx.Node) -> Any:
        val = node.meta["val"]
        if not isinstance(val, torch.Tensor):
            return self._number(val)
        if node.name in self.traced.param_names:
            qualified = self.traced.param_names[node.name]
            return self._add(node, "param", (qualified,), {}, val, Stage.PARAM)
        leaf = self.traced.input_names[node.name]
        stage = Stage.STRUCT if not val.dtype.is_floating_point and not val.dtype.is_complex else Stage.DATA
        return self._add(node, "input", (leaf.name,), {}, val, stage)

    def _constant(self, node: fx.Node) -> Ref:
        literal = self.traced.constants[str(node.target)]
        return self._add(node, "const", (literal,), {}, literal, Stage.CONST)

    def _scalar(self, node: fx.Node, val: Any) -> Any:
        if isinstance(val, (int, float, bool)):
            return val
        expr = self._expression(val)
        if node.target is aten._local_scalar_dense.default:
            self._add(node, "aten", self._convert(node.args), {}, None, Stage.STRUCT, target=node.target)
            for symbol in expr.free_symbols - self.known:
                self.known.add(symbol)
                self.program.definers[symbol] = node.name
        return int(expr) if expr.is_Integer else Dim(expr)

    def _tensor(self, node: fx.Node, val: Any) -> Ref:
        args, kwargs = self._convert(tuple(node.args)), self._convert(dict(node.kwargs))
        stage = self._stage(args, kwargs, val)
        multi = isinstance(val, (tuple, list))
        first = next((item for item in val if item is not None), None) if multi else val
        if node.target is operator.getitem:
            ref = self._add(node, "aten", args, kwargs, val, stage)
        else:
            raised = None if multi or stage is not Stage.DATA else self._vocabulary(node, args, kwargs, val)
            if raised is not None:
                return raised
            ref = self._add(node, "aten", args, kwargs, first, stage, target=node.target, multi=multi)
        value = self.program[ref.name]
        self.program.values[ref.name] = replace(value, local=is_row_local(self.program, value))
        return ref

    def _stage(self, args: Any, kwargs: Any, val: Any) -> Stage:
        shapes = [item for item in (val if isinstance(val, (tuple, list)) else [val]) if item is not None]
        sized = any(is_symbolic(s) for item in shapes for s in self._shape(item)) or _has_dim((args, kwargs))
        return joined_stage((self.program[name].stage for name in refs_of((args, kwargs))), sized)

    def _add(self, node: fx.Node, op: str, args: Any, kwargs: Any, val: Any, stage: Stage, **extra: Any) -> Ref:
        shape = self._shape(val) if val is not None else ()
        self._define_sizes(node.name, shape, stage)
        dtype = val.dtype if val is not None else None
        where = node.meta.get("where", "")
        self.program.values[node.name] = Value(node.name, op, args, kwargs, shape, dtype, stage, where=where, **extra)
        return Ref(node.name)

    def _define_sizes(self, name: str, shape: tuple[Any, ...], stage: Stage) -> None:
        """Note which value's evaluation tells a new size; a structural one where there is a choice."""
        for size in shape:
            if not is_symbolic(size):
                continue
            for symbol in size.free_symbols - self.known:
                self.known.add(symbol)
                self.program.definers[symbol] = name
            definer = self.program.definers.get(size)
            if definer in self.program.values and stage is Stage.STRUCT and self.program[definer].stage is Stage.DATA:
                self.program.definers[size] = name

    def _convert(self, tree: Any) -> Any:
        def leaf(item: Any) -> Any:
            if isinstance(item, fx.Node):
                return self.names[item]
            if isinstance(item, torch.SymInt | torch.SymFloat):
                return self._number(item)
            return item

        return map_args(fx.node.map_aggregate(tree, lambda item: item), leaf)

    def _expression(self, size: Any) -> Any:
        """A symbolic number without the sizes that are plain numbers for this program."""
        return size.node.expr.xreplace(self.fixed) if self.fixed else size.node.expr

    def _number(self, size: Any) -> Any:
        """A symbolic number as an argument: `Dim`, or the number that it is."""
        if not isinstance(size, torch.SymInt | torch.SymFloat):
            return size
        expr = self._expression(size)
        return int(expr) if self.fixed and expr.is_Integer else Dim(expr)

    def _shape(self, val: Any) -> tuple[int | sympy.Expr, ...]:
        sizes = val.shape if hasattr(val, "shape") else ()
        known = (self._expression(size) if isinstance(size, torch.SymInt) else int(size) for size in sizes)
        return tuple(int(size) if isinstance(size, int) or size.is_Integer else size for size in known)

    # -- the vocabulary ---------------------------------------------------------------------------------------

    def _vocabulary(self, node: fx.Node, args: Any, kwargs: Any, val: Any) -> Ref | None:
        if isinstance(node.target, OpaqueAggregation):
            return self._opaque(node, node.target, args, val)
        packet = getattr(node.target, "overloadpacket", None)
        if packet is aten.index_select:
            return self._gather(node, args[0], args[1], args[2], val)
        if packet is fullgraph.reduce_by:
            return self._by(node, "reduce", args, {"reduce": args[3]}, val)
        if packet is fullgraph.softmax_by:
            return self._by(node, "softmax", args, {"rows": args[2]}, val)
        if packet is aten.index:
            dim = next((i for i, item in enumerate(args[1]) if item is not None), None)
            if dim is None or len([item for item in args[1] if item is not None]) != 1:
                return None
            made = self._gather(node, args[0], dim, args[1][dim], val)
            if made is not None:
                self.program.wrapping.add(made.name)
            return made
        if packet is aten.scatter_add:
            return self._reduce(node, args[0], args[1], args[2], args[3], "sum", val)
        if packet is aten.index_add and kwargs.get("alpha", 1) == 1 and len(args) == 4:
            return self._reduce(node, args[0], args[1], args[2], args[3], "sum", val)
        if packet is aten.scatter_reduce:
            return self._scatter_reduce(node, args, kwargs, val)
        if packet is aten.index_put and len(args) == 4 and args[3] is True and len(args[1]) == 1:
            return self._reduce(node, args[0], 0, args[1][0], args[2], "sum", val)
        return None

    def _opaque(self, node: fx.Node, handle: OpaqueAggregation, args: Any, val: Any) -> Ref | None:
        """An aggregation that is called as it is, on whole groups of rows."""
        x, dim, root = self.program[args[0].name], args[3], self._index_root(args[1])
        if root is None or not handle.is_by_group or x.row_dim != dim or self.program[root].stage is not Stage.STRUCT:
            return None
        if self.program[root].space != x.space or not is_symbolic(self._shape(val)[dim]):
            return None
        return self._add(node, "reduce", (args[0], Ref(root)), {"reduce": handle}, val, Stage.DATA)

    def _by(self, node: fx.Node, op: str, args: Any, kwargs: dict[str, Any], val: Any) -> Ref | None:
        """`reduce_by` and `softmax_by`, which are words of the vocabulary already."""
        x, index = self.program[args[0].name], self.program[args[1].name]
        if x.row_dim != 0 or index.stage is not Stage.STRUCT or index.space != x.space:
            return None
        return self._add(node, op, (args[0], args[1]), kwargs, val, Stage.DATA)

    def _gather(self, node: fx.Node, x: Ref, dim: int, index: Ref, val: Any) -> Ref | None:
        index = Ref(self._index_root(index) or index.name)
        table, rows = self.program[x.name], self.program[index.name]
        if table.row_dim is None or dim % len(table.shape) != table.row_dim or rows.stage is not Stage.STRUCT:
            return None
        if len(rows.shape) != 1 or rows.space is None or rows.dtype is torch.bool:
            return None
        return self._add(node, "gather", (x, index), {}, val, Stage.DATA)

    def _scatter_reduce(self, node: fx.Node, args: Any, kwargs: Any, val: Any) -> Ref | None:
        reduce, include_self = _REDUCES[args[4]], kwargs.get("include_self", True)
        if include_self and reduce not in ("sum", "mul"):
            return None
        fill = 1 if reduce == "mul" and include_self else 0
        if reduce == "mul" and not include_self:
            return None
        return self._reduce(node, args[0], args[1], args[2], args[3], reduce, val, fill)

    def _reduce(
        self, node: fx.Node, base: Ref, dim: int, index: Ref, x: Any, reduce: str, val: Any, fill: float = 0
    ) -> Ref | None:
        if not isinstance(x, Ref):
            return None
        root, value = self._index_root(index), self.program[x.name]
        sizes = self._shape(val)
        if root is None or not sizes or not is_symbolic(sizes[dim % len(sizes)]):
            return None
        rows = self.program[root]
        if value.row_dim is None or rows.stage is not Stage.STRUCT or rows.space != value.space:
            return None
        if dim % len(value.shape) != value.row_dim or len(value.shape) != len(sizes):
            return None
        rest = lambda shape: [s for i, s in enumerate(shape) if i != value.row_dim]  # noqa: E731
        if rest(value.shape) != rest(sizes):
            return None
        kwargs = {"reduce": reduce}
        if self._is_filled(base, fill):
            return self._add(node, "reduce", (x, Ref(root)), kwargs, val, Stage.DATA)
        if reduce != "sum" or not isinstance(base, Ref):
            return None
        name = f"{node.name}_sum"
        self.program.values[name] = Value(
            name,
            "reduce",
            (x, Ref(root)),
            kwargs,
            sizes,
            val.dtype,
            Stage.DATA,
            where=node.meta.get("where", ""),
        )
        return self._add(node, "aten", (base, Ref(name)), {}, val, Stage.DATA, target=aten.add.Tensor)

    def _is_filled(self, base: Any, fill: float) -> bool:
        if not isinstance(base, Ref):
            return False
        value = self.program[base.name]
        while value.op == "aten" and value.target in (
            aten.expand.default,
            aten.clone.default,
            aten.view.default,
        ):
            value = self.program[value.args[0].name]
        if value.op != "aten" or value.target is None:
            return False
        packet = value.target.overloadpacket
        if packet is aten.full:
            return bool(value.args[1] == fill)
        return (packet is aten.zeros and fill == 0) or (packet is aten.ones and fill == 1)

    def _index_root(self, index: Any) -> str | None:
        """The 1-D index below a chain of views that only broadcast it over columns."""
        if not isinstance(index, Ref):
            return None
        value = self.program[index.name]
        while value.op == "aten" and value.target is not None and value.row_dim is not None:
            packet = getattr(value.target, "overloadpacket", None)
            if packet is None or packet._qualified_op_name.split("::")[1] not in _INDEX_VIEWS:
                break
            below = self.program[value.args[0].name]
            if below.space != value.space or below.width not in (1, value.width):
                break
            value = below
        return value.name if len(value.shape) == 1 and value.space is not None else None


def _has_dim(tree: Any) -> bool:
    found: list[Dim] = []
    map_args(tree, lambda leaf: found.append(leaf) if isinstance(leaf, Dim) else None)
    return bool(found)
