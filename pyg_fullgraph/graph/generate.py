"""Generated graphs for tests, demos and benchmarks. The same seed gives the same graph."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from pyg_fullgraph.errors import GraphError

#: Graph500's probabilities of the four quadrants of the adjacency matrix; the fourth is the rest, 0.05.
GRAPH500 = (0.57, 0.19, 0.19)

_CHUNK = 1 << 20


class Community(NamedTuple):
    """A graph with communities, and features and labels that follow them.

    Attributes:
        edge_index: ``[2, E]`` int64, both directions, no duplicates, no self-loops.
        x: ``[N, F]`` float32, the community's centre plus noise.
        y: ``[N]`` int64, the community.
    """

    edge_index: Tensor
    x: Tensor
    y: Tensor


def rmat(
    scale: int,
    degree: int = 16,
    *,
    seed: int = 0,
    probabilities: tuple[float, float, float] = GRAPH500,
    shuffle: bool = True,
) -> Tensor:
    """Generates an R-MAT graph: ``2**scale`` nodes, ``degree * 2**scale`` directed edges, power-law degrees.

    Every edge descends ``scale`` times into one of the four quadrants of the adjacency matrix (Chakrabarti,
    Zhan, Faloutsos, "R-MAT: A Recursive Model for Graph Mining", SDM 2004). Duplicates and self-loops stay,
    as in Graph500.

    Args:
        scale: the base-2 logarithm of the number of nodes.
        degree: the mean in-degree.
        seed: of the random numbers.
        probabilities: of the quadrants (low, low), (low, high), (high, low).
        shuffle: renumber the nodes at random, so that a node's number says nothing of its degree (Graph500
            does).

    Returns:
        ``[2, E]`` int64, in random edge order.

    Raises:
        GraphError: if ``scale``, ``degree`` or the probabilities are impossible.
    """
    a, b, c = probabilities
    if not 0 <= scale <= 40 or degree < 0 or min(a, b, c, 1 - a - b - c) < 0:
        raise GraphError(
            "R-MAT needs 0 <= scale <= 40, degree >= 0 and probabilities that are at least 0 and add up "
            "to at most 1 "
            f"(got scale={scale}, degree={degree}, probabilities={probabilities})."
        )
    generator = torch.Generator().manual_seed(seed)
    num_nodes, num_edges = 1 << scale, degree << scale
    edge_index = torch.empty(2, num_edges, dtype=torch.int64)
    names = torch.randperm(num_nodes, generator=generator) if shuffle else None
    for start in range(0, num_edges, _CHUNK):
        part = edge_index[:, start : start + _CHUNK]
        ends = _descend(scale, part.size(1), (a, b, c), generator)
        part.copy_(ends if names is None else names[ends])
    return edge_index


def _descend(scale: int, count: int, probabilities: tuple[float, float, float], generator: torch.Generator) -> Tensor:
    """``count`` edges ``[2, count]``: one quadrant per bit of the node numbers."""
    a, b, c = probabilities
    ends = torch.zeros(2, count, dtype=torch.int64)
    for _ in range(scale):
        draw = torch.rand(count, generator=generator)
        row_high = draw >= a + b
        column_high = ((draw >= a) & (draw < a + b)) | (draw >= a + b + c)
        ends.mul_(2)
        ends[0] += row_high
        ends[1] += column_high
    return ends


def community(
    num_nodes: int,
    num_classes: int = 7,
    num_features: int = 64,
    *,
    degree: float = 12.0,
    mixing: float = 0.25,
    noise: float = 1.5,
    skew: float = 2.5,
    seed: int = 0,
) -> Community:
    """Generates a degree-corrected stochastic block model with features and labels.

    Communities are of equal size up to chance; a node's expected degree is Pareto-distributed (Karrer and
    Newman, "Stochastic blockmodels and community structure in networks", 2011).

    Args:
        num_nodes: N.
        num_classes: the number of communities.
        num_features: F.
        degree: the mean degree before duplicates are merged (a few per cent less remain).
        mixing: the share of edges whose far end is drawn from all nodes, not from the own community.
        noise: standard deviation of the features around the centre of their community (centres: 1).
        skew: exponent of the degree distribution, above 1; larger is more even.
        seed: of the random numbers.

    Raises:
        GraphError: if a number is out of its range.
    """
    if num_nodes < 0 or num_classes < 1 or num_features < 0 or degree < 0 or not 0 <= mixing <= 1 or skew <= 1:
        raise GraphError(
            "A community graph needs num_nodes >= 0, num_classes >= 1, num_features >= 0, degree >= 0, "
            f"0 <= mixing <= 1 and skew > 1 (got {num_nodes}, {num_classes}, {num_features}, {degree}, "
            f"{mixing}, {skew})."
        )
    generator = torch.Generator().manual_seed(seed)
    y = torch.randint(0, num_classes, (num_nodes,), generator=generator)
    weight = torch.rand(num_nodes, generator=generator, dtype=torch.float64).clamp_(min=1e-6).pow_(-1 / skew)
    source, destination = _block_edges(y, weight, num_classes, int(num_nodes * degree / 2), mixing, generator)
    both = torch.cat([torch.stack([source, destination]), torch.stack([destination, source])], dim=1)
    both = both[:, both[0] != both[1]]
    key = torch.unique(both[0] * max(num_nodes, 1) + both[1])
    edge_index = torch.stack([key // max(num_nodes, 1), key % max(num_nodes, 1)])
    centre = torch.randn(num_classes, num_features, generator=generator)
    x = centre[y] + noise * torch.randn(num_nodes, num_features, generator=generator)
    return Community(edge_index, x, y)


def _block_edges(
    y: Tensor, weight: Tensor, num_classes: int, count: int, mixing: float, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Draws ``count`` edges: sources by weight, destinations within the community or anywhere."""
    if y.numel() == 0:
        return y, y
    order = torch.argsort(y, stable=True)
    ends = weight[order].cumsum(0)  # [N], a community is one interval of it
    bound = torch.cat([ends.new_zeros(1), ends])
    first = torch.searchsorted(y[order], torch.arange(num_classes + 1))  # [classes + 1]

    def draw(low: Tensor, high: Tensor) -> Tensor:
        point = low + (high - low) * torch.rand(count, generator=generator, dtype=torch.float64)
        return order[torch.searchsorted(ends, point, right=True).clamp_(max=y.numel() - 1)]

    everything = bound[-1].expand(count)
    source = draw(torch.zeros(count, dtype=torch.float64), everything)
    local = torch.rand(count, generator=generator) >= mixing
    low, high = bound[first[y[source]]], bound[first[y[source] + 1]]
    destination = draw(low * local, torch.where(local, high, everything))
    return source, destination


