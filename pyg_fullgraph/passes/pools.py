"""Graph-level reductions: values of all rows, or of all rows of a group, gathered block by block.

A *pool* is a reduction over the rows that a superstep's blocks compute: each block adds its part, and the total is
known after the superstep. So a graph-wide norm, a global pooling, a virtual node or linear attention stores nothing
but what it returns::

    PairNorm                                       after
    m = mean(%x, [0], True)          # whole       s = pool(sum(%x, [0], True))           # in x's own superstep
    c = %x - %m                                    m = %s / N                             # [1, F]
    v = mean(sum(pow(%c, 2), -1))    # whole       v = pool(sum(sum(pow(%x - %m, 2), -1))) / N
    GraphNorm with `batch`
    s = reduce(%x, %batch, sum)      # whole       s = group_pool(%x, %batch, sum)        # [G, F]
    linear attention
    kv = bmm(transpose(%k), %v)      # whole       kv = pool(bmm(transpose(%k), %v))      # [H, F, F]

What is made of sums is first written so: means, variances, norms, softmax over the rows, batch norms that use the
batch's own statistics (instance norm).
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import sympy
import torch

from pyg_fullgraph.ir import Dim, Program, Ref, Stage, Value, by_column, is_aten, packet_of
from pyg_fullgraph.ir.build import Builder
from pyg_fullgraph.ir.program import is_symbolic
from pyg_fullgraph.passes.rewrite import Rule, rewrite

aten = torch.ops.aten

_HALF = (torch.float16, torch.bfloat16)


def pool_rows(program: Program) -> None:
    """Make pools of all reductions over rows, in place."""
    rewrite(program, _SUMS)
    for value in list(program):
        if value.stage is Stage.DATA and value.name in program.values:
            _pool(program, value) or _group_pool(program, value)
    _group_pools_of_rows(program)
    program.drop_dead()


# Written as sums -------------------------------------------------------------------------------------


def _over_rows(program: Program, value: Value, dims: Any) -> tuple[Value, list[int]] | None:
    """The first operand and the dimensions (all where `dims` is None or empty), where the rows are among them."""
    if not value.args or not isinstance(value.args[0], Ref):
        return None
    x = program[value.args[0].name]
    if x.row_dim is None or x.is_pairwise or x.stage is not Stage.DATA:
        return None
    rank = len(x.shape)
    over = [d % rank for d in ([dims] if isinstance(dims, int) else dims or range(rank))]
    return (x, over) if x.row_dim in over else None


def _count(x: Value, over: list[int]) -> Any:
    """How many elements are reduced: a number, or arithmetic on sizes."""
    count = sympy.Integer(1)
    for dim in over:
        count = count * x.shape[dim]
    return Dim(count) if is_symbolic(count) else int(count)


def _sum(build: Builder, x: Ref, over: list[int], keep: bool) -> Ref:
    """A sum over dimensions; of the half types in float32, which the last operator narrows again."""
    wide: dict[str, Any] = {"dtype": torch.float32} if build.program[x.name].dtype in _HALF else {}
    return build.aten(aten.sum.dim_IntList, x, over, keep, **wide)


def _narrowed(build: Builder, ref: Ref, value: Value) -> Ref:
    if build.program[ref.name].dtype == value.dtype:
        return ref
    return build.aten(aten._to_copy.default, ref, dtype=value.dtype)


def _argument(value: Value, position: int, name: str, default: Any) -> Any:
    return value.args[position] if len(value.args) > position else value.kwargs.get(name, default)


def _mean(program: Program, value: Value) -> bool:
    if not is_aten(value, aten.mean) or value.kwargs.get("dtype") is not None:
        return False
    found = _over_rows(program, value, _argument(value, 1, "dim", None))
    if found is None:
        return False
    x, over = found
    build = Builder(program, value.name)
    total = _sum(build, Ref(x.name), over, bool(_argument(value, 2, "keepdim", False)))
    build.replace_anchor(_narrowed(build, build.aten(aten.div.Tensor, total, _count(x, over)), value))
    return True


def _variance(program: Program, value: Value) -> bool:
    """var and std in two passes: first the mean, then the squares of what differs from it."""
    if value.target not in (aten.var.correction, aten.std.correction):
        return False
    found = _over_rows(program, value, _argument(value, 1, "dim", None))
    if found is None:
        return False
    x, over = found
    correction = value.kwargs.get("correction")
    build = Builder(program, value.name)
    squares = _squares(build, Ref(x.name), over, bool(value.kwargs.get("keepdim", False)))
    count = _count(x, over)
    left = (count.expr if isinstance(count, Dim) else sympy.Integer(count)) - int(
        1 if correction is None else correction
    )
    left = sympy.Max(left, 0)
    out = build.aten(aten.div.Tensor, squares, Dim(left) if is_symbolic(left) else int(left))
    if is_aten(value, aten.std):
        out = build.aten(aten.sqrt.default, out)
    build.replace_anchor(_narrowed(build, out, value))
    return True


def _squares(build: Builder, x: Ref, over: list[int], keep: bool) -> Ref:
    """The sum of the squared differences from the mean."""
    mean = build.aten(aten.div.Tensor, _sum(build, x, over, True), _count(build.program[x.name], over))
    apart = build.aten(aten.sub.Tensor, x, mean)
    return _sum(build, build.aten(aten.mul.Tensor, apart, apart), over, keep)


def _norm(program: Program, value: Value) -> bool:
    if not is_aten(value, aten.linalg_vector_norm) or _argument(value, 1, "ord", 2) != 2:
        return False
    found = _over_rows(program, value, _argument(value, 2, "dim", None))
    if found is None or value.kwargs.get("dtype") is not None:
        return False
    x, over = found
    build = Builder(program, value.name)
    squares = build.aten(aten.mul.Tensor, Ref(x.name), Ref(x.name))
    total = _sum(build, squares, over, bool(_argument(value, 3, "keepdim", False)))
    build.replace_anchor(_narrowed(build, build.aten(aten.sqrt.default, total), value))
    return True


def _softmax(program: Program, value: Value) -> bool:
    """Softmax of all rows, column by column."""
    if not is_aten(value, aten._softmax) and not is_aten(value, aten._log_softmax):
        return False
    found = _over_rows(program, value, value.args[1])
    if found is None or value.args[2]:
        return False
    x, over = found
    build = Builder(program, value.name)
    shifted = build.aten(aten.sub.Tensor, Ref(x.name), build.aten(aten.amax.default, Ref(x.name), over, True))
    power = build.aten(aten.exp.default, shifted)
    total = _sum(build, power, over, True)
    if is_aten(value, aten._softmax):
        out = build.aten(aten.div.Tensor, power, total)
    else:
        out = build.aten(aten.sub.Tensor, shifted, build.aten(aten.log.default, total))
    build.replace_anchor(_narrowed(build, out, value))
    return True


def _batch_norm(program: Program, value: Value) -> bool:
    """A batch norm by the statistics of the batch itself, of which only the first output is used."""
    if value.op != "aten" or value.target is not None or value.args[1] != 0:
        return False
    norm = program[value.args[0].name]
    packet = packet_of(norm)
    if packet is aten.native_batch_norm and norm.args[5] is True:
        x, weight, bias, eps = norm.args[0], norm.args[1], norm.args[2], norm.args[7]
    elif norm.target is aten._native_batch_norm_legit.no_stats and norm.args[3] is True:
        x, weight, bias, eps = norm.args[0], norm.args[1], norm.args[2], norm.args[5]
    else:
        return False
    rank = len(program[x.name].shape)
    if program[x.name].row_dim in (None, 1) or program[x.name].is_pairwise:
        return False
    over = [dim for dim in range(rank) if dim != 1]
    build = Builder(program, value.name)
    count = _count(program[x.name], over)
    mean = build.aten(aten.div.Tensor, _sum(build, x, over, True), count)
    spread = build.aten(aten.div.Tensor, _squares(build, x, over, True), count)
    scale = build.aten(aten.rsqrt.default, build.aten(aten.add.Tensor, spread, eps))
    out = build.aten(aten.mul.Tensor, build.aten(aten.sub.Tensor, x, mean), scale)
    sizes = [-1 if dim == 1 else 1 for dim in range(rank)]
    for parameter, target in ((weight, aten.mul.Tensor), (bias, aten.add.Tensor)):
        if parameter is not None:
            out = build.aten(target, out, build.aten(aten.view.default, parameter, sizes))
    build.replace_anchor(_narrowed(build, out, value))
    return True


_SUMS: tuple[Rule, ...] = (_mean, _variance, _norm, _softmax, _batch_norm)


# Pools -------------------------------------------------------------------------------------------------


def _pool(program: Program, value: Value) -> bool:
    """A reduction over all rows, into a value without rows."""
    combine = _combined_by(program, value)
    if combine is None or any(is_symbolic(size) for size in value.shape):
        return False
    operands = [program[name] for name in value.refs() if program[name].row_dim is not None]
    spaces = {operand.space for operand in operands}
    if len(spaces) != 1 or any(program[name].is_pairwise for name in value.refs()):
        return False
    kwargs = {**value.kwargs, "combine": combine}
    program.values[value.name] = replace(value, op="pool", kwargs=kwargs, local=True)
    return True


def _combined_by(program: Program, value: Value) -> str | None:
    """How the results of parts of the rows make the result of all: sum, max or min; None where they do not."""
    packet = packet_of(value)
    if packet in (aten.sum, aten.amax, aten.amin):
        found = _over_rows(program, value, _argument(value, 1, "dim", None))
        return None if found is None else {aten.sum: "sum", aten.amax: "max", aten.amin: "min"}[packet]
    if value.target in (aten.max.default, aten.min.default):
        return "max" if packet is aten.max else "min"
    if packet in (aten.mm, aten.bmm, aten.matmul):
        left, right = program[value.args[0].name], program[value.args[1].name]
        ends = len(left.shape) > 1 and len(right.shape) > 1
        inner = left.row_dim == len(left.shape) - 1 and right.row_dim == len(right.shape) - 2
        return "sum" if ends and inner else None
    if packet in (aten.scatter_add, aten.index_add) and not value.kwargs and value.args[1] == 0:
        base, index, x = program[value.args[0].name], program[value.args[2].name], program[value.args[3].name]
        rows = index.row_dim == x.row_dim == 0 and index.space == x.space
        return "sum" if rows and is_aten(base, aten.full) and base.args[1] == 0 else None
    return None


def _group_pool(program: Program, value: Value) -> bool:
    """The largest or smallest row of each of a fixed number of groups."""
    if not is_aten(value, aten.scatter_reduce) or any(is_symbolic(size) for size in value.shape):
        return False
    base, dim, index, x, reduce = value.args
    root, rows = _root(program, program[index.name]), program[x.name]
    if reduce not in ("amax", "amin") or value.kwargs.get("include_self", True) or dim != 0:
        return False
    if rows.row_dim != 0 or root.space != rows.space or len(root.shape) != 1 or root.stage is not Stage.STRUCT:
        return False
    if not is_aten(program[base.name], aten.full) or program[base.name].args[1] != 0:
        return False
    program.values[value.name] = replace(
        value, op="group_pool", target=None, args=(x, Ref(root.name)), kwargs={"reduce": reduce[1:]}, local=True
    )
    return True


def _root(program: Program, index: Value) -> Value:
    """The index below the views that broadcast it over columns."""
    while packet_of(index) in (aten.expand, aten.view, aten.unsqueeze) and index.row_dim == 0:
        index = program[index.args[0].name]
    return index


def _group_pools_of_rows(program: Program) -> None:
    """Reductions of rows that are themselves destinations of edges: nodes into graphs, clusters, hyperedges."""
    reductions = [value for value in program if by_column(value) and value.stage is Stage.DATA]
    targets = {value.space for value in reductions if value.space is not None}
    for value in reductions:
        index = program[value.args[1].name]
        pooled = value.space is None or (value.row_dim == 0 and index.space in targets)
        if pooled and program[value.args[0].name].row_dim == 0:
            program.values[value.name] = replace(value, op="group_pool", local=True)
    for value in list(program):
        if value.op == "softmax" and program[value.args[1].name].space in targets and value.row_dim == 0:
            _softmax_by_pools(program, value)


def _softmax_by_pools(program: Program, value: Value) -> None:
    """The softmax among the rows of each group, with its maxima and sums as pools."""
    x, index = value.args
    rows, operand = value.kwargs["rows"], program[x.name]
    build = Builder(program, value.name)

    def pool(of: Ref, reduce: str) -> Ref:
        shape = (rows.expr if isinstance(rows, Dim) else rows, *operand.shape[1:])
        made = Value("", "group_pool", (of, index), {"reduce": reduce}, shape, operand.dtype, Stage.DATA)
        return build.add(replace(made, where=value.where))

    def back(of: Ref) -> Ref:
        if isinstance(rows, Dim):
            return build.gather(of, index, value)
        return build.aten(aten.index_select.default, of, 0, index)

    power = build.aten(aten.exp.default, build.aten(aten.sub.Tensor, x, back(pool(x, "max"))))
    total = build.aten(aten.add.Tensor, pool(power, "sum"), 1e-16)
    build.replace_anchor(build.aten(aten.div.Tensor, power, back(total)))
