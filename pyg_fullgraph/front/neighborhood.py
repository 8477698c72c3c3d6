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
    edge_index = _numbers(edge_index)
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

    Nodes are taken in order of their distance (edges read in both directions) and then of their number, as long as
    the edges among them are within the limit. Each step reads all edges twice.

    Returns:
        Edge numbers and node numbers, both ascending.
    """
    edge_index = _numbers(edge_index)
    inside = torch.zeros(num_nodes, dtype=torch.bool, device=edge_index.device)
    inside[start] = True
    while True:
        ring = _ring(edge_index, inside)
        fitting = _fitting(edge_index, inside, ring, limit)
        inside[ring[:fitting]] = True
        if fitting < ring.numel() or ring.numel() == 0:
            break
    edges = (inside[edge_index[0]] & inside[edge_index[1]]).nonzero().view(-1)
    return edges, inside.nonzero().view(-1)


def _numbers(edge_index: Tensor) -> Tensor:
    """Edges in a type that indexes: torch takes uint8 and bool for masks, and int16 not at all."""
    return edge_index if edge_index.dtype in (torch.int64, torch.int32) else edge_index.long()


def _ring(edge_index: Tensor, inside: Tensor) -> Tensor:
    """The nodes one edge away from those ``inside``, ascending."""
    touching = (inside[edge_index[0]] | inside[edge_index[1]]).nonzero().view(-1)
    reached = torch.zeros_like(inside)
    reached[edge_index[:, touching].view(-1)] = True
    return (reached & ~inside).nonzero().view(-1)


def _fitting(edge_index: Tensor, inside: Tensor, ring: Tensor, limit: int) -> int:
    """How many nodes of the ring can be taken: an edge comes in with the later one of its ends."""
    turn = torch.full((inside.numel(),), ring.numel() + 1, dtype=torch.int32, device=inside.device)
    turn[inside] = 0
    turn[ring] = torch.arange(1, ring.numel() + 1, dtype=torch.int32, device=inside.device)
    comes = torch.maximum(turn[edge_index[0]], turn[edge_index[1]])  # [E]
    held = torch.bincount(comes, minlength=ring.numel() + 1)[: ring.numel() + 1].cumsum(0)  # after each node
    return max(int((held <= limit).sum()) - 1, 0)
