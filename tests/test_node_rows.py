"""`nodes=` gives the rows of the whole result, whatever groups are padded to; autocast gives the types of eager."""

from __future__ import annotations

import pytest
import torch
import torch_geometric.nn as gnn
from torch import Tensor

from pyg_fullgraph.engine import Engine
from tests.cases.case import module_of
from tests.cases.table import BY_ID

NODES, WIDTH = 30, 16
MESSAGES = sorted(name for name, case in BY_ID.items() if name.endswith("-messages") and case.status == "exact")


def hub_and_leaves() -> Tensor:
    """A hub of twenty in-edges, nodes of up to three; by destination, as some aggregations ask for."""
    generator = torch.Generator().manual_seed(3)
    few = torch.randint(0, NODES, (2, 40), generator=generator)
    many = torch.stack([torch.arange(20), torch.full((20,), 2)])
    edge_index = torch.cat([few, many], dim=1)
    return edge_index[:, edge_index[1].argsort(stable=True)]


@pytest.mark.parametrize("name", MESSAGES)
def test_rows_do_not_depend_on_which_are_asked_for(name: str) -> None:
    """Some aggregations pad to the largest group of the graph, and attend to the padding."""
    module = module_of(BY_ID[name])
    x, edge_index = torch.randn(NODES, WIDTH, generator=torch.Generator().manual_seed(4)), hub_and_leaves()
    with torch.no_grad():
        expected = module(x, edge_index)
    assert expected.isfinite().all()
    engine = Engine(module, verify="off")
    for nodes in (torch.tensor([0, 29, 7]), torch.tensor([2])):
        got = engine(x, edge_index, nodes=nodes)
        assert float((got - expected[nodes]).abs().max()) <= 1e-5 * float(expected.abs().max())


class Typed(torch.nn.Module):
    def __init__(self, bias: bool) -> None:
        super().__init__()
        self.conv, self.lin = gnn.SAGEConv(WIDTH, WIDTH), gnn.HeteroLinear(WIDTH, 8, 3, bias=bias)

    def forward(self, x: Tensor, edge_index: Tensor, kinds: Tensor) -> Tensor:
        return self.lin(self.conv(x, edge_index), kinds)


@pytest.mark.parametrize("low", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize(
    ("build", "per_edge"),
    [
        (lambda: Typed(True), False),
        (lambda: Typed(False), False),
        (lambda: gnn.RGCNConv(WIDTH, 8, 3), True),
        (lambda: gnn.RGCNConv(WIDTH, 8, 40), True),
        (lambda: gnn.RGCNConv(WIDTH, 8, 40, num_blocks=4), True),
        (lambda: gnn.FiLMConv(WIDTH, 8, 40), True),
    ],
    ids=["HeteroLinear", "HeteroLinear-nobias", "RGCN", "RGCN-many", "RGCN-blocks", "FiLM-many"],
)
def test_products_by_type_under_autocast(build, per_edge: bool, low: torch.dtype) -> None:
    torch.manual_seed(0)
    module, x, edge_index = build().eval(), torch.randn(NODES, WIDTH), hub_and_leaves()
    kinds = torch.randint(0, getattr(module, "num_relations", 3), (edge_index.size(1) if per_edge else NODES,))
    engine = Engine(module, verify="off")
    with torch.no_grad(), torch.autocast("cpu", low):
        expected, got = module(x, edge_index, kinds), engine(x, edge_index, kinds)
    assert got.dtype == expected.dtype
    assert float((got.float() - expected.float()).abs().max()) <= 3e-2 * float(expected.abs().max())
