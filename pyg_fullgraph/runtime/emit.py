"""Write a block program as the Python function that runs one block of rows.

The text is what `explain(code=True)` shows. A block of rows [r0, r1) has, for each aggregation k, its in-edges
[e0_k, e1_k); edge values live only while the function runs. A value that is stored whole is computed straight into
its table's rows where the operator can write to a given place.
"""

from __future__ import annotations

import math
import re
from typing import Any

import sympy
import torch

from pyg_fullgraph.ir import BlockProgram, Dim, Program, Ref, Stage, Value, by_column, packet_of
from pyg_fullgraph.ir.extents import SHAPE_ARGUMENT
from pyg_fullgraph.ir.fetches import repeats_own_rows
from pyg_fullgraph.ir.fused import At, operands
from pyg_fullgraph.ir.program import is_symbolic
from pyg_fullgraph.ops import trusted
from pyg_fullgraph.ops.linear import edge_linear, linear
from pyg_fullgraph.plan.tables import view_base
from pyg_fullgraph.runtime.aggregate import aggregate
from pyg_fullgraph.runtime.buffers import out_overload, outputs_of, place_values, relu_out
from pyg_fullgraph.runtime.code import Binding, BlockCode
from pyg_fullgraph.runtime.evaluate import ATTENTION, callee, edge_weight
from pyg_fullgraph.runtime.products import Product, find_products, typed

aten = torch.ops.aten


def emit(program: Program, block: BlockProgram, layouts: tuple[str, ...]) -> BlockCode:
    """The function of one block program.

    Args:
        program: holds the values.
        block: which values to compute, in order, and which to store.
        layouts: destination indices whose in-edges the block runs on, in the order of `bounds`.
    """
    return Emitter(program, block, layouts).run()


