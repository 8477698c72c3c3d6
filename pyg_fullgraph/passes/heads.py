"""Attention of several heads: scores from narrow products, and rows that the heads share gathered once.

::

    a GAT layer whose heads are averaged, 128 -> 4 x 128
    before: h = view(mm(%x, %Wt), [N, 4, 128])            # 512 columns
            s = sum(%h * %a, -1)
            o = attention(%h, score_src=%s, ...)          # gathers 512 columns
            y = mean(%o, 1)
    after:  s = mm(%x, sum(view(%Wt) * %a, -1))           # 4 columns
            o = attention(view(%x, [N, 1, 128]), ...)     # gathers 128 columns, for all heads
            y = mm(view(%o, [N, 512]), %Wt of the heads, one below the other, / 4)

Both sides multiply as much. A score is a product with a vector per head, which may as well be taken of the weights.
"""

from __future__ import annotations

from dataclasses import replace

import torch

from pyg_fullgraph.ir import Dim, Program, Ref, Stage, Value, is_aten
from pyg_fullgraph.ir.build import Builder

aten = torch.ops.aten

_DTYPES = (torch.float32, torch.float64)  # shorter floats would round the products of weights
_HEAD_COST = 1 / 6  # of adding a column for one more head, against gathering it (docs/log.md)
_SCORE_COLUMNS = 8  # times C columns of x, and more, take longer to multiply by H than H C columns to add up


def fold_scores(program: Program) -> None:
    """Replace `sum(view(x W) * a, -1)` by the product of `x` with `W a`, in place."""
    for value in list(program):
        found = _score(program, value)
        if found is None:
            continue
        product, vector = found
        *bias, x, matrix = product.args
        heads, channels = vector.shape[-2:]
        narrow = program[x.name].width <= _SCORE_COLUMNS * channels
        if not narrow and any(not _score(program, program[user]) for user in _uses(program, product)):
            continue
        build = Builder(program, value.name)
        parts = [_times(build, item, vector, heads, channels) for item in (*bias, matrix)]
        target = aten.addmm.default if bias else aten.mm.default
        build.replace_anchor(build.aten(target, *parts[:-1], x, parts[-1], like=value))
    program.drop_dead()


def share_rows(program: Program) -> None:
    """Aggregate before the product where the heads of an attention are averaged and wider than their source."""
    for value in list(program):
        if value.op != "attention" or value.kwargs["kind"] != "additive" or "score_edge" in value.kwargs:
            continue
        mean = _only_user(program, value)
        if mean is not None and _averages_heads(mean):
            _share(program, value, mean)
    program.drop_dead()


def _share(program: Program, value: Value, mean: Value) -> None:
    view = program[value.args[0].name]
    if not is_aten(view, aten.view):
        return
    product = program[view.args[0].name]
    if not is_aten(product, aten.mm) or product.dtype not in _DTYPES:
        return
    x, matrix = (program[ref.name] for ref in product.args)
    heads, channels = value.shape[1:]
    if x.row_dim != 0 or matrix.stage > Stage.PARAM or any(_only_user(program, v) is None for v in (view, product)):
        return
    if heads == 1 or product.width <= x.width * (1 + _HEAD_COST * (heads - 1)):
        return
    build = Builder(program, mean.name)
    table = build.aten(aten.view.default, Ref(x.name), [Dim(x.shape[0]), 1, x.width])
    shape = (value.shape[0], heads, x.width)
    made = build.add(replace(value, name="", args=(table, *value.args[1:]), shape=shape))
    flat = build.aten(aten.view.default, made, [Dim(value.shape[0]), heads * x.width])
    apart = build.aten(aten.reshape.default, Ref(matrix.name), [x.width, heads, channels])
    below = build.aten(aten.reshape.default, build.aten(aten.permute.default, apart, [1, 0, 2]), [-1, channels])
    below = build.aten(aten.div.Tensor, below, heads)
    build.replace_anchor(build.aten(aten.mm.default, flat, below, like=mean))


def _score(program: Program, value: Value) -> tuple[Value, Value] | None:
    """The product, and the vector per head, of a score of a row."""
    if not is_aten(value, aten.sum) or len(value.args) != 2 or list(value.args[1]) not in ([-1], [2]) or value.kwargs:
        return None
    times = program[value.args[0].name]
    if not is_aten(times, aten.mul) or len(times.refs()) != 2 or times.dtype not in _DTYPES:
        return None
    for row, vector in (times.refs(), times.refs()[::-1]):
        view, by = program[row], program[vector]
        if not is_aten(view, aten.view) or len(view.shape) != 3 or view.row_dim != 0 or view.dtype != by.dtype:
            continue
        product = program[view.args[0].name]
        if by.stage > Stage.PARAM or by.shape[-2:] != view.shape[1:] or by.width != view.width:
            continue
        if _is_product(program, product) and product.width == view.width:
            return product, by
    return None


def _is_product(program: Program, value: Value) -> bool:
    """A product of rows with a matrix of parameters, perhaps with a bias."""
    if not (is_aten(value, aten.mm) or is_aten(value, aten.addmm)) or value.kwargs or value.row_dim != 0:
        return False
    *bias, _, matrix = (program[ref.name] for ref in value.args)
    return matrix.stage <= Stage.PARAM and all(item.stage <= Stage.PARAM for item in bias)


def _times(build: Builder, item: Ref, vector: Value, heads: int, channels: int) -> Ref:
    """The columns of a matrix or a bias, those of each head times its vector and added up."""
    apart = build.aten(aten.reshape.default, item, [-1, heads, channels])
    return build.aten(aten.sum.dim_IntList, build.aten(aten.mul.Tensor, apart, Ref(vector.name)), [-1])


def _uses(program: Program, product: Value) -> list[str]:
    """What a product is used for, in the end, behind views and multiplications."""
    users = program.users()
    found, stack = [], list(users[product.name])
    while stack:
        name = stack.pop()
        through = is_aten(program[name], aten.view) or is_aten(program[name], aten.mul)
        if through and name not in program.output_names() and users.get(name):
            stack += users[name]
        else:
            found.append(name)
    return found


def _averages_heads(value: Value) -> bool:
    return is_aten(value, aten.mean) and len(value.args) == 2 and list(value.args[1]) == [1] and not value.kwargs


def _only_user(program: Program, value: Value) -> Value | None:
    """What uses a value, if only one does and it does not leave the model."""
    users = program.users_of(value.name)
    return program[users[0]] if len(users) == 1 and value.name not in program.output_names() else None
