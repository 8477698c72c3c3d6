r"""The first result of a model is checked against the model's own forward, on a few random nodes.

The output row of a node depends on the edges that lead to it over at most :math:`L` hops, and through degrees
on the in-edges of every node that it reads. So for seeds :math:`S_0` and
:math:`S_k = S_{k-1} \cup \{ j : (j, i) \in E, i \in S_{k-1} \}`, forward on the edges whose destination lies
in :math:`S_L` gives, at the seeds, what forward on the whole graph gives. Where that is too much (a few hops
in a social network reach everything), or where a model reads all nodes at once, the engine and the model's
forward are both run on a small induced subgraph, and all rows are compared.

A model may look at a node's number, or fail on a part of the graph, so that its forward on renumbered nodes is not what
it is on the whole graph. So before a result is refused, and where the forward failed, the comparison is made with fewer
and fewer assumptions (`first_that_agrees`): all nodes with fewer edges, then, if it is small enough, the whole graph.

Everything here works on plain callables: what is compared may be anything that takes the arguments of
forward.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from pyg_fullgraph.capture.hooks import Hidden
from pyg_fullgraph.front.attempts import NO_ROWS, Attempt, Verification, first_that_agrees, on_a_part, whole
from pyg_fullgraph.front.compare import Pair, compare, has_matrix, pairs_of, side_by_side, tensors_of
from pyg_fullgraph.front.neighborhood import in_neighborhood, small_subgraph
from pyg_fullgraph.front.own import Forward, Own, flows

SEEDS = 8
BUDGET = 200_000
SUBGRAPH_EDGES = 20_000
COUNTED = "the number of edges is computed with"


@dataclass(frozen=True)
class Inputs:
    """The arguments of one call of forward, taken apart.

    Attributes:
        tensors: all tensors among the arguments.
        dims: per tensor and axis, the name of the space it counts (``"N"``, ``"E"``) or a fixed size.
        rebuild: puts the arguments together again around other tensors: ``(args, kwargs)``.
        upstream: row of the edge list that holds the sources: 0, or 1 with ``flow="target_to_source"``.
        ends: per tensor, the spaces that the two rows of an edge list number (``None`` for one without a name);
            ``None`` where indices are computed from it in another way, and ``()`` for what is no edge list. By shapes
            and names where they are not given.
    """

    tensors: Sequence[Tensor]
    dims: Sequence[tuple[int | str, ...]]
    rebuild: Callable[[list[Tensor]], tuple[tuple[Any, ...], dict[str, Any]]]
    upstream: int = 0
    ends: Sequence[tuple[str | None, ...] | None] | None = None

    def graphs(self) -> list[int]:
        """The numbers of the edge lists ``[2, E]`` among the tensors."""
        return [
            i
            for i, (tensor, dims) in enumerate(zip(self.tensors, self.dims, strict=True))
            if len(dims) == 2
            and dims[0] == 2
            and isinstance(dims[1], str)
            and not tensor.is_floating_point()
            and (self.ends is None or self.ends[i] != ())
        ]

    def among_nodes(self) -> bool:
        """Whether there is one edge list, between nodes of one kind, and nothing else to count."""
        graphs = self.graphs()
        if len(graphs) != 1 or self.spaces() - {"N", self.dims[graphs[0]][1]}:
            return False
        return "N" in self.spaces() and (self.ends is None or self.ends[graphs[0]] == ("N", "N"))

    def spaces(self) -> set[str]:
        """The names of all spaces."""
        return {dim for dims in self.dims for dim in dims if isinstance(dim, str)}

    def num_nodes(self) -> int:
        """The size of the space of nodes."""
        sizes = [
            tensor.size(axis)
            for tensor, dims in zip(self.tensors, self.dims, strict=True)
            for axis, dim in enumerate(dims)
            if dim == "N"
        ]
        return int(sizes[0]) if sizes else 0

    def copied(self) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Returns the arguments with copies of all tensors: a forward may write into them."""
        return self.rebuild([tensor.clone() for tensor in self.tensors])

    def restricted(self, edges: Tensor, nodes: Tensor | None) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Returns the arguments for some of the edges, renumbered to some of the nodes.

        Args:
            edges: ``[E']``, numbers of the edges to keep, ascending: sums run in the order of the whole
                graph.
            nodes: ``[N']``, ascending; node ``nodes[k]`` becomes ``k``. ``None`` keeps all nodes and their
                numbers.
        """
        graphs = self.graphs()
        place = None
        if nodes is not None:
            place = torch.full((self.num_nodes(),), -1, dtype=torch.int64, device=nodes.device)
            place[nodes] = torch.arange(nodes.numel(), device=nodes.device)
        tensors = []
        for i, (tensor, dims) in enumerate(zip(self.tensors, self.dims, strict=True)):
            for axis, dim in enumerate(dims):
                if isinstance(dim, str) and dim.startswith("E"):
                    tensor = tensor.index_select(axis, edges)
                elif dim == "N" and nodes is not None:
                    tensor = tensor.index_select(axis, nodes)
            if i in graphs and place is not None:
                tensor = place[tensor.long()].to(tensor.dtype)
            tensors.append(tensor.clone() if tensor is self.tensors[i] else tensor)
        return self.rebuild(tensors)


def verify(
    inputs: Inputs,
    output: Any,
    *,
    forward: Forward,
    engine: Forward,
    hops: int | None,
    global_reduction: bool = False,
    nodes: Tensor | None = None,
    name: str = "model",
    seeds: int = SEEDS,
    budget: int = BUDGET,
    seed: int = 0,
    senders: Collection[int] | None = None,
    writes: bool = False,
    hidden: Hidden | None = None,
    counted: bool = False,
) -> Verification:
    """Compares rows of a result with the model's own forward.

    Args:
        inputs: the call.
        output: what the engine returned for it; every tensor in it with one row per node is compared.
        forward: the model's forward, run on a restriction of the call. Of a module with a method ``oracle``
            (a rewritten model), that is run; a module's caches (``cached=True``) are neither used nor filled,
            and where ``senders`` is None the ``flow`` of its layers says which way messages go.
        engine: the same arguments, run by the engine; used for the induced subgraph.
        hops: over how many edges a row of the output can see; ``None`` means as far as there are edges.
        global_reduction: whether some value is reduced over all nodes, so that no neighbourhood is enough.
        nodes: which node each row of the output belongs to; ``None`` means row ``i`` is node ``i``.
        name: what the model is called in messages.
        seeds: how many nodes to recompute.
        budget: the largest number of edges to run the model's forward on.
        seed: of the random choice of nodes.
        senders: rows of the edge list that messages come from, where they are known.
        counted: whether the number of edges, or the place of one, is computed with: with fewer edges forward may give
            other rows, so engine and forward are compared on the same few edges before the result is refused.
        writes, hidden: whether forward changes something that outlives the call, and what else is asked of it; see
            `Own`.

    Raises:
        FullGraphMismatch: if a row differs by more than the tolerance of its dtype.
    """
    graphs, num_nodes = inputs.graphs(), inputs.num_nodes()
    if not inputs.among_nodes():
        return Verification("none", reason="more than one node or edge type")
    rows = num_nodes if nodes is None else nodes.numel()
    if rows == 0:
        return Verification("none", reason=NO_ROWS)
    senders = flows(forward) if senders is None else set(senders)
    if senders == {1}:
        inputs = replace(inputs, upstream=1)
    edge_index = inputs.tensors[graphs[0]]
    generator = torch.Generator().manual_seed(seed)
    chosen = torch.randperm(rows, generator=generator)[:seeds].sort().values.to(edge_index.device)  # rows of the output
    targets = chosen if nodes is None else nodes.to(edge_index.device)[chosen]
    by_node = [leaf.dim() > 0 and leaf.size(0) == rows for leaf in tensors_of(output)]
    check = _Check(
        inputs, output, Own(forward, name, writes, hidden), engine, nodes, by_node, edge_index, budget, counted
    )
    reason = "a value is reduced over all nodes" if global_reduction else ""
    if len(senders) > 1:
        reason = "layers send messages in both directions of an edge"
    if not reason and has_matrix(output):
        reason = "a sparse matrix is returned"
    if not reason and not any(by_node):
        reason = "the output has no row per node"
    if reason:
        return check.on_a_subgraph(targets[:1], reason)
    reached = in_neighborhood(edge_index, targets, hops, num_nodes, budget, inputs.upstream)
    if reached is None:
        return check.on_a_subgraph(targets[:1], f"their neighbourhood has more than {budget:,} edges")
    found = check.on_the_neighbourhood(*reached, chosen, targets)
    if found.how == "neighbourhood" and not all(by_node):  # it says nothing of rows that are no nodes
        check.on_a_subgraph(targets[:1], "")
    return found


@dataclass(frozen=True)
class _Check:
    """One comparison, see `verify`; `by_node` tells which tensors of the output have one row per node."""

    inputs: Inputs
    output: Any
    own: Own
    engine: Forward
    nodes: Tensor | None
    by_node: list[bool]
    edge_index: Tensor
    budget: int
    counted: bool

    def on_the_neighbourhood(self, edges: Tensor, around: Tensor, chosen: Tensor, targets: Tensor) -> Verification:
        """The chosen rows compared with forward on these edges, and on the nodes around them or all nodes."""
        parts = (around, None)
        tries = [partial(self._rows, edges, kept, chosen, targets) for kept in parts]
        last = self._whole("")
        if self.counted and not last:
            last = self._parts(targets[:1], COUNTED)
        return first_that_agrees([*tries, *last])

    def on_a_subgraph(self, start: Tensor, reason: str) -> Verification:
        """Forward and engine compared on a few edges around a node, and the nodes on them or all nodes."""
        return first_that_agrees([*self._parts(start, reason), *self._whole(reason)])

    def _parts(self, start: Tensor, reason: str) -> list[Attempt]:
        limit = min(self.budget, SUBGRAPH_EDGES)
        edges, around = small_subgraph(self.edge_index, start, self.inputs.num_nodes(), limit)
        return [partial(self._part, edges, kept, reason) for kept in (around, None)]

    def _whole(self, reason: str) -> list[Attempt]:
        """The comparison on the whole graph, where it takes neither too long nor too much memory."""
        too_large = max(self.edge_index.size(1), self.inputs.num_nodes()) > self.budget
        if too_large or (self.nodes is not None and has_matrix(self.output)):
            return []

        def rows(leaf: int, theirs: Tensor) -> Tensor | None:
            per_node = self.by_node[leaf] and theirs.dim() > 0 and theirs.size(0) == self.inputs.num_nodes()
            return self.nodes if per_node else None

        call = self.inputs.copied
        return [partial(whole, self.own, call, self.output, rows, self.edge_index.size(1), reason)]

    def _rows(self, edges: Tensor, kept: Tensor | None, chosen: Tensor, targets: Tensor) -> Verification:
        call = partial(self.inputs.restricted, edges, kept)
        both = side_by_side(self.output, self.own(call))
        at = targets if kept is None else torch.searchsorted(kept, targets)
        num = self.inputs.num_nodes() if kept is None else kept.numel()
        pairs = [
            Pair(ours[chosen.to(ours.device)], theirs, at, leaf)
            for leaf, (ours, theirs) in enumerate(both)
            if self.by_node[leaf] and theirs.dim() > 0 and theirs.size(0) == num
        ]
        found = compare(pairs, targets, self.own.name, "their exact in-neighbourhood", self.own.again(call))
        return Verification("neighbourhood", targets.numel(), edges.numel(), **found)

    def _part(self, edges: Tensor, kept: Tensor | None, reason: str) -> Verification:
        call = partial(self.inputs.restricted, edges, kept)
        expected = self.own(call)
        pairs = pairs_of(on_a_part(self.engine, call), expected)
        shown = kept if kept is not None else torch.arange(self.inputs.num_nodes())
        where = f"a subgraph of {edges.numel():,} edges"
        found = compare(pairs, shown, self.own.name, where, self.own.again(call))
        return Verification("subgraph", shown.numel(), edges.numel(), reason=reason, **found)
