"""Fuse an edge program that ends in a reduction into one kernel, so that no edge row is ever materialised.

::

    before                                             after
    x_j = gather(%x, %src)                             out = gather_reduce(%x, %src, %dst, weight=%w, sum)
    m   = %w * %x_j
    out = reduce(%m, %dst, sum)

    alpha = softmax(%score, %dst)                      out = attention(%v, %src, %dst, score parts)
    out   = reduce(%alpha * gather(%v, %src), %dst, sum)

The score of an attention is taken apart where a kernel can compute it on the fly: additive (GAT), GATv2's and the
scaled dot product; any other score is computed in the block's edge tile and handed over whole ("explicit").
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch

from pyg_fullgraph.ir import Dim, Program, Ref, Stage, Value, by_column, is_aten
from pyg_fullgraph.ir.build import Builder
from pyg_fullgraph.passes.contexts import of_own_row

aten = torch.ops.aten


def fuse_aggregations(program: Program) -> None:
    """Replace reductions of gathered (and weighted) rows by `gather_reduce` and `attention`, in place."""
    for value in list(program):
        if not by_column(value) or value.row_dim != 0:
            continue
        fused = _gather_reduce(program, value)
        if fused is None:
            continue
        fused = _attention(program, fused) or fused
        if fused.name == value.name:
            program.values[value.name] = fused
        else:  # rows without heads: a view of what was made for one head
            program.substitute({value.name: fused.name})
            del program.values[value.name]
    program.drop_dead()


def _gather_reduce(program: Program, value: Value) -> Value | None:
    message, index = (program[name] for name in value.refs())
    reduce = value.kwargs["reduce"]
    gathered, weight = message, None
    if is_aten(message, aten.mul) and reduce in ("sum", "mean") and len(message.refs()) == 2:
        left, right = (program[name] for name in message.refs())
        if _is_weight(left, right, message):
            gathered, weight = right, left
        elif _is_weight(right, left, message):
            gathered, weight = left, right
    if gathered.op != "gather" or gathered.row_dim != 0 or gathered.args[1].name == index.name:
        return None
    if reduce == "mul" or gathered.dtype not in FLOATS:
        return None
    weighted = {} if weight is None else {"weight": Ref(weight.name)}
    return Value(
        value.name,
        "gather_reduce",
        (gathered.args[0], gathered.args[1], Ref(index.name)),
        {"reduce": reduce, **weighted},
        value.shape,
        value.dtype,
        Stage.DATA,
        where=value.where,
    )


FLOATS = (torch.float32, torch.float64, torch.bfloat16, torch.float16)


def _is_weight(weight: Value, gathered: Value, message: Value) -> bool:
    """One scalar per edge, or one per edge and head of rows shaped [H, C]."""
    if gathered.op != "gather" or gathered.shape != message.shape or weight.row_dim != 0:
        return False
    if weight.space != gathered.space or weight.dtype != gathered.dtype or len(weight.shape) != len(gathered.shape):
        return False
    if all(size == 1 for size in weight.shape[1:]):
        return True
    return len(weight.shape) == 3 and weight.shape[2] == 1 and weight.shape[1] == gathered.shape[1]


def _attention(program: Program, fused: Value) -> Value | None:
    """`gather_reduce` weighted by a softmax over the same destinations."""
    x, src, index = fused.args
    weight = fused.kwargs.get("weight")
    if weight is None or fused.kwargs["reduce"] != "sum" or len(program[x.name].shape) not in (2, 3):
        return None
    if len(program[x.name].shape) == 2:
        return _attention_of_one_head(program, fused)
    view = program[weight.name]
    alpha = view
    while is_aten(alpha, aten.unsqueeze) or is_aten(alpha, aten.view):
        alpha = program[alpha.args[0].name]
    heads = program[x.name].shape[1]
    if alpha.op != "softmax" or alpha.args[1] != index or tuple(alpha.shape[1:]) not in ((heads,), (heads, 1)):
        return None
    if view.shape[1] != heads:
        return None
    score = program[alpha.args[0].name]
    kind, parts = _score(program, score, src, index)
    return Value(
        fused.name,
        "attention",
        (x, src, index),
        {"kind": kind, **parts},
        fused.shape,
        fused.dtype,
        Stage.DATA,
        where=fused.where,
    )


def _attention_of_one_head(program: Program, fused: Value) -> Value | None:
    """The same for rows without heads, as AGNN has them: `[N, C]` as `[N, 1, C]`, and the result back."""
    x, src, index = fused.args
    alpha = program[fused.kwargs["weight"].name]
    while is_aten(alpha, aten.unsqueeze) or is_aten(alpha, aten.view):
        alpha = program[alpha.args[0].name]
    if alpha.op != "softmax" or alpha.args[1] != index or alpha.width != 1:
        return None
    build = Builder(program, fused.name)
    table = build.aten(aten.view.default, x, [Dim(program[x.name].shape[0]), 1, program[x.name].width])
    shape = (fused.shape[0], 1, fused.width)
    kwargs = {"kind": "explicit", "score": alpha.args[0]}
    made = replace(fused, name="", op="attention", args=(table, src, index), kwargs=kwargs, shape=shape)
    back = build.aten(aten.view.default, build.add(made), [Dim(fused.shape[0]), fused.width], like=fused)
    build.commit()
    return program[back.name]


def _score(program: Program, score: Value, src: Ref, index: Ref) -> tuple[str, dict[str, Any]]:
    parts = _dot(program, score, src, index)
    if parts is not None:
        return "dot", parts
    parts = _gatv2(program, score, src, index)
    if parts is not None:
        return "gatv2", parts
    parts = _additive(program, score, src, index)
    if parts is not None:
        return "additive", parts
    return "explicit", {"score": Ref(score.name)}


def _leaky_relu(program: Program, value: Value) -> tuple[Value, float] | None:
    if not is_aten(value, aten.leaky_relu):
        return None
    return program[value.args[0].name], value.args[1] if len(value.args) > 1 else 0.01


def _additive(program: Program, score: Value, src: Ref, index: Ref) -> dict[str, Any] | None:
    """leaky_relu(gather(s, src) + gather(d, dst) [+ per-edge term])."""
    inner = _leaky_relu(program, score)
    if inner is None or len(score.shape) != 2:
        return None
    found = _terms(program, inner[0], src, index)
    if found is None or len(program[found["src"].name].shape) != 2:
        return None
    parts = {"score_src": found["src"], "score_dst": found["dst"], "negative_slope": inner[1]}
    if "edge" in found:
        parts["score_edge"] = found["edge"]
    return parts


def _terms(program: Program, value: Value, src: Ref, index: Ref) -> dict[str, Ref] | None:
    """A sum of one source gather, one destination gather and at most one other edge value of the same shape."""
    leaves: list[Value] = []
    stack = [value]
    while stack:
        item = stack.pop()
        if is_aten(item, aten.add) and len(item.refs()) == 2 and item.kwargs.get("alpha", 1) == 1:
            stack += [program[name] for name in item.refs()]
        else:
            leaves.append(item)
    found: dict[str, Ref] = {}
    for leaf in leaves:
        if leaf.shape != value.shape or leaf.dtype != value.dtype:
            return None
        role = "edge"
        if of_own_row(program, leaf, index.name):
            role = "dst"
        elif leaf.op == "gather" and leaf.args[1] == src:
            role = "src"
        if role in found:
            return None
        found[role] = leaf.args[0] if role != "edge" else Ref(leaf.name)
    return found if "src" in found and "dst" in found else None


def _gatv2(program: Program, score: Value, src: Ref, index: Ref) -> dict[str, Any] | None:
    """sum over C of att * leaky_relu(gather(key, src) + gather(query, dst) [+ per-edge key])."""
    product = _sum_last(program, score)
    if product is None or not is_aten(product, aten.mul) or len(product.refs()) != 2:
        return None
    for active, att in (product.refs(), product.refs()[::-1]):
        inner = _leaky_relu(program, program[active])
        weight = program[att]
        if inner is None or weight.row_dim is not None or weight.width != product.width:
            continue
        found = _terms(program, inner[0], src, index)
        if found is None:
            return None
        parts = {"key": found["src"], "query": found["dst"], "att": Ref(att), "negative_slope": inner[1]}
        if "edge" in found:
            parts["key_edge"] = found["edge"]
        return parts
    return None


def _sum_last(program: Program, value: Value) -> Value | None:
    if not is_aten(value, aten.sum) or len(value.args) < 2 or (len(value.args) > 2 and value.args[2]):
        return None
    below = program[value.args[0].name]
    return below if len(below.shape) == 3 and list(value.args[1]) in ([-1], [2]) else None


def _dot(program: Program, score: Value, src: Ref, index: Ref) -> dict[str, Any] | None:
    """scale * sum over C of gather(query, dst) * gather(key, src)."""
    scale = 1.0
    if (is_aten(score, aten.div) or is_aten(score, aten.mul)) and isinstance(score.args[1], (int, float)):
        scale = 1.0 / score.args[1] if is_aten(score, aten.div) else float(score.args[1])
        score = program[score.args[0].name]
    product = _sum_last(program, score)
    if product is None or not is_aten(product, aten.mul) or len(product.refs()) != 2:
        return None
    left, right = (program[name] for name in product.refs())
    for query, key in ((left, right), (right, left)):
        at_ends = of_own_row(program, query, index.name) and key.op == "gather" and key.args[1] == src
        if at_ends and query.shape == key.shape:
            return {"query": query.args[0], "key": key.args[0], "scale": scale}
    return None