def hub(num_nodes: int, *, inward: bool = True) -> Tensor:
    """Generates a star: one edge from every other node to node 0, or back. ``[2, N - 1]`` int64."""
    leaves = torch.arange(1, num_nodes)
    centre = torch.zeros_like(leaves)
    return torch.stack([leaves, centre] if inward else [centre, leaves])


def path(num_nodes: int) -> Tensor:
    """Generates the path 0 -> 1 -> 2 ... ``[2, N - 1]`` int64."""
    nodes = torch.arange(max(num_nodes, 1))
    return torch.stack([nodes[:-1], nodes[1:]])


def ring(num_nodes: int, neighbors: int = 1) -> Tensor:
    """Generates a ring: nodes receive from the ``neighbors`` before them. ``[2, N * neighbors]`` int64."""
    nodes = torch.arange(num_nodes)
    sources = [(nodes - step) % max(num_nodes, 1) for step in range(1, neighbors + 1)]
    return torch.stack([torch.cat(sources), nodes.repeat(neighbors)])


def grid(height: int, width: int) -> Tensor:
    """Generates a grid with edges in both directions between direct neighbours. ``[2, E]`` int64."""
    nodes = torch.arange(height * width).view(height, width)
    right = torch.stack([nodes[:, :-1].reshape(-1), nodes[:, 1:].reshape(-1)])
    down = torch.stack([nodes[:-1].reshape(-1), nodes[1:].reshape(-1)])
    return torch.cat([right, down, right.flip(0), down.flip(0)], dim=1)


def uniform(num_nodes: int, num_edges: int, *, seed: int = 0) -> Tensor:
    """Generates ``num_edges`` directed edges between nodes drawn uniformly. ``[2, E]`` int64."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, max(num_nodes, 1), (2, num_edges if num_nodes > 0 else 0), generator=generator)
