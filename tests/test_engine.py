"""`Engine` as users meet it: live parameters, re-use over graphs, `nodes=`, errors before any work."""

from __future__ import annotations

import copy
import gc
import pickle
import sys
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
import torch_geometric.nn as gnn
from torch import Tensor

import pyg_fullgraph.engine as engine_module
from pyg_fullgraph.engine import Engine
from pyg_fullgraph.errors import CaptureError, FullGraphMismatch, GraphError, InputError
from tests.graphs import NASTY


def graph(nodes: int = 300, edges: int = 1500, seed: int = 0, width: int = 16) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(nodes, width, generator=generator), torch.randint(0, nodes, (2, edges), generator=generator)


def close(got: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(got, expected, rtol=0, atol=1e-5 * float(expected.abs().max()))


@pytest.fixture
def model() -> torch.nn.Module:
    torch.manual_seed(0)
    return gnn.GCN(16, 32, 3, 7, dropout=0.5).eval()


def test_parameters_are_live(model) -> None:
    x, edges = graph()
    engine = Engine(model)
    before = engine(x, edges)
    model.load_state_dict({key: value * 1.1 for key, value in model.state_dict().items()})
    after = engine(x, edges)
    close(after, model(x, edges).detach())
    assert not torch.allclose(before, after)


def test_one_trace_serves_all_sizes(model, monkeypatch) -> None:
    traces = []
    original = engine_module.trace
    monkeypatch.setattr(engine_module, "trace", lambda *args: traces.append(1) or original(*args))
    engine = Engine(model, verify="off")
    for seed, (nodes, edges) in enumerate([(300, 1500), (20, 20), (50, 0), (1, 1)]):
        x, index = graph(nodes, edges, seed)
        close(engine(x, index), model(x, index).detach())
    assert len(traces) == 1


def test_a_changed_attribute_is_traced_again(model) -> None:
    x, edges = graph()
    engine = Engine(model, verify="off")
    engine(x, edges)
    for conv in model.convs:
        conv.normalize = False
    close(engine(x, edges), model(x, edges).detach())


def test_a_graph_changed_in_place_is_seen(model) -> None:
    x, edges = graph()
    engine = Engine(model, verify="off")
    engine(x, edges)
    edges[0, :700] = 3
    close(engine(x, edges), model(x, edges).detach())


@pytest.mark.parametrize(
    "build",
    [
        lambda: gnn.GCN(16, 32, 3, 7),
        lambda: gnn.GraphSAGE(16, 32, 2, 7, jk="cat"),
        lambda: gnn.GAT(16, 8, 2, 4, heads=2),
        lambda: gnn.GraphSAGE(16, 32, 2, 7, norm="graph_norm"),
        lambda: gnn.MLP([16, 8, 4]),
    ],
    ids=["GCN", "SAGE-jk", "GAT", "graph-norm", "MLP"],
)
def test_nodes_are_rows_of_the_whole(build) -> None:
    x, edges = graph(nodes=400, edges=800)
    model = build().eval()
    args = (x,) if isinstance(model, gnn.MLP) else (x, edges)
    engine = Engine(model, verify="off")
    whole = engine(*args)
    chosen = torch.tensor([5, 399, 5, 0])
    close(engine(*args, nodes=chosen), whole[chosen])
    mask = torch.zeros(400, dtype=torch.bool)
    mask[[7, 9]] = True
    close(engine(*args, nodes=mask), whole[mask])
    assert engine(*args, nodes=torch.empty(0, dtype=torch.long)).shape == (0, whole.shape[1])


def test_nodes_restrict_the_work(monkeypatch) -> None:
    nodes = 2000
    path = torch.stack([torch.arange(nodes - 1), torch.arange(1, nodes)])
    x = torch.randn(nodes, 16)
    engine = Engine(gnn.GraphSAGE(16, 32, 2, 7).eval(), verify="off")
    whole = engine(x, path)
    rows = []
    monkeypatch.setattr(engine_module.Progress, "rows", lambda self, count: rows.append(count))
    close(engine(x, path, nodes=torch.tensor([1000])), whole[1000:1001])
    assert sum(rows) == 2 + 1  # two nodes in the first superstep, the node itself in the second


def test_float64_and_bfloat16(model) -> None:
    x, edges = graph()
    double = copy.deepcopy(model).double()
    got = Engine(double)(x.double(), edges)
    expected = double(x.double(), edges).detach()
    assert float((got - expected).abs().max() / expected.abs().max()) < 1e-10
    half = copy.deepcopy(model).bfloat16()
    got = Engine(half, verify="off")(x.bfloat16(), edges).float()
    assert float((got - expected).abs().max() / expected.abs().max()) < 0.05


def test_training_mode_is_refused(model) -> None:
    x, edges = graph()
    with pytest.raises(InputError, match="eval"):
        Engine(model.train())(x, edges)


def test_a_bad_edge_is_named(model) -> None:
    x, edges = graph()
    edges[1, 17] = 300
    with pytest.raises(GraphError, match="17"):
        Engine(model)(x, edges)


def test_sizes_that_do_not_fit_are_named() -> None:
    x, edges = graph()
    engine = Engine(gnn.GraphConv(16, 4).eval(), verify="off")
    engine(x, edges, torch.rand(1500))
    with pytest.raises((InputError, GraphError)):
        engine(x, edges, torch.rand(1400))


@pytest.mark.parametrize(
    "options, match",
    [
        ({"verify": "maybe"}, "auto"),
        ({"fallback": "guess"}, "eager"),
        ({"threads": 0}, "at least 1"),
        ({"home": "moon"}, "mapped"),
    ],
)
def test_unknown_options_are_named(model, options, match) -> None:
    with pytest.raises(ValueError, match=match):
        Engine(model, **options)


class Branching(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = gnn.SAGEConv(16, 4)

    def forward(self, x, edge_index):
        h = self.conv(x, edge_index)
        return h * 2 if h.abs().max() > 1e3 else h


def test_fallback_is_the_users_choice() -> None:
    x, edges = graph()
    module = Branching().eval()
    with pytest.raises(CaptureError, match=r"test_engine\.py"):
        Engine(module)(x, edges)
    engine = Engine(module, fallback="eager")
    close(engine(x, edges), module(x, edges).detach())
    assert "test_engine.py" in engine.notes[0]


def test_verification_finds_a_wrong_result(model, monkeypatch) -> None:
    x, edges = graph()
    engine = Engine(model)
    original = engine_module.Engine._run
    monkeypatch.setattr(engine_module.Engine, "_run", lambda self, *args: original(self, *args) + 1.0)
    with pytest.raises(FullGraphMismatch, match="node"):
        engine(x, edges)


def test_an_error_in_a_block_reaches_the_caller(model, monkeypatch) -> None:
    x, edges = graph(20_000, 40_000)
    engine = Engine(model, verify="off", threads=2)
    engine(x, edges)

    def fail(self, count: int) -> None:
        raise RuntimeError("disk full")

    monkeypatch.setattr(engine_module.Progress, "rows", fail)
    with pytest.raises(RuntimeError, match="disk full"):
        engine(x, edges)
    monkeypatch.undo()
    close(engine(x, edges), model(x, edges).detach())


def test_progress_shows_supersteps(model, capsys) -> None:
    x, edges = graph()
    Engine(model, verify="off")(x, edges, progress=True)
    assert "Superstep 3/3" in capsys.readouterr().err


def test_the_model_is_left_as_it_was(model) -> None:
    x, edges = graph()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    engine = Engine(model)
    out = engine(x, edges)
    assert not out.requires_grad
    assert not out.is_inference()
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())
    close(model(x, edges).detach(), out)


@pytest.mark.parametrize("name", list(NASTY))
def test_nasty_graphs_with_thousands_of_columns(name: str) -> None:
    nodes, edges = NASTY[name]
    x = torch.randn(nodes, 2500, generator=torch.Generator().manual_seed(0))
    model = gnn.SAGEConv(2500, 2500).eval()
    expected = model(x, edges).detach()
    got = Engine(model, verify="off")(x, edges)
    assert got.shape == expected.shape
    if expected.numel():
        close(got, expected)


def test_explain_predicts_and_measures_every_superstep(model) -> None:
    x, edges = graph()
    engine = Engine(model)
    report = engine.explain(x, edges)
    assert report.measured == ()
    assert "measured in the last call" not in str(report)
    engine(x, edges)
    report = engine.explain(x, edges)
    assert len(report.measured) == len(report.costs) == 3
    assert all(seconds > 0 for seconds in report.measured)
    assert "measured in the last call" in str(report)
    if report.machine is not None:
        assert len(report.predicted) == 3
        assert all(seconds > 0 for seconds in report.predicted)
    assert "<th>predicted</th><th>measured</th>" in report._repr_html_()
    other = engine.explain(*graph(seed=1))
    assert other.measured == ()  # of a graph that was not run


def test_fetched_rows_are_part_of_the_gathered_bytes(model) -> None:
    x, edges = graph()
    for step in Engine(model).explain(x, edges).costs:
        for block in step.blocks:
            fetched = sum(row * count for row, count in block.fetches)
            assert 0 < fetched < block.gathered
            assert all(count >= edges.size(1) for _, count in block.fetches)


def test_explain_has_the_program_and_html(model) -> None:
    x, edges = graph()
    report = Engine(model).explain(x, edges)
    text = str(report)
    assert "superstep 2" in text
    assert "gcn_conv.py" in text
    assert report.bytes_moved > 0
    assert report.peak_bytes > 0
    assert "<table>" in report._repr_html_()


class Aggregates(torch.nn.Module):
    """Messages by hand; returns the edges with self-loops as well."""

    def forward(self, x: Tensor, edge_index: Tensor, dim_size: int | None = None) -> tuple[Tensor, Tensor]:
        loops = torch.arange(x.size(0)).repeat(2, 1)
        both = torch.cat([edge_index, loops], dim=1)
        rows = x.size(0) if dim_size is None else dim_size
        return torch.zeros(rows, x.size(1)).index_add(0, both[1], x[both[0]]), both


def test_what_a_call_returns_is_the_callers() -> None:
    x, edges = graph()
    engine = Engine(Aggregates().eval(), verify="off")
    for _ in range(2):
        out, both = engine(x, edges)
        expected, kept = Aggregates()(x, edges)
        close(out, expected)
        assert torch.equal(both, kept)
        both.zero_()
        out.zero_()


def test_inference_mode(model) -> None:
    engine = Engine(model)
    with torch.inference_mode():
        x, edges = graph()  # tensors of inference mode, whose changes leave no trace
        close(engine(x, edges), model(x, edges))
        edges[0, :700] = 3
        close(engine(x, edges), model(x, edges))


def test_autocast_is_another_program(model) -> None:
    x, edges = graph()
    engine = Engine(model, verify="off")
    with torch.no_grad():
        with torch.autocast("cpu", torch.bfloat16):
            close(engine(x, edges), model(x, edges))
        close(engine(x, edges), model(x, edges))


def test_a_refusal_is_remembered(monkeypatch) -> None:
    class Decides(torch.nn.Module):
        def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
            return x if x.sum() > 1e9 else -x

    traces = []
    original = engine_module.trace
    monkeypatch.setattr(engine_module, "trace", lambda *args: traces.append(1) or original(*args))
    x, edges = graph()
    engine, mask = Engine(Decides().eval(), fallback="eager"), torch.arange(300) % 2 == 0
    for _ in range(3):
        close(engine(x, edges, nodes=mask), -x[mask])
    assert len(traces) == 1
    engine.fallback = "error"
    with pytest.raises(CaptureError, match=r"test_engine.py"):
        engine(x, edges)


def test_a_size_argument_does_not_sort_again(monkeypatch) -> None:
    structures = []
    original = engine_module.Structure
    monkeypatch.setattr(engine_module, "Structure", lambda *args: structures.append(1) or original(*args))
    x, edges = graph()
    engine = Engine(Aggregates().eval(), verify="off")
    for rows in (345, 345, 400):
        close(engine(x, edges, dim_size=rows)[0], Aggregates()(x, edges, dim_size=rows)[0])
    assert len(structures) == 2


def test_an_index_that_is_no_edge_list_is_checked() -> None:
    class Picks(torch.nn.Module):
        def forward(self, x: Tensor, edge_index: Tensor, edge_source: Tensor) -> Tensor:
            return torch.zeros_like(x).index_add(0, edge_index[1], x[edge_source])

    x, edges = graph()
    source = edges[0].clone()
    close(Engine(Picks().eval(), verify="off")(x, edges, source), Picks()(x, edges, source))
    source[11] = 10**9
    with pytest.raises((GraphError, InputError), match="1000000000"):
        Engine(Picks().eval(), verify="off")(x, edges, source)


class Branches(torch.nn.Module):
    """Goes another way where there are no edges, as careful users write it."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = gnn.SAGEConv(4, 4)

    def forward(self, x, edge_index):
        if edge_index.size(1) == 0:
            return x * 2
        return self.conv(x, edge_index)


def test_a_branch_on_sizes_is_taken_as_in_forward() -> None:
    model, x, nothing = Branches().eval(), torch.randn(5, 4), torch.empty(2, 0, dtype=torch.long)
    engine = Engine(model)
    engine(x, torch.randint(0, 5, (2, 9)))
    out = torch.empty(5, 4)
    assert torch.equal(engine(x, nothing, out=out), x * 2) and torch.equal(out, x * 2)
    assert torch.equal(engine(x, nothing, nodes=torch.tensor([3, 1])), x[[3, 1]] * 2)
    assert len([note for note in engine.notes if "branch at" in note and "Branches" in note]) == 1
    one_edge = torch.tensor([[0], [1]])
    with torch.no_grad():
        assert torch.allclose(engine(x, one_edge), model(x, one_edge))


@pytest.mark.parametrize("build", [gnn.GCN, gnn.GraphSAGE, gnn.GAT])
def test_a_warm_call_on_a_small_graph_takes_few_steps(build) -> None:
    """On a graph of Cora's size Python's steps are most of the time: it took 9,000 of them for GCN before, 555 now."""
    model = build(16, 16, 2, 7).eval()
    x, edges = graph(2708, 10556)
    engine = Engine(model)
    for _ in range(3):
        engine(x, edges)
    steps = Counter()

    def count(frame, event, _argument) -> None:
        if event == "call":
            steps[frame.f_code.co_filename] += 1

    sys.setprofile(count)
    try:
        out = engine(x, edges)
    finally:
        sys.setprofile(None)
    close(out, model(x, edges).detach())
    assert sum(count for name, count in steps.items() if "sympy" in name) < 50, steps  # but hashes of sizes
    assert sum(steps.values()) < 1500, steps


def test_blocks_run_on_threads_that_stay(model) -> None:
    x, edges = graph(20_000, 200_000, width=16)
    engine = Engine(model, threads=3)
    engine(x, edges)
    before = {thread.ident for thread in threading.enumerate()}
    for _ in range(3):
        engine(x, edges)
    assert {thread.ident for thread in threading.enumerate()} == before
    assert len([thread for thread in threading.enumerate() if thread.name.startswith("pyg_fullgraph")]) >= 2
    assert torch.equal(Engine(model, threads=1)(x, edges), engine(x, edges))


def test_threads_end_with_their_engine(model) -> None:
    x, edges = graph(20_000, 200_000, width=16)
    engine = Engine(model, threads=2, verify="off")
    before = set(threading.enumerate())
    engine(x, edges)
    mine = set(threading.enumerate()) - before
    assert mine
    del engine
    gc.collect()
    for thread in mine:
        thread.join(20)
    assert not any(thread.is_alive() for thread in mine)


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda engine: pickle.loads(pickle.dumps(engine))])
def test_a_copy_made_after_a_call_runs_on_its_own(model, copied) -> None:
    x, edges = graph()
    engine = Engine(model, order="rcm", threads=2)
    expected = engine(x, edges)
    other = copied(engine)
    assert (other.order, other.threads, other.model is model) == ("rcm", 2, False)
    with torch.no_grad():
        model.convs[-1].bias.add_(1.0)
    close(other(x, edges), expected)
    close(engine(x, edges), expected + 1.0)


def test_first_calls_of_several_threads(model) -> None:
    x, edges = graph()
    engine = Engine(model)
    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(lambda _: engine(x, edges), range(8)))
    for result in results:
        close(result, model(x, edges).detach())
    assert repr(engine) == "Engine(GCN, traced calls: 1)"
