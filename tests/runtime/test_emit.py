"""The text of a block program: what it binds, what it calls, and that it lets go of what it no longer needs."""

from __future__ import annotations

import re

import pytest
import torch
import torch_geometric.nn as gnn

from pyg_fullgraph.runtime.code import BlockCode
from tests.passes.programs import EDGE_INDEX, X

from .blocks import compiled, new_run, rows_only

#: name -> (module, the kernels of its last block program)
MODULES = {
    "GCN": (lambda: gnn.GCN(16, 8, 2, 4), ("gather_reduce",)),
    "GAT": (lambda: gnn.GATConv(16, 4, heads=2), ("attention_additive",)),
    "EdgeConv": (lambda: gnn.EdgeConv(torch.nn.Linear(32, 8)), ("message_reduce",)),
    "PNA": (lambda: gnn.SAGEConv(16, 8, aggr=["mean", "std"]), ("message_reduce",)),
    "AGNN": (lambda: gnn.AGNNConv(), ("edge_dot", "attention_explicit")),
}


def codes(module: torch.nn.Module) -> list[BlockCode]:
    return list(compiled(module).code.values())


@pytest.mark.parametrize("name", MODULES)
def test_kernels_are_those_that_the_text_calls(name: str) -> None:
    build, kernels = MODULES[name]
    code = codes(build().eval())[-1]
    assert code.kernels == kernels
    for kernel in kernels:
        assert len(re.findall(rf"\b{kernel}\(", code.text)) == kernels.count(kernel)


@pytest.mark.parametrize("name", MODULES)
def test_every_name_is_bound_and_every_binding_is_used(name: str) -> None:
    for code in codes(MODULES[name][0]().eval()):
        body = "\n".join(line.split("  # ")[0] for line in code.text.splitlines())
        for bound in code.bindings:
            assert re.search(rf"\b{bound}\b", body), bound
        used = set(compile(body, "text", "exec").co_consts[0].co_names)  # the globals and methods of the function
        methods = set(re.findall(r"\.(\w+)", body))
        assert used - methods <= {*code.bindings, "bounds"}


@pytest.mark.parametrize("name", MODULES)
def test_no_local_outlives_its_last_use(name: str) -> None:
    for code in codes(MODULES[name][0]().eval()):
        lines = [line.split("  # ")[0].strip() for line in code.text.splitlines()]
        made = {match[1] for line in lines if (match := re.match(r"(v_\w+) = ", line))}
        for local in made:
            last = max(number for number, line in enumerate(lines) if re.search(rf"\b{local}\b", line))
            assert lines[last].startswith("del "), local


def test_a_line_says_where_it_is_from() -> None:
    (code,) = codes(rows_only(lambda x: x.exp()))
    assert re.search(r"v_exp = .*  # \[N, 16\] test_emit\.py:\d+ in test_a_line\w+\.<lambda>", code.text)


def test_a_stored_value_is_computed_in_its_rows() -> None:
    (code,) = codes(rows_only(lambda x: x.exp()))
    assert "out=T_v_exp.destination(r0, r1)" in code.text
    assert "T_v_exp.write(r0, v_exp)" in code.text


def test_what_is_no_table_of_rows_is_added_to_a_total() -> None:
    (code,) = codes(rows_only(lambda x: x.exp().sum(0)))
    assert re.search(r"T_v_sum\w*\.add\(r0, r1, ", code.text)
    assert ".write(" not in code.text


@pytest.mark.parametrize("value", [float("inf"), float("-inf"), 1e-300, 3, True])
def test_constants_keep_their_value(value: float) -> None:
    """Not every float can be written as Python text."""
    module = rows_only(lambda x: torch.clamp(x.exp(), max=value) if value is not True else x.exp().gt(0))
    assert torch.equal(new_run(compiled(module), module).run(), module(X, EDGE_INDEX))


def test_names_of_the_users_code_are_no_names_of_the_text() -> None:
    """Parameters may be called like what the text uses itself."""

    class Clash(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            for name in ("r0", "B", "scratch", "bounds", "gather", "rowptr0"):
                setattr(self, name, torch.nn.Parameter(torch.randn(16)))

        def forward(self, x, edge_index):
            y = (x * self.r0 + self.B) * self.scratch
            out = torch.zeros_like(x).index_add_(0, edge_index[1], (y * self.gather)[edge_index[0]])
            return out * self.bounds + self.rowptr0

    module = Clash().eval()
    with torch.no_grad():
        expected = module(X, EDGE_INDEX)
    got = new_run(compiled(module), module).run()
    assert float((got - expected).abs().max()) <= 1e-5 * float(expected.abs().max())
