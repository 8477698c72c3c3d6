"""Every case is traced on one small graph and replayed on a larger one; a trace leaves no mark on its
model.
"""

from __future__ import annotations

import gc
import importlib
import operator
import sys
from collections.abc import Callable
from types import FrameType
from typing import Any

import pytest
import torch
import torch_geometric.nn as gnn
from torch import Tensor, fx
from torch._subclasses.fake_tensor import FakeTensor
from torch.fx.experimental.proxy_tensor import get_proxy_mode

from pyg_fullgraph.capture import Traced, bind, trace
from pyg_fullgraph.capture.operators import OpaqueAggregation
from pyg_fullgraph.errors import CaptureError, InputError
from tests.capture.replay import assert_equal, capture, eager, replay
from tests.cases.case import TRACE_GRAPH, Case, module_of, replay_graph
from tests.cases.table import BY_ID
from tests.cases.table import CORE as CASES
from tests.traces import file

CAPTURED = [case for case in CASES if not case.refused]
DEGREES = torch.tensor([1, 4, 6, 3, 2])
EMPTY = (5, torch.empty(2, 0, dtype=torch.long))
ONE_NODE = (1, torch.tensor([[0], [0]]))
SMALL = [
    "GCNConv",
    "SAGEConv",
    "GATConv",
    "GINConv",
    "TransformerConv",
    "RGCNConv",
    "m.GCN",
    "m.GAT-act_first-bn",
]


def trace_case(case: Case) -> tuple[torch.nn.Module, Traced]:
    module = module_of(case)
    args, kwargs = case.make_inputs(TRACE_GRAPH)
    return module, capture(module, args, kwargs)


def assert_functional(traced: Traced) -> None:
    """No write, no assertion, no data-reading constant; every node says where it is from and what it is."""
    for node in traced.graph.nodes:
        if node.op != "call_function":
            assert node.op in ("placeholder", "get_attr", "output")
            continue
        assert "val" in node.meta and node.meta["where"], node.format_node()
        assert node.users or node.op == "output"
        if isinstance(node.target, torch._ops.OpOverload):
            written = [a for a in node.target._schema.arguments if a.alias_info and a.alias_info.is_write]
            assert not written, node.target
            name = node.target._schema.name
            assert not name.endswith(("_like", "::empty", "::detach", "::alias")) and "assert" not in name
            assert "::new_" not in name
        else:
            assert node.target in (
                operator.getitem,
                operator.add,
                operator.mul,
                operator.floordiv,
            ) or callable(node.target)


def assert_unpoisoned(module: torch.nn.Module) -> None:
    for name, part in module.named_modules():
        for key, value in vars(part).items():
            for item in value if isinstance(value, (tuple, list)) else [value]:
                assert not isinstance(item, (FakeTensor, torch.SymInt)), f"{name}.{key}"


@pytest.mark.parametrize("case", CAPTURED, ids=lambda case: case.id)
def test_replays_on_a_larger_graph(case: Case) -> None:
    module, traced = trace_case(case)
    assert_functional(traced)
    assert_unpoisoned(module)
    assert not any("fixed to" in note for note in traced.model_notes)
    args, kwargs = case.make_inputs(replay_graph())
    file(case.id, bind(module, args, kwargs)[0], traced)  # on a graph of other sizes: a trace knows none
    got = replay(module, traced, args, kwargs)
    assert_equal(got, eager(module_of(case), args, kwargs))
    if case.id in SMALL:
        for graph in (EMPTY, ONE_NODE):
            args, kwargs = case.make_inputs(graph)
            assert_equal(replay(module, traced, args, kwargs), eager(module, args, kwargs))


@pytest.mark.parametrize("case", [case for case in CASES if case.refused], ids=lambda case: case.id)
def test_refusal_names_the_line(case: Case) -> None:
    module = module_of(case)
    args, kwargs = case.make_inputs(TRACE_GRAPH)
    with pytest.raises(CaptureError, match=r"\w+\.py:\d+ in \w+"):
        capture(module, args, kwargs)
    assert_unpoisoned(module)
    eager(module, args, kwargs)


def test_refusal_names_the_users_line() -> None:
    module = module_of(BY_ID["u.DataDependent"])
    code = type(module).forward.__code__
    with pytest.raises(CaptureError) as caught:
        capture(module, BY_ID["u.DataDependent"].make_inputs(TRACE_GRAPH)[0])
    assert f"user_models.py:{code.co_firstlineno + 2} in DataDependent.forward" in str(caught.value)
    assert "torch.where" in str(caught.value)


def _gcn() -> tuple[torch.nn.Module, tuple[Any, ...]]:
    case = BY_ID["m.GCN"]
    return module_of(case), case.make_inputs(TRACE_GRAPH)[0]


