"""`CSR`: the in-edges of one edge space, sorted by destination."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from pyg_fullgraph import ops
from pyg_fullgraph.errors import GraphError
from pyg_fullgraph.graph.validate import check_endpoints, check_nodes

#: Edges that one step of a traversal holds in temporary memory (about 12 bytes each).
EDGES_PER_STEP = 1 << 22


class Neighborhood(NamedTuple):
    """The nodes that a k-hop computation reads, nearest first.

    Attributes:
        nodes: ``[M]`` int64, distinct, ordered by hop distance and then by number.
        counts: ``counts[h]`` is how many of them lie within ``h`` hops; the nodes whose values a layer must
            produce when ``h`` layers follow it are ``nodes[:counts[h]]``.
        position: one entry per asked node, its row in ``nodes[:counts[0]]``.
    """

    nodes: Tensor
    counts: tuple[int, ...]
    position: Tensor


@dataclass(frozen=True, eq=False, repr=False)
class CSR:
    r"""The in-edges of every destination node, in CSR order.

    The in-edges of destination :math:`i` are the positions ``rowptr[i] - rowptr[0]`` to
    ``rowptr[i + 1] - rowptr[0]`` of ``src`` and ``perm``; among themselves they keep the order in which they
    were given, so that sums are reproducible. ``rowptr[0]`` is 0 except in a view made by :meth:`rows`.

    Args:
        rowptr: ``[N_dst + 1]`` int64, where the edges of each destination begin.
        src: ``[E]`` int32 or int64, the source of every edge, in CSR order.
        perm: ``[E]`` int32 or int64, the number that the edge had in the original edge list.
        num_src: the number of source nodes.
        num_dst: the number of destination nodes.
    """

    rowptr: Tensor
    src: Tensor
    perm: Tensor
    num_src: int
    num_dst: int

    @classmethod
    def from_edges(
        cls,
        src: Tensor,
        dst: Tensor,
        num_src: int,
        num_dst: int | None = None,
        *,
        validate: bool = True,
        name: str = "edge_index",
    ) -> CSR:
        """Builds the graph from a list of edges with a stable counting sort by destination.

        Args:
            src: ``[E]`` int64 or int32, the source of every edge.
            dst: ``[E]`` int64 or int32, the destination of every edge.
            num_src: the number of source nodes.
            num_dst: the number of destination nodes; ``None`` means ``num_src``.
            validate: check dtype, shape and range first (one pass); switch off only for indices that were
                computed, not received.
            name: what the user calls these edges; used in error messages.

        Raises:
            GraphError: if the edges are malformed; it names the first bad edge.
        """
        num_dst = num_src if num_dst is None else num_dst
        if validate:
            check_endpoints(src, dst, num_src, num_dst, name=name)
        rowptr, perm = _sort(dst, num_dst)
        return cls(rowptr, _narrow(src, num_src).index_select(0, perm), perm, num_src, num_dst)

    @property
    def num_edges(self) -> int:
        """The number of edges E."""
        return self.src.numel()

    @property
    def device(self) -> torch.device:
        """Where the edges lie."""
        return self.src.device

    @property
    def nbytes(self) -> int:
        """Bytes of the three arrays."""
        return sum(t.numel() * t.element_size() for t in (self.rowptr, self.src, self.perm))

    def degree(self) -> Tensor:
        """Returns the number of in-edges of every destination, ``[N_dst]`` int64."""
        return self.rowptr.diff()

    def dst(self) -> Tensor:
        """Returns the destination of every edge in CSR order, ``[E]`` with the dtype of ``src``."""
        index = torch.arange(self.num_dst, dtype=self.src.dtype, device=self.device)
        return index.repeat_interleave(self.degree(), output_size=self.num_edges)

    def edge_index(self) -> Tensor:
        """Returns the edges in CSR order as ``[2, E]`` int64, row 0 source, row 1 destination."""
        return torch.stack([self.src.long(), self.dst().long()])

    def edge_values(self, value: Tensor) -> Tensor:
        """Returns edge values given in the original edge order in CSR order: ``value[perm]``.

        Args:
            value: ``[E_original, ...]``.

        Raises:
            GraphError: if it has fewer rows than the original edge list.
        """
        if self.num_edges > 0 and value.size(0) < self.num_edges:
            raise GraphError(
                f"Edge values have {value.size(0):,} rows, but the graph has {self.num_edges:,} edges. "
                f"Pass one row per edge, in the order of the edge list."
            )
        return value.index_select(0, self.perm)

    def original_order(self, value: Tensor) -> Tensor:
        """Returns edge values given in CSR order in the original edge order; undoes :meth:`edge_values`.

        Args:
            value: ``[E, ...]``, for a graph that holds every original edge (not a part of one).
        """
        out = torch.empty_like(value)
        out[self.perm.long()] = value
        return out

    def rows(self, start: int, stop: int) -> CSR:
        """Returns the destinations ``start .. stop - 1`` and their in-edges as a view; nothing is copied.

        Args:
            start: the first destination row.
            stop: one past the last destination row.

        Raises:
            GraphError: if the rows do not exist.
        """
        if not 0 <= start <= stop <= self.num_dst:
            raise GraphError(f"Rows {start} to {stop} do not exist: the graph has {self.num_dst:,} destinations.")
        base = int(self.rowptr[0])
        first, last = int(self.rowptr[start]) - base, int(self.rowptr[stop]) - base
        return CSR(
            self.rowptr[start : stop + 1],
            self.src[first:last],
            self.perm[first:last],
            self.num_src,
            stop - start,
        )

    def reverse(self) -> CSR:
        """Returns the out-edges: the same edges with source and destination exchanged.

        ``perm`` still leads to the original edge list. The edges of a row are ordered by destination.
        """
        rowptr, order = _sort(self.src, self.num_src)
        dst = _narrow(self.dst(), self.num_dst)
        return CSR(rowptr, dst.index_select(0, order), self.perm.index_select(0, order), self.num_dst, self.num_src)

    def subgraph_rows(self, nodes: Tensor, sources: Tensor | None = None) -> CSR:
        """Returns the graph whose destination ``i`` is ``nodes[i]``; its in-edges keep their order.

        Args:
            nodes: ``[M]``, destinations to keep, in the order wanted.
            sources: ``None`` keeps the numbers of the sources. ``[S]`` distinct source nodes renumbers them:
                ``sources[k]`` becomes source ``k``. Together with :meth:`k_hop` this gives the graph that the
                ``nodes=`` restriction runs on.

        Raises:
            GraphError: if a node is out of range, or a source of a kept edge is not among ``sources``.
        """
        check_nodes(nodes, self.num_dst)
        rowptr, position = self._positions(nodes)
        src, num_src = self.src.index_select(0, position), self.num_src
        if sources is not None:
            src, num_src = self._renumber(src, sources), sources.numel()
        return CSR(rowptr, src, self.perm.index_select(0, position), num_src, nodes.numel())

    def k_hop(self, nodes: Tensor, hops: int) -> Neighborhood:
        """Returns the nodes from which ``nodes`` can be reached over at most ``hops`` edges, nearest first.

        The in-edges of one frontier at a time are read, in steps of bounded memory.

        Args:
            nodes: ``[M]`` node numbers (duplicates allowed) or a bool mask ``[N]``.
            hops: how many edges to follow backwards; the number of message passing layers.

        Raises:
            GraphError: if a node is out of range, ``hops`` is negative, or sources and destinations are
                different node types.
        """
        if self.num_src != self.num_dst:
            raise GraphError(
                f"k_hop needs one node type, but this graph leads from {self.num_src:,} source to "
                f"{self.num_dst:,} destination nodes."
            )
        if hops < 0:
            raise GraphError(f"The number of hops must be at least 0 (got {hops}).")
        seeds = self._node_numbers(nodes)
        frontier, position = torch.unique(seeds, return_inverse=True)
        seen = torch.zeros(self.num_src, dtype=torch.bool, device=self.device)
        seen[frontier] = True
        found, counts = [frontier], [frontier.numel()]
        for _ in range(hops):
            frontier = self._unseen_sources(frontier, seen)
            found.append(frontier)
            counts.append(counts[-1] + frontier.numel())
        return Neighborhood(torch.cat(found), tuple(counts), position)

    def _node_numbers(self, nodes: Tensor) -> Tensor:
        """``nodes`` as checked int64 numbers ``[M]``; a mask becomes the numbers of its true entries."""
        if nodes.dtype == torch.bool:
            if nodes.shape != (self.num_dst,):
                raise GraphError(f"A node mask must have shape [{self.num_dst}] (got {list(nodes.shape)}).")
            nodes = nodes.nonzero().view(-1)
        check_nodes(nodes, self.num_dst)
        return nodes.to(self.device, torch.int64)

    def _unseen_sources(self, frontier: Tensor, seen: Tensor) -> Tensor:
        """The sources of the frontier's in-edges that are not in ``seen``, ascending; marks them there."""
        fresh = []
        for part in self._steps(frontier):
            source = self.src.index_select(0, self._positions(part)[1])
            source = torch.unique(source[~seen[source]]).long()
            seen[source] = True
            fresh.append(source)
        return torch.cat(fresh).sort().values if len(fresh) != 1 else fresh[0]

    def _steps(self, nodes: Tensor) -> Iterator[Tensor]:
        return edges_in_steps(self.rowptr, nodes)

    def _positions(self, nodes: Tensor) -> tuple[Tensor, Tensor]:
        return positions_of(self.rowptr, nodes.to(self.device, torch.int64))

    def _renumber(self, src: Tensor, sources: Tensor) -> Tensor:
        """Replaces every source by its place in ``sources``."""
        check_nodes(sources, self.num_src, name="sources")
        place = torch.full((self.num_src,), -1, dtype=src.dtype, device=self.device)
        place[sources.long()] = torch.arange(sources.numel(), dtype=src.dtype, device=self.device)
        out = place.index_select(0, src)
        missing = (out < 0).nonzero()
        if missing.numel() > 0:
            raise GraphError(
                f"Source {int(src[missing[0, 0]])} of a kept edge is not among the {sources.numel():,} "
                "'sources'. "
                f"Pass every source of the kept destinations, for example k_hop(nodes, 1).nodes."
            )
        return out

    def __repr__(self) -> str:
        nodes = f"{self.num_dst:,} nodes"
        if self.num_src != self.num_dst:
            nodes = f"{self.num_src:,} -> {self.num_dst:,} nodes"
        mean = self.num_edges / max(self.num_dst, 1)
        return (
            f"CSR({nodes}, {self.num_edges:,} edges, mean degree {mean:.1f}, "
            f"{self.nbytes / 2**20:.1f} MiB on {self.device})"
        )


