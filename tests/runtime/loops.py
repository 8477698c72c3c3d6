"""A program by hand: edges without self-loops, then one loop for each node."""

from __future__ import annotations

from typing import Any

import sympy
import torch
from torch import Tensor

from pyg_fullgraph.ir import Dim, Program, Ref, Stage, Value
from pyg_fullgraph.runtime import Structure

N, E, K = (sympy.Symbol(name, integer=True) for name in ("u0", "u1", "u2"))
aten = torch.ops.aten


def _value(name: str, target: Any, args: tuple[Any, ...], shape: tuple[Any, ...], dtype: torch.dtype) -> Value:
    return Value(name, "aten", args, {}, shape, dtype, Stage.STRUCT, target, local=target is not aten.cat.default)


def loops(edge_index: Tensor, nodes: int) -> Structure:
    """The structure of a graph; `source` and `target` are the ends of the edges, `far` the target plus 2^33."""
    int64 = torch.int64
    edge = Ref("edge_index")
    values = [
        Value("x", "input", ("x",), {}, (N, 1), torch.float32, Stage.DATA),
        Value("edge_index", "input", ("edge_index",), {}, (2, E), int64, Stage.STRUCT),
        _value("row", aten.select.int, (edge, 0, 0), (E,), int64),
        _value("col", aten.select.int, (edge, 0, 1), (E,), int64),
        _value("mask", aten.ne.Tensor, (Ref("row"), Ref("col")), (E,), torch.bool),
        _value("kept", aten.index.Tensor, (edge, [None, Ref("mask")]), (2, K), int64),
        _value("numbers", aten.arange.default, (Dim(N),), (N,), int64),
        _value("line", aten.view.default, (Ref("numbers"), [1, -1]), (1, N), int64),
        _value("own", aten.repeat.default, (Ref("line"), [2, 1]), (2, N), int64),
        _value("all", aten.cat.default, ([Ref("kept"), Ref("own")], 1), (2, N + K), int64),
        _value("source", aten.select.int, (Ref("all"), 0, 0), (N + K,), int64),
        _value("target", aten.select.int, (Ref("all"), 0, 1), (N + K,), int64),
        _value("far", aten.add.Tensor, (Ref("target"), 1 << 33), (N + K,), int64),
    ]
    program = Program({value.name: value for value in values}, None, definers={K: "kept"})
    return Structure(program, {"x": torch.zeros(nodes, 1), "edge_index": edge_index})
