"""Fuse the arithmetic of a message with the gathers before it and the reductions after it.

A *message* is `activation(x_j + y_i + z_e) + shift`: a source row, a destination row and an edge row added up. Kernels
form it on the fly::

    PNA                                                after
    m  = gather(%a, %src) + gather(%b, %dst)           r = message_reduce(%a, %src, dst=%b,
    s  = reduce(%m, sum);   t = reduce(%m, min)                           (sum, min, square_sum))
    q  = reduce(%m * %m, sum)                          s, t, q = %r[0], %r[1], %r[2]

    EdgeConv, a second layer in its network            after
    m  = relu(gather(%a, %src) + gather(%b, %dst))     m  = message(%a, %src, dst=%b, relu)
    h  = addmm(%c, %m, %W);  o = reduce(%h, max)       h  = addmm(%c, %m, %W);  o = reduce(%h, max)

    GENConv                                            after
    m  = relu(gather(%x, %src) + %e) + 1e-7            o  = softmax_reduce(%x, %src, edge=%e, relu, shift=1e-7,
    w  = softmax(%m * %t, %dst)                                            scale=%t)
    o  = reduce(%m * %w, sum)

    HGT, SuperGAT                                      after
    s  = sum(gather(%q, %dst) * gather(%k, %src), -1)  s  = edge_dot(%k, %src, query=%q)
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, replace
from typing import Any

import torch

from pyg_fullgraph.ir import Dim, Program, Ref, Stage, Value, by_column, is_aten
from pyg_fullgraph.ir.build import Builder
from pyg_fullgraph.passes.contexts import edge_contexts, of_own_row
from pyg_fullgraph.passes.fuse import FLOATS

aten = torch.ops.aten

_NAMES = {"sum": "sum", "max": "max", "min": "min"}


def fuse_reductions(program: Program) -> None:
    """Replace reductions of messages, and several reductions of one value, by fused values, in place."""
    for value in list(program):
        if value.name in program.values and by_column(value) and value.row_dim == 0:
            _softmax_reduce(program, program[value.name])
    _message_reduces(program)
    program.drop_dead()


def fuse_messages(program: Program) -> None:
    """Replace messages that are used on, and dot products of the two ends, by fused edge values, in place."""
    contexts = edge_contexts(program)
    for name in reversed(list(program.values)):  # the outermost form first: an activation with what it is applied to
        value = program.values.get(name)
        if value is None or value.stage is not Stage.DATA or len(contexts[name]) != 1:
            continue
        (index,) = contexts[name]
        if index is not None and (_edge_dot(program, value, index) or _message(program, value, index)):
            program.drop_dead()


# The parts of a message --------------------------------------------------------------------------------


@dataclass
class Message:
    """A message taken apart; names of values, and what is done with their sum."""

    source: Value | None  # a gather by the source
    dst: Value | None  # a gather by the destination
    edges: list[Value]
    activation: str = "none"
    negative_slope: float = 0.0
    shift: float = 0.0

    @property
    def saves(self) -> bool:
        """True where forming it in a kernel saves at least one pass over the edges."""
        ends = (self.source is not None) + (self.dst is not None) + len(self.edges)
        return ends > 1 or self.activation != "none" or self.shift != 0.0


def message_of(program: Program, value: Value, index: str) -> Message | None:
    """`value` as a message to the destinations `index`, None where it has another form.

    Args:
        program: holds the values.
        value: of the edges.
        index: name of the destination index.
    """
    if value.dtype not in FLOATS or value.row_dim != 0:
        return None
    shift, slope, activation = 0.0, 0.0, "none"
    if is_aten(value, aten.add) and len(value.args) == 2 and isinstance(value.args[1], (int, float)):
        shift, value = float(value.args[1]), program[value.args[0].name]
    if is_aten(value, aten.relu):
        activation, value = "relu", program[value.args[0].name]
    elif is_aten(value, aten.leaky_relu):
        slope = float(value.args[1]) if len(value.args) > 1 else 0.01
        activation, value = "leaky_relu", program[value.args[0].name]
    found = _added(program, value, index)
    return None if found is None else replace(found, activation=activation, negative_slope=slope, shift=shift)


def _added(program: Program, value: Value, index: str) -> Message | None:
    """The rows that are added up: one of the source, one of the destination, and edge rows."""
    message = Message(None, None, [])
    stack, limit = [value], 8
    while stack:
        item = stack.pop()
        plain = is_aten(item, aten.add) and not item.kwargs and len(item.args) == 2 and len(item.refs()) == 2
        parts = [program[name] for name in item.refs()] if plain else []
        if plain and all(part.shape == value.shape and part.dtype == value.dtype for part in parts) and limit:
            stack, limit = [*stack, *reversed(parts)], limit - 1
        elif message.dst is None and of_own_row(program, item, index):
            message.dst = item
        elif item.op == "gather" and item.args[1].name != index and message.source is None:
            message.source = item
        else:
            message.edges.append(item)
    ends = [end for end in (message.source, message.dst) if end is not None]
    return None if any(end.row_dim != 0 for end in ends) or (message.source is None and not message.edges) else message


def _fused(build: Builder, op: str, message: Message, index: str, more: dict[str, Any], like: Value) -> Ref:
    """A fused value made of a message."""
    edges = [Ref(edge.name) for edge in message.edges]
    while len(edges) > 1:
        edges[:2] = [build.aten(aten.add.Tensor, edges[0], edges[1], like=message.edges[0])]
    if message.source is not None:
        x, src = message.source.args
    else:
        (x, src), edges = (edges[0], None), []
    kwargs: dict[str, Any] = dict(more)
    if message.dst is not None:
        kwargs["dst"] = message.dst.args[0]
    if edges:
        kwargs["edge"] = edges[0]
    if message.activation != "none":
        kwargs["activation"] = message.activation
    if message.activation == "leaky_relu":
        kwargs["negative_slope"] = message.negative_slope
    if message.shift:
        kwargs["shift"] = message.shift
    return build.add(replace(like, name="", op=op, target=None, args=(x, src, Ref(index)), kwargs=kwargs))


# Several reductions of one message ---------------------------------------------------------------------


def _message_reduces(program: Program) -> None:
    groups: dict[tuple[str, str], list[tuple[str, Value]]] = defaultdict(list)
    targets = {value.space for value in program if by_column(value)}
    for value in program:
        if not by_column(value) or value.row_dim != 0 or value.kwargs["reduce"] not in _NAMES:
            continue
        index = value.args[1].name
        if program[index].space in targets:
            continue
        base, kind = program[value.args[0].name], value.kwargs["reduce"]
        square = _squared(base)
        if square is not None and kind == "sum":
            base, kind = program[square], "square_sum"
        groups[base.name, index].append((kind, value))
    for (name, index), members in groups.items():
        _message_reduce(program, program[name], index, members)


def _squared(value: Value) -> str | None:
    """The value whose square this is."""
    if is_aten(value, aten.mul) and len(set(value.refs())) == 1 and len(value.refs()) == 2:
        return value.refs()[0]
    return value.refs()[0] if is_aten(value, aten.pow) and value.args[1] == 2 else None


def _message_reduce(program: Program, base: Value, index: str, members: list[tuple[str, Value]]) -> None:
    message = message_of(program, base, index)
    if message is None or not (message.saves or len(members) > 1):
        return
    if len(members) == 1 and members[0][0] == "square_sum":
        return
    first = members[0][1]
    build = Builder(program, first.name)
    kinds = tuple(dict.fromkeys(kind for kind, _ in members))
    made = _fused(build, "message_reduce", message, index, {"reduces": kinds}, replace(first, multi=True))
    build.commit()
    for kind, value in members:
        args = (made, kinds.index(kind))
        program.values[value.name] = replace(value, op="aten", target=None, args=args, kwargs={}, local=True)


# Softmax aggregation -----------------------------------------------------------------------------------


def _softmax_reduce(program: Program, value: Value) -> None:
    """`reduce(m * softmax(m * t), sum)`, column by column."""
    weighted, index = program[value.args[0].name], value.args[1].name
    if value.kwargs["reduce"] != "sum" or not is_aten(weighted, aten.mul) or len(weighted.refs()) != 2:
        return
    left, right = (program[name] for name in weighted.refs())
    for message, weight in ((left, right), (right, left)):
        if (
            weight.op != "softmax"
            or weight.args[1].name != index
            or not message.shape == weight.shape == weighted.shape
        ):
            continue
        scale = _scale(program, program[weight.args[0].name], message)
        found = message_of(program, message, index)
        if scale is None or found is None:
            continue
        build = Builder(program, value.name)
        if isinstance(scale, Ref):  # per column: [1, F] and the like as [F]
            sizes = [1] if program[scale.name].width == 1 else list(message.shape[1:])
            scale = build.aten(aten.view.default, scale, sizes)
        build.replace_anchor(_fused(build, "softmax_reduce", found, index, {"scale": scale}, value))
        return


def _scale(program: Program, score: Value, message: Value) -> Any:
    """What the message is multiplied with to give the score: a number or a parameter per column; None if it is not."""
    if score.name == message.name:
        return 1.0
    if not is_aten(score, aten.mul) or score.shape != message.shape:
        return None
    left, right = score.args
    for one, other in ((left, right), (right, left)):
        if isinstance(one, Ref) and one.name == message.name:
            if isinstance(other, (int, float)):
                return float(other)
            factor = program[other.name]
            per_column = factor.row_dim is None and factor.stage <= Stage.PARAM and factor.dtype == message.dtype
            return other if per_column and factor.width in (1, message.width) else None
    return None


# Edge values -------------------------------------------------------------------------------------------


def _message(program: Program, value: Value, index: str) -> bool:
    message = message_of(program, value, index)
    if message is None or message.source is None or not message.saves or value.op != "aten":
        return False
    build = Builder(program, value.name)
    build.replace_anchor(_fused(build, "message", message, index, {}, value))
    return True


def _edge_dot(program: Program, value: Value, index: str) -> bool:
    """`sum(gather(q, dst) * gather(k, src), -1)` of rows `[H, C]`, or of rows `[C]`."""
    if not is_aten(value, aten.sum) or len(value.args) < 2 or value.kwargs:
        return False
    product = program[value.args[0].name]
    rank = len(product.shape)
    if not is_aten(product, aten.mul) or len(product.refs()) != 2 or rank not in (2, 3):
        return False
    if [dim % rank for dim in value.args[1]] != [rank - 1] or product.row_dim != 0 or product.dtype not in FLOATS:
        return False
    left, right = (program[name] for name in product.refs())
    for query, key in ((left, right), (right, left)):
        ends = query.op == key.op == "gather" and query.shape == key.shape == product.shape
        if not ends or not of_own_row(program, query, index) or key.args[1].name == index:
            continue
        build = Builder(program, value.name)
        heads = (1, product.shape[1]) if rank == 2 else product.shape[1:]
        rows = [_by_heads(build, end.args[0], heads) for end in (key, query)]
        args = (rows[0], key.args[1], Ref(index))
        shape = (value.shape[0], heads[0])
        made = build.add(
            replace(value, name="", op="edge_dot", target=None, args=args, kwargs={"query": rows[1]}, shape=shape)
        )
        if value.shape != shape:
            made = build.aten(aten.view.default, made, [Dim(value.shape[0]), *value.shape[1:]], like=value)
        build.replace_anchor(made)
        return True
    return False


def _by_heads(build: Builder, ref: Ref, heads: tuple[Any, ...]) -> Ref:
    x = build.program[ref.name]
    if x.shape[1:] == heads:
        return ref
    return build.aten(aten.view.default, ref, [Dim(x.shape[0]), *heads])