def edges_in_steps(rowptr: Tensor, rows: Tensor) -> Iterator[Tensor]:
    """Cuts ``rows`` into runs of about ``EDGES_PER_STEP`` in-edges (one hub may have more).

    Args:
        rowptr: ``[N + 1]`` int64.
        rows: ``[M]`` int64.
    """
    ends = (rowptr[rows + 1] - rowptr[rows]).cumsum(0)  # [M]
    start = 0
    while True:
        before = int(ends[start - 1]) if start > 0 else 0
        stop = int(torch.searchsorted(ends, before + EDGES_PER_STEP, right=True))
        stop = min(max(stop, start + 1), rows.numel())
        yield rows[start:stop]
        if stop >= rows.numel():
            return
        start = stop


def positions_of(rowptr: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
    """Where the in-edges of some rows are.

    Args:
        rowptr: ``[N + 1]`` int64.
        rows: ``[M]`` int64.

    Returns:
        The ``rowptr`` ``[M + 1]`` of these rows, and the CSR positions of their in-edges, row after row.
    """
    first = rowptr[rows] - rowptr[0]  # [M]
    degree = rowptr[rows + 1] - rowptr[rows]  # [M]
    bounds = torch.zeros(rows.numel() + 1, dtype=torch.int64, device=rowptr.device)
    torch.cumsum(degree, 0, out=bounds[1:])
    total = int(bounds[-1])
    shift = (first - bounds[:-1]).repeat_interleave(degree, output_size=total)  # [edges]
    return bounds, shift.add_(torch.arange(total, device=rowptr.device))


def _narrow(index: Tensor, size: int) -> Tensor:
    """Node numbers as int32 where they fit: half the bytes that every later gather reads."""
    return index.to(torch.int32 if size <= torch.iinfo(torch.int32).max else torch.int64)


def _sort(row: Tensor, num_rows: int) -> tuple[Tensor, Tensor]:
    """`ops.csr` with the narrowest index type that can number rows and edges."""
    return ops.csr(_narrow(row, max(num_rows, row.numel())).contiguous(), num_rows)
