"""Row locality: does row r of an ATen operator's output need only rows r of its inputs?

An operator that is row-local runs on any block of rows; one that is not needs its inputs whole. The rules are
per family of operators and say "no" for whatever they do not know: an unknown operator costs memory, never
exactness.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from pyg_fullgraph.ir.program import Program, Ref, Value, is_symbolic

aten = torch.ops.aten

Operand = tuple[Value, int | None]  # a tensor argument and its row dimension


def is_row_local(program: Program, value: Value) -> bool:
    """True where block-wise evaluation of `value` over its rows equals whole evaluation.

    Args:
        program: holds the arguments of `value`.
        value: an `aten` value; its `row_dim` must be known for a True.
    """
    if value.target is None:
        return value.target is None and value.op == "aten" and _is_getitem(program, value)
    packet = getattr(value.target, "overloadpacket", None)  # None: a handle to a whole module
    if packet is None or value.row_dim is None or value.is_pairwise:
        return False
    operands = [program[name] for name in value.refs()]
    if any(operand.is_pairwise for operand in operands):
        return False
    if any(operand.space is not None and operand.space != value.space for operand in operands):
        return False
    if packet in _RULES:
        return _RULES[packet](program, value)
    if str(packet) == "pyg_fullgraph.typed_linear":
        x, types = operand(program, value.args[0]), operand(program, value.args[3])
        return x is not None and types is not None and x.row_dim == types.row_dim == value.row_dim
    if torch.Tag.pointwise in value.target.tags or packet in _ELEMENTWISE:
        return _aligned(program, value)
    return False


def _is_getitem(program: Program, value: Value) -> bool:
    return program[value.args[0].name].local


def operand(program: Program, arg: Any) -> Value | None:
    return program[arg.name] if isinstance(arg, Ref) else None


def _normal(dim: int, value: Value) -> int:
    return dim % max(len(value.shape), 1)


def _aligned(program: Program, value: Value) -> bool:
    """Broadcasting operators: every operand's row dimension counts the same from the right."""
    assert value.row_dim is not None
    from_right = len(value.shape) - value.row_dim
    for name in value.refs():
        item = program[name]
        if item.row_dim is not None and len(item.shape) - item.row_dim != from_right:
            return False
        if item.row_dim is None and len(item.shape) >= from_right and item.shape[-from_right] != 1:
            return False
    return True


def _same_position(program: Program, value: Value) -> bool:
    """The first operand keeps its rows where they are."""
    first = operand(program, value.args[0])
    return first is not None and first.row_dim == value.row_dim


def _matmul(left: int, right: int) -> Callable[[Program, Value], bool]:
    """Matrix products: rows of the left operand (or columns of the right one) pass through."""

    def rule(program: Program, value: Value) -> bool:
        a, b = operand(program, value.args[left]), operand(program, value.args[right])
        if a is None or b is None:
            return False
        nd = len(value.shape)
        if left == 1 and not _bias_ok(program, value):
            return False
        if nd == 3 and value.row_dim == 0:  # a batch of small products
            return a.row_dim == 0 and b.row_dim == 0
        if value.row_dim == nd - 2:
            return a.row_dim == nd - 2 and b.row_dim is None
        return value.row_dim == nd - 1 and b.row_dim == nd - 1 and a.row_dim is None

    return rule


def _matmul_any(program: Program, value: Value) -> bool:
    """`matmul`: a stack of products, rows among the stack's dimensions or the left operand's rows."""
    a, b = operand(program, value.args[0]), operand(program, value.args[1])
    if a is None or b is None or len(a.shape) != len(value.shape) or value.row_dim is None:
        return False
    if b.row_dim is None:
        return a.row_dim == value.row_dim and value.row_dim < len(value.shape) - 1
    stacked = value.row_dim < len(value.shape) - 2
    return stacked and len(a.shape) == len(b.shape) and a.row_dim == b.row_dim == value.row_dim


def _written_columns(position: int) -> Callable[[Program, Value], bool]:
    """slice_scatter and select_scatter: what is written into and what is written, rows aligned, not along the rows."""

    def rule(program: Program, value: Value) -> bool:
        base, part = operand(program, value.args[0]), operand(program, value.args[1])
        if base is None or part is None or value.row_dim is None:
            return False
        dim = value.args[position] if len(value.args) > position else value.kwargs.get("dim", 0)
        dim %= len(value.shape)
        shift = 1 if value.target.overloadpacket is aten.select_scatter and dim < value.row_dim else 0
        rows_of_part = value.row_dim - shift
        return dim != value.row_dim and base.row_dim == value.row_dim and part.row_dim == rows_of_part

    return rule


