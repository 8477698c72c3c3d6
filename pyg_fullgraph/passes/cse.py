"""Common sub-expressions: equal operators on equal arguments are computed once.

Every layer of a PyG model redoes its self-loops and degrees, each with its own symbolic size. Merging the values
merges the sizes too, so that all layers share one edge space::

    before                                        after
    ne      = ne(%select, %select_1)              ne    = ne(%select, %select_1)
    index   = index(%edge_index, [None, %ne])     index = index(%edge_index, [None, %ne])     # [2, u2]
    ne_1    = ne(%select, %select_1)              (merged, u3 -> u2)
    index_1 = index(%edge_index, [None, %ne_1])   (merged)                                    # was [2, u3]
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import sympy
import torch

from pyg_fullgraph.ir import Dim, Program, Ref, Stage, map_args
from pyg_fullgraph.ir.program import Value, is_symbolic


def merge_equal(program: Program) -> None:
    """Merge equal values in place; random operators never reach a program, so all operators are functions."""
    seen: dict[Any, str] = {}
    mapping: dict[str, str] = {}
    sizes: dict[sympy.Expr, sympy.Expr] = {}
    kept_by: dict[str, sympy.Expr] = {}
    for name, old in list(program.values.items()):
        value = _same_filter(program, _rewrite(old, mapping, sizes), kept_by, sizes)
        key = _key(value)
        if key is not None and key in seen:
            kept = program.values[seen[key]]
            mapping[name] = kept.name
            _unify(program, value, kept, sizes)
            del program.values[name]
            continue
        program.values[name] = value
        if key is not None:
            seen[key] = name
    program.outputs = map_args(program.outputs, lambda leaf: _leaf(leaf, mapping, sizes))
    program.drop_dead()


def _same_filter(
    program: Program, value: Value, kept_by: dict[str, sympy.Expr], sizes: dict[sympy.Expr, sympy.Expr]
) -> Value:
    """Rows kept by one mask are equally many, whatever is filtered: edges, their weights, their attributes."""
    if value.target is not torch.ops.aten.index.Tensor:
        return value
    masks = [item.name for item in value.args[1] if isinstance(item, Ref)]
    if len(masks) != 1 or program[masks[0]].dtype is not torch.bool:
        return value
    gone = next((s for s in value.shape if is_symbolic(s) and program.definers.get(s) == value.name), None)
    if gone is None:
        return value
    stays = kept_by.setdefault(masks[0], gone)
    if stays == gone:
        return value
    sizes[gone] = stays
    del program.definers[gone]
    if value.stage is Stage.STRUCT and program[program.definers[stays]].stage is not Stage.STRUCT:
        program.definers[stays] = value.name
    return _rewrite(value, {}, sizes)


def _leaf(leaf: Any, mapping: dict[str, str], sizes: dict[sympy.Expr, sympy.Expr]) -> Any:
    if isinstance(leaf, Ref):
        return Ref(mapping.get(leaf.name, leaf.name))
    if isinstance(leaf, Dim):
        return Dim(leaf.expr.xreplace(sizes))
    return leaf


def _rewrite(value: Value, mapping: dict[str, str], sizes: dict[sympy.Expr, sympy.Expr]) -> Value:
    def leaf(item: Any) -> Any:
        return _leaf(item, mapping, sizes)

    shape = tuple(s.xreplace(sizes) if is_symbolic(s) else s for s in value.shape)
    return replace(value, args=map_args(value.args, leaf), kwargs=map_args(value.kwargs, leaf), shape=shape)


def _key(value: Value) -> Any:
    if value.op == "input":
        return None
    return (value.op, str(value.target), _freeze(value.args), _freeze(value.kwargs))


def _freeze(tree: Any) -> Any:
    if isinstance(tree, (tuple, list)):
        return tuple(_freeze(item) for item in tree)
    if isinstance(tree, dict):
        return tuple((key, _freeze(item)) for key, item in sorted(tree.items()))
    if isinstance(tree, torch.Tensor):
        return ("tensor", id(tree))
    return (type(tree).__name__, tree) if _hashable(tree) else ("object", id(tree))


def _hashable(item: Any) -> bool:
    return isinstance(item, (Ref, Dim, int, float, bool, str, type(None), torch.dtype, torch.device, torch.layout))


def _unify(program: Program, merged: Value, kept: Value, sizes: dict[sympy.Expr, sympy.Expr]) -> None:
    for gone, stays in zip(merged.shape, kept.shape, strict=True):
        if is_symbolic(gone) and gone != stays and gone.is_Symbol:
            sizes[gone] = stays
            program.definers.pop(gone, None)
    if merged.target is torch.ops.aten._local_scalar_dense.default:
        for symbol, definer in list(program.definers.items()):
            if definer == merged.name:
                twin = next(s for s, d in program.definers.items() if d == kept.name)
                sizes[symbol] = twin
                del program.definers[symbol]
