"""`wrap`, `patch` and their way back; when a layer runs its own forward, and whether that is told."""

from __future__ import annotations

import copy
import gc
import inspect
import io
import logging
import pickle
import subprocess
import sys
import weakref
from collections.abc import Callable

import pytest
import torch
import torch_geometric.nn as gnn
from torch import Tensor
from torch_geometric.data import Data
from torch_geometric.nn import MessagePassing
from torch_geometric.utils import to_torch_csr_tensor

import pyg_fullgraph as fg
from pyg_fullgraph.errors import FullGraphMismatch, InputError
from pyg_fullgraph.nn.layers import is_fast
from pyg_fullgraph.nn.running import SLOT, state_of

pytestmark = pytest.mark.skipif(fg.ops.kernels()["backend"] != "cpp", reason="layers are fast where kernels are built")


class Mine(MessagePassing):
    """A layer of a user."""

    def __init__(self, columns: int = 8) -> None:
        super().__init__(aggr="mean")
        self.lin = torch.nn.Linear(2 * columns, columns)

    def forward(self, x: Tensor, edge_index: Tensor, edge_weight: Tensor | None = None) -> Tensor:
        return x + self.propagate(edge_index, x=x, edge_weight=edge_weight)

    def message(self, x_i: Tensor, x_j: Tensor, edge_weight: Tensor | None) -> Tensor:
        out = self.lin(torch.cat([x_i, x_j], dim=-1)).relu()
        return out if edge_weight is None else out * edge_weight.view(-1, 1)


class Based(fg.nn.MessagePassing):
    """A layer of a user, on the class that is fast."""

    def __init__(self) -> None:
        super().__init__(aggr="max")
        self.lin = torch.nn.Linear(8, 8)

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        return self.lin(self.propagate(edge_index, x=x))

    def message(self, x_j: Tensor) -> Tensor:
        return x_j


class Extended(fg.nn.GCNConv):
    def __init__(self) -> None:
        super().__init__(8, 8)

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        return super().forward(x, edge_index).tanh()


