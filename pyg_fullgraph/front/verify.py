r"""The first result of a model is checked against the model's own forward, on a few random nodes.

The output row of a node depends on the edges that lead to it over at most :math:`L` hops, and through degrees
on the in-edges of every node that it reads. So for seeds :math:`S_0` and
:math:`S_k = S_{k-1} \cup \{ j : (j, i) \in E, i \in S_{k-1} \}`, forward on the edges whose destination lies
in :math:`S_L` gives, at the seeds, what forward on the whole graph gives. Where that is too much (a few hops
in a social network reach everything), or where a model reads all nodes at once, the engine and the model's
forward are both run on a small induced subgraph, and all rows are compared.

Everything here works on plain callables: what is compared may be anything that takes the arguments of
forward.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from pyg_fullgraph.front.compare import Pair, compare, leaves, pairs_of
from pyg_fullgraph.front.neighborhood import in_neighborhood, small_subgraph
from pyg_fullgraph.front.own import Forward, flows, in_float64, untouched

SEEDS = 8
BUDGET = 200_000
SUBGRAPH_EDGES = 20_000


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
            tensors.append(tensor)
        return self.rebuild(tensors)


@dataclass(frozen=True)
class Verification:
    """What was compared, and how close it was.

    Attributes:
        how: ``"neighbourhood"``, ``"subgraph"`` or ``"none"``.
        nodes: how many rows were compared.
        edges: how many edges the model's forward ran on.
        worst: the largest difference found.
        allowed: the largest difference allowed.
        reason: why not the exact neighbourhood, or why nothing was compared.
        amplified: whether the model amplifies rounding; ``worst`` is then the distance to float64.
    """

    how: str
    nodes: int = 0
    edges: int = 0
    worst: float = 0.0
    allowed: float = 0.0
    reason: str = ""
    amplified: bool = False

    def __str__(self) -> str:
        if self.how == "none":
            return f"not verified: {self.reason}"
        where = "their exact neighbourhood" if self.how == "neighbourhood" else "an induced subgraph"
        because = f" ({self.reason})" if self.reason else ""
        return (
            f"verified {self.nodes:,} nodes against the model's forward on {where}, {self.edges:,} "
            f"edges{because}: largest difference {self.worst:.1e}, allowed {self.allowed:.1e}"
            + (", from the model in float64, since it amplifies rounding" if self.amplified else "")
        )


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

    Raises:
        FullGraphMismatch: if a row differs by more than the tolerance of its dtype.
    """
    graphs, num_nodes = inputs.graphs(), inputs.num_nodes()
    if not inputs.among_nodes():
        return Verification("none", reason="more than one node or edge type")
    rows = num_nodes if nodes is None else nodes.numel()
    if rows == 0:
        return Verification("none", reason="no rows")
    senders = flows(forward) if senders is None else set(senders)
    if senders == {1}:
        inputs = replace(inputs, upstream=1)
    model, forward = forward, untouched(forward)
    edge_index = inputs.tensors[graphs[0]]
    generator = torch.Generator().manual_seed(seed)
    chosen = torch.randperm(rows, generator=generator)[:seeds].sort().values.to(edge_index.device)  # rows of the output
    targets = chosen if nodes is None else nodes.to(edge_index.device)[chosen]
    reason = "a value is reduced over all nodes" if global_reduction else ""
    if len(senders) > 1:
        reason = "layers send messages in both directions of an edge"
    if not reason:
        reached = in_neighborhood(edge_index, targets, hops, num_nodes, budget, inputs.upstream)
        if reached is None:
            reason = f"their neighbourhood has more than {budget:,} edges"
        elif not _by_node(output, rows):
            reason = "the output has no row per node"
        else:
            return _compare_rows(inputs, output, forward, model, reached, chosen, targets, rows, name)
    limit = min(budget, SUBGRAPH_EDGES)
    return _compare_subgraph(inputs, forward, model, engine, targets[:1], reason, name, limit)


def _compare_rows(
    inputs: Inputs,
    output: Any,
    forward: Forward,
    model: Forward,
    reached: tuple[Tensor, Tensor],
    chosen: Tensor,
    targets: Tensor,
    rows: int,
    name: str,
) -> Verification:
    """Forward on the neighbourhood, compared at the targets."""
    edges, around = reached
    expected, kept = _run_restricted(inputs, forward, edges, around)
    if isinstance(expected, Exception):
        return failed(expected)
    at = targets if kept is None else torch.searchsorted(around, targets)
    num = inputs.num_nodes() if kept is None else around.numel()
    pairs = []
    for leaf, (ours, theirs) in enumerate(zip(leaves(output), leaves(expected), strict=True)):
        if ours.dim() > 0 and theirs.dim() > 0 and ours.size(0) == rows and theirs.size(0) == num:
            pairs.append(Pair(ours[chosen.to(ours.device)], theirs, at, leaf))
    exact = in_float64(model, inputs.restricted(edges, kept))
    found = compare(pairs, targets, name, "their exact in-neighbourhood", exact)
    return Verification("neighbourhood", targets.numel(), edges.numel(), **found)


def _compare_subgraph(
    inputs: Inputs,
    forward: Forward,
    model: Forward,
    engine: Forward,
    start: Tensor,
    reason: str,
    name: str,
    limit: int,
) -> Verification:
    """Forward and engine on a small induced subgraph, compared at all its nodes."""
    edge_index = inputs.tensors[inputs.graphs()[0]]
    edges, around = small_subgraph(edge_index, start, inputs.num_nodes(), limit)
    expected, kept = _run_restricted(inputs, forward, edges, around)
    if isinstance(expected, Exception):
        return failed(expected)
    call = inputs.restricted(edges, kept)
    args, kwargs = call
    pairs = pairs_of(engine(*args, **kwargs), expected)
    shown = around if kept is not None else torch.arange(inputs.num_nodes())
    found = compare(pairs, shown, name, f"a subgraph of {edges.numel():,} edges", in_float64(model, call))
    return Verification("subgraph", around.numel(), edges.numel(), reason=reason, **found)


def _run_restricted(inputs: Inputs, forward: Forward, edges: Tensor, around: Tensor) -> tuple[Any, Tensor | None]:
    """Forward on some edges, renumbered; a model with one parameter per node gets all nodes instead."""
    failure: Exception | None = None
    for nodes in (around, None):
        args, kwargs = inputs.restricted(edges, nodes)
        try:
            with torch.no_grad():
                return forward(*args, **kwargs), nodes
        except Exception as error:  # the user's code may raise anything; it is reported, not hidden
            failure = failure or error
    return failure, None


def _by_node(output: Any, rows: int) -> bool:
    """Whether some tensor of the output has one row per node."""
    return any(leaf.dim() > 0 and leaf.size(0) == rows for leaf in leaves(output))


def failed(error: Exception) -> Verification:
    """Nothing was compared: the model's forward raised this on a part of the graph."""
    lines = str(error).strip().splitlines()
    what = f"{type(error).__name__}: {lines[0] if lines else ''}"
    return Verification("none", reason=f"the model's forward fails on a part of the graph: {what}")
