"""Keep node types apart for as long as possible: rows of several types are joined only where an edge needs them so.

HGT joins the rows of all edge types in one table, to use one softmax over all of them, and transforms the joined rows
by type. Transformed before they are joined, each part is computed in its own type's superstep and written straight
into its rows of the joined table; nothing is copied, and no superstep is spent on the joining::

    before                                             after
    u = cat([%paper, %author], 0)    # [P + A, H, D]   p = typed_linear(%paper, %W, %type_p)
    k = typed_linear(%u, %W, %types)                   a = typed_linear(%author, %W, %type_a)
                                                       k = cat([%p, %a], 0)
    r = cat([expand(%p_1, [E1, H]),  # [E1 + E2, H]    t = stack([%p_1, %p_2])
             expand(%p_2, [E2, H])])                   r = index_select(%t, 0, %relation)
"""

from __future__ import annotations

from typing import Any

import torch

from pyg_fullgraph.ir import Dim, Program, Ref, Stage, Value, is_aten, packet_of
from pyg_fullgraph.ir.build import Builder
from pyg_fullgraph.ir.extents import on_other_rows
from pyg_fullgraph.ir.locality import is_row_local
from pyg_fullgraph.ir.program import is_symbolic
from pyg_fullgraph.passes.rewrite import Rule, rewrite

aten = torch.ops.aten

Partition = tuple[Any, ...]


def split_unions(program: Program) -> None:
    """Move row-wise operators in front of the joining of rows, in place."""
    rewrite(program, _RULES)


def joined_rows(program: Program, value: Value) -> list[Ref] | None:
    """The parts of a `cat` along the rows."""
    if not is_aten(value, aten.cat) or value.row_dim is None:
        return None
    dim = value.args[1] if len(value.args) > 1 else value.kwargs.get("dim", 0)
    parts = list(value.args[0])
    along = dim % len(value.shape) == value.row_dim
    return parts if along and all(program[part.name].row_dim == value.row_dim for part in parts) else None


def _partition(program: Program, value: Value) -> Partition | None:
    parts = joined_rows(program, value)
    return None if parts is None else tuple(program[part.name].space for part in parts)


def _operator_on_union(program: Program, value: Value) -> bool:
    """`f(cat(parts))` -> `cat(f(part) for each)`."""
    if packet_of(value) is None or value.multi or is_aten(value, aten.cat) or not value.local or value.row_dim != 0:
        return False
    unions = [name for name in value.refs() if joined_rows(program, program[name]) is not None]
    unions = [name for name in unions if program[name].stage is Stage.DATA and program[name].space == value.space]
    if not unions:
        return False
    users = program.users()
    if any(users[name] != [value.name] or name in program.output_names() for name in unions):
        return False
    partition = _partition(program, program[unions[0]])
    assert partition is not None
    build = Builder(program, value.name)
    try:
        parts = [_on_part(build, value, partition, number) for number in range(len(partition))]
    except _CannotSplit:
        for made in build.made:
            del program.values[made.name]
        return False
    build.replace_anchor(build.aten(aten.cat.default, parts, 0, like=value))
    return True


class _CannotSplit(Exception):
    """An operand's rows are not joined from the same parts."""


def _on_part(build: Builder, value: Value, partition: Partition, number: int) -> Ref:
    """`value` computed on the rows of one part."""

    def leaf(item: Any) -> Any:
        if isinstance(item, Ref):
            return _part_of(build, item, partition, number)
        return item

    args, kwargs = on_other_rows(value, leaf, partition[number])
    made = build.aten(value.target, *args, **kwargs)
    if not is_row_local(build.program, build.program[made.name]):
        raise _CannotSplit
    return made


def _part_of(build: Builder, ref: Ref, partition: Partition, number: int) -> Ref:
    """The rows of an operand that belong to one part."""
    program = build.program
    value = program[ref.name]
    if value.row_dim is None and not value.is_pairwise:
        return ref
    parts = joined_rows(program, value)
    if parts is not None:
        if _partition(program, value) != partition:
            raise _CannotSplit
        return parts[number]
    if value.stage is Stage.STRUCT and value.local and packet_of(value) is not None:
        return _on_part(build, value, partition, number)
    raise _CannotSplit


def _constant_parts(program: Program, value: Value) -> bool:
    """Parts that are one row repeated: a look-up of that row by the number of the part."""
    parts = joined_rows(program, value)
    if parts is None or value.row_dim != 0 or len(parts) < 2:
        return False
    rows = [_repeated_row(program, program[part.name]) for part in parts]
    if any(row is None for row in rows):
        return False
    build = Builder(program, value.name)
    sizes = [1, *value.shape[1:]]
    table = build.aten(aten.cat.default, [build.aten(aten.view.default, row, sizes) for row in rows], 0)
    options: dict[str, Any] = {"dtype": torch.int64, "device": torch.device("cpu"), "pin_memory": False}
    numbers = [
        build.aten(aten.full.default, [Dim(program[part.name].shape[0])], number, **options)
        for number, part in enumerate(parts)
    ]
    which = build.aten(aten.cat.default, numbers, 0)
    build.replace_anchor(build.aten(aten.index_select.default, table, 0, which, like=value))
    return True


def _repeated_row(program: Program, part: Value) -> Ref | None:
    """The value without rows that a part repeats in each of its rows."""
    if not is_aten(part, aten.expand) or part.row_dim != 0:
        return None
    row = program[part.args[0].name]
    whole = row.row_dim is None and row.width == part.width
    return Ref(row.name) if whole and not any(is_symbolic(size) for size in row.shape) else None


_RULES: tuple[Rule, ...] = (_operator_on_union, _constant_parts)
