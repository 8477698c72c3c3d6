"""Say reshapes in one way, and leave out operators that change nothing.

Layers are written for heads, towers and batches of any number; with one of them most of the reshaping is idle.

::

    PNA, one tower                                     after
    x3  = repeat(view(%x, [-1, 1, F]), [1, 1, 1])      x_i = gather(%x, %dst)
    x_i = gather(%x3, %dst)          # [E, 1, F]       x_j = gather(%x, %src)
    x_j = gather(%x3, %src)                            c   = cat([%x_i, %x_j], -1)        # [E, 2F]
    c   = cat([%x_i, %x_j], -1)                        h   = addmm(%b, %c, %W)            # [E, F]
    h   = addmm(%b, select(%c, 1, 0), %W)              out = view(reduce(%h, %dst, sum))  # [N, 1, F]
    out = reduce(stack([%h], 1), %dst, sum)

* `unsqueeze`, `squeeze`, `select` of the only element and the like become `view`, and a view of a view one view;
* operators that return their operand (`x + 0`, `repeat` by ones, `clone`, a gather by 0, 1, 2, ...) go;
* views move from the edges to the nodes (`view(gather(x))` -> `gather(view(x))`) and out of reductions;
* a `select` or `slice` of a `cat` or `stack` takes from its parts (`passes.joins`);
* a view that flattens leading dimensions for a matrix product moves below it (`passes.flat`).
"""

from __future__ import annotations

from dataclasses import replace

import torch

from pyg_fullgraph.ir import Dim, Program, Ref, Stage, Value, by_column, is_aten, map_args, packet_of
from pyg_fullgraph.ir.build import Builder
from pyg_fullgraph.passes.flat import FLAT_RULES
from pyg_fullgraph.passes.joins import JOIN_RULES, select_of_joined
from pyg_fullgraph.passes.rewrite import Rule, redirect, rewrite

aten = torch.ops.aten

RESHAPES = (aten.view, aten._unsafe_view, aten.reshape)
_COPIES = (aten.clone, aten.contiguous, aten.alias, aten.detach, aten._to_copy)
_ARITHMETIC = {aten.add: 0, aten.sub: 0, aten.mul: 1, aten.div: 1}


def simplify_views(program: Program) -> None:
    """Apply the rewrites of this module until none applies, in place."""
    rewrite(program, (select_of_joined,), (Stage.CONST, Stage.STRUCT))
    rewrite(program, VIEW_RULES)


# Operators that return their operand ---------------------------------------------------------------


def _identity(program: Program, value: Value) -> bool:
    if value.op == "gather":
        return _gather_of_all(program, value)
    if packet_of(value) is None or not value.args:
        return False
    first = value.args[0]
    if isinstance(first, list):
        whole = is_aten(value, aten.cat) and len(first) == 1
        return redirect(program, value, first[0].name) if whole else False
    if not isinstance(first, Ref):
        return False
    operand = program[first.name]
    if operand.multi or operand.shape != value.shape or operand.dtype != value.dtype or not _idle(value):
        return False
    return redirect(program, value, operand.name)


def _gather_of_all(program: Program, value: Value) -> bool:
    """`gather(x, arange(N))`: every row once, in order."""
    x, index = program[value.args[0].name], program[value.args[1].name]
    if not is_aten(index, aten.arange) or x.space != index.space or x.row_dim != value.row_dim:
        return False
    start = index.args[0] if len(index.args) > 1 else 0
    step = index.args[2] if len(index.args) > 2 else 1
    return redirect(program, value, x.name) if (start, step) == (0, 1) else False


def _idle(value: Value) -> bool:
    """True where an operator whose result has its operand's shape and type returns the operand."""
    packet = packet_of(value)
    if packet in RESHAPES or packet in (aten.expand, aten.unsqueeze, aten.squeeze, aten.slice):
        return True
    if packet in _COPIES:
        return value.kwargs.get("device") is None
    if packet is aten.repeat:
        return all(times == 1 for times in value.args[1])
    if packet is aten.permute:
        return [d % len(value.shape) for d in value.args[1]] == list(range(len(value.shape)))
    neutral = _ARITHMETIC.get(packet)
    by_number = len(value.args) == 2 and isinstance(value.args[1], (int, float)) and not value.kwargs
    return neutral is not None and by_number and value.args[1] == neutral


def _full_mask(program: Program, value: Value) -> bool:
    """Rows picked by a mask that is true everywhere: the mask's dimensions become one."""
    if not is_aten(value, aten.index) or len(value.args[1]) != 1 or not isinstance(value.args[1][0], Ref):
        return False
    x, mask = program[value.args[0].name], program[value.args[1][0].name]
    if mask.dtype is not torch.bool or not is_aten(mask, aten.full) or mask.args[1] is not True:
        return False
    if x.shape[: len(mask.shape)] != mask.shape or value.space != x.space or value.row_dim != 0:
        return False
    sizes = [Dim(value.shape[0]), *value.shape[1:]]
    args = (Ref(x.name), sizes)
    local = x.width == value.width and all(size == 1 for size in x.shape[: x.row_dim])
    changed = replace(value, target=aten.view.default, args=args, kwargs={}, local=local)
    program.values[value.name] = changed
    return True