def _bias_ok(program: Program, value: Value) -> bool:
    bias = operand(program, value.args[0])
    return bias is None or bias.row_dim is None or len(value.shape) - len(bias.shape) + bias.row_dim == value.row_dim


def _over_dims(position: int = 1) -> Callable[[Program, Value], bool]:
    """Reductions and scans over given dimensions: none of them may be the row dimension."""

    def rule(program: Program, value: Value) -> bool:
        first = operand(program, value.args[0])
        if first is None or first.row_dim is None or len(value.args) <= position or value.args[position] is None:
            return False
        dims = value.args[position]
        dims = [dims] if isinstance(dims, int) else list(dims)
        if not dims:
            return False
        return first.row_dim not in {_normal(dim, first) for dim in dims}

    return rule


def _last_dim(program: Program, value: Value) -> bool:
    """sort, topk and the like with a `dim` argument that may be a keyword or the default -1."""
    first = operand(program, value.args[0])
    if first is None or first.row_dim is None:
        return False
    dim = value.kwargs.get("dim", next((arg for arg in value.args[1:] if isinstance(arg, int)), -1))
    if value.target.overloadpacket is aten.topk:
        dim = value.args[2] if len(value.args) > 2 else value.kwargs.get("dim", -1)
    return _normal(dim, first) != first.row_dim


def _view(program: Program, value: Value) -> bool:
    """Reshapes keep rows apart where the elements before the row dimension stay as many."""
    first = operand(program, value.args[0])
    if first is None or first.row_dim is None or value.row_dim is None:
        return False

    def before(item: Value) -> int:
        assert item.row_dim is not None
        out = 1
        for size in item.shape[: item.row_dim]:
            out *= int(size)
        return out

    return before(first) == before(value)


def _permute(program: Program, value: Value) -> bool:
    return operand(program, value.args[0]) is not None


def _expand(program: Program, value: Value) -> bool:
    first = operand(program, value.args[0])
    return first is not None and _aligned(program, value)


def _creation(program: Program, value: Value) -> bool:
    return not value.refs()


def _not_row(position: int) -> Callable[[Program, Value], bool]:
    """select, slice, split, cat...: the dimension they work on is not the rows'."""

    def rule(program: Program, value: Value) -> bool:
        first = operand(program, value.args[0])
        if first is None or first.row_dim is None:
            return False
        dim = value.args[position] if len(value.args) > position else value.kwargs.get("dim", 0)
        return isinstance(dim, int) and _normal(dim, first) != first.row_dim

    return rule


def _joined(stack: bool) -> Callable[[Program, Value], bool]:
    def rule(program: Program, value: Value) -> bool:
        parts = [operand(program, item) for item in value.args[0]]
        dim = value.args[1] if len(value.args) > 1 else value.kwargs.get("dim", 0)
        dim %= len(value.shape)
        if value.row_dim is None or dim == value.row_dim:
            return False
        expected = value.row_dim - 1 if stack and dim < value.row_dim else value.row_dim
        return all(part is not None and part.row_dim == expected for part in parts)

    return rule


def _repeat(program: Program, value: Value) -> bool:
    first = operand(program, value.args[0])
    if first is None or first.row_dim is None or value.row_dim is None:
        return False
    repeats = value.args[1]
    return _aligned(program, value) and repeats[value.row_dim] == 1 and not any(is_symbolic(r) for r in repeats)


def _lookup(program: Program, value: Value) -> bool:
    """`table[rows]`: a table without rows looked up by one index per row; or a constant index off the rows."""
    if value.target.overloadpacket is aten.index_select:
        table, dim, index = operand(program, value.args[0]), value.args[1], operand(program, value.args[2])
        if table is None or index is None:
            return False
        if table.row_dim is None:
            return index.row_dim == 0
        return index.row_dim is None and _normal(dim, table) != table.row_dim
    if value.target.overloadpacket is aten.embedding:
        table, index = operand(program, value.args[0]), operand(program, value.args[1])
        return table is not None and index is not None and table.row_dim is None and index.row_dim == 0
    table = operand(program, value.args[0])
    indices = value.args[1]
    if table is None or table.row_dim is not None or len(indices) != 1 or indices[0] is None:
        return False
    index = operand(program, indices[0])
    return index is not None and index.row_dim == 0 and index.dtype is not torch.bool