class Emitter:
    """The statements of a block program, value by value."""

    def __init__(self, program: Program, block: BlockProgram, layouts: tuple[str, ...]) -> None:
        self.program, self.block, self.layouts = program, block, layouts
        self.lines: list[str] = []
        self.bindings: dict[str, Binding] = {}
        self.locals: dict[tuple[str, str | None], str] = {}
        self.objects: dict[int, str] = {}
        self.computed = set(block.order)
        self.kernels: list[str] = []
        self.products = find_products(program, block)
        self.places, self.slots = place_values(program, block, self.products)

    def run(self) -> BlockCode:
        """The block function, and what must be bound to it."""
        self._bounds()
        for instance in self.block.order:
            self._instance(*instance)
        self._free_early()
        return BlockCode(self._text("block"), self.bindings, self.layouts, tuple(self.kernels), self.slots)

    def _bounds(self) -> None:
        for k, index in enumerate(self.layouts):
            self._bind(f"rowptr{k}", Binding("rowptr", None, index))
            self.lines.append(f"(e0_{k}, e1_{k}) = bounds[{k}]; P{k} = rowptr{k}[r0:r1 + 1]; E{k} = e1_{k} - e0_{k}")
        self.lines.append("B = r1 - r0")

    def _text(self, name: str) -> str:
        body = "\n".join(f"    {line}" for line in self.lines)
        return f"def {name}(r0, r1, bounds, scratch):\n{body}\n"

    # -- values -----------------------------------------------------------------------------------------------

    def _instance(self, name: str, context: str | None) -> None:
        value = self.program[name]
        if (name, context) in self.products.inside:
            return
        if value.is_pool:
            self._emit_pool(value)
            return
        made = self._made(value, context)
        local = self._local(name, context)
        self.lines.append(f"{local} = {made}  # {self._comment(value)}")
        if name in self.block.stored and self._is_stored(name, context):
            self._store(value, context, local)

    def _made(self, value: Value, context: str | None) -> str:
        """The expression that computes a value."""
        product = self.products.of.get((value.name, context))
        if product is not None:
            return self._emit_product(product, value, context)
        if value.name in self.products.typed:
            return self._emit_typed(value)
        text: str = getattr(self, f"_emit_{value.op}")(value, context)
        return text

    def _is_stored(self, name: str, context: str | None) -> bool:
        """Softmax values are stored from their in-edges; everything else from its rows."""
        return context is None or (self.program[name].op == "softmax" and (name, None) not in self.computed)

    def _store(self, value: Value, context: str | None, local: str) -> None:
        if context is None and view_base(self.program, value.name, self.block.stored) is not None:
            return  # a view of another stored value, whose table it shares
        table = self._bind(f"T_{_ident(value.name)}", Binding("table", value.name))
        if value.row_dim:
            local = f"{local}.movedim({value.row_dim}, 0)"
        if context is None:
            self.lines.append(f"{table}.write(r0, {local})")
        else:
            self.lines.append(f"{table}.write_at({self._perm(context)}, {local})")

    def _emit_aten(self, value: Value, context: str | None) -> str:
        if value.target is None:
            return f"{self._use(value.args[0].name, context, value)}[{value.args[1]}]"
        rows = self._rows(context)
        shape_at = SHAPE_ARGUMENT.get(packet_of(value))
        args = [
            self._render(arg, context, value, rows if position == shape_at else None)
            for position, arg in enumerate(value.args)
        ]
        kwargs = {key: self._render(arg, context, value, None) for key, arg in value.kwargs.items()}
        target = callee(value)
        if context is None and value.name in self.places:
            target = out_overload(value)
            kwargs["out"] = self._destination(value)
        listed = args + [f"{key}={text}" for key, text in kwargs.items()]
        name = relu_out.__name__ if target is relu_out else str(target)
        return f"{self._object(target, _ident(name))}({', '.join(listed)})"

    def _emit_product(self, product: Product, value: Value, context: str | None) -> str:
        matrix = self._bind(f"W_{_ident(product.matrix)}", Binding("packed", product.matrix))
        end = f"{', relu=True' if product.relu else ''}, threads=1{self._out(value) if context is None else ''}"
        if product.message is None:
            call = self._object(linear, "linear")
            x, bias, add = (
                None if name is None else self._use(name, context, value)
                for name in (product.x, product.bias, product.add)
            )
            return f"{call}({x}, {matrix}, {bias}, {add}{end})"
        message = self.program[product.message]
        self.kernels.append("edge_linear")
        call, source = self._object(edge_linear, "edge_linear"), self._source(message)
        named = self._named(message)
        parts = [source, f"P{self._layout(message)}", matrix, repr(value.kwargs["reduce"]), *([named] if named else [])]
        if product.bias is not None:
            parts.append(f"bias={self._use(product.bias, None, value)}")
        return f"{call}({', '.join(parts)}{end})"

    def _emit_typed(self, value: Value) -> str:
        x, weight, _, types = value.args
        call, rows = self._object(typed, "typed"), self._use(x.name, None, value)
        matrices = self._bind(f"W_{_ident(weight.name)}", Binding("packed", weight.name))
        ranges = self._bind(f"R_{_ident(types.name)}", Binding("ranges", types.name))
        return f"{call}({rows}, {matrices}, {ranges}, r0, r1{self._out(value)})"

    def _emit_pool(self, value: Value) -> None:
        """Add the block's part of a total."""
        pool = self._bind(f"T_{_ident(value.name)}", Binding("pool", value.name))
        if value.op == "group_pool":
            x, index = (self._use(name, None, value) for name in value.refs())
            added = f"{index}, {x}"
        else:
            args = [self._render(arg, None, value, None) for arg in value.args]
            named = {key: item for key, item in value.kwargs.items() if key != "combine"}
            args += [f"{key}={self._render(item, None, value, None)}" for key, item in named.items()]
            added = f"{self._object(value.target, _ident(str(value.target)))}({', '.join(args)})"
        self.lines.append(f"{pool}.add(r0, r1, {added})  # {self._comment(value)}")

    def _emit_gather(self, value: Value, context: str | None) -> str:
        x, index = value.args[0].name, value.args[1].name
        if context is not None and repeats_own_rows(self.program, value, context, self.block.space):
            k = self.layouts.index(context)
            self.kernels.append("repeat")
            rows = self._use(x, None, value, same_rows=True)
            repeat = self._object(trusted.repeat, "repeat")
            if value.row_dim:
                return f"{repeat}({rows}.movedim({value.row_dim}, 0), P{k}, threads=1).movedim(0, {value.row_dim})"
            return f"{repeat}({rows}, P{k}, threads=1)"
        table = self._bind(f"T_{_ident(x)}", Binding("table", x))
        at = self._edge_index(index, context)
        self.kernels.append("gather")
        gather = self._object(trusted.gather, "gather")
        made = f"{gather}(*{table}.gather({at}), threads=1)"
        return f"{made}.movedim(0, {value.row_dim})" if value.row_dim else made

    def _emit_reduce(self, value: Value, context: str | None) -> str:
        x, index = value.args[0].name, value.args[1].name
        k = self.layouts.index(index)
        if not by_column(value):
            return self._emit_aggregate(value, x, index, k)
        self.kernels.append("segment_reduce")
        call = self._object(trusted.segment_reduce, "segment_reduce")
        edges = self._use(x, index, value)
        if value.row_dim:
            edges = f"{edges}.movedim({value.row_dim}, 0).contiguous()"
        made = f"{call}({edges}, P{k}, {value.kwargs['reduce']!r}, threads=1{self._out(value)})"
        return f"{made}.movedim(0, {value.row_dim})" if value.row_dim else made

    def _emit_aggregate(self, value: Value, x: str, index: str, k: int) -> str:
        handle = value.kwargs["reduce"]
        self.kernels.append(handle.__name__)
        call, module = self._object(aggregate, "aggregate"), self._object(handle, "module")
        largest = self._bind(f"largest{k}", Binding("largest", None, index))
        return f"{call}({module}, {self._use(x, index, value)}, P{k}, {largest}, {value.row_dim})"

    def _emit_softmax(self, value: Value, context: str | None) -> str:
        x, index = value.args[0].name, value.args[1].name
        self.kernels.append("segment_softmax")
        call = self._object(trusted.segment_softmax, "segment_softmax")
        return f"{call}({self._use(x, index, value)}, P{self.layouts.index(index)}, threads=1)"

    def _emit_gather_reduce(self, value: Value, context: str | None) -> str:
        table, k = self._source(value), self._layout(value)
        self.kernels.append("gather_reduce")
        weight = value.kwargs.get("weight")
        flat = "None"
        if weight is not None:
            used = self._use(weight.name, value.args[2].name, value)
            flat = f"{self._object(edge_weight, 'edge_weight')}({used})"
        call = self._object(trusted.gather_reduce, "gather_reduce")
        reduce = value.kwargs["reduce"]
        return f"{call}({table}, P{k}, {flat}, {reduce!r}, threads=1{self._out(value)})"

    def _emit_attention(self, value: Value, context: str | None) -> str:
        kind = value.kwargs["kind"]
        self.kernels.append(f"attention_{kind}")
        call = self._object(ATTENTION[kind], f"attention_{kind}")
        parts = self._named(value, without=("kind",))
        return f"{call}({self._source(value)}, P{self._layout(value)}, {parts}, threads=1{self._out(value)})"

    def _emit_message(self, value: Value, context: str | None) -> str:
        return self._emit_fused(value, trusted.message)

    def _emit_message_reduce(self, value: Value, context: str | None) -> str:
        outs = [self._destination(item) for item in outputs_of(self.program, value) if item.name in self.places]
        count = len(value.kwargs["reduces"])
        return self._emit_fused(
            value, trusted.message_reduce, f", outs=({', '.join(outs)},)" if len(outs) == count else ""
        )

    def _emit_softmax_reduce(self, value: Value, context: str | None) -> str:
        return self._emit_fused(value, trusted.softmax_reduce, self._out(value))

    def _emit_edge_dot(self, value: Value, context: str | None) -> str:
        return self._emit_fused(value, trusted.edge_dot)

    def _emit_fused(self, value: Value, operator: Any, out: str = "") -> str:
        self.kernels.append(operator.__name__)
        call = self._object(operator, operator.__name__)
        named = self._named(value)
        return f"{call}({self._source(value)}, rowptr=P{self._layout(value)}, {named}, threads=1{out})"

    def _layout(self, value: Value) -> int:
        return self.layouts.index(value.args[2].name)

    def _source(self, value: Value) -> str:
        """The first two arguments of a fused kernel: where source rows are, and the index to them."""
        x, src, index = value.args
        if src is None:
            return f"{self._use(x.name, index.name, value)}, None"
        table = self._bind(f"T_{_ident(x.name)}", Binding("table", x.name))
        return f"*{table}.gather({self._edge_index(src.name, index.name)})"

    def _named(self, value: Value, without: tuple[str, ...] = ()) -> str:
        """The named arguments of a fused kernel."""
        at = {role: (name, where) for role, name, where in operands(value)}
        index, parts = value.args[2].name, []
        for role, arg in value.kwargs.items():
            if role in without:
                continue
            if role not in at:
                parts.append(f"{role}={arg!r}")
                continue
            name, where = at[role]
            if where is At.SOURCE:  # it is gathered by the same index as the first operand
                parts.append(f"{role}={self._beside(value, name)}")
            else:
                parts.append(f"{role}={self._use(name, index if where is At.EDGE else None, value)}")
        return ", ".join(parts)

    def _beside(self, value: Value, name: str) -> str:
        """Another source operand of a fused kernel: rows that the index of the first leads to as well."""
        assert value.args[1] is not None, "an operand at sources needs an index to them"
        table = self._bind(f"T_{_ident(name)}", Binding("table", name))
        return f"{table}.gather({self._edge_index(value.args[1].name, value.args[2].name)})[0]"

    def _out(self, value: Value) -> str:
        return f", out={self._destination(value)}" if value.name in self.places else ""

    # -- operands ---------------------------------------------------------------------------------------------

    def _use(self, name: str, context: str | None, user: Value, same_rows: bool = False) -> str:
        """The text of operand `name` in a context; loads it first where the block does not compute it."""
        value = self.program[name]
        if value.space is None or value.is_pairwise:
            return self._bind(f"G_{_ident(name)}", Binding("global", name))
        if (name, context) in self.locals:
            return self.locals[name, context]
        local = self._local(name, context)
        constant = value.op == "aten" and value.stage is Stage.STRUCT and not value.refs()
        if constant and value.target is not None and value.target.overloadpacket in SHAPE_ARGUMENT:
            self.lines.append(f"{local} = {self._emit_aten(value, context)}")
            return local
        self.lines.append(f"{local} = {self._load(value, context)}")
        return local

    def _load(self, value: Value, context: str | None) -> str:
        ident, row_dim = _ident(value.name), value.row_dim or 0
        if value.stage is Stage.STRUCT:
            if context is not None:
                k = self.layouts.index(context)
                made = f"{self._bind(f'S_{ident}_{k}', Binding('edges', value.name, context))}[e0_{k}:e1_{k}]"
                return f"{made}.movedim(0, {row_dim})" if row_dim else made
            rows = self._bind(f"S_{ident}", Binding("rows", value.name))
            return f"{rows}.narrow({row_dim}, r0, B)" if row_dim else f"{rows}[r0:r1]"
        table = self._bind(f"T_{ident}", Binding("table", value.name))
        if context is None:
            made = f"{table}.read(r0, r1)"
        else:
            gather = self._object(trusted.gather, "gather")
            made = f"{gather}(*{table}.gather({self._perm(context)}), threads=1)"
        return f"{made}.movedim(0, {row_dim})" if row_dim else made

    def _edge_index(self, index: str, context: str | None) -> str:
        if context is None:
            return f"{self._bind(f'S_{_ident(index)}', Binding('rows', index))}[r0:r1]"
        k = self.layouts.index(context)
        return f"{self._bind(f'I_{_ident(index)}_{k}', Binding('edges', index, context))}[e0_{k}:e1_{k}]"

    def _perm(self, context: str) -> str:
        k = self.layouts.index(context)
        return f"{self._bind(f'perm{k}', Binding('perm', None, context))}[e0_{k}:e1_{k}]"

    def _rows(self, context: str | None) -> tuple[sympy.Expr, str]:
        if context is None:
            return self.block.space, "B"
        space = self.program[context].space
        assert space is not None
        return space, f"E{self.layouts.index(context)}"

    def _render(self, arg: Any, context: str | None, value: Value, rows: tuple[sympy.Expr, str] | None) -> str:
        if isinstance(arg, (tuple, list)):
            items = [self._render(item, context, value, rows) for item in arg]
            return f"[{', '.join(items)}]"
        if isinstance(arg, Ref):
            same = value.is_pool or self.program[arg.name].space == value.space
            return self._use(arg.name, context if same else None, value)
        if isinstance(arg, Dim):
            if rows is not None:
                factor = arg.expr / rows[0]
                if factor.is_Integer:
                    return rows[1] if factor == 1 else f"{int(factor)} * {rows[1]}"
            return self._bind(f"D{len(self.bindings)}", Binding("size" if rows is None else "rows_of", arg.expr))
        if arg is None or isinstance(arg, (bool, int, str)):
            return repr(arg)
        if isinstance(arg, float) and math.isfinite(arg):
            return repr(arg)
        return self._object(arg, "c")

    # -- names ------------------------------------------------------------------------------------------------

    def _local(self, name: str, context: str | None) -> str:
        suffix = "" if context is None else f"__{self.layouts.index(context)}"
        return self.locals.setdefault((name, context), f"{_ident(name)}{suffix}")

    def _bind(self, name: str, binding: Binding) -> str:
        self.bindings.setdefault(name, binding)
        return name

    def _object(self, item: Any, stem: str) -> str:
        if id(item) not in self.objects:
            name = stem if stem not in self.bindings else f"{stem}_{len(self.bindings)}"
            self.objects[id(item)] = self._bind(name, Binding("object", item))
        return self.objects[id(item)]

    def _destination(self, value: Value) -> str:
        place = self.places[value.name]
        if place.table is None:
            return f"scratch[{place.slot}][:B]"
        rows = f"{self._bind(f'T_{_ident(place.table)}', Binding('table', place.table))}.destination(r0, r1)"
        if self.program[place.table].shape == value.shape:
            return rows
        return f"{rows}.view(B, {', '.join(str(size) for size in value.shape[1:])})"

    def _comment(self, value: Value) -> str:
        sizes = ", ".join(self.program.space_name(s) if is_symbolic(s) else str(s) for s in value.shape)
        return f"[{sizes}]" + (f" {value.where}" if value.where else "")

    def _free_early(self) -> None:
        """Forget each local after its last use, so that a block holds only what it still needs."""
        last: dict[str, int] = {}
        names = set(self.locals.values())
        for number, line in enumerate(self.lines):
            for word in re.findall(r"\w+", line.split("  # ")[0]):
                if word in names:
                    last[word] = number
        for number in sorted(set(last.values()), reverse=True):
            dead = sorted(word for word, at in last.items() if at == number)
            self.lines.insert(number + 1, f"del {', '.join(dead)}")


def _ident(name: str) -> str:
    return "v_" + re.sub(r"\W", "_", name)
