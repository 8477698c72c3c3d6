"""Compute only the columns that are used, each group of them where it is wanted.

HGT makes keys, queries and values of a node type in one product and takes them apart; a type that no edge leaves
needs no keys::

    before                                             after
    kqv = addmm(%b, %x, %W)         # [N, 3F]          q = addmm(%b[F:2F], %x, %W[:, F:2F])
    q   = slice(%kqv, 1, F, 2F)     # keys and values are not used

Where all columns are used, a product is taken apart only if its parts are wide: each is then written where it is
stored, without the copy out of the common product.
"""

from __future__ import annotations

import torch

from pyg_fullgraph.ir import Program, Ref, Stage, Value, is_aten
from pyg_fullgraph.ir.build import Builder

aten = torch.ops.aten

_WIDE = 32  # columns from which a product of its own costs nothing


def drop_columns(program: Program) -> None:
    """Take products apart whose users take slices of their columns, in place."""
    for name in list(program.values):
        value = program.values.get(name)
        if value is not None and (is_aten(value, aten.mm) or is_aten(value, aten.addmm)):
            _take_apart(program, value)
    program.drop_dead()


def _take_apart(program: Program, value: Value) -> None:
    matrix = program[value.args[-1].name]
    bias = program[value.args[0].name] if is_aten(value, aten.addmm) else None
    if value.row_dim != 0 or value.kwargs or matrix.stage > Stage.PARAM or value.name in program.output_names():
        return
    if bias is not None and (bias.stage > Stage.PARAM or len(bias.shape) != 1):
        return
    users = [program[name] for name in program.users_of(value.name)]
    if not users or not all(_is_column_slice(user) for user in users):
        return
    taken = {(user.args[2], user.args[3]) for user in users}
    used = sum(stop - start for start, stop in taken)
    if used >= value.width and min(stop - start for start, stop in taken) < _WIDE:
        return
    for user in users:
        _own_product(program, value, user, bias)


def _is_column_slice(user: Value) -> bool:
    if not is_aten(user, aten.slice) or len(user.args) != 4 or user.args[1] not in (1, -1):
        return False
    start, stop = user.args[2:]
    return isinstance(start, int) and isinstance(stop, int) and 0 <= start < stop and user.width == stop - start


def _own_product(program: Program, value: Value, user: Value, bias: Value | None) -> None:
    start, stop = user.args[2:]
    x, matrix = value.args[-2:]
    build = Builder(program, user.name)
    part = build.aten(aten.slice.Tensor, matrix, 1, start, stop)
    if bias is None:
        made = build.aten(aten.mm.default, x, part, like=user)
    else:
        offset = build.aten(aten.slice.Tensor, Ref(bias.name), 0, start, stop)
        made = build.aten(aten.addmm.default, offset, x, part, like=user)
    build.replace_anchor(made)