def _gather_columns(program: Program, value: Value) -> bool:
    first, index = operand(program, value.args[0]), operand(program, value.args[2])
    if first is None or index is None:
        return False
    return first.row_dim == index.row_dim == value.row_dim and _normal(value.args[1], first) != first.row_dim


def _layer_norm(program: Program, value: Value) -> bool:
    first = operand(program, value.args[0])
    return first is not None and first.row_dim is not None and first.row_dim < len(first.shape) - len(value.args[1])


def _batch_norm(program: Program, value: Value) -> bool:
    """Batch norm is row-local with running statistics only; with batch statistics (InstanceNorm) it is global."""
    first = operand(program, value.args[0])
    if first is None or first.row_dim != 0 or len(first.shape) < 2:
        return False
    name = value.target.overloadpacket
    return name is aten._native_batch_norm_legit_no_training or value.args[5] is False


def _group_norm(program: Program, value: Value) -> bool:
    first = operand(program, value.args[0])
    return first is not None and first.row_dim == 0


_ELEMENTWISE = {
    aten._to_copy,
    aten.clone,
    aten.detach,
    aten.alias,
    aten.contiguous,
    aten.to,
    aten.lift_fresh_copy,
    aten._prelu_kernel,
}

_RULES: dict[Any, Callable[[Program, Value], bool]] = {
    aten.mm: _matmul(0, 1),
    aten.addmm: _matmul(1, 2),
    aten.bmm: _matmul(0, 1),
    aten.matmul: _matmul_any,
    aten.slice_scatter: _written_columns(2),
    aten.select_scatter: _written_columns(2),
    aten.baddbmm: _matmul(1, 2),
    aten.view: _view,
    aten._unsafe_view: _view,
    aten.reshape: _view,
    aten._reshape_copy: _view,
    aten.permute: _permute,
    aten.transpose: _permute,
    aten.t: _permute,
    aten.unsqueeze: _permute,
    aten.squeeze: _permute,
    aten.expand: _expand,
    aten.repeat: _repeat,
    aten.full: _creation,
    aten.ones: _creation,
    aten.zeros: _creation,
    aten.select: _not_row(1),
    aten.slice: _not_row(1),
    aten.unbind: _not_row(1),
    aten.split: _not_row(2),
    aten.split_with_sizes: _not_row(2),
    aten.narrow: _not_row(1),
    aten.cat: _joined(stack=False),
    aten.stack: _joined(stack=True),
    aten.index_select: _lookup,
    aten.index: _lookup,
    aten.embedding: _lookup,
    aten.gather: _gather_columns,
    aten.native_layer_norm: _layer_norm,
    aten.native_batch_norm: _batch_norm,
    aten._native_batch_norm_legit: _batch_norm,
    aten._native_batch_norm_legit_no_training: _batch_norm,
    aten.native_group_norm: _group_norm,
    aten.sum: _over_dims(),
    aten.mean: _over_dims(),
    aten.amax: _over_dims(),
    aten.amin: _over_dims(),
    aten.max: _over_dims(),
    aten.min: _over_dims(),
    aten.median: _over_dims(),
    aten.prod: _over_dims(),
    aten.any: _over_dims(),
    aten.all: _over_dims(),
    aten.std: _over_dims(),
    aten.var: _over_dims(),
    aten.argmax: _over_dims(),
    aten.argmin: _over_dims(),
    aten.logsumexp: _over_dims(),
    aten.linalg_vector_norm: _over_dims(2),
    aten.norm: _over_dims(2),
    aten.cumsum: _over_dims(),
    aten.cumprod: _over_dims(),
    aten._softmax: _over_dims(),
    aten._log_softmax: _over_dims(),
    aten.linalg_cross: _same_position,
    aten.flip: _over_dims(),
    aten.sort: _last_dim,
    aten.topk: _last_dim,
    aten.argsort: _last_dim,
}