def test_parameters_are_live() -> None:
    module, args = _gcn()
    traced = capture(module, args)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.mul_(0.5).add_(0.1)
    assert_equal(replay(module, traced, args), eager(module, args))


def test_where_and_layer_of_nodes() -> None:
    module, args = _gcn()
    nodes = [n for n in capture(module, args).graph.nodes if n.target is torch.ops.aten.mm.default]
    assert [n.meta["layer"] for n in nodes] == ["convs.0.lin", "convs.1.lin", "convs.2.lin"]
    assert all("linear.py" in n.meta["where"] and "Linear.forward" in n.meta["where"] for n in nodes)


def test_structure_of_equal_layers_is_shared() -> None:
    """Three layers look for self-loops in the same edges: one filter remains, and one size for its result."""
    module, args = _gcn()
    traced = capture(module, args)
    filters = [n for n in traced.graph.nodes if n.target is torch.ops.aten.index.Tensor and None in n.args[1]]
    assert len(filters) == 1
    sizes = {str(n.meta["val"].node.expr) for n in traced.graph.nodes if isinstance(n.meta.get("val"), torch.SymInt)}
    assert len(sizes) == 3  # nodes, kept edges, their sum


def test_shared_parameters_are_one_input() -> None:
    class Tied(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one = self.two = torch.nn.Linear(16, 16)
            self.three = torch.nn.Linear(16, 16)
            self.three.weight = self.one.weight

        def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
            return self.three(self.two(self.one(x)))[edge_index[0]]

    module, args = Tied().eval(), _gcn()[1]
    traced = capture(module, args)
    assert len(traced.param_names) == 3
    assert_equal(replay(module, traced, args), eager(module, args))


def test_plain_tensor_attributes_are_live() -> None:
    class Scaled(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale = torch.tensor([2.0])

        def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
            return x[edge_index[0]] * self.scale

    module, args = Scaled(), _gcn()[1]
    module.eval()
    traced = capture(module, args)
    module.scale = torch.tensor([3.0])
    assert_equal(replay(module, traced, args), eager(module, args))


def test_warm_cache_is_not_baked() -> None:
    case = BY_ID["APPNP-cached"]
    module = module_of(case)
    args, _ = case.make_inputs(TRACE_GRAPH)
    eager(module, args)
    warm = module._cached_edge_index
    traced = capture(module, args)
    assert module._cached_edge_index is warm and module.cached
    assert any("cached=True" in note for note in traced.model_notes)
    args, _ = case.make_inputs(replay_graph())
    assert_equal(replay(module, traced, args), eager(module_of(case), args))


def test_transductive_model_is_told_and_checked() -> None:
    n, edge_index = TRACE_GRAPH
    module = gnn.LINKX(n, 16, 8, 4, num_layers=2).eval()
    traced = capture(module, (torch.randn(n, 16), edge_index))
    assert traced.symbols["N"] == n
    assert any("transductive" in note for note in traced.model_notes)
    with pytest.raises(InputError, match="exactly 9 rows of N"):
        traced.check({"N": 10, "E": 3})


@pytest.mark.parametrize("case_id", ["SAGEConv-lstm", "SAGEConv-median"])
def test_opaque_aggregation_is_one_node(case_id: str) -> None:
    module, traced = trace_case(BY_ID[case_id])
    handles = [n.target for n in traced.graph.nodes if isinstance(n.target, OpaqueAggregation)]
    assert len(handles) == 1 and handles[0].module is module.aggr_module
    assert (handles[0].padding is not None) == ("lstm" in case_id)


def test_train_mode_is_refused() -> None:
    module, args = _gcn()
    module.train()
    with pytest.raises(InputError, match=r"model\.eval\(\)"):
        capture(module, args)


def test_hooks_and_explain_mode_are_refused() -> None:
    module = gnn.SAGEConv(16, 8).eval()
    handle = module.register_message_forward_hook(lambda *_: None)
    with pytest.raises(CaptureError, match="hooks"):
        capture(module, _gcn()[1])
    handle.remove()
    module.explain = True
    with pytest.raises(CaptureError, match="Explain mode"):
        capture(module, _gcn()[1])


def test_lazy_model_is_refused() -> None:
    with pytest.raises(InputError, match="lazy"):
        capture(gnn.SAGEConv(-1, 8).eval(), _gcn()[1])


def test_adapters_are_taken_down_after_an_error() -> None:
    from torch_geometric.nn import dense
    from torch_geometric.utils import _scatter

    before = (dense.HeteroLinear.forward, torch.nn.LSTM.forward, torch.nn.GRUCell.forward)
    with pytest.raises(CaptureError):
        capture(module_of(BY_ID["u.DataDependent"]), _gcn()[1])
    assert (dense.HeteroLinear.forward, torch.nn.LSTM.forward, torch.nn.GRUCell.forward) == before
    assert "int" not in vars(_scatter) and not _scatter.is_compiling()


def test_outputs_keep_their_tree() -> None:
    _, traced = trace_case(BY_ID["u.Outputs"])
    pair, nothing, listed = traced.packing.of_simple(traced.outputs)
    assert type(pair).__name__ == "Pair" and set(pair.right) == {"edges", "alpha"} and nothing is None
    assert all(isinstance(node, fx.Node) for node in (pair.left, pair.right["alpha"], listed[0]))


def test_trace_takes_the_signature_of_another_call() -> None:
    """The trace sees only the signature: nothing of the example's graph is in the program."""
    module, args = _gcn()
    signature, _ = bind(module, (torch.randn(2, 16), torch.zeros(2, 1, dtype=torch.long)), {})
    assert_equal(replay(module, trace(module, signature), args), eager(module, args))


@pytest.mark.parametrize(("name", "most"), [("GCN", 90), ("GAT", 190), ("PNA", 300)])
def test_what_three_layers_record_is_little(name: str, most: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A trace costs what torch records, about a millisecond an operator; that is counted, before anything is merged."""
    more = {
        "GCN": {},
        "GAT": {"heads": 4},
        "PNA": {"aggregators": ["mean", "min", "max", "std"], "scalers": ["identity", "attenuation"], "deg": DEGREES},
    }
    model = getattr(gnn, name)(16, 32, 3, 7, **more[name]).eval()
    recorded: list[int] = []
    trace_module = importlib.import_module("pyg_fullgraph.capture.trace")  # its function hides it
    original = trace_module.adopt
    monkeypatch.setattr(
        trace_module, "adopt", lambda made, *rest: recorded.append(len(made.graph.nodes)) or original(made, *rest)
    )
    capture(model, _gcn()[1])
    assert len(recorded) == 1
    assert recorded[0] <= most


@pytest.mark.parametrize("case_id", ["GCNConv", "RGCNConv-blocks", "GATConv", "m.PNA"])
def test_a_trace_leaves_no_frames_behind(case_id: str) -> None:
    """A frame in a cycle keeps all that the frames around it hold, the user's tensors among them."""
    trace_case(BY_ID[case_id])  # what is made once per process
    gc.collect()
    debug, running = gc.get_debug(), gc.isenabled()
    gc.disable()
    try:
        trace_case(BY_ID[case_id])
        gc.set_debug(gc.DEBUG_SAVEALL)
        gc.collect()
        left = [item.f_code.co_name for item in gc.garbage if isinstance(item, FrameType)]
    finally:
        gc.set_debug(debug)
        gc.garbage.clear()
        if running:
            gc.enable()
    assert not left


class _Einsum(torch.nn.Module):
    """Its product's operands are held by C++ alone while the product is traced; `between` runs in the forward."""

    def __init__(self, between: Callable[[Tensor], None]) -> None:
        super().__init__()
        self.between = between
        self.weight = torch.nn.Parameter(torch.randn(4, 4, 2))

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        h = torch.zeros_like(x).index_add(0, edge_index[1], x[edge_index[0]])
        self.between(h)
        return torch.einsum("abc,bcd->abd", h.view(-1, 4, 4), self.weight)


def cycles_of_frames(h: Tensor) -> None:
    """Garbage that holds the tensors of all callers, as much of it as makes Python collect many times."""
    for _ in range(200):
        cycle: list[Any] = [sys._getframe()]
        cycle.append(cycle)


def test_garbage_of_the_forward_costs_no_value() -> None:
    module = _Einsum(cycles_of_frames).eval()
    args = (torch.randn(9, 16), TRACE_GRAPH[1])
    before = gc.get_threshold()
    gc.set_threshold(10)
    try:
        traced = capture(module, args)
    finally:
        gc.set_threshold(*before)
    assert gc.isenabled()
    assert_equal(replay(module, traced, args), eager(module, args))


def test_a_value_that_the_tracer_forgot_is_refused() -> None:
    """It would be a constant made of memory that nobody wrote."""

    def forget(h: Tensor) -> None:
        mode = get_proxy_mode()
        if mode is not None:
            del mode.tracer.tensor_tracker[h]

    with pytest.raises(CaptureError, match="forgotten by torch's tracer") as caught:
        capture(_Einsum(forget).eval(), (torch.randn(9, 16), TRACE_GRAPH[1]))
    assert "test_trace.py" in str(caught.value)
