"""Rows of several types: worked on apart, joined in place."""

from __future__ import annotations

import torch
import torch_geometric.nn as gnn
from torch import Tensor

from pyg_fullgraph.engine import Engine
from tests.cases.case import replay_graph
from tests.cases.inputs import METADATA, hetero_parts

from .programs import changes, optimised, values

PARTS = hetero_parts(replay_graph(40, 200))


def same(module: torch.nn.Module) -> Engine:
    engine = Engine(module, verify="off")
    with torch.no_grad():
        expected = module(*PARTS)
    got = engine(*PARTS)
    for key, value in expected.items():
        torch.testing.assert_close(got[key], value, rtol=0, atol=1e-5 * float(value.abs().max()))
    return engine


def test_hgt_transforms_each_type_by_itself() -> None:
    torch.manual_seed(0)
    conv = gnn.HGTConv(16, 8, METADATA, heads=2).eval()
    program = optimised(conv, *PARTS)
    joined = {str(program.space_name(value.space)) for value in values(program, "cat") if value.space is not None}
    assert not [value for value in values(program, "typed_linear") if program.space_name(value.space) in joined]
    (attention,) = values(program, "attention")
    assert program[attention.args[0].name].target is torch.ops.aten.cat.default
    engine = same(conv)
    (captured,) = engine._captured.values()
    steps = captured.compiled.schedule.steps
    assert len(steps) == 3
    placed = {union for union, _ in captured.compiled.parts.values()}
    assert len(placed) == 3  # keys, queries and values: no row is copied to join them


def test_parameters_of_relations_are_looked_up() -> None:
    conv = gnn.HGTConv(16, 8, METADATA, heads=2).eval()
    before, after = optimised(conv, *PARTS, skip=("union",)), optimised(conv, *PARTS)
    assert any(value.space is not None and not value.local for value in values(before, "cat"))
    found = [value for value in values(after, "index_select") if value.row_dim == 0]
    assert found and all(value.local for value in found)


class Shared(torch.nn.Module):
    """Types joined, transformed, read again: the joined rows themselves are wanted as well."""

    def __init__(self) -> None:
        super().__init__()
        self.lin = torch.nn.Linear(16, 8)

    def forward(self, x: dict[str, Tensor], edges: dict) -> dict[str, Tensor]:
        rows = torch.cat([x["paper"], x["author"]])
        row, col = edges["paper", "cites", "paper"]
        out = torch.zeros(x["paper"].size(0), 8).index_add_(0, col, self.lin(rows).relu()[row])
        return {"paper": out, "rows": rows * 2}


def test_what_is_wanted_whole_stays_whole() -> None:
    same(Shared().eval())


def test_explain_shows_the_change() -> None:
    conv = gnn.HGTConv(16, 8, METADATA, heads=2).eval()
    change = changes(conv, *PARTS)["union"]
    assert "+2 typed_linear on N:author" in str(change)
    assert any(line.startswith("+") and "typed_linear" in line for line in change.diff.splitlines())
