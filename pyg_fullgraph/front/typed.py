r"""Verification of calls with several kinds of nodes or edges.

As in `pyg_fullgraph.front.verify`, with its further ways, and with one set of nodes per kind: for seeds
:math:`S^t_0` of every kind :math:`t` that the output has rows of, :math:`S^t_k` adds the sources of all edges that lead
into :math:`S_{k-1}`, whatever their relation. Where that is too much, or a value is reduced over all nodes, engine and
forward both run on some edges of every relation, drawn at random, and all rows are compared.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from pyg_fullgraph.capture.hooks import Hidden
from pyg_fullgraph.capture.returned import paths_of
from pyg_fullgraph.front import verify as single
from pyg_fullgraph.front.attempts import NO_ROWS, Attempt, Verification, first_that_agrees, on_a_part, whole
from pyg_fullgraph.front.compare import Pair, compare, has_matrix, pairs_of, side_by_side
from pyg_fullgraph.front.own import Forward, Own, flows
from pyg_fullgraph.front.verify import Inputs

Kept = dict[str, Tensor]  # space -> numbers that remain, ascending
Asked = Mapping[str, Tensor] | None  # space -> which node each row of the output belongs to


@dataclass(frozen=True)
class Relation:
    """An edge list among the arguments.

    Attributes:
        leaf: its number among the tensors.
        space: that counts its edges.
        ends: the spaces of its sources and of its destinations, in the order of messages; None for one without a name,
            whose numbers stay as they are.
        upstream: the row of the edge list that holds the sources.
    """

    leaf: int
    space: str
    ends: tuple[str | None, str | None]
    upstream: int


@dataclass(frozen=True)
class TypedInputs:
    """The arguments of one call on a graph with several kinds of nodes or edges.

    Attributes:
        inputs: the call.
        relations: its edge lists.
        sizes: of all spaces.
        whole: whether nodes keep their numbers, since something is computed from these.
    """

    inputs: Inputs
    relations: list[Relation]
    sizes: dict[str, int]
    whole: bool = False

    def restricted(self, kept: Kept) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """The arguments for the nodes and edges of ``kept``, renumbered."""
        ends = {relation.leaf: relation for relation in self.relations}
        tensors = []
        for i, (tensor, dims) in enumerate(zip(self.inputs.tensors, self.inputs.dims, strict=True)):
            for axis, dim in enumerate(dims):
                if isinstance(dim, str) and dim in kept:
                    tensor = tensor.index_select(axis, kept[dim])
            if i in ends:
                rows = ends[i].ends if ends[i].upstream == 0 else ends[i].ends[::-1]
                both = [_renumbered(tensor[row], space, kept) for row, space in enumerate(rows)]
                tensor = torch.stack(both).to(tensor.dtype)
            tensors.append(tensor.clone() if tensor is self.inputs.tensors[i] else tensor)
        return self.inputs.rebuild(tensors)

    def edges(self, relation: Relation) -> tuple[Tensor, Tensor]:
        """Sources and destinations."""
        edge_index = self.inputs.tensors[relation.leaf].long()
        return edge_index[relation.upstream], edge_index[1 - relation.upstream]


def verify(
    inputs: Inputs,
    output: Any,
    *,
    forward: Forward,
    engine: Forward,
    hops: int | None,
    global_reduction: bool = False,
    nodes: Asked = None,
    senders: Collection[int] | None = None,
    name: str = "model",
    budget: int = single.BUDGET,
    seed: int = 0,
    writes: bool = False,
    hidden: Hidden | None = None,
    counted: bool = False,
) -> Verification:
    """Compares rows of a result with the model's own forward, of one kind of nodes and edges or of several.

    Args:
        inputs, output, forward, engine, hops, global_reduction, senders, name, budget, seed: as in
            `pyg_fullgraph.front.verify.verify`.
        nodes: space of nodes -> which of them each row of the output belongs to; those of all where it is not there.
        writes, hidden, counted: as there.

    Raises:
        FullGraphMismatch: if a row differs by more than the tolerance of its dtype.
    """
    nodes = dict(nodes or {})
    if inputs.among_nodes():
        return single.verify(
            inputs, output, forward=forward, engine=engine, hops=hops, global_reduction=global_reduction,
            nodes=nodes.get("N"), senders=senders, name=name, budget=budget, seed=seed, writes=writes, hidden=hidden,
            counted=counted,
        )  # fmt: skip
    if nodes and not any(numbers.numel() for numbers in nodes.values()):
        return Verification("none", reason=NO_ROWS)
    directions = set(senders) if senders is not None else flows(forward)
    call, own = _typed(inputs, 1 if directions == {1} else 0), Own(forward, name, writes, hidden)
    sizes = _sizes(inputs)
    check = _Check(
        call, inputs, output, own, engine, sizes, nodes, _rows_of_kinds(output, sizes, nodes), budget, counted
    )
    if isinstance(call, str):
        return first_that_agrees(check.on_all(call), otherwise=call)
    generator = torch.Generator().manual_seed(seed)
    reason = "a value is reduced over all nodes" if global_reduction else ""
    reason = reason or ("layers send messages in both directions of an edge" if len(directions) > 1 else "")
    reason = reason or ("numbers of nodes are computed with" if call.whole else "")
    reason = reason or ("a sparse matrix is returned" if has_matrix(output) else "")
    if not reason:
        found = check.on_the_neighbourhood(generator, hops)
        if not isinstance(found, str):
            return found
        reason = found
    return check.on_drawn_edges(generator, reason)


@dataclass(frozen=True)
class _Check:
    """One comparison, see `verify`; `spaces` has for every tensor of the output what its rows count."""

    call: Any
    inputs: Inputs
    output: Any
    own: Own
    engine: Forward
    sizes: dict[str, int]
    nodes: dict[str, Tensor]
    spaces: list[str | None]
    budget: int
    counted: bool

    def on_the_neighbourhood(self, generator: torch.Generator, hops: int | None) -> Verification | str:
        """Some rows of every kind compared with forward on all that leads to them; or why that cannot be."""
        chosen, seeds = {}, {}
        for space in dict.fromkeys(space for space in self.spaces if space is not None):
            asked = self.nodes.get(space)
            rows = self.sizes[space] if asked is None else asked.numel()
            chosen[space] = torch.randperm(rows, generator=generator)[: single.SEEDS].sort().values
            seeds[space] = chosen[space] if asked is None else asked.cpu()[chosen[space]]
        if not seeds:
            return "no output has one row per node of one kind"
        kept = neighborhood(self.call, seeds, hops, self.budget)
        if kept is None:
            return "the neighbourhood is too large"
        tries = [partial(self._rows, part, chosen, seeds) for part in (kept, self._with_all_nodes(kept))]
        last = self.on_all("")
        if self.counted and not last:
            last = self._drawn(generator, single.COUNTED)
        return first_that_agrees([*tries, *last])

    def on_drawn_edges(self, generator: torch.Generator, reason: str) -> Verification:
        """Forward and engine compared on some edges of every relation, and the nodes on them or all nodes."""
        return first_that_agrees([*self._drawn(generator, reason), *self.on_all(reason)])

    def _drawn(self, generator: torch.Generator, reason: str) -> list[Attempt]:
        kept = _drawn(self.call, generator)
        return [partial(self._part, part, reason) for part in (kept, self._with_all_nodes(kept))]

    def on_all(self, reason: str) -> list[Attempt]:
        """The comparison on the whole graph, where it takes neither too long nor too much memory."""
        too_large = max(self.sizes.values(), default=0) > self.budget
        if too_large or (self.nodes and has_matrix(self.output)):
            return []
        edges = sum(self.inputs.tensors[i].size(1) for i in self.inputs.graphs())
        call = self.inputs.copied

        def rows(leaf: int, theirs: Tensor) -> Tensor | None:
            space = self.spaces[leaf]
            return self.nodes.get(space) if space is not None and theirs.size(0) == self.sizes[space] else None

        return [partial(whole, self.own, call, self.output, rows, edges, reason)]

    def _with_all_nodes(self, kept: Kept) -> Kept:
        return {space: torch.arange(self.sizes[space]) if space.startswith("N") else kept[space] for space in kept}

    def _rows(self, kept: Kept, chosen: Kept, seeds: Kept) -> Verification:
        call = partial(self.call.restricted, _on_device(self.call, kept))
        pairs, shown = [], []
        for leaf, (ours, theirs) in enumerate(side_by_side(self.output, self.own(call))):
            space = self.spaces[leaf]
            if space is not None and theirs.dim() and theirs.size(0) == kept[space].numel():
                at = torch.searchsorted(kept[space], seeds[space])
                pairs.append(Pair(ours[chosen[space].to(ours.device)], theirs, at, leaf))
                shown.append(seeds[space])
        found = compare(pairs, shown, self.own.name, "their exact in-neighbourhood", self.own.again(call))
        count = sum(numbers.numel() for numbers in seeds.values())
        return Verification("neighbourhood", count, _count_edges(self.call, kept), **found)

    def _part(self, kept: Kept, reason: str) -> Verification:
        call = partial(self.call.restricted, _on_device(self.call, kept))
        expected = self.own(call)
        pairs = pairs_of(on_a_part(self.engine, call), expected)
        where = f"{_count_edges(self.call, kept):,} drawn edges"
        found = compare(pairs, torch.empty(0), self.own.name, where, self.own.again(call))
        count = sum(numbers.numel() for space, numbers in kept.items() if space.startswith("N"))
        return Verification("subgraph", count, _count_edges(self.call, kept), reason=reason, **found)


def _sizes(inputs: Inputs) -> dict[str, int]:
    """The size of every space."""
    return {
        dim: tensor.size(axis)
        for tensor, dims in zip(inputs.tensors, inputs.dims, strict=True)
        for axis, dim in enumerate(dims)
        if isinstance(dim, str)
    }


def _typed(inputs: Inputs, upstream: int) -> TypedInputs | str:
    """The call with its relations; the reason where it is not clear which nodes an edge list is between."""
    sizes = _sizes(inputs)
    relations, whole = [], False
    for leaf in inputs.graphs():
        space = str(inputs.dims[leaf][1])
        ends = _ends(space, sizes) if inputs.ends is None else inputs.ends[leaf]
        if ends is None and inputs.ends is None:
            return f"it is not known which nodes '{space}' is between"
        if ends is None:
            whole = True
            continue
        source, destination = ends
        relations.append(
            Relation(leaf, space, (source, destination) if upstream == 0 else (destination, source), upstream)
        )
    counted = {relation.space for relation in relations} | {s for s in sizes if s.startswith("N")}
    if not relations or (inputs.ends is None and set(sizes) - counted):
        return "an argument has rows that no edge list and no kind of node counts"
    if not all(size for name, size in sizes.items() if name.startswith("N")):
        return "a kind of nodes is empty"
    return TypedInputs(inputs, relations, sizes, whole)


def _renumbered(numbers: Tensor, space: str | None, kept: Kept) -> Tensor:
    return numbers if space is None or space not in kept else torch.searchsorted(kept[space], numbers.long())


def _ends(space: str, sizes: dict[str, int]) -> tuple[str, str] | None:
    """The spaces of the two rows of an edge list, by its name ``E:source__relation__destination``."""
    parts = space.removeprefix("E:").split("__")
    if f"N:{parts[0]}" in sizes and f"N:{parts[-1]}" in sizes and len(parts) >= 3:
        return f"N:{parts[0]}", f"N:{parts[-1]}"
    nodes = {name for name in sizes if name.startswith("N")}
    if nodes == {"N"}:
        return "N", "N"
    return ("N:src", "N:dst") if nodes == {"N:src", "N:dst"} else None


def _rows_of_kinds(output: Any, sizes: dict[str, int], nodes: Mapping[str, Tensor]) -> list[str | None]:
    """For every tensor of the output the space of its rows: by its key, else by its number of rows."""
    counts = {s: nodes[s].numel() if s in nodes else size for s, size in sizes.items() if s.startswith("N")}
    found: list[str | None] = []
    for path, leaf in paths_of(output):
        if not isinstance(leaf, Tensor):
            continue
        if leaf.layout != torch.strided:  # see `compare.tensors_of`
            found += [None, None]
            continue
        rows = leaf.size(0) if leaf.dim() else -1
        keys = [f"N:{key}" for key in path]
        matching = [key for key in keys if counts.get(key) == rows]
        matching = matching or [space for space, count in counts.items() if count == rows]
        found.append(matching[0] if len(matching) == 1 else None)
    return found


def neighborhood(call: TypedInputs, seeds: Kept, hops: int | None, budget: int) -> Kept | None:
    """All edges whose destination lies within ``hops`` of the seeds, and all nodes on them.

    Args:
        call: the graph.
        seeds: node numbers by space.
        hops: how far to go against the edges; ``None`` until nothing new is found.
        budget: gives up beyond this many edges.

    Returns:
        Numbers per space of nodes and edges (at least node 0 of every kind); ``None`` beyond the budget.
    """
    inside = {s: torch.zeros(n, dtype=torch.bool) for s, n in call.sizes.items() if s.startswith("N")}
    for space, numbers in seeds.items():
        inside[space][numbers] = True
    steps, edges = 0, _into(call, inside)
    while hops is None or steps < hops:
        if sum(e.numel() for e in edges.values()) > budget:
            return None
        before = sum(int(mask.sum()) for mask in inside.values())
        _add_sources(call, inside, edges)
        if sum(int(mask.sum()) for mask in inside.values()) == before:
            break
        edges = _into(call, inside)
        steps += 1
    if sum(e.numel() for e in edges.values()) > budget:
        return None
    _add_sources(call, inside, edges)
    return {**edges, **_numbers(inside)}


def _into(call: TypedInputs, inside: Kept) -> Kept:
    """The edges of every relation with a destination inside."""
    return {r.space: _reached(call, r, inside).nonzero().view(-1) for r in call.relations}


def _reached(call: TypedInputs, relation: Relation, inside: Kept) -> Tensor:
    """Which edges have a destination inside; all of those to destinations without a name."""
    destinations, space = call.edges(relation)[1].cpu(), relation.ends[1]
    return torch.ones_like(destinations, dtype=torch.bool) if space is None else inside[space][destinations]


def _add_sources(call: TypedInputs, inside: Kept, edges: Kept) -> None:
    for relation in call.relations:
        space = relation.ends[0]
        if space is not None:
            inside[space][call.edges(relation)[0].cpu()[edges[relation.space]]] = True


def _numbers(inside: Kept) -> Kept:
    """Node numbers; a kind without any gets its first node, since layers branch on empty ones."""
    for mask in inside.values():
        if not mask.any():
            mask[0] = True
    return {space: mask.nonzero().view(-1) for space, mask in inside.items()}


def _drawn(call: TypedInputs, generator: torch.Generator) -> Kept:
    """Some edges of every relation, and the nodes on them."""
    most = max(single.SUBGRAPH_EDGES // len(call.relations), 1)
    inside = {s: torch.zeros(n, dtype=torch.bool) for s, n in call.sizes.items() if s.startswith("N")}
    edges: Kept = {}
    for relation in call.relations:
        drawn = torch.randperm(call.sizes[relation.space], generator=generator)[:most].sort().values
        edges[relation.space] = drawn
        for numbers, space in zip(call.edges(relation), relation.ends, strict=True):
            if space is not None:
                inside[space][numbers.cpu()[drawn]] = True
    if call.whole:
        inside = {space: torch.ones_like(mask) for space, mask in inside.items()}
    return {**edges, **_numbers(inside)}


def _on_device(call: TypedInputs, kept: Kept) -> Kept:
    device = call.inputs.tensors[call.relations[0].leaf].device
    return {space: numbers.to(device) for space, numbers in kept.items()}


def _count_edges(call: TypedInputs, kept: Kept) -> int:
    return sum(kept[relation.space].numel() for relation in call.relations)
