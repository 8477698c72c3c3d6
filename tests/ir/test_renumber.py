"""A program that `renumber` passes gives the same values at the new places: shown with the modules' own forward.

For every case of the coverage table: renumber the arguments at random, run torch_geometric's own forward on them, undo
it on the result. It must be the result of the arguments as they were.
"""

from __future__ import annotations

import os
from typing import Any

import pytest
import torch
from torch import Tensor

from pyg_fullgraph.capture.arguments import rebuild
from pyg_fullgraph.capture.raising import raise_program
from pyg_fullgraph.capture.signature import bind
from pyg_fullgraph.engine import Engine
from pyg_fullgraph.ir import Program
from pyg_fullgraph.ir.ends import ends
from pyg_fullgraph.ir.forms import NotRenumberable
from pyg_fullgraph.ir.renumber import node_spaces, renumber
from pyg_fullgraph.runtime.arrange import Arrangement
from tests.cases.case import Case, Inputs, module_of, replay_graph
from tests.cases.table import ALL
from tests.test_exactness import assert_exact, forward
from tests.traces import traced_once

#: Set it to test every case of the coverage table (five minutes) instead of these.
ALL_CASES = "PYG_FULLGRAPH_ALL_GRAPHS"
RENUMBERED = (
    "GCNConv", "GCNConv-weight", "SAGEConv", "SAGEConv-lstm", "GATConv", "GATConv-attention", "GATv2Conv", "GINConv",
    "PNAConv", "RGCNConv", "TransformerConv", "EdgeConv", "m.GCN", "m.PNA", "h.RGCN", "h.HeteroConv", "h.HeteroData",
    "h.to_hetero-GAT", "h.to_hetero-SAGE", "u.GraphClassifier", "u.Outputs", "u.VirtualNode", "n.GraphNorm-batch",
    "n.BatchNorm-untracked", "p.global_mean_pool", "p.global_max_pool-size", "a.StdAggregation-readout",
)  # fmt: skip
#: Cases that keep the given order, and what their program says of why.
REFUSED = {
    "ChebConv": "'index' .* picks nodes in their order",
    "HGTConv": "'_unsafe_view' .* depends on the order of the nodes",
    "m.SGFormer": "'sort' .* depends on the order of the nodes",
    "u.Adjs": "'slice' .* depends on the order of the nodes",
    "m.DeepGraphInfomax": "'flip' .* depends on the order of the nodes",
    "a.SortAggregation-readout": "'reduce' .* in a group",
    "a.LSTMAggregation-readout": "'reduce' .* in a group",
    "p.MemPooling": "'sub' .* uses the numbers of nodes as values",
    "u.Transformer-whole": "depends on the order of the nodes",
}


def program_of(name: str, module: torch.nn.Module, inputs: Inputs) -> tuple[Program, Any, list[Tensor]]:
    signature, tensors = bind(module, *inputs)
    return raise_program(traced_once(name, module, signature)), signature, tensors


def renumbered(name: str, module: torch.nn.Module, inputs: Inputs) -> tuple[Arrangement, Inputs]:
    """The arguments with all nodes renumbered at random."""
    program, signature, tensors = program_of(name, module, inputs)
    names = [leaf.name for leaf in signature.leaves]
    sizes = signature.sizes(tensors)
    generator = torch.Generator().manual_seed(11)
    orders = {
        space: torch.randperm(sizes[program.spaces[space]], generator=generator) for space in node_spaces(program)
    }
    arrangement = Arrangement.of(renumber(program, ends(program)), orders, dict(zip(names, tensors, strict=True)))
    return arrangement, rebuild(signature.spec, arrangement.arranged(names, tensors), sizes.__getitem__)


def cases() -> list[Case]:
    return [case for case in ALL if case.status == "exact" and (os.environ.get(ALL_CASES) or case.id in RENUMBERED)]


def test_the_named_cases_exist() -> None:
    assert {*RENUMBERED, *REFUSED} <= {case.id for case in ALL}


@pytest.mark.parametrize("case", cases(), ids=lambda case: case.id)
def test_renumbered_arguments_give_the_renumbered_result(case: Case) -> None:
    module, inputs = module_of(case), case.make_inputs(replay_graph())
    try:
        arrangement, changed = renumbered(case.id, module, inputs)
    except NotRenumberable as reason:
        assert case.id not in RENUMBERED
        pytest.skip(str(reason))
    expected = forward(module_of(case), inputs)
    got = forward(module_of(case), changed)
    if got is None:  # its own forward asks for edges sorted by destination, which the program does not need
        got = Engine(module, verify="off")(*changed[0], **changed[1])
    assert expected is not None
    assert_exact(case.id, module, inputs, expected, arrangement.restored(got))


@pytest.mark.parametrize("name", [pytest.param(name, marks=pytest.mark.xdist_group(name)) for name in REFUSED])
def test_refused_with_a_reason(name: str) -> None:
    case = next(case for case in ALL if case.id == name)
    program, _, _ = program_of(name, module_of(case), case.make_inputs(replay_graph()))
    with pytest.raises(NotRenumberable, match=REFUSED[name]):
        renumber(program, ends(program))
