"""Each rule of the checker names the pass and the value that break it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import sympy
import torch
from torch_geometric import nn as gnn

import pyg_fullgraph as fg
from pyg_fullgraph.capture.raising import raise_program
from pyg_fullgraph.ir import Program, Ref, Stage, Value
from pyg_fullgraph.ir.check import ProgramError, check_program
from pyg_fullgraph.passes import optimise, pipeline


def program(optimised: bool) -> Program:
    """A GAT layer, before or after the passes."""
    engine = fg.compile(gnn.GATConv(4, 3, heads=2).eval(), verify="off")
    engine(torch.randn(9, 4), torch.randint(0, 9, (2, 20)))
    captured = next(iter(engine._captured.values()))
    if optimised:
        return captured.program
    return raise_program(captured.traced, captured.sizes)


def first(found: Program, op: str) -> str:
    return next(value.name for value in found if value.op == op and value.stage is Stage.DATA)


def rename(found: Program) -> None:
    name = first(found, "gather")
    found.values[name] = replace(found[name], name="other")


def unknown_word(found: Program) -> None:
    name = first(found, "gather")
    found.values[name] = replace(found[name], op="fetch")


def used_before_defined(found: Program) -> None:
    name = first(found, "gather")
    found.values = {name: found[name], **{key: value for key, value in found.values.items() if key != name}}


def early_stage(found: Program) -> None:
    name = first(found, "gather")
    found.values[name] = replace(found[name], stage=Stage.PARAM)


def float_index(found: Program) -> None:
    index = found[first(found, "gather")].args[1].name
    found.values[index] = replace(found[index], dtype=torch.float32)


def other_rows(found: Program) -> None:
    name = first(found, "reduce")
    index = found[name].args[1]
    nodes = next(value for value in found if value.op == "input" and value.stage is Stage.DATA)
    found.values[name] = found[name].with_args((Ref(nodes.name), index, *found[name].args[2:]))


def other_type(found: Program) -> None:
    name = first(found, "gather")
    found.values[name] = replace(found[name], dtype=torch.float64)


def lost_output(found: Program) -> None:
    found.outputs = Ref("gone")


RULES: dict[Callable[[Program], None], str] = {
    rename: "calls itself",
    unknown_word: "no word 'fetch'",
    used_before_defined: "not defined before",
    early_stage: "stage",
    float_index: "index of type torch.float32",
    other_rows: "rows of different spaces",
    other_type: "is not that of",
    lost_output: "an output is %gone",
}


@pytest.mark.parametrize("broken", RULES, ids=lambda broken: broken.__name__)
def test_what_breaks_a_rule_is_named(broken: Callable[[Program], None]) -> None:
    found = program(False)
    check_program(found, "nothing")
    broken(found)
    with pytest.raises(ProgramError, match=rf"after pass 'bad': .*{RULES[broken]}"):
        check_program(found, "bad")


def test_operands_of_a_fused_word() -> None:
    found = program(True)
    name = first(found, "attention")
    value = found[name]
    nodes = next(value for value in found if value.op == "input" and value.stage is Stage.DATA)
    found.values[name] = value.with_args((value.args[0], Ref(nodes.name), value.args[2]))
    with pytest.raises(ProgramError, match="index of type"):
        check_program(found, "bad")


def test_the_size_of_a_union() -> None:
    sizes = sympy.symbols("u0:3", integer=True)
    leaves = [Value(f"x{i}", "input", (f"x{i}",), {}, (sizes[i], 8), torch.float32, Stage.DATA) for i in range(2)]
    parts = ([Ref("x0"), Ref("x1")], 0)

    def union(size: sympy.Expr) -> Program:
        joined = Value("j", "aten", parts, {}, (size, 8), torch.float32, Stage.DATA, torch.ops.aten.cat.default)
        return Program({value.name: value for value in [*leaves, joined]}, Ref("j"))

    check_program(union(sizes[0] + sizes[1]), "good")
    check_program(union(sizes[2]), "a trace that knows that it is as many")
    with pytest.raises(ProgramError, match="not the sum of its parts"):
        check_program(union(2 * sizes[1]), "bad")


def test_a_pass_that_breaks_a_program_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    first_, second = program(False), program(False)
    monkeypatch.setattr(pipeline, "PIPELINE", [("cse", pipeline.merge_equal), ("breaker", early_stage)])
    monkeypatch.delenv(pipeline.CHECKED)
    optimise(first_)  # off for users
    monkeypatch.setenv(pipeline.CHECKED, "1")
    with pytest.raises(ProgramError, match="after pass 'breaker'"):
        optimise(second)
