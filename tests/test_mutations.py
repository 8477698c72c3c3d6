"""What a call depends on is changed between calls, in every way that came to mind, and compared with eager each time.

Every change stands in a function of its own. It is handed a subject (a model, the arguments of its forward), may change
anything, and undoes at the end of the test what lies outside of the subject. Each runs by `fg.compile`, whose engine
has seen the subject before the change, and most by `fg.inference`, which keeps its engine on the model.
"""

from __future__ import annotations

import argparse
import copy
import dataclasses
import enum
import fractions
import functools
import types
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
import torch
import torch_geometric.nn as gnn
from torch import Tensor
from torch.nn.utils import parametrizations, prune
from torch_geometric.data import Data
from torch_geometric.nn.models import GAT, GCN, GraphSAGE

import pyg_fullgraph as fg

NODES, EDGES, WIDTH = 40, 160, 8
FACTOR = 2.0  # a global that a forward reads


def _edges(seed: int = 0, nodes: int = NODES, edges: int = EDGES) -> Tensor:
    return torch.randint(0, nodes, (2, edges), generator=torch.Generator().manual_seed(seed))


def _rows(seed: int = 0, rows: int = NODES, width: int = WIDTH) -> Tensor:
    return torch.randn(rows, width, generator=torch.Generator().manual_seed(100 + seed))


@dataclass
class Subject:
    """A model in eval mode, and a call of its forward; `keep` holds what the change must not lose."""

    model: torch.nn.Module
    args: tuple[Any, ...]
    kwargs: dict[str, Any] = field(default_factory=dict)
    keep: list[Any] = field(default_factory=list)

    def own(self) -> Any:
        with torch.no_grad():
            return self.model(*self.args, **self.kwargs)


Change = Callable[[Subject, pytest.MonkeyPatch], None]
Make = Callable[[], Subject]
CHANGES: list[tuple[Make, Change]] = []


def on(make: Make) -> Callable[[Change], Change]:
    """Registers a change of such a subject."""

    def register(change: Change) -> Change:
        CHANGES.append((make, change))
        return change

    return register


def same(expected: Any, got: Any) -> None:
    """Element by element, within the tolerance of the type."""
    wanted, given = torch.utils._pytree.tree_leaves(expected), torch.utils._pytree.tree_leaves(got)
    assert len(wanted) == len(given)
    for a, b in zip(wanted, given, strict=True):
        assert (a.shape, a.dtype) == (b.shape, b.dtype)
        scale = float(a.abs().max()) if a.numel() else 0.0
        part = {torch.float64: 1e-10, torch.float32: 1e-5}.get(a.dtype, 2e-2)
        assert float((a.double() - b.double()).abs().max() if a.numel() else 0.0) <= part * scale


def changed(expected: Any, before: Any) -> bool:
    a, b = torch.utils._pytree.tree_leaves(expected), torch.utils._pytree.tree_leaves(before)
    return any(x.shape != y.shape or x.dtype != y.dtype or not torch.equal(x, y) for x, y in zip(a, b, strict=True))


# Subjects ------------------------------------------------------------------------------------------------


def seeded(build: Callable[[], torch.nn.Module]) -> torch.nn.Module:
    """With fixed weights, moved a little, as many start at zero or one."""
    torch.manual_seed(5)
    module = build().eval()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape))
    return module


def gcn() -> Subject:
    return Subject(seeded(lambda: GCN(WIDTH, 6, 2, 3)), (_rows(), _edges()))


def sage() -> Subject:
    return Subject(seeded(lambda: GraphSAGE(WIDTH, 6, 2, 3, norm="batch_norm")), (_rows(), _edges()))


def gat() -> Subject:
    return Subject(seeded(lambda: GAT(WIDTH, 6, 2, 4, heads=2)), (_rows(), _edges()))


def weighted() -> Subject:
    weight = torch.rand(EDGES, generator=torch.Generator().manual_seed(1)) + 0.1
    return Subject(seeded(lambda: GCN(WIDTH, 6, 2, 3)), (_rows(), _edges()), {"edge_weight": weight})


