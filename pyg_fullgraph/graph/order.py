"""Orders of the nodes of a graph that bring rows which are read together close together.

A gather over a graph larger than the cache waits for memory whenever it reads a row that was read too long ago. Which
rows are read together is a matter of the graph; how soon after each other, of the order in which destinations are
visited and sources are numbered. An order changes no result, so none of these needs to be the best of its kind.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from pyg_fullgraph import ops

#: The orders that `order_nodes` knows.
ORDERS = ("degree", "rcm", "community")

_ROUNDS = 6  # of label propagation
_STAYS = 0.25  # share of the nodes that keep their label for a round: it stops two sides from swapping labels for ever
_STARTS = 4096  # nodes looked at when a new start is sought
_TIE_BITS = 20  # of a label's random priority


def order_nodes(name: str, src: Tensor, dst: Tensor, num_nodes: int) -> Tensor:
    """Computes an order of the nodes of a graph by its name.

    Args:
        name: one of `ORDERS`.
        src, dst: ``[E]`` int32 or int64, each in ``[0, num_nodes)`` (not checked).
        num_nodes: N.

    Returns:
        ``[N]`` int64, the node at each new place. The same graph always gets the same order.

    Raises:
        ValueError: if there is no such order.
    """
    if name not in ORDERS:
        raise ValueError(f"order={name!r}: there are {', '.join(map(repr, ORDERS))}")
    src, dst = _narrow(src, num_nodes), _narrow(dst, num_nodes)
    if num_nodes == 0 or src.numel() == 0:
        return torch.arange(num_nodes)
    return {"degree": _degree, "rcm": _rcm, "community": _community}[name](src, dst, num_nodes).long()


def inverse(order: Tensor) -> Tensor:
    """Returns the new place of each node, ``[N]`` int64, given the node at each new place."""
    places = torch.empty_like(order)
    places[order] = torch.arange(order.numel(), device=order.device)
    return places


def _narrow(index: Tensor, num_nodes: int) -> Tensor:
    return index.int() if num_nodes <= torch.iinfo(torch.int32).max else index.long()


def _degree(src: Tensor, dst: Tensor, num_nodes: int) -> Tensor:
    """Most often gathered first, so that the rows of hubs share pages and stay in cache.

    Known as hub sorting (Zhang et al., "Making caches work for graph analytics", Big Data 2017; Balaji and Lucia,
    "When is graph reordering an optimization?", IISWC 2018, who also saw it destroy the locality of a given order).
    """
    degree = torch.bincount(src, minlength=num_nodes)
    key = (degree.max() - degree).to(src.dtype)
    return ops.csr(key, int(key.max()) + 1)[1]


def _rcm(src: Tensor, dst: Tensor, num_nodes: int) -> Tensor:
    """Breadth first, children by their degree, and all of it backwards.

    Reverse Cuthill-McKee (Cuthill and McKee, "Reducing the bandwidth of sparse symmetric matrices", 1969; George,
    1971), a level at a time as in Azad et al., "The reverse Cuthill-McKee algorithm in distributed-memory", IPDPS 2017.
    Starts at a node of least degree in each component, without the search for a peripheral one.
    """
    rowptr, neighbor = _undirected(src, dst, num_nodes)
    return torch.from_numpy(_breadth_first(rowptr.numpy(), neighbor.numpy())[::-1].copy())


def _community(src: Tensor, dst: Tensor, num_nodes: int) -> Tensor:
    """Communities one after the other, in the order of `_rcm`, and their members in that order too.

    Communities are found by label propagation (Raghavan, Albert and Kumara, "Near linear time algorithm to detect
    community structures in large-scale networks", 2007), used for orders by Boldi et al., "Layered label propagation",
    WWW 2011; that communities suit caches is shown by Arai et al., "Rabbit order", IPDPS 2016.
    """
    rowptr, neighbor = _undirected(src, dst, num_nodes)
    order = torch.from_numpy(_breadth_first(rowptr.numpy(), neighbor.numpy())[::-1].copy())
    label = _propagate(rowptr, neighbor, num_nodes).index_select(0, order).long()
    first = torch.full((num_nodes,), num_nodes, dtype=torch.int64)
    first.scatter_reduce_(0, label, torch.arange(num_nodes), "amin")
    return order.index_select(0, ops.csr(first.index_select(0, label), num_nodes)[1])


def _undirected(src: Tensor, dst: Tensor, num_nodes: int) -> tuple[Tensor, Tensor]:
    """(rowptr, neighbours) of the graph without directions; as given where each edge seems to have its opposite.

    The sum of ``s * d * (s - d)`` is 0 if every edge has its opposite. Where it is 0 by chance, neighbours are missing
    and the order is worse, but still an order.
    """
    s, d = src.long(), dst.long()
    if int((s * d * (s - d)).sum()) != 0 or not torch.equal(*_degrees(src, dst, num_nodes)):
        src, dst = torch.cat([src, dst]), torch.cat([dst, src])
    rowptr, perm = ops.csr(dst, num_nodes)
    return rowptr, src.index_select(0, perm)


def _degrees(src: Tensor, dst: Tensor, num_nodes: int) -> tuple[Tensor, Tensor]:
    return torch.bincount(src, minlength=num_nodes), torch.bincount(dst, minlength=num_nodes)


def _breadth_first(rowptr: np.ndarray, neighbor: np.ndarray) -> np.ndarray:
    """All nodes, level by level from a node of least degree in each component; isolated ones first."""
    degree = np.diff(rowptr)
    seen = degree == 0
    found, starts, at = [np.nonzero(seen)[0]], np.argsort(degree, kind="stable"), 0
    place = np.empty(degree.size, np.int64)
    while at < starts.size:
        fresh = np.nonzero(~seen[starts[at : at + _STARTS]])[0]
        if not fresh.size:
            at += _STARTS
            continue
        at += int(fresh[0])
        level = starts[at : at + 1]
        seen[level] = True
        while level.size:
            found.append(level)
            level = _next_level(level, rowptr, neighbor, degree, seen, place)
    return np.concatenate(found)


def _next_level(
    level: np.ndarray, rowptr: np.ndarray, neighbor: np.ndarray, degree: np.ndarray, seen: np.ndarray, place: np.ndarray
) -> np.ndarray:
    """Unseen neighbours of `level`, by their first parent and then by degree; marks them as seen."""
    if level.size == 1:  # paths and trees have as many levels as nodes
        node = int(level[0])
        child = neighbor[rowptr[node] : rowptr[node + 1]]
        child = np.unique(child[~seen[child]])
        child = child[np.argsort(degree[child], kind="stable")] if child.size > 1 else child
        seen[child] = True
        return child
    count = degree[level]
    offset = np.repeat(rowptr[level] - (np.cumsum(count) - count), count) + np.arange(int(count.sum()))
    child = neighbor[offset]
    fresh = np.nonzero(~seen[child])[0]
    child = child[fresh]
    number = np.arange(child.size)
    place[child[::-1]] = number[::-1]  # the last write wins: the first appearance
    first = np.nonzero(place[child] == number)[0]
    parent = np.repeat(np.arange(level.size), count)[fresh[first]]
    child = child[first]
    child = child[np.lexsort((degree[child], parent))]
    seen[child] = True
    return child


def _propagate(rowptr: Tensor, neighbor: Tensor, num_nodes: int) -> Tensor:
    """A label for every node, that of most of its neighbours in the last round."""
    generator = torch.Generator().manual_seed(0)
    row = torch.repeat_interleave(torch.arange(num_nodes, dtype=neighbor.dtype), rowptr.diff())
    label = torch.arange(num_nodes, dtype=neighbor.dtype)
    for number in range(_ROUNDS):
        priority = torch.randint(1 << _TIE_BITS, (num_nodes,), generator=generator)
        new = _most_frequent(label, row, neighbor, priority)
        if 0 < number < _ROUNDS - 1:
            new = torch.where(torch.rand(num_nodes, generator=generator) < _STAYS, label, new)
        changed = int((new != label).sum())
        label = new
        if changed * 100 < num_nodes:
            break
    return label


def _most_frequent(label: Tensor, row: Tensor, neighbor: Tensor, priority: Tensor) -> Tensor:
    """The label that most neighbours have; among equals the node's own, then that of the highest priority."""
    num_nodes = label.numel()
    near = label.index_select(0, neighbor)
    by_label = ops.csr(near, num_nodes)[1]
    order = by_label.index_select(0, ops.csr(row.index_select(0, by_label), num_nodes)[1])
    near = near.index_select(0, order)
    begins = torch.ones_like(near, dtype=torch.bool)
    begins[1:] = (near[1:] != near[:-1]) | (row[1:] != row[:-1])
    start = begins.nonzero().view(-1)
    count = torch.diff(start, append=start.new_tensor([near.numel()]))
    candidate, node = near.index_select(0, start).long(), row.index_select(0, start).long()
    own = (candidate == label.index_select(0, node)).long()
    rank = (((count << 1) | own) << _TIE_BITS) | priority.index_select(0, candidate)
    best = torch.zeros(num_nodes, dtype=torch.int64).scatter_reduce_(0, node, rank, "amax")
    wins = rank == best.index_select(0, node)
    new = label.clone()
    new[node[wins]] = candidate[wins].to(label.dtype)
    return new
