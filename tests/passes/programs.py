"""Programs for the tests of passes: a module on one graph, before and after single passes, and what it computes."""

from __future__ import annotations

from typing import Any
from unittest import mock

import torch
from torch import Tensor

from pyg_fullgraph import engine
from pyg_fullgraph.capture import bind, trace
from pyg_fullgraph.capture.raising import raise_program
from pyg_fullgraph.ir import Program, Value
from pyg_fullgraph.passes import PIPELINE, Change, optimise

NODES, EDGES = 40, 160
X = torch.randn(NODES, 16, generator=torch.Generator().manual_seed(0))
EDGE_INDEX = torch.randint(0, NODES - 2, (2, EDGES), generator=torch.Generator().manual_seed(1))
EDGE_ATTR = torch.randn(EDGES, 3, generator=torch.Generator().manual_seed(2))


class Message(torch.nn.Module):
    """A function of (x, row, col, ...) as a module: `row` the sources, `col` the destinations."""

    def __init__(self, function: Any, **modules: torch.nn.Module) -> None:
        super().__init__()
        self.function = function
        for name, module in modules.items():
            self.add_module(name, module)

    def forward(self, x: Tensor, edge_index: Tensor, edge_attr: Tensor | None = None) -> Any:
        row, col = edge_index[0], edge_index[1]
        return self.function(self, x, row, col) if edge_attr is None else self.function(self, x, row, col, edge_attr)


def raised(module: torch.nn.Module, *args: Any) -> Program:
    """The program as it is captured."""
    signature, tensors = bind(module, args, {})
    return raise_program(trace(module, signature), signature.sizes(tensors))


def changes(module: torch.nn.Module, *args: Any, skip: tuple[str, ...] = ()) -> dict[str, Change]:
    """What each pass changes, by its name."""
    return {change.name: change for change in optimise(raised(module, *args), skip, record=True)}


def optimised(module: torch.nn.Module, *args: Any, skip: tuple[str, ...] = ()) -> Program:
    """The program after all passes but some."""
    program = raised(module, *args)
    optimise(program, skip)
    return program


def values(program: Program, word: str, space: str | None = None) -> list[Value]:
    """The values of one operator, by name, and by the rows they have."""
    found = []
    for value in program:
        name = value.op if value.op != "aten" or value.target is None else value.target.overloadpacket.__name__
        if name == word and (space is None or program.space_name(value.space) == space):
            found.append(value)
    return found


def assert_same(module: torch.nn.Module, *args: Any, tolerance: float = 1e-5) -> None:
    """The engine gives what the module gives, with the whole pipeline and without any single pass."""
    with torch.no_grad():
        expected = module(*args)
    traced = trace(module, bind(module, args, {})[0])
    with mock.patch.object(engine, "trace", lambda *_: traced):  # the same trace for every pipeline
        for skipped in ((), *((name,) for name, _ in PIPELINE)):
            got = engine.Engine(module, verify="off", skip_passes=skipped)(*args)
            scale = float(expected.abs().max().clamp(min=1e-6))
            difference = float((got - expected).abs().max()) if expected.numel() else 0.0
            assert difference <= tolerance * scale, f"without {skipped}: {difference / scale:.1e}"
