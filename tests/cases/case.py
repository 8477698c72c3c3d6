"""What a case is: a layer or model, the arguments of its forward on any graph, and what must become of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

GraphLike = tuple[int, Tensor]
Inputs = tuple[tuple[Any, ...], dict[str, Any]]

#: The graph every case is traced on: self-loops, duplicate edges, an isolated node (the last).
TRACE_GRAPH: GraphLike = (
    9,
    torch.tensor([[0, 1, 2, 3, 4, 5, 6, 7, 0, 0, 2, 2, 5, 7, 1, 1], [1, 0, 3, 2, 5, 6, 7, 6, 0, 1, 2, 7, 0, 3, 4, 4]]),
)


@dataclass(frozen=True)
class Case:
    """One configuration.

    Attributes:
        id: ``Class-option``; the class may have a prefix as in ``m.GCN-weight``.
        build: makes the module.
        make_inputs: ``(num_nodes, edge_index)`` to the arguments of forward.
        kind: the namespace of torch_geometric.nn that exports the class (conv, models, norm, aggr, pool, dense,
            kge), or user or hetero.
        refused: the error that the engine must raise, as a regular expression.
        not_runnable: the error that building it or its own forward raises here, as a regular expression.
        why: the reason of either, for readers.
        needs_edges: its own forward fails on a graph without edges.
        keeps: the module keeps what it computed for the last graph, or for the first one.
        resized: has arguments of its own size (one per graph, per link), so that other graphs may need a new trace.
        core: one of the cases that the tests of the single layers of the compiler also use.
    """

    id: str
    build: Callable[[], torch.nn.Module]
    make_inputs: Callable[[GraphLike], Inputs]
    kind: str
    refused: str = ""
    not_runnable: str = ""
    why: str = ""
    needs_edges: bool = False
    keeps: bool = False
    resized: bool = False
    core: bool = False

    def __repr__(self) -> str:
        return self.id

    @property
    def name(self) -> str:
        """The exported class that the case is about."""
        return self.id.split(".")[-1].split("-")[0]

    @property
    def status(self) -> str:
        """exact, refused or not runnable."""
        if self.not_runnable:
            return "not runnable"
        return "refused" if self.refused else "exact"


def replay_graph(num_nodes: int = 23, num_edges: int = 90, seed: int = 3) -> GraphLike:
    """A larger graph with self-loops, duplicate edges, a hub and an isolated last node."""
    generator = torch.Generator().manual_seed(seed)
    edge_index = torch.randint(0, num_nodes - 1, (2, num_edges), generator=generator)
    edge_index[1, ::5] = 2
    edge_index[:, 3] = 4
    edge_index[:, 7:9] = edge_index[:, 5:7]
    return num_nodes, edge_index


def module_of(case: Case) -> torch.nn.Module:
    """The case's module with fixed weights, lazy layers materialised, in eval mode.

    The weights are moved a little, since many layers start with biases of zero and scales of one.
    """
    torch.manual_seed(12345)
    module = case.build()
    module.eval()  # not chained: TGNMemory.train returns nothing
    args, kwargs = case.make_inputs(TRACE_GRAPH)
    if any(torch.nn.parameter.is_lazy(p) for p in module.parameters()):
        with torch.no_grad():
            module(*args, **kwargs)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape))
    return module
