"""Rules for `cat` and `stack`: take from their parts, and reduce their parts apart (used by `passes.views`)."""

from __future__ import annotations

from dataclasses import replace

import torch

from pyg_fullgraph.ir import Dim, Program, Ref, Value, by_column, is_aten
from pyg_fullgraph.ir.build import Builder
from pyg_fullgraph.passes.rewrite import Rule, redirect

aten = torch.ops.aten


def joined(program: Program, ref: Ref) -> tuple[Value, list[Ref], int] | None:
    """A `cat` or `stack` of columns, with its parts and the dimension along which they are joined."""
    value = program[ref.name]
    if not (is_aten(value, aten.cat) or is_aten(value, aten.stack)):
        return None
    if value.row_dim is not None and not value.local:  # rows of several spaces, one after the other or side by side
        return None
    dim = value.args[1] if len(value.args) > 1 else value.kwargs.get("dim", 0)
    return value, list(value.args[0]), dim % len(value.shape)


def select_of_joined(program: Program, value: Value) -> bool:
    """`stack(parts)[i]` is part i; `cat(parts, -1)[:, i]` is the `cat` of the parts' own."""
    if not is_aten(value, aten.select) or not isinstance(value.args[2], int):
        return False
    found = joined(program, value.args[0])
    if found is None:
        return False
    source, parts, along = found
    dim, number = value.args[1] % len(source.shape), value.args[2]
    if is_aten(source, aten.stack):
        return redirect(program, value, parts[number].name) if dim == along else False
    if dim in (along, source.row_dim):
        return False
    build = Builder(program, value.name)
    taken = [build.aten(aten.select.int, part, dim, number) for part in parts]
    build.replace_anchor(build.aten(aten.cat.default, taken, along - (dim < along), like=value))
    return True


def _slice_of_cat(program: Program, value: Value) -> bool:
    """Columns that are whole parts of a `cat`."""
    if not is_aten(value, aten.slice) or len(value.args) != 4:
        return False
    found = joined(program, value.args[0])
    _source, dim, start, stop = value.args
    if found is None or not isinstance(start, int) or not isinstance(stop, int) or start < 0:
        return False
    source, parts, along = found
    if is_aten(source, aten.stack) or dim % len(source.shape) != along or along == source.row_dim:
        return False
    at, taken = 0, []
    for part in parts:
        size = int(program[part.name].shape[along])
        if start <= at and at + size <= stop:
            taken.append(part)
        at += size
    if not taken or sum(int(program[part.name].shape[along]) for part in taken) != value.shape[along]:
        return False
    build = Builder(program, value.name)
    build.replace_anchor(taken[0] if len(taken) == 1 else build.aten(aten.cat.default, taken, along, like=value))
    return True


def _view_of_cat(program: Program, value: Value) -> bool:
    """A view that adds or drops dimensions of one element: of each part instead."""
    if not is_aten(value, aten.view) or value.row_dim != 0 or not isinstance(value.args[0], Ref):
        return False
    found = joined(program, value.args[0])
    if found is None or not is_aten(found[0], aten.cat) or found[0].row_dim != 0 or found[0].space != value.space:
        return False
    source, parts, along = found
    kept = [dim for dim, size in enumerate(source.shape) if size != 1]
    if (
        along == 0
        or along not in kept
        or [size for size in value.shape if size != 1] != [source.shape[d] for d in kept]
    ):
        return False
    dim = [dim for dim, size in enumerate(value.shape) if size != 1][kept.index(along)]
    build = Builder(program, value.name)
    views = []
    for part in parts:
        sizes = [*value.shape[:dim], program[part.name].shape[along], *value.shape[dim + 1 :]]
        views.append(build.aten(aten.view.default, part, [Dim(sizes[0]), *sizes[1:]]))
    build.replace_anchor(build.aten(aten.cat.default, views, dim, like=value))
    return True


def _reduce_of_joined(program: Program, value: Value) -> bool:
    """`reduce(cat([a, b]))` -> `cat([reduce(a), reduce(b)])`: each part may be fused by itself."""
    if not by_column(value) or value.row_dim != 0:
        return False
    found = joined(program, value.args[0])
    if found is None or found[0].row_dim != 0 or found[2] == 0:
        return False
    source, parts, along = found
    if any(program[part.name].row_dim != 0 or program[part.name].dtype != value.dtype for part in parts):
        return False
    build = Builder(program, value.name)
    reduced = []
    for part in parts:
        shape = (value.shape[0], *program[part.name].shape[1:])
        reduced.append(build.add(replace(value, name="", args=(part, value.args[1]), shape=shape)))
    build.replace_anchor(build.aten(source.target, reduced, along, like=value))
    return True


JOIN_RULES: tuple[Rule, ...] = (select_of_joined, _slice_of_cat, _view_of_cat, _reduce_of_joined)
