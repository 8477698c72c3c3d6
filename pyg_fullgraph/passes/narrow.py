"""Aggregate on the narrower side of a linear map: a sum over neighbours and a matrix product commute.

::

    SAGE on wide features, 4005 -> 64              GCN on narrow features, 16 -> 64
    before: s = gather_reduce(%x, mean) # 4005     before: y = mm(%x, %Wt)               # 64
            y = mm(%s, %Wt)             # 64               s = gather_reduce(%y, sum)    # gathers 64 columns
    after:  h = mm(%x, %Wt)             # 64       after:  s = gather_reduce(%x, sum)    # gathers 16 columns
            s = gather_reduce(%h, mean)                    y = mm(%s, %Wt)

Which comes first is chosen by bytes and operations: edges gather, and destinations hold, rows of one width or the
other; multiplying first stores one more table (unless that of `x` is then needed nowhere) and reads an input in a
superstep of its own; and there are as many products as sources or as destinations. Sizes are those of the first graph
(`Program.likely`).
"""

from __future__ import annotations

from dataclasses import replace

import torch

from pyg_fullgraph.ir import Program, Ref, Stage, Value, is_aten
from pyg_fullgraph.ir.work import FLOPS_PER_BYTE, likely_size

aten = torch.ops.aten

_DEGREE = 16  # in-edges of a node, where that is not known
_STORED = 2  # bytes moved for one that is stored: its line is read before it is written


def narrow_aggregations(program: Program) -> None:
    """Reorder linear maps and aggregations in place, so that fewer columns are gathered."""
    for value in list(program):
        if value.name not in program.values:
            continue
        if value.op == "gather_reduce" and value.kwargs["reduce"] in ("sum", "mean"):
            _aggregate_first(program, value)
        elif is_aten(value, aten.mm) or is_aten(value, aten.addmm):
            _multiply_first(program, value)
    program.drop_dead()


def _aggregate_first(program: Program, value: Value) -> None:
    product = program[value.args[0].name]
    if not is_aten(product, aten.mm) or program.users_of(product.name) != [value.name]:
        return
    if product.name in program.output_names():
        return
    x, weight = (program[ref.name] for ref in product.args)
    if x.row_dim != 0 or weight.row_dim is not None or len(value.shape) != 2:
        return
    if not _one_per_edge(program, value) or _saved(program, x, value, product.width, product.name) >= 0:
        return
    inner = program.fresh("aggregate")
    gathered = replace(
        value,
        name=inner,
        args=(Ref(x.name), *value.args[1:]),
        shape=(value.shape[0], *x.shape[1:]),
        dtype=x.dtype,
    )
    program.insert_before(value.name, [gathered])
    program.values[value.name] = Value(
        value.name,
        "aten",
        (Ref(inner), product.args[1]),
        {},
        value.shape,
        value.dtype,
        Stage.DATA,
        target=aten.mm.default,
        where=product.where,
    )


def _multiply_first(program: Program, value: Value) -> None:
    bias = value.args[0] if is_aten(value, aten.addmm) else None
    operand, matrix = value.args[-2:]
    if value.kwargs or program[matrix.name].row_dim is not None or value.row_dim != 0:
        return
    if bias is not None and program[bias.name].row_dim is not None:
        return
    chain = _scaled_aggregate(program, operand.name, value.name)
    if chain is None:
        return
    aggregate, scales = chain
    x = aggregate.args[0]
    if _saved(program, program[x.name], aggregate, value.width, aggregate.name) <= 0:
        return
    made: list[Value] = []

    def emit(
        like: Value, stem: str, op: str, args: tuple, space: object, target: object = None, **kwargs: object
    ) -> Ref:
        name = program.fresh(stem)
        shape = (space, value.shape[1])
        item = Value(name, op, args, dict(kwargs), shape, value.dtype, Stage.DATA, target=target, where=like.where)
        program.values[name] = item  # reserves the name; put in place below
        made.append(item)
        return Ref(name)

    ref = emit(value, "product", "aten", (x, matrix), program[x.name].shape[0], aten.mm.default)
    ref = emit(
        aggregate,
        "aggregate",
        "gather_reduce",
        (ref, *aggregate.args[1:]),
        value.shape[0],
        None,
        **aggregate.kwargs,
    )
    for scaling, factor in scales:
        ref = emit(scaling, "scale", "aten", (ref, Ref(factor)), value.shape[0], scaling.target)
    for item in made:
        del program.values[item.name]
    program.insert_before(value.name, made)
    if bias is None:
        program.substitute({value.name: ref.name})
    else:
        program.values[value.name] = Value(
            value.name,
            "aten",
            (ref, bias),
            {},
            value.shape,
            value.dtype,
            Stage.DATA,
            target=aten.add.Tensor,
            where=value.where,
        )