def rgcn() -> Subject:
    kinds = torch.randint(0, 3, (EDGES,), generator=torch.Generator().manual_seed(2))
    return Subject(seeded(lambda: gnn.RGCNConv(WIDTH, 4, 3)), (_rows(), _edges(), kinds))


class Pooled(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = gnn.SAGEConv(WIDTH, 5)

    def forward(self, x: Tensor, edge_index: Tensor, batch: Tensor) -> Tensor:
        return gnn.global_mean_pool(self.conv(x, edge_index), batch)


def pooled() -> Subject:
    return Subject(seeded(Pooled), (_rows(), _edges(), torch.arange(NODES) * 4 // NODES))


class OnData(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = gnn.GraphConv(WIDTH, 5)

    def forward(self, data: Data) -> Tensor:
        return self.conv(data.x, data.edge_index)


def on_data() -> Subject:
    return Subject(seeded(OnData), (Data(x=_rows(), edge_index=_edges()),))


class Hetero(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = gnn.HeteroConv(
            {
                ("a", "to", "b"): gnn.SAGEConv((WIDTH, WIDTH), 4),
                ("b", "back", "a"): gnn.GATConv((WIDTH, WIDTH), 4, add_self_loops=False),
            }
        )

    def forward(self, x_dict: dict[str, Tensor], edge_index_dict: dict[Any, Tensor]) -> dict[str, Tensor]:
        return {key: x.relu() for key, x in self.conv(x_dict, edge_index_dict).items()}


def hetero() -> Subject:
    xs = {"a": _rows(0, 20), "b": _rows(1, 25)}
    edges = {("a", "to", "b"): _edges(3, 20, 60), ("b", "back", "a"): _edges(4, 20, 70)}
    return Subject(seeded(Hetero), (xs, edges))


class Scale(enum.Enum):
    small, large = 0.5, 3.0


@dataclasses.dataclass
class Settings:
    gain: float = 1.5
    deep: dict[str, Any] = field(default_factory=lambda: {"a": [{"b": {"c": (1.0, [2.0])}}]})


class Gain:
    """A callable with a state."""

    def __init__(self) -> None:
        self.by = 1.5

    def __call__(self, x: Tensor) -> Tensor:
        return x * self.by

    def apply(self, x: Tensor) -> Tensor:
        return x + self.by


def doubled(x: Tensor) -> Tensor:
    return x * FACTOR


class Configured(torch.nn.Module):
    """Reads everything that users keep their settings in."""

    offset = 0.25

    def __init__(self) -> None:
        super().__init__()
        self.conv = gnn.SAGEConv(WIDTH, WIDTH)
        self.args = argparse.Namespace(gain=1.5, inner=types.SimpleNamespace(bias=0.5))
        self.settings = Settings()
        self.scale = Scale.small
        self.share = fractions.Fraction(1, 2)
        self.chosen = {1, 2}
        self.table = np.array([1.0, 2.0])
        self.gain = Gain()
        self.bound = Gain().apply
        self.part = functools.partial(torch.mul, other=1.25)
        self.tensors = [torch.ones(WIDTH), {"k": torch.full((WIDTH,), 0.5)}]
        self.layers = [gnn.GraphConv(WIDTH, WIDTH).eval()]
        self.pair = ({"lin": torch.nn.Linear(WIDTH, WIDTH).eval()},)

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        x = self.conv(x, edge_index) * self.args.gain + self.args.inner.bias
        x = x * self.settings.gain + self.settings.deep["a"][0]["b"]["c"][1][0]
        x = x * self.scale.value * float(self.share) + len(self.chosen) + float(self.table.sum())
        x = self.part(self.bound(self.gain(x))) * self.tensors[0] + self.tensors[1]["k"]
        x = self.pair[0]["lin"](self.layers[0](x, edge_index))
        return self.finish(doubled(x) + self.offset)

    def finish(self, x: Tensor) -> Tensor:
        return x.tanh()


def configured() -> Subject:
    return Subject(seeded(Configured), (_rows(), _edges()))


class Flagged(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = gnn.GCNConv(WIDTH, WIDTH)

    def forward(
        self, x: Tensor, edge_index: Tensor, rounds: int = 1, residual: bool = False, by: float = 1.0
    ) -> Tensor:
        for _ in range(rounds):
            x = self.conv(x, edge_index) * by + (x if residual else 0)
        return x


def flagged() -> Subject:
    return Subject(seeded(Flagged), (_rows(), _edges()))


# The graph -----------------------------------------------------------------------------------------------


@on(gcn)
def edges_in_place(s: Subject, _: pytest.MonkeyPatch) -> None:
    s.args[1].copy_(_edges(7))


@on(gcn)
def one_edge_in_place(s: Subject, _: pytest.MonkeyPatch) -> None:
    s.args[1][0, 3] = (s.args[1][0, 3] + 1) % NODES


@on(sage)
def edges_through_numpy(s: Subject, _: pytest.MonkeyPatch) -> None:
    s.args[1].numpy()[:] = _edges(8).numpy()


@on(gat)
def edges_from_numpy(s: Subject, _: pytest.MonkeyPatch) -> None:
    array = s.args[1].numpy().copy()
    s.args = (s.args[0], torch.from_numpy(array))
    fg.inference(s.model, *s.args)
    array[1] = _edges(9)[1].numpy()
    s.keep.append(array)


@on(gcn)
def edges_through_data(s: Subject, _: pytest.MonkeyPatch) -> None:
    s.args[1].data[1, 5:20] = 3


@on(gcn)
def edges_data_replaced(s: Subject, _: pytest.MonkeyPatch) -> None:
    s.args[1].data = _edges(10)


@on(gcn)
def edges_data_replaced_by_fewer(s: Subject, _: pytest.MonkeyPatch) -> None:
    s.args[1].data = _edges(10, NODES, 50)


@on(sage)
def edges_through_dlpack(s: Subject, _: pytest.MonkeyPatch) -> None:
    torch.from_dlpack(s.args[1])[0].copy_(_edges(11)[0])


@on(gat)
def edges_through_storage(s: Subject, _: pytest.MonkeyPatch) -> None:
    s.args[1].untyped_storage().copy_(_edges(12).untyped_storage())


@on(gcn)
def edges_in_shared_memory(s: Subject, _: pytest.MonkeyPatch) -> None:
    s.args[1].share_memory_()
    fg.inference(s.model, *s.args)
    np.frombuffer(memoryview(s.args[1].numpy()), np.int64)[:] = _edges(13).numpy().reshape(-1)


@on(gcn)
def edges_through_a_view(s: Subject, _: pytest.MonkeyPatch) -> None:
    s.args[1].view(-1)[::7] = 1


@on(gcn)
def edges_written_in_inference_mode(s: Subject, _: pytest.MonkeyPatch) -> None:
    with torch.inference_mode():
        s.args[1][1, ::3] = 2


@on(gcn)
def edges_in_another_order(s: Subject, _: pytest.MonkeyPatch) -> None:
    s.args[1].copy_(s.args[1][:, torch.randperm(EDGES, generator=torch.Generator().manual_seed(1))])


@on(sage)
def edges_turned_round(s: Subject, _: pytest.MonkeyPatch) -> None:
    s.args = (s.args[0], s.args[1].flip(0))


@on(sage)
def edges_turned_round_as_a_view(s: Subject, _: pytest.MonkeyPatch) -> None:
    s.args = (s.args[0], s.args[1].t().contiguous().t())


@on(sage)
def another_graph_at_the_same_address(s: Subject, _: pytest.MonkeyPatch) -> None:
    buffer = s.args[1].numpy()
    s.args = (s.args[0], torch.from_numpy(buffer))
    buffer[:] = _edges(14).numpy()
    s.keep.append(buffer)


@on(gcn)
def a_larger_graph(s: Subject, _: pytest.MonkeyPatch) -> None:
    s.args = (_rows(2, 70), _edges(15, 70, 300))


@on(gcn)
def more_nodes_for_the_same_edges(s: Subject, _: pytest.MonkeyPatch) -> None:
    s.args = (_rows(2, NODES + 5), s.args[1])


@on(gat)
def as_many_edges_as_nodes(s: Subject, _: pytest.MonkeyPatch) -> None:
    s.args = (s.args[0], _edges(16, NODES, NODES))


@on(gcn)
def no_edges(s: Subject, _: pytest.MonkeyPatch) -> None:
    s.args = (s.args[0], s.args[1][:, :0])


@on(gcn)
def one_node(s: Subject, _: pytest.MonkeyPatch) -> None:
    s.args = (s.args[0][:1], torch.zeros(2, 1, dtype=torch.int64))


@on(gcn)
def no_nodes(s: Subject, _: pytest.MonkeyPatch) -> None:
    s.args = (s.args[0][:0], s.args[1][:, :0])


@on(gcn)
def only_self_loops(s: Subject, _: pytest.MonkeyPatch) -> None:
    s.args[1][0] = s.args[1][1]


@on(gcn)
def all_edges_to_one_node(s: Subject, _: pytest.MonkeyPatch) -> None:
    s.args[1].numpy()[1] = 0


@on(rgcn)
def kinds_of_edges_through_numpy(s: Subject, _: pytest.MonkeyPatch) -> None:
    s.args[2].numpy()[:] = (s.args[2].numpy() + 1) % 3


@on(pooled)
def graphs_of_nodes_through_numpy(s: Subject, _: pytest.MonkeyPatch) -> None:
    s.args[2].numpy()[:15] = 3


@on(on_data)
def edges_of_a_data_replaced(s: Subject, _: pytest.MonkeyPatch) -> None:
    s.args[0].edge_index = _edges(17)


@on(on_data)
def edges_of_a_data_through_numpy(s: Subject, _: pytest.MonkeyPatch) -> None:
    s.args[0].edge_index.numpy()[0, :30] = 4


@on(hetero)
def one_relation_through_numpy(s: Subject, _: pytest.MonkeyPatch) -> None:
    s.args[1]["a", "to", "b"].numpy()[1] = 0


@on(hetero)
def two_relations_swapped(s: Subject, _: pytest.MonkeyPatch) -> None:
    one, other = s.args[1]["a", "to", "b"], s.args[1]["b", "back", "a"]
    s.args[1]["a", "to", "b"], s.args[1]["b", "back", "a"] = other, one


@on(hetero)
def dictionaries_in_another_order(s: Subject, _: pytest.MonkeyPatch) -> None:
    s.args = tuple(dict(reversed(list(item.items()))) for item in s.args)


# Data ----------------------------------------------------------------------------------------------------


@on(gcn)
def features_through_numpy(s: Subject, _: pytest.MonkeyPatch) -> None:
    s.args[0].numpy()[:] = _rows(3).numpy()


@on(gcn)
def features_replaced(s: Subject, _: pytest.MonkeyPatch) -> None:
    s.args = (_rows(4), s.args[1])


@on(gcn)
def features_not_contiguous(s: Subject, _: pytest.MonkeyPatch) -> None:
    s.args = (_rows(5, WIDTH, NODES).t(), s.args[1])


@on(gcn)
def features_expanded(s: Subject, _: pytest.MonkeyPatch) -> None:
    s.args = (_rows(6, 1).expand(NODES, -1), s.args[1])


@on(gcn)
def features_with_a_lazy_sign(s: Subject, _: pytest.MonkeyPatch) -> None:
    s.args = (torch._neg_view(s.args[0]), s.args[1])


@on(gcn)
def features_that_want_a_gradient(s: Subject, _: pytest.MonkeyPatch) -> None:
    s.args = (_rows(7).requires_grad_(), s.args[1])


@on(gcn)
def features_in_inference_mode(s: Subject, _: pytest.MonkeyPatch) -> None:
    with torch.inference_mode():
        s.args = (_rows(8) * 2, s.args[1].clone())


@on(gcn)
def weights_of_edges_come(s: Subject, _: pytest.MonkeyPatch) -> None:
    s.kwargs["edge_weight"] = weighted().kwargs["edge_weight"]


@on(weighted)
def weights_of_edges_go(s: Subject, _: pytest.MonkeyPatch) -> None:
    del s.kwargs["edge_weight"]


@on(weighted)
def weights_of_edges_through_numpy(s: Subject, _: pytest.MonkeyPatch) -> None:
    s.kwargs["edge_weight"].numpy()[:] = 0.5


@on(flagged)
def a_number_of_the_call(s: Subject, _: pytest.MonkeyPatch) -> None:
    s.kwargs["rounds"] = 3


@on(flagged)
def a_switch_of_the_call(s: Subject, _: pytest.MonkeyPatch) -> None:
    s.kwargs["residual"] = True


@on(flagged)
def a_factor_of_the_call(s: Subject, _: pytest.MonkeyPatch) -> None:
    s.kwargs["by"] = -0.0


# Parameters and modules ----------------------------------------------------------------------------------


@on(gcn)
def a_step_of_training(s: Subject, _: pytest.MonkeyPatch) -> None:
    optimizer = torch.optim.Adam(s.model.parameters(), lr=0.1)
    s.model.train()
    s.model(*s.args).square().sum().backward()
    optimizer.step()
    s.model.eval()


@on(sage)
def running_statistics(s: Subject, _: pytest.MonkeyPatch) -> None:
    s.model.train()
    with torch.no_grad():
        s.model(s.args[0] * 3, s.args[1])
    s.model.eval()


@on(gat)
def other_weights_loaded(s: Subject, _: pytest.MonkeyPatch) -> None:
    torch.manual_seed(9)
    s.model.load_state_dict(GAT(WIDTH, 6, 2, 4, heads=2).state_dict())


@on(gat)
def other_weights_assigned(s: Subject, _: pytest.MonkeyPatch) -> None:
    torch.manual_seed(9)
    s.model.load_state_dict(GAT(WIDTH, 6, 2, 4, heads=2).state_dict(), assign=True)


@on(gcn)
def a_parameter_through_numpy(s: Subject, _: pytest.MonkeyPatch) -> None:
    s.model.convs[0].lin.weight.detach().numpy()[:] *= 2


@on(gcn)
def a_parameter_replaced(s: Subject, _: pytest.MonkeyPatch) -> None:
    s.model.convs[1].bias = torch.nn.Parameter(torch.ones(3))


@on(gcn)
def a_parameter_taken_away(s: Subject, _: pytest.MonkeyPatch) -> None:
    s.model.convs[1].bias = None


@on(gcn)
def a_layer_replaced(s: Subject, _: pytest.MonkeyPatch) -> None:
    s.model.convs[0] = seeded(lambda: gnn.GraphConv(WIDTH, 6))


@on(gcn)
def a_layer_of_another_option(s: Subject, _: pytest.MonkeyPatch) -> None:
    s.model.convs[0] = seeded(lambda: gnn.GCNConv(WIDTH, 6, add_self_loops=False))


@on(gcn)
def another_activation(s: Subject, _: pytest.MonkeyPatch) -> None:
    s.model.act = torch.nn.Tanh().eval()


@on(gcn)
def an_option_of_a_layer(s: Subject, _: pytest.MonkeyPatch) -> None:
    s.model.convs[0].normalize = False


@on(gcn)
def self_loops_switched_off(s: Subject, _: pytest.MonkeyPatch) -> None:
    s.model.convs[0].add_self_loops = False


@on(gat)
def the_slope_of_a_layer(s: Subject, _: pytest.MonkeyPatch) -> None:
    s.model.convs[1].negative_slope = 0.9


@on(sage)
def the_epsilon_of_a_norm(s: Subject, _: pytest.MonkeyPatch) -> None:
    s.model.norms[0].module.eps = 1.0


@on(sage)
def another_aggregation(s: Subject, _: pytest.MonkeyPatch) -> None:
    s.model.convs[0].aggr_module = gnn.aggr.MaxAggregation().eval()


@on(gcn)
def the_whole_model_in_float64(s: Subject, _: pytest.MonkeyPatch) -> None:
    s.model.double()
    s.args = (s.args[0].double(), s.args[1])


@on(sage)
def the_whole_model_in_bfloat16(s: Subject, _: pytest.MonkeyPatch) -> None:
    s.model.bfloat16()
    s.args = (s.args[0].bfloat16(), s.args[1])


@on(gcn)
def weights_shared(s: Subject, _: pytest.MonkeyPatch) -> None:
    s.model.convs[0] = seeded(lambda: gnn.GCNConv(WIDTH, WIDTH))
    s.model.convs[1] = s.model.convs[0]


@on(gcn)
def weights_pruned(s: Subject, _: pytest.MonkeyPatch) -> None:
    prune.random_unstructured(s.model.convs[0].lin, "weight", amount=0.5)


@on(gcn)
def weights_parametrised(s: Subject, _: pytest.MonkeyPatch) -> None:
    parametrizations.weight_norm(s.model.convs[0].lin, "weight")
    s.model.eval()


@on(gcn)
def a_hook_comes(s: Subject, _: pytest.MonkeyPatch) -> None:
    s.model.convs[0].register_forward_hook(lambda module, args, out: out * 2)


@on(gcn)
def a_hook_before_comes(s: Subject, _: pytest.MonkeyPatch) -> None:
    s.model.register_forward_pre_hook(lambda module, args: (args[0] * 2, *args[1:]))


@on(gcn)
def a_hook_on_all_modules_comes(s: Subject, _: pytest.MonkeyPatch) -> None:
    torch.nn.modules.module.register_module_forward_hook(
        lambda module, args, out: out + 1 if isinstance(module, gnn.GCNConv) else None
    )


# Settings ------------------------------------------------------------------------------------------------


@on(configured)
def an_attribute_of_a_namespace(s: Subject, _: pytest.MonkeyPatch) -> None:
    s.model.args.gain = -1.0


@on(configured)
def an_attribute_of_an_inner_namespace(s: Subject, _: pytest.MonkeyPatch) -> None:
    s.model.args.inner.bias = 4.0


@on(configured)
def a_field_of_a_dataclass(s: Subject, _: pytest.MonkeyPatch) -> None:
    s.model.settings.gain = 0.1


@on(configured)
def a_dataclass_replaced(s: Subject, _: pytest.MonkeyPatch) -> None:
    s.model.settings = dataclasses.replace(s.model.settings, gain=-0.1)


@on(configured)
def a_number_deep_inside(s: Subject, _: pytest.MonkeyPatch) -> None:
    s.model.settings.deep["a"][0]["b"]["c"][1][0] = -2.0


@on(configured)
def an_enum(s: Subject, _: pytest.MonkeyPatch) -> None:
    s.model.scale = Scale.large


@on(configured)
def a_fraction(s: Subject, _: pytest.MonkeyPatch) -> None:
    s.model.share = fractions.Fraction(-1, 3)


@on(configured)
def a_set(s: Subject, _: pytest.MonkeyPatch) -> None:
    s.model.chosen.add(3)


@on(configured)
def an_array_in_place(s: Subject, _: pytest.MonkeyPatch) -> None:
    s.model.table[0] = -5.0


@on(configured)
def the_state_of_a_callable(s: Subject, _: pytest.MonkeyPatch) -> None:
    s.model.gain.by = -1.5


@on(configured)
def the_state_behind_a_bound_method(s: Subject, _: pytest.MonkeyPatch) -> None:
    s.model.bound.__self__.by = 2.5


@on(configured)
def another_partial(s: Subject, _: pytest.MonkeyPatch) -> None:
    s.model.part = functools.partial(torch.mul, other=-0.5)


@on(configured)
def a_tensor_in_a_list_in_place(s: Subject, _: pytest.MonkeyPatch) -> None:
    s.model.tensors[0].mul_(3)


@on(configured)
def a_tensor_in_a_list_replaced(s: Subject, _: pytest.MonkeyPatch) -> None:
    s.model.tensors[0] = torch.full((WIDTH,), -1.0)


@on(configured)
def a_tensor_in_a_dictionary_through_numpy(s: Subject, _: pytest.MonkeyPatch) -> None:
    s.model.tensors[1]["k"].numpy()[:] = 2.0


@on(configured)
def a_layer_in_a_list_trained(s: Subject, _: pytest.MonkeyPatch) -> None:
    with torch.no_grad():
        s.model.layers[0].lin_rel.weight.mul_(-1)


@on(configured)
def a_layer_in_a_list_replaced(s: Subject, _: pytest.MonkeyPatch) -> None:
    s.model.layers[0] = seeded(lambda: gnn.GCNConv(WIDTH, WIDTH))


@on(configured)
def a_layer_deep_inside_trained(s: Subject, _: pytest.MonkeyPatch) -> None:
    with torch.no_grad():
        s.model.pair[0]["lin"].bias.add_(1)


@on(configured)
def a_class_attribute(s: Subject, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Configured, "offset", -0.75)


@on(configured)
def a_method_of_the_class(s: Subject, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Configured, "finish", lambda self, x: x.sigmoid())


@on(configured)
def a_method_of_the_instance(s: Subject, _: pytest.MonkeyPatch) -> None:
    s.model.finish = lambda x: (x / 100).cos()  # of about 1: the cosine of 158 amplifies what float32 rounds off


@on(configured)
def the_forward_of_the_instance(s: Subject, _: pytest.MonkeyPatch) -> None:
    s.model.forward = lambda x, edge_index: s.model.conv(x, edge_index)


@on(configured)
def a_global(s: Subject, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(globals(), "FACTOR", -3.0)


@on(configured)
def a_global_function(s: Subject, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(globals(), "doubled", lambda x: x * 10)


@on(gcn)
def the_forward_of_a_layer_of_pyg(s: Subject, monkeypatch: pytest.MonkeyPatch) -> None:
    own = gnn.GCNConv.forward
    monkeypatch.setattr(gnn.GCNConv, "forward", lambda self, *args, **kwargs: own(self, *args, **kwargs) * 2)


@on(gcn)
def a_layer_deep_copied(s: Subject, _: pytest.MonkeyPatch) -> None:
    s.model.convs[1] = copy.deepcopy(s.model.convs[1])
    with torch.no_grad():
        s.model.convs[1].lin.weight.neg_()


# -----------------------------------------------------------------------------------------------------------

SAME = {"edges_turned_round_as_a_view", "dictionaries_in_another_order", "edges_in_another_order"}


@pytest.fixture(autouse=True)
def no_global_hooks() -> Iterator[None]:
    hooks = torch.nn.modules.module._global_forward_hooks
    before = dict(hooks)
    yield
    hooks.clear()
    hooks.update(before)


@pytest.mark.parametrize(("make", "change"), CHANGES, ids=lambda item: getattr(item, "__name__", ""))
def test_compile_follows(make: Make, change: Change, monkeypatch: pytest.MonkeyPatch) -> None:
    subject = make()
    engine = fg.compile(subject.model)
    before = subject.own()
    same(before, engine(*subject.args, **subject.kwargs))
    same(before, engine(*subject.args, **subject.kwargs))
    change(subject, monkeypatch)
    expected = subject.own()
    assert change.__name__ in SAME or changed(expected, before), "this change changes nothing"
    same(expected, engine(*subject.args, **subject.kwargs))
    same(expected, engine(*subject.args, **subject.kwargs))


@pytest.mark.parametrize(("make", "change"), CHANGES[::2], ids=lambda item: getattr(item, "__name__", ""))
def test_inference_follows(make: Make, change: Change, monkeypatch: pytest.MonkeyPatch) -> None:
    subject = make()
    same(subject.own(), fg.inference(subject.model, *subject.args, **subject.kwargs))
    change(subject, monkeypatch)
    same(subject.own(), fg.inference(subject.model, *subject.args, **subject.kwargs))


def test_there_are_at_least_sixty_changes() -> None:
    assert len(CHANGES) >= 60
