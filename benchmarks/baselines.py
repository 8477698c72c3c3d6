"""What pyg_fullgraph is compared with: PyG's own ways to run a model over a whole graph, on the CPU.

| peer | exact | what it is |
| --- | --- | --- |
| `full_batch` | yes | ``model(x, edge_index)``, or whatever else forward takes |
| `full_batch_csr` | yes | ``model(x, adj_t)`` with a ``torch.sparse`` CSR matrix, where a model takes one |
| `sorted_edge_index` | yes | what ``model(x, edge_index)`` is given as a sorted `EdgeIndex` |
| `layer_wise` | but for GCN | ``model.inference(NeighborLoader(num_neighbors=[-1]))``, or its emulation |
| `SampledEpoch` | no | every node once in sampled mini-batches, fan-out 15-10-5 |

PyG's `NeighborLoader` needs a compiled sampler (pyg-lib or torch-sparse). Where there is none, `layer_wise`
and `SampledEpoch` run an emulation in plain torch that does the same work: slice the in-edges of a batch,
number the nodes, fetch their features, run the model's own layers, copy the result. Neither uses worker
processes.
"""

from __future__ import annotations

import importlib.util
import statistics
import time
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch_geometric import EdgeIndex
from torch_geometric.data import Data
from torch_geometric.loader import NeighborLoader

LAYER_BATCH = 4096
SAMPLED_BATCH = 1024
FAN_OUT = (15, 10, 5)


def has_sampler() -> bool:
    """Tells whether PyG's `NeighborLoader` can run here (pyg-lib or torch-sparse is installed)."""
    return any(importlib.util.find_spec(name) is not None for name in ("pyg_lib", "torch_sparse"))


@torch.no_grad()
def full_batch(model: nn.Module, *inputs: Any) -> Any:
    """PyG's full batch: every layer gathers ``[E, F]`` messages and scatters them."""
    return model(*inputs)


def in_edge_pointers(edge_index: Tensor, num_nodes: int) -> Tensor:
    """Where the in-edges of each node begin in a list by destination, ``[N + 1]`` int64."""
    ptr = torch.zeros(num_nodes + 1, dtype=torch.int64)
    torch.cumsum(torch.bincount(edge_index[1], minlength=num_nodes), 0, out=ptr[1:])
    return ptr


def by_destination(edge_index: Tensor, num_nodes: int) -> Tensor:
    """The edges in order of destination, and of source within each destination, ``[2, E]``."""
    return edge_index[:, torch.argsort(edge_index[1] * num_nodes + edge_index[0])]


def csr_adjacency(edge_index: Tensor, num_nodes: int) -> Tensor:
    """The transposed adjacency matrix (row = destination) as ``torch.sparse`` CSR with ones as values.

    Columns are sorted within each row. Duplicate edges stay separate entries, unlike in PyG's own conversion,
    which drops them: so the matrix is exactly the graph.
    """
    ptr, (src, _) = in_edge_pointers(edge_index, num_nodes), by_destination(edge_index, num_nodes)
    with warnings.catch_warnings():  # torch says once that CSR is in beta state
        warnings.simplefilter("ignore", UserWarning)
        return torch.sparse_csr_tensor(
            ptr, src, torch.ones(src.numel()), (num_nodes, num_nodes), check_invariants=False
        )


def sorted_edge_index(edge_index: Tensor, num_nodes: int) -> EdgeIndex:
    """PyG's `EdgeIndex`, sorted by destination and within it by source, with everything cached that it can cache."""
    ordered = by_destination(edge_index, num_nodes)
    return EdgeIndex(ordered, sparse_size=(num_nodes, num_nodes), sort_order="col").fill_cache_()


@torch.no_grad()
def full_batch_csr(model: nn.Module, x: Tensor, adj_t: Tensor) -> Tensor:
    """PyG's full batch on a ``torch.sparse`` CSR matrix, where aggregation is one product."""
    return model(x, adj_t)


