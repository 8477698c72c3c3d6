r"""Verification of calls with several kinds of nodes or edges.

As in `pyg_fullgraph.front.verify`, with one set of nodes per kind: for seeds :math:`S^t_0` of every kind :math:`t` that
the output has rows of, :math:`S^t_k` adds the sources of all edges that lead into :math:`S_{k-1}`, whatever their
relation. Where that is too much, or a value is reduced over all nodes, engine and forward both run on some edges of
every relation, drawn at random, and all rows are compared.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from pyg_fullgraph.front import verify as single
from pyg_fullgraph.front.compare import Pair, compare, leaves, pairs_of
from pyg_fullgraph.front.own import Forward, flows, in_float64, untouched
from pyg_fullgraph.front.verify import Inputs, Verification, failed

Kept = dict[str, Tensor]  # space -> numbers that remain, ascending


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
            tensors.append(tensor)
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
    nodes: Tensor | None = None,
    senders: Collection[int] | None = None,
    name: str = "model",
    budget: int = single.BUDGET,
    seed: int = 0,
) -> Verification:
    """Compares rows of a result with the model's own forward, of one kind of nodes and edges or of several.

    Args:
        inputs, output, forward, engine, hops, global_reduction, nodes, senders, name, budget, seed: as in
            `pyg_fullgraph.front.verify.verify`.

    Raises:
        FullGraphMismatch: if a row differs by more than the tolerance of its dtype.
    """
    if inputs.among_nodes():
        return single.verify(
            inputs, output, forward=forward, engine=engine, hops=hops, global_reduction=global_reduction,
            nodes=nodes, senders=senders, name=name, budget=budget, seed=seed,
        )  # fmt: skip
    directions = set(senders) if senders is not None else flows(forward)
    call = _typed(inputs, 1 if directions == {1} else 0)
    if isinstance(call, str):
        return Verification("none", reason=call)
    model, forward = forward, untouched(forward)
    generator = torch.Generator().manual_seed(seed)
    reason = "a value is reduced over all nodes" if global_reduction else ""
    reason = reason or ("layers send messages in both directions of an edge" if len(directions) > 1 else "")
    reason = reason or ("only some rows were asked for" if nodes is not None else "")
    reason = reason or ("numbers of nodes are computed with" if call.whole else "")
    if not reason:
        rows = _rows_of_kinds(output, call.sizes)
        seeds = {
            space: torch.randperm(call.sizes[space], generator=generator)[: single.SEEDS].sort().values
            for space in dict.fromkeys(space for space in rows if space is not None)
        }
        kept = neighborhood(call, seeds, hops, budget) if seeds else None
        if kept is not None:
            return _compare_rows(call, output, forward, model, kept, seeds, rows, name)
        reason = "the neighbourhood is too large" if seeds else "no output has one row per node of one kind"
    return _compare_drawn(call, forward, model, engine, generator, reason, name)


def _typed(inputs: Inputs, upstream: int) -> TypedInputs | str:
    """The call with its relations; the reason where it is not clear which nodes an edge list is between."""
    sizes = {
        dim: tensor.size(axis)
        for tensor, dims in zip(inputs.tensors, inputs.dims, strict=True)
        for axis, dim in enumerate(dims)
        if isinstance(dim, str)
    }
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


def _rows_of_kinds(output: Any, sizes: dict[str, int]) -> list[str | None]:
    """For every tensor of the output the space of its rows: by its key, else by its number of rows."""
    found: list[str | None] = []
    for path, leaf in pytree.tree_flatten_with_path(output)[0]:
        if not isinstance(leaf, Tensor):
            continue
        rows = leaf.size(0) if leaf.dim() else -1
        keys = [f"N:{getattr(key, 'key', '')}" for key in path]
        matching = [key for key in keys if sizes.get(key) == rows]
        matching = matching or [s for s, size in sizes.items() if s.startswith("N") and size == rows]
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


def _compare_rows(
    call: TypedInputs,
    output: Any,
    forward: Forward,
    model: Forward,
    kept: Kept,
    seeds: Kept,
    rows: list[str | None],
    name: str,
) -> Verification:
    """Forward on the neighbourhood, compared at the seeds."""
    expected = _attempt(call, forward, kept)
    if isinstance(expected, Exception):
        return failed(expected)
    exact = in_float64(model, call.restricted(_on_device(call, kept)))
    found = []
    both = zip(leaves(output), leaves(expected), rows, strict=True)
    for leaf, (ours, theirs, space) in enumerate(both):
        if space is not None and theirs.dim() and theirs.size(0) == kept[space].numel():
            at = torch.searchsorted(kept[space], seeds[space])
            pair = Pair(ours[seeds[space].to(ours.device)], theirs, at, leaf)
            found.append(compare([pair], seeds[space], name, "their exact in-neighbourhood", exact))
    count = sum(numbers.numel() for numbers in seeds.values())
    worst, allowed, amplified = (
        max((item[key] for item in found), default=0.0) for key in ("worst", "allowed", "amplified")
    )
    return Verification("neighbourhood", count, _count_edges(call, kept), worst, allowed, amplified=bool(amplified))


def _compare_drawn(
    call: TypedInputs,
    forward: Forward,
    model: Forward,
    engine: Forward,
    generator: torch.Generator,
    reason: str,
    name: str,
) -> Verification:
    """Forward and engine on some edges of every relation, compared at all rows."""
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
    kept = {**edges, **_numbers(inside)}
    expected = _attempt(call, forward, kept)
    if isinstance(expected, Exception):
        return failed(expected)
    args, kwargs = part = call.restricted(_on_device(call, kept))
    pairs = pairs_of(engine(*args, **kwargs), expected)
    where, exact = f"{_count_edges(call, kept):,} drawn edges", in_float64(model, part)
    found = compare(pairs, torch.empty(0), name, where, exact)
    count = sum(numbers.numel() for space, numbers in kept.items() if space.startswith("N"))
    return Verification("subgraph", count, _count_edges(call, kept), reason=reason, **found)


def _attempt(call: TypedInputs, forward: Forward, kept: Kept) -> Any:
    """Forward on a part of the graph; the exception where the user's code raises one."""
    args, kwargs = call.restricted(_on_device(call, kept))
    try:
        with torch.no_grad():
            return forward(*args, **kwargs)
    except Exception as error:  # the user's code may raise anything; it is reported, not hidden
        return error


def _on_device(call: TypedInputs, kept: Kept) -> Kept:
    device = call.inputs.tensors[call.relations[0].leaf].device
    return {space: numbers.to(device) for space, numbers in kept.items()}


def _count_edges(call: TypedInputs, kept: Kept) -> int:
    return sum(kept[relation.space].numel() for relation in call.relations)
