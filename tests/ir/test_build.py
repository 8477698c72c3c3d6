"""New values get their shape, stage and locality from the operator."""

from __future__ import annotations

import pytest
import sympy
import torch

from pyg_fullgraph.ir import Dim, Program, Ref, Stage, Value
from pyg_fullgraph.ir.build import Builder, infer, joined_stage

aten = torch.ops.aten
N, E, K = sympy.symbols("u0 u1 u2")


def program() -> Program:
    def leaf(name: str, shape: tuple, stage: Stage = Stage.DATA, dtype: torch.dtype = torch.float32) -> Value:
        op = "param" if stage is Stage.PARAM else "input"
        return Value(name, op, (name,), {}, shape, dtype, stage)

    leaves = [
        leaf("x", (N, 8)), leaf("y", (N, 8)), leaf("e", (E, 3)), leaf("kept", (K, 8)),
        leaf("w", (8, 4), Stage.PARAM), leaf("b", (4,), Stage.PARAM),
        leaf("index", (E,), Stage.STRUCT, torch.int64),
    ]  # fmt: skip
    last = Value("last", "aten", (Ref("x"), Ref("y")), {}, (N, 8), torch.float32, Stage.DATA, aten.add.Tensor)
    return Program({value.name: value for value in [*leaves, last]}, Ref("last"))


R = Ref


@pytest.mark.parametrize(
    "target, args, shape",
    [
        (aten.mm.default, (R("x"), R("w")), (N, 4)),
        (aten.add.Tensor, (R("x"), R("y")), (N, 8)),
        (aten.view.default, (R("x"), [Dim(N), 2, 4]), (N, 2, 4)),
        (aten.view.default, (R("x"), [Dim(8 * N)]), (8 * N,)),
        (aten.cat.default, ([R("x"), R("kept"), R("x")],), (2 * N + K, 8)),
        (aten.transpose.int, (R("x"), 0, 1), (8, N)),
        (aten.sum.dim_IntList, (R("x"), [0]), (8,)),
        (aten.slice.Tensor, (R("w"), 0, 2, 5), (3, 4)),
    ],
    ids=["mm", "add", "view", "flat", "union", "transpose", "sum", "slice"],
)
def test_shapes(target, args, shape) -> None:
    assert infer(program(), target, args, {}) == (shape, torch.float32)


@pytest.mark.parametrize("count", [2, 9, 30])
def test_the_size_of_a_union_is_the_sum_of_its_parts(count: int) -> None:
    """Nine sizes added up used to be read back as three times one, four times another and two more."""
    sizes = [sympy.Symbol(f"u{i}", integer=True) for i in range(count)]
    leaves = [Value(f"x{i}", "input", (f"x{i}",), {}, (sizes[i], 8), torch.float32, Stage.DATA) for i in range(count)]
    found = Program({value.name: value for value in leaves}, Ref("x0"))
    parts = [Ref(value.name) for value in leaves]
    assert infer(found, aten.cat.default, (parts, 0), {}) == ((sum(sizes), 8), torch.float32)
    assert infer(found, aten.cat.default, (parts[:1] * 3, -1), {}) == ((sizes[0], 24), torch.float32)


def test_the_type_of_the_result_is_the_operators() -> None:
    assert infer(program(), aten.gt.Scalar, (R("x"), 0), {}) == ((N, 8), torch.bool)
    assert infer(program(), aten._to_copy.default, (R("x"),), {"dtype": torch.float64})[1] == torch.float64


@pytest.mark.parametrize(
    "stages, sized, expected",
    [
        ([], False, Stage.CONST),
        ([], True, Stage.STRUCT),
        ([Stage.CONST], True, Stage.STRUCT),
        ([Stage.CONST, Stage.PARAM], False, Stage.PARAM),
        ([Stage.PARAM], True, Stage.DATA),
        ([Stage.PARAM, Stage.STRUCT], False, Stage.DATA),
        ([Stage.STRUCT, Stage.CONST], False, Stage.STRUCT),
        ([Stage.STRUCT, Stage.DATA], False, Stage.DATA),
    ],
)
def test_stages(stages, sized, expected) -> None:
    assert joined_stage(stages, sized) is expected


def test_what_is_built_stands_before_its_anchor_and_takes_its_place() -> None:
    made = program()
    build = Builder(made, "last")
    weight = build.aten(aten.neg.default, R("w"))
    product = build.aten(aten.mm.default, R("x"), weight)
    build.replace_anchor(build.aten(aten.cat.default, [product, product], 1))
    names = list(made.values)
    assert "last" not in names
    assert names[-3:] == [weight.name, product.name, made.output_names()[0]]
    assert made[weight.name].stage is Stage.PARAM
    assert made[product.name].local
    assert made[made.output_names()[0]].shape == (N, 8)


def test_gathers_have_a_row_per_edge() -> None:
    made = program()
    build = Builder(made, "last")
    rows = build.gather(R("x"), R("index"), made["last"])
    build.commit()
    assert made[rows.name].shape == (E, 8)
    assert made[rows.name].space == E
