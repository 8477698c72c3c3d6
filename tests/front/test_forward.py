"""Which parameter of a forward is what, by name, default and annotation."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch_geometric.data import Data
from torch_geometric.nn import GATConv, Sequential
from torch_geometric.nn.models import GCN

from pyg_fullgraph.front.forward import forward_of, unwrap


def model_with(forward: Callable[..., Any]) -> torch.nn.Module:
    return type("Net", (torch.nn.Module,), {"forward": forward})()


#: id -> (forward, graph, features, data)
ROLES: dict[str, tuple[Callable[..., Any], str | None, str | None, str | None]] = {
    "x, edge_index": (lambda self, x, edge_index: 0, "edge_index", "x", None),
    "x, adj_t": (lambda self, x, adj_t: 0, "adj_t", "x", None),
    "x, adjs": (lambda self, x, adjs: 0, "adjs", "x", None),
    "edge_index, x": (lambda self, edge_index, x: 0, "edge_index", "x", None),
    "feats, ei": (lambda self, feats, ei: 0, "ei", "feats", None),
    "unknown names": (lambda self, a, b: 0, "b", "a", None),
    "train_edge_index": (lambda self, z, train_edge_index: 0, "train_edge_index", "z", None),
    "x_dict, edge_index_dict": (lambda self, x_dict, edge_index_dict: 0, "edge_index_dict", "x_dict", None),
    "x alone": (lambda self, x: 0, None, "x", None),
    "data": (lambda self, data: 0, None, None, "data"),
    "anything alone": (lambda self, inputs_of_graph: 0, None, None, "inputs_of_graph"),
    "data with options": (lambda self, batch, return_all=False: 0, None, None, "batch"),
}


@pytest.mark.parametrize("case", ROLES)
def test_roles(case: str) -> None:
    function, *expected = ROLES[case]
    found = forward_of(model_with(function))
    assert [found.graph, found.features, found.data] == expected


def test_annotations_name_the_data() -> None:
    def forward(self: Any, x: Data, scale: float = 1.0) -> None: ...

    assert forward_of(model_with(forward)).data == "x"


def test_defaults_and_keywords() -> None:
    def forward(self: Any, x: Any, edge_index: Any, edge_weight: Any = None, *, k: int = 3, **rest: Any) -> None: ...

    found = forward_of(model_with(forward))
    assert found.positional == ("x", "edge_index", "edge_weight")
    assert (found.open, found.required("x"), found.required("k")) == (True, True, False)
    assert str(found) == "Net.forward(x, edge_index, edge_weight, k)"


def test_pyg_models() -> None:
    assert (forward_of(GCN(3, 4, 2)).graph, forward_of(GCN(3, 4, 2)).features) == ("edge_index", "x")
    assert forward_of(GATConv(3, 4)).graph == "edge_index"
    sequential = Sequential("x, edge_index, batch", [(GATConv(3, 4), "x, edge_index -> x")])
    assert forward_of(sequential).positional == ("x", "edge_index", "batch")


def test_unwrap_leaves_a_users_module_attribute_alone() -> None:
    class Holder(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.module = GCN(3, 4, 2)

    holder = Holder()
    assert unwrap(holder) is holder
    assert unwrap(torch.compile(torch.nn.DataParallel(holder))) is holder
