"""The pipeline as users see it: supersteps, kernels and stored columns of common models. A lost fusion fails here."""

from __future__ import annotations

import pytest
import torch
import torch_geometric.nn as gnn

from pyg_fullgraph.engine import Engine
from pyg_fullgraph.passes import PIPELINE, optimise

N, E = 40, 160
X = torch.randn(N, 16, generator=torch.Generator().manual_seed(0))
EDGES = torch.randint(0, N, (2, E), generator=torch.Generator().manual_seed(1))

MODELS = {
    "GCN": (lambda: gnn.GCN(16, 32, 3, 7), 3, ["gather_reduce"]),
    "SAGE-mean": (lambda: gnn.GraphSAGE(16, 32, 3, 7), 3, ["gather_reduce"]),
    "SAGE-max": (lambda: gnn.GraphSAGE(16, 32, 3, 7, aggr="max"), 3, ["gather_reduce"]),
    "GIN": (lambda: gnn.GIN(16, 32, 3, 7), 3, ["gather_reduce"]),
    "GAT": (lambda: gnn.GAT(16, 32, 3, 7, heads=4), 4, ["attention_additive"]),
    "GATv2": (lambda: gnn.GAT(16, 32, 3, 7, heads=4, v2=True), 4, ["attention_gatv2"]),
    "GCN-jk": (lambda: gnn.GCN(16, 32, 3, 7, jk="cat", norm="batch_norm"), 3, ["gather_reduce"]),
    "EdgeCNN": (lambda: gnn.EdgeCNN(16, 32, 3, 7), 3, ["segment_reduce"]),
}


def report_of(model: torch.nn.Module, **options):
    return Engine(model.eval(), verify="off", **options).explain(X, EDGES)


@pytest.mark.parametrize("name", MODELS)
def test_supersteps_and_kernels(name: str) -> None:
    build, supersteps, kernels = MODELS[name]
    report = report_of(build())
    assert report.supersteps == supersteps
    used = [set(item) - {"gather", "repeat"} for item in report.kernels if item]
    assert len(used) == 3
    assert all(item == set(kernels) for item in used)


def test_transformer_uses_the_dot_kernel() -> None:
    report = report_of(gnn.TransformerConv(16, 8, heads=2))
    assert [item for item in report.kernels if item] == [("attention_dot",)]


@pytest.mark.parametrize("name", ["GCN", "SAGE-mean", "GAT", "EdgeCNN"])
@pytest.mark.parametrize("skipped", [name for name, _ in PIPELINE])
def test_any_pass_can_be_left_out(name: str, skipped: str) -> None:
    model = MODELS[name][0]().eval()
    with torch.no_grad():
        expected = model(X, EDGES)
    got = Engine(model, verify="off", skip_passes=[skipped])(X, EDGES)
    torch.testing.assert_close(got, expected, rtol=0, atol=1e-5 * float(expected.abs().max()))


def test_cse_makes_one_edge_space_of_all_layers() -> None:
    engine = Engine(gnn.GCN(16, 32, 3, 7).eval(), verify="off")
    engine(X, EDGES)
    program = next(iter(engine._captured.values())).program
    spaces = {
        str(value.space) for value in program if value.op == "gather_reduce" for value in [program[value.args[1].name]]
    }
    assert len(spaces) == 1


def test_narrow_gathers_the_narrower_side() -> None:
    wide = gnn.SAGEConv(16, 4)
    before = report_of(wide, skip_passes=["narrow"])
    after = report_of(wide)
    assert before.costs[-1].blocks[0].gathered == E * (16 * 4 + 4)
    assert after.costs[-1].blocks[0].gathered == E * (4 * 4 + 4)


def test_unknown_pass_is_named() -> None:
    with pytest.raises(ValueError, match="no pass named"):
        optimise(None, skip=["hoiist"])  # type: ignore[arg-type]
