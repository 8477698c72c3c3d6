"""Which operators may run on a part of their rows: the rules, by example and counter-example."""

from __future__ import annotations

import pytest
import sympy
import torch

from pyg_fullgraph.ir import Program, Ref, Stage, Value
from pyg_fullgraph.ir.locality import is_row_local

aten = torch.ops.aten
N, E = sympy.symbols("u0 u1")


def program() -> Program:
    def leaf(name: str, shape: tuple, dtype: torch.dtype = torch.float32) -> Value:
        return Value(name, "input", (name,), {}, shape, dtype, Stage.DATA)

    leaves = [
        leaf("x", (N, 8)), leaf("y", (N, 8)), leaf("heads", (N, 2, 4)), leaf("swapped", (2, N, 4)),
        leaf("edges", (E, 8)), leaf("w", (8, 8)), leaf("bias", (8,)), leaf("table", (5, 8)),
        leaf("type", (N,), torch.int64), leaf("pairs", (N, N)), leaf("column", (N, 1)),
    ]  # fmt: skip
    return Program({value.name: value for value in leaves}, None)


R = Ref
CASES = {
    "add": (aten.add.Tensor, (R("x"), R("y")), (N, 8), True),
    "add bias": (aten.add.Tensor, (R("x"), R("bias")), (N, 8), True),
    "add column": (aten.mul.Tensor, (R("x"), R("column")), (N, 8), True),
    "mm": (aten.mm.default, (R("x"), R("w")), (N, 8), True),
    "mm over rows": (aten.mm.default, (R("w"), R("x")), (8, 8), False),
    "sum columns": (aten.sum.dim_IntList, (R("x"), [-1]), (N,), True),
    "sum rows": (aten.sum.dim_IntList, (R("x"), [0], True), (1, 8), False),
    "mean of heads": (aten.mean.dim, (R("heads"), [1]), (N, 4), True),
    "softmax columns": (aten._softmax.default, (R("x"), -1, False), (N, 8), True),
    "softmax rows": (aten._softmax.default, (R("x"), 0, False), (N, 8), False),
    "cumsum rows": (aten.cumsum.default, (R("x"), 0), (N, 8), False),
    "view heads": (aten.view.default, (R("x"), [-1, 2, 4]), (N, 2, 4), True),
    "view head-major": (aten.view.default, (R("swapped"), [-1, 8]), (N, 8), False),
    "transpose": (aten.transpose.int, (R("heads"), 0, 1), (2, N, 4), True),
    "cat columns": (aten.cat.default, ([R("x"), R("y")], -1), (N, 16), True),
    "cat rows": (aten.cat.default, ([R("x"), R("table")], 0), (N + 5, 8), False),
    "stack": (aten.stack.default, ([R("x"), R("y")], 1), (N, 2, 8), True),
    "slice columns": (aten.slice.Tensor, (R("x"), 1, 0, 4), (N, 4), True),
    "slice rows": (aten.slice.Tensor, (R("x"), 0, 0, 4), (4, 8), False),
    "lookup": (aten.index_select.default, (R("table"), 0, R("type")), (N, 8), True),
    "embedding": (aten.embedding.default, (R("table"), R("type")), (N, 8), True),
    "layer norm": (aten.native_layer_norm.default, (R("x"), [8], None, None, 1e-5), (N, 8), True),
    "batch norm, running": (
        aten.native_batch_norm.default,
        (R("x"), None, None, R("bias"), R("bias"), False, 0.1, 1e-5),
        (N, 8),
        True,
    ),
    "batch norm, of the batch": (
        aten.native_batch_norm.default,
        (R("x"), None, None, None, None, True, 0.1, 1e-5),
        (N, 8),
        False,
    ),
    "two spaces": (aten.add.Tensor, (R("x"), R("edges")), (N, 8), False),
    "all pairs": (aten.mm.default, (R("pairs"), R("x")), (N, 8), False),
    "sort rows": (aten.sort.default, (R("x"), 0), (N, 8), False),
    "unknown operator": (aten.roll.default, (R("x"), [1], [0]), (N, 8), False),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_locality(name: str) -> None:
    target, args, shape, expected = CASES[name]
    value = Value("out", "aten", args, {}, shape, torch.float32, Stage.DATA, target=target)
    assert is_row_local(program(), value) is expected