class InEdges:
    """In-edges by destination in plain torch: ``src[ptr[i]:ptr[i + 1]]`` are the sources of node ``i``.

    Args:
        edge_index: ``[2, E]`` int64.
        num_nodes: N.
    """

    def __init__(self, edge_index: Tensor, num_nodes: int) -> None:
        self.num_nodes = num_nodes
        self.ptr = in_edge_pointers(edge_index, num_nodes)
        self.src = edge_index[0][edge_index[1].argsort(stable=True)]
        self._local = torch.empty(num_nodes, dtype=torch.int64)  # scratch: global number -> number in the batch

    def all_of(self, nodes: Tensor) -> tuple[Tensor, Tensor]:
        """All in-edges of ``nodes``: global source and the destination's place in ``nodes``, ``[e]`` each."""
        first = self.ptr[nodes]
        degree = self.ptr[nodes + 1] - first
        row = torch.arange(nodes.numel()).repeat_interleave(degree)
        within = torch.arange(row.numel()) - (degree.cumsum(0) - degree)[row]
        return self.src[first[row] + within], row

    def sample_of(self, nodes: Tensor, fan_out: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """At most ``fan_out`` in-edges of every node, without replacement, as `all_of`.

        A node with ``d > fan_out`` in-edges gets ``fan_out`` different ones by systematic sampling: evenly
        spaced positions of its list from one random start. Every edge has the same chance and the cost is
        ``fan_out`` per node, never ``d``; only the joint distribution is not that of PyG's draw, which a
        timing does not see.
        """
        first = self.ptr[nodes]
        degree = self.ptr[nodes + 1] - first
        taken = degree.clamp(max=fan_out)
        row = torch.arange(nodes.numel()).repeat_interleave(taken)
        within = torch.arange(row.numel()) - (taken.cumsum(0) - taken)[row]
        start = torch.rand(nodes.numel(), generator=generator, dtype=torch.float64)[row]
        # The spacing d / k is at least 1, so the picks of a row are distinct.
        pick = ((within + start) * (degree[row] / taken[row].double())).long()
        pick = torch.minimum(pick, degree[row] - 1)
        return self.src[first[row] + pick], row

    def number(self, nodes: Tensor, sources: Tensor) -> tuple[Tensor, Tensor]:
        """Numbers the nodes of a batch: ``nodes`` come first, new sources after them.

        Returns:
            All nodes of the batch ``[n]``, and ``sources`` in its numbering ``[e]``.
        """
        self._local[sources] = -1
        self._local[nodes] = torch.arange(nodes.numel())
        new = torch.unique(sources[self._local[sources] < 0])
        self._local[new] = torch.arange(nodes.numel(), nodes.numel() + new.numel())
        return torch.cat([nodes, new]), self._local[sources]


@torch.no_grad()
def layer_wise(model: nn.Module, x: Tensor, edge_index: Tensor, *, batch_size: int = LAYER_BATCH) -> Tensor:
    """PyG's ``model.inference(NeighborLoader(data, num_neighbors=[-1]))``, emulated where no sampler is
    installed.

    Inherits what PyG's own `inference` does, and so its error: a GCN normalises by degrees inside the batch,
    where sources have none.

    Args:
        model: a ``torch_geometric.nn.models.BasicGNN`` in evaluation mode with ``jk`` unset or ``"last"``.
        x: ``[N, F]``.
        edge_index: ``[2, E]``.
        batch_size: destination nodes per batch.
    """
    if has_sampler():
        loader = NeighborLoader(Data(x=x, edge_index=edge_index), num_neighbors=[-1], batch_size=batch_size)
        return model.inference(loader)  # type: ignore[operator]
    edges = InEdges(edge_index, x.size(0))
    for layer in range(model.num_layers):  # type: ignore[arg-type]
        out = []
        for nodes in torch.arange(x.size(0)).split(batch_size):
            source, row = edges.all_of(nodes)
            batch, local = edges.number(nodes, source)
            block = torch.stack([local, row])
            out.append(model.inference_per_layer(layer, x[batch], block, nodes.numel()))  # type: ignore[operator]
        x = torch.cat(out)
    return x


@dataclass(frozen=True)
class SampledEpoch:
    """A whole pass of sampled mini-batches, timed on some of them.

    Attributes:
        seconds: for all batches, extrapolated from the median of the timed ones.
        batches: how many a pass has.
        timed: how many were run.
        nodes_per_batch: mean nodes fetched per batch.
    """

    seconds: float
    batches: int
    timed: int
    nodes_per_batch: float


@torch.no_grad()
def sampled_epoch(
    model: nn.Module,
    x: Tensor,
    edge_index: Tensor,
    *,
    fan_out: Sequence[int] = FAN_OUT,
    batch_size: int = SAMPLED_BATCH,
    timed_batches: int = 6,
    seed: int = 0,
) -> SampledEpoch:
    """Times predicting every node once in sampled mini-batches, from ``timed_batches`` random batches.

    The whole model runs on each sampled subgraph and the seeds' rows are kept, as in PyG's examples. Nothing
    is timed of building the loader. With a sampler installed, PyG's `NeighborLoader` (``num_workers=0``) is
    timed; without one, the same steps in plain torch.

    Args:
        model: in evaluation mode.
        x: ``[N, F]``.
        edge_index: ``[2, E]``.
        fan_out: sampled in-edges per node and hop.
        batch_size: seeds per batch.
        timed_batches: batches to run; the first is a warm-up and not counted.
        seed: of the order of the nodes.
    """
    num_nodes = x.size(0)
    generator = torch.Generator().manual_seed(seed)
    batches = torch.randperm(num_nodes, generator=generator).split(batch_size)
    chosen = batches[: timed_batches + 1]
    seconds, fetched = [], []
    if has_sampler():
        loader = NeighborLoader(
            Data(x=x, edge_index=edge_index), list(fan_out), torch.cat(list(chosen)), batch_size=batch_size
        )
        iterator = iter(loader)
        for _ in chosen:
            start = time.perf_counter()
            batch = next(iterator)
            model(batch.x, batch.edge_index)[: batch.batch_size]
            seconds.append(time.perf_counter() - start)
            fetched.append(batch.num_nodes)
    else:
        edges = InEdges(edge_index, num_nodes)
        for nodes in chosen:
            start = time.perf_counter()
            batch, block = sample_block(edges, nodes, fan_out, generator)
            model(x[batch], block)[: nodes.numel()]
            seconds.append(time.perf_counter() - start)
            fetched.append(batch.numel())
    per_node = [taken / nodes.numel() for taken, nodes in zip(seconds, chosen)]
    counted = per_node[1:] or per_node
    return SampledEpoch(statistics.median(counted) * num_nodes, len(batches), len(counted), sum(fetched) / len(fetched))


def sample_block(
    edges: InEdges, seeds: Tensor, fan_out: Sequence[int], generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """The sampled subgraph of ``seeds``: its nodes (seeds first) and its edges in their numbering."""
    nodes, frontier, offset = seeds, seeds, 0
    blocks = []
    for count in fan_out:
        source, row = edges.sample_of(frontier, count, generator)
        nodes, local = edges.number(nodes, source)
        blocks.append(torch.stack([local, row + offset]))
        offset += frontier.numel()
        frontier = nodes[offset:]
    return nodes, torch.cat(blocks, dim=1)
