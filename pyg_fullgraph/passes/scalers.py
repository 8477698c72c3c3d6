"""Multiply before scaling: a row times a number, times a matrix, is the row's product times the number.

PNA joins its aggregations with themselves, scaled by functions of the degree, and multiplies the lot. The scaled copies
and the joined row are never made; each product adds onto the last::

    before                                             after
    c = cat([%x, %a, %a * %s, %a * %t], -1)  # 13 F    y = addmm(%b, %x, %W0)
    y = addmm(%b, %c, %W)                              y = addmm(%y, %a, %W1)
                                                       y = addcmul(%y, mm(%a, %W2), %s)
                                                       y = addcmul(%y, mm(%a, %W3), %t)
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from pyg_fullgraph.ir import Dim, Program, Ref, Stage, Value, is_aten
from pyg_fullgraph.ir.build import Builder
from pyg_fullgraph.passes.cse import merge_equal
from pyg_fullgraph.passes.joins import joined
from pyg_fullgraph.passes.rewrite import rewrite
from pyg_fullgraph.passes.views import VIEW_RULES

aten = torch.ops.aten


@dataclass(frozen=True)
class _Part:
    """Some columns of a joined row: a value, perhaps scaled by one number per row."""

    value: str
    scale: str | None
    width: int


def scale_products(program: Program) -> None:
    """Take products of joined, scaled rows apart, in place."""
    for name in list(program.values):
        value = program.values.get(name)
        if value is not None and (is_aten(value, aten.mm) or is_aten(value, aten.addmm)):
            _take_apart(program, value)
    rewrite(program, VIEW_RULES)
    merge_equal(program)


def _take_apart(program: Program, value: Value) -> None:
    operand, matrix = value.args[-2:]
    if value.kwargs or value.row_dim != 0 or program[matrix.name].stage > Stage.PARAM:
        return
    bias = value.args[0] if is_aten(value, aten.addmm) else None
    if bias is not None and program[bias.name].dtype != value.dtype:
        return
    build = Builder(program, value.name)
    parts = _parts(build, operand)
    if parts is None or not any(part.scale is not None for part in parts):
        for made in build.made:
            del program.values[made.name]
        return
    total = bias
    for part in sorted(_with_columns(parts), key=lambda item: item[0].scale is not None):
        total = _added(build, total, *part, matrix, value)
    assert total is not None
    build.replace_anchor(total)


def _with_columns(parts: list[_Part]) -> list[tuple[_Part, int]]:
    """Each part with its first column."""
    found, at = [], 0
    for part in parts:
        found.append((part, at))
        at += part.width
    return found


def _added(build: Builder, total: Ref | None, part: _Part, start: int, matrix: Ref, like: Value) -> Ref:
    """The total with one part's product."""
    rows = build.aten(aten.slice.Tensor, matrix, 0, start, start + part.width)
    x = Ref(part.value)
    if part.scale is None:
        if total is None:
            return build.aten(aten.mm.default, x, rows, like=like)
        return build.aten(aten.addmm.default, total, x, rows, like=like)
    product = build.aten(aten.mm.default, x, rows, like=like)
    if total is None or build.program[total.name].row_dim is None:
        scaled = build.aten(aten.mul.Tensor, product, Ref(part.scale), like=like)
        return scaled if total is None else build.aten(aten.add.Tensor, scaled, total, like=like)
    return build.aten(aten.addcmul.default, total, product, Ref(part.scale), like=like)


def _parts(build: Builder, ref: Ref) -> list[_Part] | None:
    """The columns of a joined row, joined rows among them taken apart as well; None where it is not joined."""
    found = joined(build.program, ref)
    if found is None or not is_aten(found[0], aten.cat) or found[2] != 1 or len(found[0].shape) != 2:
        return None
    parts: list[_Part] = []
    for part in found[1]:
        value = build.program[part.name]
        if value.row_dim != 0 or len(value.shape) != 2:
            return None
        inner = _parts(build, part) if _is_joined_of_scaled(build.program, part) else None
        parts += inner if inner is not None else [_part(build, value)]
    return parts


def _is_joined_of_scaled(program: Program, ref: Ref) -> bool:
    found = joined(program, ref)
    return found is not None and any(_scaled(program, program[part.name]) is not None for part in found[1])


def _part(build: Builder, value: Value) -> _Part:
    scaled = _scaled(build.program, value)
    if scaled is None:
        return _Part(value.name, None, value.width)
    rows, scale = (_flat(build, item, width) for item, width in zip(scaled, (value.width, 1), strict=True))
    return _Part(rows, scale, value.width)


def _scaled(program: Program, value: Value) -> tuple[Value, Value] | None:
    """The rows and the number per row that a value is the product of, perhaps below a view."""
    while is_aten(value, aten.view) and value.row_dim == 0:
        below = program[value.args[0].name]
        if below.row_dim != 0 or below.space != value.space:
            return None
        value = below
    if not is_aten(value, aten.mul) or len(value.refs()) != 2 or value.width == 1:
        return None
    left, right = (program[name] for name in value.refs())
    for rows, scale in ((left, right), (right, left)):
        same = rows.row_dim == scale.row_dim == 0 and rows.shape == value.shape and scale.space == value.space
        if same and scale.width == 1 and scale.dtype == rows.dtype == value.dtype:
            return rows, scale
    return None


def _flat(build: Builder, value: Value, width: int) -> str:
    """The value as `[N, width]`."""
    if value.shape[1:] == (width,):
        return value.name
    return build.aten(aten.view.default, Ref(value.name), [Dim(value.shape[0]), width]).name