class Net(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = gnn.GATConv(8, 4, heads=2)
        self.norm = torch.nn.LayerNorm(8)
        self.second = Mine()
        self.last = gnn.SAGEConv(8, 3)

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        x = self.norm(self.first(x, edge_index)).relu()
        return self.last(self.second(x, edge_index), edge_index)


@pytest.fixture
def graph() -> tuple[Tensor, Tensor]:
    return torch.randn(60, 8), torch.randint(0, 60, (2, 300))


@pytest.fixture
def told(caplog: pytest.LogCaptureFixture) -> Callable[[], list[str]]:
    caplog.set_level(logging.WARNING, logger="pyg_fullgraph")
    return lambda: [record.getMessage() for record in caplog.records if record.name == "pyg_fullgraph"]


def close(ours: Tensor, theirs: Tensor, tolerance: float = 1e-5) -> None:
    assert ours.shape == theirs.shape and ours.dtype == theirs.dtype
    assert float((ours - theirs).abs().max()) <= tolerance * float(theirs.abs().max())


def served(layer: torch.nn.Module) -> bool:
    """Whether the layer's engine has run."""
    engine = state_of(layer).engine
    return engine is not None and bool(engine._captured)


LAYERS = {
    "GCN": lambda: gnn.GCNConv(8, 8),
    "GAT": lambda: gnn.GATConv(8, 4, heads=2),
    "mine": lambda: Mine(),
}


@pytest.mark.parametrize("name", LAYERS)
def test_wrap_and_unwrap(name: str, graph: tuple[Tensor, Tensor]) -> None:
    layer = LAYERS[name]().eval()
    cls, attributes = type(layer), dict(vars(layer))
    with torch.no_grad():
        expected = layer(*graph)
        assert fg.nn.wrap(layer, threads=1, verify="always") is layer
        assert isinstance(layer, cls)
        assert inspect.signature(layer.forward) == inspect.signature(LAYERS[name]().forward)
        close(layer(*graph), expected)
    assert served(layer) and state_of(layer).engine.threads == 1  # type: ignore[union-attr]
    assert fg.nn.unwrap(layer) is layer
    assert type(layer) is cls and vars(layer) == attributes


def test_patch_and_back(graph: tuple[Tensor, Tensor]) -> None:
    model = Net().eval()
    classes = [type(module) for module in model.modules()]
    with torch.no_grad():
        expected = model(*graph)
        assert fg.nn.patch(model) is model
        close(model(*graph), expected)
        assert [is_fast(module) for module in (model.first, model.second, model.last, model.norm)] == [True] * 3 + [
            False
        ]
        assert all(served(layer) for layer in (model.first, model.second, model.last))
        fg.nn.unpatch(model)
        assert [type(module) for module in model.modules()] == classes
        assert not any(SLOT in vars(module) for module in model.modules())
        assert torch.equal(model(*graph), expected)
        with fg.nn.patched(model, verify="off"):
            close(model(*graph), expected)
            assert served(model.last)
        assert [type(module) for module in model.modules()] == classes


def test_unpatch_leaves_what_was_fast_before() -> None:
    model = Net()
    fg.nn.wrap(model.first)
    model.extra = fg.nn.GCNConv(8, 8)
    fg.nn.unpatch(fg.nn.patch(model))
    assert is_fast(model.first) and is_fast(model.extra) and not is_fast(model.second)
    assert fg.nn.wrap(model.first) is model.first and type(fg.nn.unwrap(model.first)) is gnn.GATConv


@pytest.mark.parametrize("cls", [Based, Extended])
def test_subclasses_of_users(cls: type, graph: tuple[Tensor, Tensor], told: Callable[[], list[str]]) -> None:
    layer = cls().eval()
    expected = layer(*graph).detach()  # a gradient is wanted: its own forward
    assert not served(layer)
    with torch.no_grad():
        close(layer(*graph), expected)
    assert served(layer) and not told()
    again = pickle.loads(pickle.dumps(layer))
    assert type(again) is cls
    with torch.no_grad():
        close(again(*graph), expected)


def test_a_model_of_both_kinds_in_one_engine(graph: tuple[Tensor, Tensor]) -> None:
    """A whole model's engine traces through its layers; they start none of their own."""
    model = Net().eval()
    with torch.no_grad():
        expected = model(*graph)
    fg.nn.patch(model)
    model.first = fg.nn.wrap(model.first)
    close(fg.compile(model)(*graph), expected)
    close(fg.inference(model, Data(x=graph[0], edge_index=graph[1])), expected)
    assert not any(served(layer) for layer in (model.first, model.second, model.last))


def test_parameters_are_live(graph: tuple[Tensor, Tensor]) -> None:
    ours, theirs = fg.nn.SAGEConv(8, 8).eval(), gnn.SAGEConv(8, 8).eval()
    with torch.no_grad():
        ours(*graph)
        ours.load_state_dict(theirs.state_dict())
        close(ours(*graph), theirs(*graph))
        for layer in (ours, theirs):
            layer.lin_l.weight.mul_(-2)
        close(ours(*graph), theirs(*graph))
        for layer in (ours, theirs):
            layer.lin_l = torch.nn.Linear(8, 8).eval()
            torch.manual_seed(1)
            layer.lin_l.reset_parameters()
        close(ours(*graph), theirs(*graph))
        x, edges = graph
        close(ours.double()(x.double(), edges), theirs.double()(x.double(), edges), 1e-10)
        close(ours.bfloat16()(x.bfloat16(), edges), theirs.bfloat16()(x.bfloat16(), edges), 0.05)
    assert len(state_of(ours).engine._captured) == 4  # type: ignore[union-attr]


@pytest.mark.parametrize("name", [*LAYERS, "built"])
def test_copies_and_pickles(name: str, graph: tuple[Tensor, Tensor]) -> None:
    layer = fg.nn.GATConv(8, 8).eval() if name == "built" else fg.nn.wrap(LAYERS[name]().eval(), threads=1)
    buffer = io.BytesIO()
    with torch.no_grad():
        expected = layer(*graph)
        torch.save(layer, buffer)
        buffer.seek(0)
        twins = [copy.deepcopy(layer), pickle.loads(pickle.dumps(layer)), torch.load(buffer, weights_only=False)]
        for twin in twins:
            assert type(twin) is type(layer) and state_of(twin).engine is None
            assert state_of(twin).options == state_of(layer).options
            close(twin(*graph), expected)
            assert served(twin)
            for parameter in twin.parameters():
                parameter.mul_(0.5)
            assert not torch.allclose(twin(*graph), expected)
        close(layer(*graph), expected)


def test_a_shallow_copy_has_an_engine_of_its_own(graph: tuple[Tensor, Tensor]) -> None:
    layer = fg.nn.GCNConv(8, 8).eval()
    with torch.no_grad():
        expected = layer(*graph)
        twin = copy.copy(layer)
        twin._parameters = dict(layer._parameters)
        twin.bias = torch.nn.Parameter(torch.ones(8))
        close(twin(*graph), expected + 1)
        close(layer(*graph), expected)


def test_the_engine_dies_with_the_layer(graph: tuple[Tensor, Tensor]) -> None:
    layer = fg.nn.GCNConv(8, 8).eval()
    with torch.no_grad():
        layer(*graph)
    engine = weakref.ref(state_of(layer).engine)
    assert engine() is not None
    del layer
    gc.collect()
    assert engine() is None


def test_one_trace_for_all_graphs() -> None:
    layer = fg.nn.GCNConv(8, 8).eval()
    with torch.no_grad():
        for nodes, edges in ((60, 300), (20, 20), (1, 1), (7, 0)):
            layer(torch.randn(nodes, 8), torch.randint(0, nodes, (2, edges)))
    assert len(state_of(layer).engine._captured) == 1  # type: ignore[union-attr]


# When it runs its own forward ----------------------------------------------------------------------


def test_gradients_and_training_are_not_told(graph: tuple[Tensor, Tensor], told: Callable[[], list[str]]) -> None:
    layer = fg.nn.GATConv(8, 8, dropout=0.5)
    assert layer(*graph).requires_grad
    layer.eval()
    assert layer(*graph).requires_grad
    x = graph[0].clone().requires_grad_()
    layer.requires_grad_(False)
    layer(x, graph[1]).sum().backward()
    assert x.grad is not None and not served(layer)
    layer(*graph)  # nothing wants a gradient here
    assert served(layer)
    with torch.no_grad():
        torch.manual_seed(0)
        first = layer.train()(*graph)
        assert not torch.equal(first, layer(*graph))  # dropout
    assert not told()


def test_other_tracers_see_an_ordinary_layer(graph: tuple[Tensor, Tensor], told: Callable[[], list[str]]) -> None:
    layer = fg.nn.SAGEConv(8, 8).eval().requires_grad_(False)
    expected = fg.nn.unwrap(copy.deepcopy(layer))(*graph)
    close(torch.compile(layer, backend="eager", fullgraph=True)(*graph), expected)
    close(torch.export.export(layer, graph).module()(*graph), expected)
    close(torch.jit.trace(layer, graph, check_trace=False)(*graph), expected)  # the check runs it as it is
    close(torch.jit.script(layer)(*graph), expected)
    batch = torch.stack([graph[0], graph[0] + 1])
    assert torch.func.vmap(layer, (0, None))(batch, graph[1]).shape == (2, 60, 8)
    with torch.autocast("cpu", torch.bfloat16):
        layer(*graph)
    assert not served(layer) and not told()


def test_a_reason_is_told_once(graph: tuple[Tensor, Tensor], told: Callable[[], list[str]]) -> None:
    class Branching(gnn.SAGEConv):
        def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
            return super().forward(x if x.sum() > 0 else -x, edge_index)

    layer = fg.nn.wrap(Branching(8, 8)).eval()
    with torch.no_grad():
        expected = fg.nn.unwrap(copy.deepcopy(layer))(*graph)
        for _ in range(3):
            assert torch.equal(layer(*graph), expected)
    (note,) = told()
    assert note.startswith("Branching(8, 8, aggr=mean) runs its own forward, not the engine") and "decision" in note


@pytest.mark.parametrize("conv", [fg.nn.GCNConv, fg.nn.SAGEConv])
def test_matrices(
    conv: Callable[..., torch.nn.Module], graph: tuple[Tensor, Tensor], told: Callable[[], list[str]]
) -> None:
    layer, (x, edges) = conv(8, 8).eval(), graph
    adj_t = to_torch_csr_tensor(edges.flip(0), size=(60, 60))
    with torch.no_grad():
        close(layer(x, adj_t), fg.nn.unwrap(copy.deepcopy(layer))(x, adj_t))
    assert served(layer) and not told()


def test_hooks(graph: tuple[Tensor, Tensor], told: Callable[[], list[str]]) -> None:
    """A layer's own hooks run as ever; with hooks on its parts or its messages its own forward runs."""
    layer, seen = fg.nn.SAGEConv(8, 8).eval(), []
    with torch.no_grad():
        handle = layer.register_forward_hook(lambda module, args, out: seen.append(out.shape))
        layer(*graph)
        assert served(layer) and seen == [(60, 8)] and not told()
        handle.remove()

        inner, parts = fg.nn.SAGEConv(8, 8).eval(), []
        inner.lin_l.register_forward_hook(lambda module, args, out: parts.append(out.shape))
        inner(*graph)
        assert not served(inner) and parts == [(60, 8)] and "its part 'lin_l' has a forward hook" in told()[0]

        hooked, messages = fg.nn.SAGEConv(8, 8).eval(), []
        hooked.register_message_forward_hook(lambda module, args, out: messages.append(out.shape))
        hooked(*graph)
        hooked(*graph)
    assert not served(hooked) and messages == [(300, 8)] * 2
    assert len(told()) == 2 and "hook" in told()[1]


def test_what_cannot_be_captured(graph: tuple[Tensor, Tensor], told: Callable[[], list[str]]) -> None:
    class Decides(MessagePassing):
        def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
            return self.propagate(edge_index, x=x if x.sum() > 1e9 else -x)

    layer = fg.nn.wrap(Decides().eval())
    with torch.no_grad():
        close(layer(*graph), -torch.zeros(60, 8).index_add(0, graph[1][1], graph[0][graph[1][0]]))
        layer(*graph)
    (note,) = told()
    assert "CaptureError" in note and "test_wrap.py" in note


def test_a_users_mistake_is_the_layers_own_error(graph: tuple[Tensor, Tensor], told: Callable[[], list[str]]) -> None:
    layer, (x, edges) = fg.nn.GCNConv(8, 8).eval(), graph
    wrong = edges.clone()
    wrong[0, 3] = 60
    with torch.no_grad():
        with pytest.raises(IndexError):
            layer(x, wrong)
        with pytest.raises(RuntimeError):
            layer(x[:, :5], edges)
    assert not told()


def test_a_mismatch_is_told_and_final(
    graph: tuple[Tensor, Tensor], told: Callable[[], list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    layer = fg.nn.GCNConv(8, 8).eval()

    def fails(*args: object) -> None:
        raise FullGraphMismatch("row 3 differs")

    with torch.no_grad():
        expected = fg.nn.unwrap(copy.deepcopy(layer))(*graph)
        monkeypatch.setattr(fg.Engine, "_verify", fails)
        assert torch.equal(layer(*graph), expected)
        monkeypatch.undo()
        assert torch.equal(layer(*graph), expected)
    assert len(told()) == 1 and "row 3 differs" in told()[0]


def test_lazy_layers(graph: tuple[Tensor, Tensor], told: Callable[[], list[str]]) -> None:
    layer = fg.nn.SAGEConv(-1, 8).eval()
    with torch.no_grad():
        first = layer(*graph)
        close(layer(*graph), first)
    assert served(layer) and not told()


def test_wrong_arguments() -> None:
    with pytest.raises(InputError, match=r"wrap needs a layer.*got int"):
        fg.nn.wrap(3)  # type: ignore[arg-type]
    with pytest.raises(InputError, match=r"patch needs a torch.nn.Module"):
        fg.nn.patch(3)  # type: ignore[arg-type]
    with pytest.raises(InputError, match=r"Unknown option .fallback..*threads, home, verify"):
        fg.nn.wrap(Mine(), fallback="eager")


def test_import_costs_nothing() -> None:
    """`pyg_fullgraph.nn` is a list of names until one is used."""
    unused = "import sys, pyg_fullgraph.nn as nn; assert 'torch' not in sys.modules"
    used = "nn.GCNConv(3, 3); assert 'torch' in sys.modules"
    subprocess.run([sys.executable, "-c", f"{unused}; {used}"], check=True)
