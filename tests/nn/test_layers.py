"""Drop-in layers: every convolution of torch_geometric equals its twin, in evaluation and in training."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch_geometric.nn as gnn
from torch import Tensor
from torch.utils import _pytree as pytree

import pyg_fullgraph as fg
from pyg_fullgraph.nn.layers import is_fast, layer_names
from pyg_fullgraph.nn.running import state_of
from tests.cases.case import Case, module_of, replay_graph
from tests.cases.table import CORE as CASES
from tests.graphs import NASTY

CONVS = [case for case in CASES if case.kind == "conv" and not getattr(case, "not_runnable", "")]
GRAPHS = {"replay": replay_graph(), **{name: NASTY[name] for name in ("one_node", "no_edges", "mixed")}}
REMEMBERS = ("APPNP-cached",)  # its own forward keeps the first graph it meets

pytestmark = pytest.mark.skipif(fg.ops.kernels()["backend"] != "cpp", reason="layers are fast where kernels are built")


def twin_of(case: Case, monkeypatch: pytest.MonkeyPatch) -> torch.nn.Module:
    """The case's module, built from `fg.nn` instead of `torch_geometric.nn`, with the same seed."""
    with monkeypatch.context() as patch:
        for name in layer_names():
            patch.setattr(gnn, name, getattr(fg.nn, name))
        return module_of(case)


def outputs(module: torch.nn.Module, case: Case, graph: tuple[int, Tensor]) -> Any:
    """What the module returns; the class of its error where it raises one."""
    args, kwargs = case.make_inputs(graph)
    try:
        return module(*args, **kwargs)
    except (RuntimeError, IndexError, ValueError, AssertionError) as error:
        return type(error)


def same(ours: Any, theirs: Any, tolerance: float = 1e-5) -> None:
    left, right = pytree.tree_leaves(ours), pytree.tree_leaves(theirs)
    assert len(left) == len(right)
    for one, other in zip(left, right, strict=True):
        if not isinstance(other, Tensor):
            assert one == other
            continue
        assert one.shape == other.shape and one.dtype == other.dtype
        if other.numel() and other.is_floating_point():
            scale = float(other.detach().nan_to_num(posinf=0.0, neginf=0.0).abs().max())
            torch.testing.assert_close(one, other, rtol=0, atol=tolerance * scale, equal_nan=True)
        else:
            assert torch.equal(one, other)


@pytest.mark.parametrize("case", CONVS, ids=lambda case: case.id)
def test_equals_pyg_in_evaluation(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    theirs, ours = module_of(case), twin_of(case, monkeypatch)
    assert is_fast(ours) and isinstance(ours, type(theirs)) and type(ours).__name__ == type(theirs).__name__
    assert repr(ours) == repr(theirs)
    assert list(ours.state_dict()) == list(theirs.state_dict())
    for name, value in module_of(case).state_dict().items():
        if torch.equal(value, theirs.state_dict()[name]):  # not so where PyG leaves a parameter as memory was
            assert torch.equal(ours.state_dict()[name], value), name
    ours.load_state_dict(theirs.state_dict())
    with torch.no_grad():
        for graph in GRAPHS.values():
            reference = module_of(case) if case.id in REMEMBERS else theirs
            same(outputs(ours, case, graph), outputs(reference, case, graph))
    state = state_of(ours)
    served = state.engine is not None and bool(state.engine._captured)
    assert served or state.told
    if not case.refused:
        assert served and (not state.told or case.needs_edges), state.told


@pytest.mark.parametrize("case", CONVS, ids=lambda case: case.id)
def test_gradients_equal_pyg_in_training(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    graph, gradients = GRAPHS["replay"], []
    theirs, ours = module_of(case), twin_of(case, monkeypatch)
    ours.load_state_dict(theirs.state_dict())
    for module in (theirs, ours):
        torch.manual_seed(7)  # dropout
        out = outputs(module.train(), case, graph)
        wanted = [leaf for leaf in pytree.tree_leaves(out) if isinstance(leaf, Tensor) and leaf.requires_grad]
        if wanted:
            sum(leaf.square().sum() for leaf in wanted).backward()
        gradients.append((out, {name: parameter.grad for name, parameter in module.named_parameters()}))
        assert not is_fast(module) or state_of(module).engine is None
    same(*(pytree.tree_map_only(Tensor, Tensor.detach, item[0]) for item in gradients), 0)
    same(gradients[0][1], gradients[1][1], 0)


def test_every_exported_layer_has_a_twin() -> None:
    for name in layer_names():
        own, ours = getattr(gnn.conv, name), getattr(fg.nn, name)
        assert issubclass(ours, own) and ours is getattr(fg.nn, name) and name in dir(fg.nn)
        assert (ours.__name__, ours.__module__, ours.__doc__) == (own.__name__, own.__module__, own.__doc__)
    with pytest.raises(AttributeError, match=r"no layer 'GcnConv'.*wrap"):
        _ = fg.nn.GcnConv
