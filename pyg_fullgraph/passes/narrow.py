"""Aggregate on the narrower side of a linear map: a sum over neighbours and a matrix product commute.

::

    SAGE on wide features, 4005 -> 64              GCN on narrow features, 16 -> 64
    before: s = gather_reduce(%x, mean) # 4005     before: y = mm(%x, %Wt)               # 64
            y = mm(%s, %Wt)             # 64               s = gather_reduce(%y, sum)    # gathers 64 columns
    after:  h = mm(%x, %Wt)             # 64       after:  s = gather_reduce(%x, sum)    # gathers 16 columns
            s = gather_reduce(%h, mean)                    y = mm(%s, %Wt)

The second form also saves a superstep where `x` is an input, so it is taken at equal widths as well.
"""

from __future__ import annotations

from dataclasses import replace

import torch

from pyg_fullgraph.ir import Program, Ref, Stage, Value, is_aten

aten = torch.ops.aten

_DEGREE = 16  # edges a node that a decision without a graph at hand assumes
_GAIN = 0.75  # multiplying first stores one more table: worth it only where it is clearly narrower


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
    if not is_aten(product, aten.mm) or program.users()[product.name] != [value.name]:
        return
    if product.name in program.output_names():
        return
    x, weight = (program[ref.name] for ref in product.args)
    if x.row_dim != 0 or weight.row_dim is not None or len(value.shape) != 2:
        return
    if x.width > product.width or (x.width == product.width and x.op != "input"):
        return
    if not _one_per_edge(program, value):
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
    if chain is None or value.width > _gain(program, chain[0]) * program[operand.name].width:
        return
    aggregate, scales = chain
    x = aggregate.args[0]
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


def _gain(program: Program, aggregate: Value) -> float:
    """How narrow a product must be, against what is aggregated, to come first.

    It stores `N` rows more and gathers `E` narrower ones. Where one table is aggregated over `R` relations, each with a
    product of its own, that is `R N` rows more for the same `E`: with 16 edges a node they return where
    `16 (in - out) > R out`.
    """
    same = [v for v in program if v.op == "gather_reduce" and v.args[0] == aggregate.args[0]]
    relations = len({value.args[2] for value in same})
    return min(_GAIN, _DEGREE / (_DEGREE + relations))


def _scaled_aggregate(program: Program, name: str, user: str) -> tuple[Value, list[tuple[Value, str]]] | None:
    """The aggregation below a chain of per-row scalings, each value used only by the next."""
    scales: list[tuple[Value, str]] = []
    users, outputs = program.users(), program.output_names()
    while True:
        value = program[name]
        if users[name] != [user] or name in outputs or len(value.shape) != 2:
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
