"""A changed model is told from an unchanged one, whatever was changed and however deep."""

from __future__ import annotations

import logging
from collections.abc import Callable

import pytest
import torch
import torch_geometric.nn as gnn
from torch import nn

from pyg_fullgraph.capture.reads import Found
from pyg_fullgraph.capture.state import ModelState, module_fingerprint
from pyg_fullgraph.engine import Engine
from pyg_fullgraph.errors import InputError


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.convs = nn.ModuleList([gnn.GCNConv(4, 4), gnn.GCNConv(4, 4)])
        self.widths, self.nested, self.power = [1, 2], {"a": [1, (2, [3])]}, 1.5
        self.act = torch.relu
        self.register_buffer("scale", torch.ones(4))
        self.plain = torch.ones(3)

    def forward(self, x, edge_index):
        for conv in self.convs:
            x = self.act(conv(x, edge_index))
        return x * self.scale


def _as_after_a_trace(model: Model) -> tuple[ModelState, int]:
    """The state after a trace that has asked for every attribute that there is, and for one that there is not."""
    state = ModelState()
    names = {name: frozenset([*vars(module), "more"]) for name, module in model.named_modules()}
    return state, state.learn(model, Found(names))


def _set_data(model: Model) -> None:
    model.convs[1].lin.weight.data = torch.ones(5, 4)


CHANGES: dict[str, Callable[[Model], object]] = {
    "number": lambda m: setattr(m, "power", 2.5),
    "list": lambda m: m.widths.append(3),
    "list item": lambda m: m.widths.__setitem__(0, 7),
    "nested list": lambda m: m.nested["a"].append(4),
    "nested key": lambda m: m.nested.update(b=1),
    "function": lambda m: setattr(m, "act", torch.tanh),
    "attribute of a layer": lambda m: setattr(m.convs[0], "normalize", False),
    "new attribute": lambda m: setattr(m, "more", 1),
    "attribute gone": lambda m: delattr(m, "power"),
    "layer replaced": lambda m: m.convs.__setitem__(0, gnn.SAGEConv(4, 4)),
    "layer added": lambda m: m.convs.append(gnn.GCNConv(4, 4)),
    "type in place": lambda m: m.double(),
    "data of another shape": _set_data,
    "plain tensor": lambda m: setattr(m, "plain", torch.ones(3, dtype=torch.int64)),
    "buffer": lambda m: setattr(m, "scale", torch.ones(1)),
    "parameter gone": lambda m: setattr(m.convs[0], "bias", None),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES.keys())
def test_a_change_gives_another_number(change: Callable[[Model], object]) -> None:
    model = Model().eval()
    (state, before), fingerprint = _as_after_a_trace(model), module_fingerprint(model)
    assert state.number(model) == before
    change(model)
    model.eval()
    assert module_fingerprint(model) != fingerprint  # what the number stands for
    assert state.number(model) != before


@torch.no_grad()
def test_what_is_no_change_keeps_the_number() -> None:
    model = Model().eval()
    state, before = _as_after_a_trace(model)
    for parameter in model.parameters():
        parameter.add_(1)
    model.load_state_dict(Model().state_dict())
    model.convs[0].bias = nn.Parameter(torch.ones(4))  # another of the same kind
    model.train().eval()
    assert state.number(model) == before


def test_a_change_taken_back_gives_the_first_number() -> None:
    model = Model().eval()
    state, before = _as_after_a_trace(model)
    model.power = 2.5
    other = state.number(model)
    model.power = 1.5
    assert (other != before, state.number(model)) == (True, before)


def test_training_is_refused_at_every_call_and_then_not_any_more() -> None:
    model = Model().eval()
    state, before = _as_after_a_trace(model)
    model.convs[1].train()
    for _ in range(2):
        with pytest.raises(InputError, match="train mode"):
            state.number(model)
    model.eval()
    assert state.number(model) == before


def test_logging_and_assertions_are_no_state() -> None:
    """pytest rewrites assertions into code of its own, loggers remember what they were asked: neither is the model."""
    log = logging.getLogger("tests.a_forward_that_logs")

    class Logs(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = gnn.GCNConv(8, 4)

        def forward(self, x: torch.Tensor, edge_index: torch.Tensor) -> torch.Tensor:
            assert x.size(1) == 8, "eight columns"
            log.debug("rows: %s", x.shape)
            return self.conv(x, edge_index)

    model, x, edge_index = Logs().eval(), torch.randn(20, 8), torch.randint(0, 20, (2, 60))
    engine = Engine(model)
    for _ in range(3):
        torch.testing.assert_close(engine(x, edge_index), model(x, edge_index))
    assert len(engine._captured) == 1 and not engine.notes