def _saved(program: Program, x: Value, aggregate: Value, width: int, user: str) -> float:
    """What multiplying before `aggregate` saves against multiplying after it, as bytes that move.

    Args:
        x: what is multiplied, or aggregated, first.
        width: columns of the product.
        user: the one that reads `x` for this aggregation.
    """
    sources, targets, edges = _counts(program, x, aggregate)
    item = x.dtype.itemsize if x.dtype is not None else 4
    products = 2 * x.width * width / FLOPS_PER_BYTE
    saved = (edges + targets) * (x.width - width) * item + (targets - sources) * products
    if aggregate.args[1] is None:  # of values on the edges, which are not stored
        return saved
    users = program.users_of(x.name)
    if x.op == "input":  # read once for all relations that multiply it
        alike = sum(program[name].op == program[user].op for name in users)
        return saved - sources * (x.width / alike + _STORED * width) * item
    replaced = users == [user] and x.name not in program.output_names()
    return saved - _STORED * sources * (width - (x.width if replaced else 0)) * item


def _counts(program: Program, x: Value, aggregate: Value) -> tuple[float, float, float]:
    """Rows that are gathered from, rows that are aggregated to, and edges: of the first graph; what is not known of it,
    or 0, in proportion to the others.
    """
    sources, targets = (likely_size(program, value.shape[0]) for value in (x, aggregate))
    edges = likely_size(program, program[aggregate.args[2].name].shape[0])
    rows = sources or targets or (edges or _DEGREE) / _DEGREE
    return sources or rows, targets or rows, edges or _DEGREE * rows


def _scaled_aggregate(program: Program, name: str, user: str) -> tuple[Value, list[tuple[Value, str]]] | None:
    """The aggregation below a chain of per-row scalings, each value used only by the next."""
    scales: list[tuple[Value, str]] = []
    outputs = program.output_names()
    while True:
        value = program[name]
        if name in outputs or len(value.shape) != 2 or program.users_of(name) != [user]:
            return None
        if value.op == "gather_reduce":
            linear = value.kwargs["reduce"] in ("sum", "mean")
            return (value, scales[::-1]) if linear and _one_per_edge(program, value) else None
        if not (is_aten(value, aten.div) or is_aten(value, aten.mul)) or len(value.refs()) != 2:
            return None
        below, factor = value.refs()
        narrow = _one_per_row(program, factor)
        if narrow is None:
            return None
        scales.append((value, narrow))
        user, name = name, below


def _one_per_edge(program: Program, aggregate: Value) -> bool:
    """True where an edge's columns all have one weight, or none."""
    weight = aggregate.kwargs.get("weight")
    return weight is None or program[weight.name].width == 1


def _one_per_row(program: Program, name: str) -> str | None:
    """The [N, 1] value that `name` is an expansion of, if it is one."""
    value = program[name]
    while is_aten(value, aten.expand):
        value = program[value.args[0].name]
    return value.name if value.row_dim == 0 and value.width == 1 and len(value.shape) == 2 else None
