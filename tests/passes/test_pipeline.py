"""The pipeline as users see it: supersteps, kernels and stored columns of common models. A lost fusion fails here."""

from __future__ import annotations

import pytest
import torch
import torch_geometric.nn as gnn

from pyg_fullgraph.engine import Engine
from pyg_fullgraph.passes import PIPELINE, optimise
from pyg_fullgraph.report import Report

from .programs import EDGE_INDEX, EDGES, X, assert_same, changes, optimised, raised, values

DEGREES = torch.tensor([1, 4, 6, 3, 2])
PNA = {"aggregators": ["mean", "min", "max", "std"], "scalers": ["identity", "amplification"], "deg": DEGREES}


class Deep(torch.nn.Module):
    """Layers of one kind, as DeepGCN has them."""

    def __init__(self, build) -> None:
        super().__init__()
        self.layers = torch.nn.ModuleList(build() for _ in range(3))

    def forward(self, x, edge_index):
        for layer in self.layers:
            x = layer(x, edge_index).relu()
        return x


#: name -> (model, supersteps, the kernels of each of its three layers)
MODELS = {
    "GCN": (lambda: gnn.GCN(16, 32, 3, 7), 3, ["gather_reduce"]),
    "SAGE-mean": (lambda: gnn.GraphSAGE(16, 32, 3, 7), 3, ["gather_reduce"]),
    "SAGE-max": (lambda: gnn.GraphSAGE(16, 32, 3, 7, aggr="max"), 3, ["gather_reduce"]),
    "SAGE-several": (lambda: gnn.GraphSAGE(16, 32, 3, 7, aggr=["mean", "max", "std"]), 3, ["message_reduce"]),
    "GIN": (lambda: gnn.GIN(16, 32, 3, 7), 3, ["gather_reduce"]),
    "GAT": (lambda: gnn.GAT(16, 32, 3, 7, heads=4), 4, ["attention_additive"]),
    "GATv2": (lambda: gnn.GAT(16, 32, 3, 7, heads=4, v2=True), 4, ["attention_gatv2"]),
    "GCN-jk": (lambda: gnn.GCN(16, 32, 3, 7, jk="cat", norm="batch_norm"), 3, ["gather_reduce"]),
    "EdgeCNN": (lambda: gnn.EdgeCNN(16, 32, 3, 7), 4, ["edge_linear"]),
    "PNA": (lambda: gnn.PNA(16, 32, 3, 7, **PNA), 4, ["message_reduce"]),
    "Transformer": (lambda: Deep(lambda: gnn.TransformerConv(16, 8, heads=2)), 4, ["attention_dot"]),
    "SuperGAT": (
        lambda: Deep(lambda: gnn.SuperGATConv(16, 8, heads=2)),
        4,
        ["attention_explicit", "edge_dot", "message"],
    ),
    "AGNN": (lambda: Deep(gnn.AGNNConv), 4, ["attention_explicit", "edge_dot"]),
    "GEN": (lambda: Deep(lambda: gnn.GENConv(16, 16, "softmax", learn_t=True)), 3, ["softmax_reduce"]),
    "ResGated": (lambda: Deep(lambda: gnn.ResGatedGraphConv(16, 16)), 4, ["message", "segment_reduce"]),
}


def report_of(model: torch.nn.Module, **options) -> Report:
    return Engine(model.eval(), verify="off", **options).explain(X, EDGE_INDEX)


@pytest.mark.parametrize("name", MODELS)
def test_supersteps_and_kernels(name: str) -> None:
    build, supersteps, kernels = MODELS[name]
    engine = Engine(build().eval(), verify="off")
    report = engine.explain(X, EDGE_INDEX)
    used = [sorted(set(item) - {"gather", "repeat"}) for item in report.kernels if item]
    assert used == [kernels] * 3
    assert report.supersteps == supersteps
    assert not report.notes  # nothing runs whole
    (captured,) = engine._captured.values()
    for step in captured.compiled.schedule.steps:
        for stored in (*step.whole, *(stored for block in step.blocks for stored in block.stored)):
            assert "E" not in captured.program.space_name(captured.program[stored].space)  # no edge value is stored


def test_relations_are_aggregated_one_by_one_into_the_same_rows() -> None:
    conv = gnn.RGCNConv(16, 16, num_relations=4).eval()
    types = torch.randint(0, 4, (EDGES,), generator=torch.Generator().manual_seed(0))
    report = Engine(conv, verify="off").explain(X, EDGE_INDEX, types)
    assert report.supersteps == 1
    assert report.kernels == (("gather_reduce",) * 4,)


@pytest.mark.parametrize("name", ["GCN", "SAGE-mean", "GAT", "EdgeCNN", "PNA", "GEN", "SuperGAT"])
def test_any_pass_can_be_left_out(name: str) -> None:
    torch.manual_seed(0)
    assert_same(MODELS[name][0]().eval(), X, EDGE_INDEX, tolerance=2e-5)


def test_cse_makes_one_edge_space_of_all_layers() -> None:
    program = optimised(gnn.GCN(16, 32, 3, 7).eval(), X, EDGE_INDEX)
    assert len({str(program[value.args[1].name].space) for value in values(program, "gather_reduce")}) == 1


def test_narrow_gathers_the_narrower_side() -> None:
    wide = gnn.SAGEConv(16, 4)
    before = report_of(wide, skip_passes=["narrow"])
    after = report_of(wide)
    assert before.costs[-1].blocks[0].gathered == EDGES * (16 * 4 + 4)
    assert after.costs[-1].blocks[0].gathered == EDGES * (4 * 4 + 4)


def test_explain_says_what_each_pass_changed() -> None:
    report = report_of(gnn.EdgeCNN(16, 32, 3, 7))
    assert [change.name for change in report.passes] == [name for name, _ in PIPELINE]
    by_name = {change.name: change for change in report.passes}
    assert by_name["hoist"].counts["cat on E"] == -3
    assert "-" in by_name["hoist"].diff and "addmm" in by_name["hoist"].diff
    assert not by_name["pools"].counts
    assert "pass hoist: " in str(report)
    assert "pass pools" not in str(report)
    assert "<summary>hoist: " in report._repr_html_()


def test_changes_are_those_of_the_program() -> None:
    model = gnn.PNA(16, 32, 1, 7, **PNA).eval()
    found = changes(model, X, EDGE_INDEX)
    assert found["cse"].before != found["accumulate"].after
    for earlier, later in zip(list(found.values()), list(found.values())[1:]):
        assert earlier.after == later.before


def test_unknown_pass_is_named() -> None:
    with pytest.raises(ValueError, match="no pass named"):
        optimise(raised(gnn.SAGEConv(16, 4).eval(), X, EDGE_INDEX), skip=["hoiist"])