def _masked_number(program: Program, value: Value) -> bool:
    """`x[mask] = number` as `where`, which is row-wise."""
    if not is_aten(value, aten.index_put) or len(value.args) > 3 or len(value.args[1]) != 1:
        return False
    if not isinstance(value.args[1][0], Ref):
        return False
    x, mask, number = program[value.args[0].name], program[value.args[1][0].name], program[value.args[2].name]
    if mask.dtype is not torch.bool or mask.shape != x.shape[: len(mask.shape)] or number.shape != ():
        return False
    build = Builder(program, value.name)
    condition = Ref(mask.name)
    for _ in range(len(x.shape) - len(mask.shape)):
        condition = build.aten(aten.unsqueeze.default, condition, -1)
    build.replace_anchor(build.aten(aten.where.self, condition, Ref(number.name), Ref(x.name), like=value))
    return True


# Reshapes --------------------------------------------------------------------------------------------


def _canonical(program: Program, value: Value) -> bool:
    """Every row-major reshape as `view`; a view of a view as one view."""
    if packet_of(value) is None or value.row_dim != 0:
        return False
    source = _reshaped(program, value)
    if source is None:
        return False
    while is_aten(source, aten.view) and source.row_dim == 0 and source.stage is Stage.DATA:
        below = program[source.args[0].name]
        if below.row_dim != 0 or below.space != value.space:
            break
        source = below
    args = (Ref(source.name), [Dim(value.shape[0]), *value.shape[1:]])
    if value.target is aten.view.default and value.args == args:
        return False
    program.values[value.name] = replace(value, target=aten.view.default, args=args, kwargs={}, local=True)
    return True


def _reshaped(program: Program, value: Value) -> Value | None:
    """The operand that `value` only reshapes, rows first on both sides; None where it does more."""
    packet = packet_of(value)
    first = value.args[0] if value.args else None
    if packet is aten.stack and isinstance(first, list):
        first = first[0] if len(first) == 1 else None
    if not isinstance(first, Ref):
        return None
    source = program[first.name]
    if source.row_dim != 0 or source.space != value.space or source.width != value.width or source.multi:
        return None
    if packet in (*RESHAPES, aten.unsqueeze, aten.squeeze, aten.stack):
        return source
    if packet is aten.select:
        return source if source.shape[value.args[1]] == 1 else None
    if packet is aten.permute:
        kept = [d % len(source.shape) for d in value.args[1] if source.shape[d] != 1]
        return source if kept == sorted(kept) else None
    if packet is aten.transpose:
        left, right = sorted(d % len(source.shape) for d in value.args[1:3])
        between = source.shape[left : right + 1]
        return source if sum(size != 1 for size in between) <= 1 else None
    return None


def _transposed_twice(program: Program, value: Value) -> bool:
    if not (is_aten(value, aten.transpose) or is_aten(value, aten.t)):
        return False
    below = program[value.args[0].name]
    if below.target is not value.target:
        return False
    rank = len(value.shape)
    if {d % rank for d in value.args[1:]} != {d % rank for d in below.args[1:]}:
        return False
    return redirect(program, value, below.args[0].name)


def _pointwise_of_views(program: Program, value: Value) -> bool:
    """`view(a) * view(b)` -> `view(a * b)`: what follows may look through one view, not through two."""
    packet = packet_of(value)
    if packet is None or torch.Tag.pointwise not in value.target.tags or value.row_dim != 0 or not value.refs():
        return False
    views = [program[name] for name in value.refs()]
    if not all(is_aten(view, aten.view) and view.row_dim == 0 and view.shape == value.shape for view in views):
        return False
    sources = {view.name: program[view.args[0].name] for view in views}
    shapes = {source.shape for source in sources.values()}
    if len(shapes) != 1 or any(s.row_dim != 0 or s.space != value.space for s in sources.values()):
        return False

    def leaf(item: object) -> object:
        return Ref(sources[item.name].name) if isinstance(item, Ref) else item

    build = Builder(program, value.name)
    made = build.aten(value.target, *map_args(value.args, leaf), **map_args(value.kwargs, leaf))
    build.replace_anchor(build.aten(aten.view.default, made, [Dim(value.shape[0]), *value.shape[1:]], like=value))
    return True


def _view_below_gather(program: Program, value: Value) -> bool:
    """`view(gather(x))` -> `gather(view(x))`: on nodes a view costs nothing."""
    if not is_aten(value, aten.view) or value.row_dim != 0:
        return False
    gathered = program[value.args[0].name]
    if gathered.op != "gather" or gathered.row_dim != 0 or gathered.space != value.space:
        return False
    x = program[gathered.args[0].name]
    if x.row_dim != 0:
        return False
    build = Builder(program, value.name)
    view = build.aten(aten.view.default, Ref(x.name), [Dim(x.shape[0]), *value.shape[1:]])
    build.replace_anchor(build.gather(view, gathered.args[1], gathered))
    return True


def _view_out_of_reduce(program: Program, value: Value) -> bool:
    """`reduce(view(m))` -> `view(reduce(m))`: a reduction treats all columns alike."""
    if not by_column(value) or value.row_dim != 0:
        return False
    message = program[value.args[0].name]
    if not is_aten(message, aten.view) or message.row_dim != 0:
        return False
    source = program[message.args[0].name]
    if source.row_dim != 0 or source.space != message.space:
        return False
    build = Builder(program, value.name)
    shape = (value.shape[0], *source.shape[1:])
    reduced = build.add(replace(value, name="", args=(Ref(source.name), value.args[1]), shape=shape))
    build.replace_anchor(build.aten(aten.view.default, reduced, [Dim(value.shape[0]), *value.shape[1:]], like=value))
    return True


VIEW_RULES: tuple[Rule, ...] = (
    _identity,
    _full_mask,
    _masked_number,
    _canonical,
    _transposed_twice,
    _view_below_gather,
    _view_out_of_reduce,
    _pointwise_of_views,
    *JOIN_RULES,
    *FLAT_RULES,
)
