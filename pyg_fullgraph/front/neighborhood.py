"""Parts of a graph that a verification runs on: an exact in-neighbourhood, or a small induced subgraph."""

from __future__ import annotations

import torch
from torch import Tensor


def in_neighborhood(
    edge_index: Tensor, targets: Tensor, hops: int | None, num_nodes: int, budget: int, upstream: int = 0
) -> tuple[Tensor, Tensor] | None:
    """Returns all edges whose destination lies within ``hops`` of the targets, and all nodes on them.

    Args:
        edge_index: ``[2, E]``.
        targets: node numbers.
        hops: how far to go against the edges; ``None`` until nothing new is found.
        num_nodes: the number of nodes.
        budget: gives up beyond this many edges.
        upstream: the row of ``edge_index`` that holds the sources.

    Returns:
        Edge numbers and node numbers, both ascending; ``None`` where there are more edges than the budget.
    """
    source, destination = edge_index[upstream], edge_index[1 - upstream]
    inside = torch.zeros(num_nodes, dtype=torch.bool, device=edge_index.device)
    inside[targets] = True
    edges = inside[destination].nonzero().view(-1)
    steps = 0
    while hops is None or steps < hops:
        if edges.numel() > budget:
            return None
        before = int(inside.sum())
        inside[source[edges]] = True
        if int(inside.sum()) == before:
            break
        edges = inside[destination].nonzero().view(-1)
        steps += 1
    if edges.numel() > budget:
        return None
    inside[source[edges]] = True
    return edges, inside.nonzero().view(-1)


def small_subgraph(edge_index: Tensor, start: Tensor, num_nodes: int, limit: int) -> tuple[Tensor, Tensor]:
    """Returns an induced subgraph around a node with at most ``limit`` edges, and its nodes.

    Nodes are taken in order of their distance (edges read in both directions); when the next ring would hold
    too many edges, only its first half is taken, and so on.

    Returns:
        Edge numbers and node numbers, both ascending.
    """
    inside = torch.zeros(num_nodes, dtype=torch.bool, device=edge_index.device)
    inside[start] = True
    while True:
        touching = inside[edge_index].any(dim=0).nonzero().view(-1)
        ring = torch.unique(edge_index[:, touching])
        ring = ring[~inside[ring]]
        while ring.numel() > 0 and _induced(edge_index, inside, ring).numel() > limit:
            ring = ring[: ring.numel() // 2]
        if ring.numel() == 0:
            break
        inside[ring] = True
    nobody = inside.new_empty(0, dtype=torch.int64)
    return _induced(edge_index, inside, nobody), inside.nonzero().view(-1)


def _induced(edge_index: Tensor, inside: Tensor, more: Tensor) -> Tensor:
    """The edges with both ends among ``inside`` and ``more``."""
    inside = inside.clone()
    inside[more] = True
    return inside[edge_index].all(dim=0).nonzero().view(-1)
