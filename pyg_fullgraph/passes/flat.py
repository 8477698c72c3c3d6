"""Rules for views that flatten leading dimensions (used by `passes.views`).

`torch.nn.Linear` on `[N, L, F]` multiplies `[N * L, F]`, which has no row per node any more; on `[L, N, F]` not even
an order of rows. Multiplying the unflattened value keeps the rows where they are::

    flat = view(%x, [-1, F])            # [L * N, F]      y = matmul(%x, %W)        # [L, N, G]
    y    = view(mm(%flat, %W), [L, -1, G])
"""

from __future__ import annotations

from typing import Any

import torch

from pyg_fullgraph.ir import Dim, Program, Ref, Stage, Value, is_aten, packet_of
from pyg_fullgraph.ir.build import Builder
from pyg_fullgraph.ir.program import is_symbolic
from pyg_fullgraph.passes.rewrite import Rule

aten, fullgraph = torch.ops.aten, torch.ops.pyg_fullgraph

_VIEWS = (aten.view, aten._unsafe_view, aten.reshape)


def _product(sizes: tuple[Any, ...]) -> Any:
    out: Any = 1
    for size in sizes:
        out = out * size
    return out


def flattened(program: Program, ref: Any, kept: int) -> Value | None:
    """The value of more dimensions whose leading ones a view joined into one, all but the last `kept`."""
    if not isinstance(ref, Ref):
        return None
    view = program[ref.name]
    if not any(is_aten(view, packet) for packet in _VIEWS) or len(view.shape) != kept + 1:
        return None
    source = program[view.args[0].name]
    if len(source.shape) <= kept + 1 or source.is_pairwise or source.row_dim is None:
        return None
    leading = len(source.shape) - kept
    if source.row_dim >= leading or source.shape[leading:] != view.shape[1:] or source.space == view.space:
        return None
    same = _product(source.shape[:leading]) - view.shape[0] == 0
    return source if same and is_symbolic(view.shape[0]) else None


def _sizes(shape: tuple[Any, ...]) -> list[Any]:
    return [Dim(size) if is_symbolic(size) else size for size in shape]


def _product_of_flattened(program: Program, value: Value) -> bool:
    """mm and addmm of a flattened value by a matrix without rows."""
    if not (is_aten(value, aten.mm) or is_aten(value, aten.addmm)) or value.kwargs:
        return False
    operand, matrix = value.args[-2:]
    source = flattened(program, operand, 1)
    if source is None or program[matrix.name].row_dim is not None:
        return False
    bias = value.args[0] if is_aten(value, aten.addmm) else None
    if bias is not None and (program[bias.name].row_dim is not None or len(program[bias.name].shape) != 1):
        return False
    build = Builder(program, value.name)
    made = build.aten(aten.matmul.default, Ref(source.name), matrix)
    if bias is not None:
        made = build.aten(aten.add.Tensor, made, bias)
    build.replace_anchor(build.aten(aten.view.default, made, _sizes(value.shape), like=value))
    return True


def _batched_product_of_flattened(program: Program, value: Value) -> bool:
    """bmm of two flattened values of equal leading dimensions."""
    if not is_aten(value, aten.bmm):
        return False
    left, right = (flattened(program, arg, 2) for arg in value.args)
    if left is None or right is None or left.shape[:-2] != right.shape[:-2]:
        return False
    build = Builder(program, value.name)
    made = build.aten(aten.matmul.default, Ref(left.name), Ref(right.name))
    build.replace_anchor(build.aten(aten.view.default, made, _sizes(value.shape), like=value))
    return True


def _typed_linear_of_flattened(program: Program, value: Value) -> bool:
    """A linear map by type of rows `[H * N, F]`, the types flattened likewise (HGT flattens heads first)."""
    if packet_of(value) is not fullgraph.typed_linear:
        return False
    x, weight, bias, types = value.args
    source, kinds = flattened(program, x, 1), flattened(program, types, 0)
    if source is None or kinds is None or kinds.shape != source.shape[:-1]:
        return False
    build = Builder(program, value.name)
    made = build.aten(value.target, Ref(source.name), weight, bias, Ref(kinds.name))
    build.replace_anchor(build.aten(aten.view.default, made, _sizes(value.shape), like=value))
    return True


def _product_by_type(program: Program, value: Value) -> bool:
    """`x[e] @ W[type[e]]` without a matrix per edge: RGCN's and RGAT's messages."""
    if not is_aten(value, aten.bmm) or value.row_dim != 0 or value.shape[1] != 1:
        return False
    x, picked = value.args[0], program[value.args[1].name]
    if is_aten(picked, aten.index_select) and picked.args[1] == 0:
        weight, types = picked.args[0], picked.args[2]
    elif is_aten(picked, aten.index) and len(picked.args[1]) == 1 and isinstance(picked.args[1][0], Ref):
        weight, types = picked.args[0], picked.args[1][0]
    else:
        return False
    kinds, matrices = program[types.name], program[weight.name]
    by_row = kinds.stage is Stage.STRUCT and kinds.shape == (value.shape[0],) and kinds.dtype is not torch.bool
    if not by_row or matrices.row_dim is not None or len(matrices.shape) != 3:
        return False
    build = Builder(program, value.name)
    rows = build.aten(aten.view.default, x, [Dim(value.shape[0]), program[x.name].shape[2]])
    made = build.aten(fullgraph.typed_linear.default, rows, weight, None, types)
    build.replace_anchor(build.aten(aten.view.default, made, _sizes(value.shape), like=value))
    return True


def _rows_first(program: Program, value: Value) -> bool:
    """`transpose(typed_linear(x, types))` -> `typed_linear(transpose(x), transpose(types))`: rows come first."""
    if not is_aten(value, aten.transpose) or value.row_dim != 0:
        return False
    below = program[value.args[0].name]
    if packet_of(below) is not fullgraph.typed_linear:
        return False
    dims = [d % len(value.shape) for d in value.args[1:3]]
    if max(dims) >= len(value.shape) - 1:
        return False
    x, weight, bias, types = below.args
    build = Builder(program, value.name)
    turned = build.aten(aten.transpose.int, x, *dims)
    kinds = build.aten(aten.transpose.int, types, *dims)
    build.replace_anchor(build.aten(below.target, turned, weight, bias, kinds, like=value))
    return True


def _view_of_view(program: Program, value: Value) -> bool:
    """A view that undoes a view, wherever the rows are."""
    if not is_aten(value, aten.view) or not isinstance(value.args[0], Ref):
        return False
    below = program[value.args[0].name]
    if not any(is_aten(below, packet) for packet in _VIEWS):
        return False
    source = program[below.args[0].name]
    if source.shape != value.shape:
        return False
    program.substitute({value.name: source.name})
    del program.values[value.name]
    return True


FLAT_RULES: tuple[Rule, ...] = (
    _product_of_flattened,
    _batched_product_of_flattened,
    _typed_linear_of_flattened,
    _product_by_type,
    _rows_first,
    _view_of_view,
)
