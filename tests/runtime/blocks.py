"""Block programs of small modules, for the tests of what places, writes and runs them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from pyg_fullgraph.capture import bind, trace
from pyg_fullgraph.capture.raising import raise_program
from pyg_fullgraph.ir import BlockProgram, Program
from pyg_fullgraph.passes import cut, optimise
from pyg_fullgraph.plan.plan import Limits
from pyg_fullgraph.runtime import Compiled, MemoryHome, Progress, Run, Structure
from pyg_fullgraph.runtime.store import TableStore
from tests.passes.programs import EDGE_INDEX, Message, X


def rows_only(function: Callable[[Tensor], Any]) -> torch.nn.Module:
    """A function of `x` [N, 16] as a module that takes edges as well."""
    return Message(lambda _module, x, _row, _col: function(x)).eval()


def compiled(module: torch.nn.Module) -> Compiled:
    signature, _ = bind(module, (X, EDGE_INDEX), {})
    program = raise_program(trace(module, signature))
    optimise(program)
    return Compiled(program, cut(program))


def only_block(made: Compiled) -> tuple[Program, BlockProgram]:
    """The program, and its one block program."""
    (step,) = made.schedule.steps
    (block,) = step.blocks
    return made.program, block


def new_run(
    made: Compiled,
    module: torch.nn.Module,
    x: Tensor = X,
    edge_index: Tensor = EDGE_INDEX,
    limits: Limits | None = None,
    **options: Any,
) -> Run:
    """A run of a compiled module on a graph; `options` as for `Run`."""
    inputs = {"x": x, "edge_index": edge_index}
    structure = Structure(made.program, inputs)
    made.prepare(structure)
    parameters = {**dict(module.named_parameters()), **dict(module.named_buffers())}
    given = {"threads": 1, "progress": Progress(False, len(made.schedule.steps)), **options}
    return Run(
        compiled=made,
        structure=structure,
        plan=made.plan(structure, limits),
        inputs=inputs,
        parameters=lambda name: parameters[name].detach(),
        store=TableStore(MemoryHome()),
        **given,
    )
