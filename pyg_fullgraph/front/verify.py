r"""The first result of a model is checked against the model's own forward, on a few random nodes.

The output row of a node depends on the edges that lead to it over at most :math:`L` hops, and through degrees
on the in-edges of every node that it reads. So for seeds :math:`S_0` and
:math:`S_k = S_{k-1} \cup \{ j : (j, i) \in E, i \in S_{k-1} \}`, forward on the edges whose destination lies
in :math:`S_L` gives, at the seeds, what forward on the whole graph gives. Where that is too much (a few hops
in a social network reach everything), or where a model reads all nodes at once, the engine and the model's
forward are both run on a small induced subgraph, and all rows are compared.

Some models amplify rounding (a standard deviation of messages that are nearly equal, say), so that their own
float32 forward is far from what they define. Where a difference is too large, the module runs once more in
float64, and the result has to be about as close to that as the module's own forward is.

Everything here works on plain callables: what is compared may be anything that takes the arguments of
forward.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from pyg_fullgraph.capture.modules import preserved
from pyg_fullgraph.errors import FullGraphMismatch

Forward = Callable[..., Any]

SEEDS = 8
BUDGET = 200_000
SUBGRAPH_EDGES = 20_000
#: How many times farther from float64 than the model's own forward a result may be: both are maxima of random errors.
AMPLIFIED = 10
#: Largest allowed difference, as a fraction of the largest magnitude, by dtype of the output.
TOLERANCE = {torch.float64: 1e-9, torch.float32: 1e-4, torch.bfloat16: 5e-2, torch.float16: 1e-2}


@dataclass(frozen=True)
class Inputs:
    """The arguments of one call of forward, taken apart.

    Attributes:
        tensors: all tensors among the arguments.
        dims: per tensor and axis, the name of the space it counts (``"N"``, ``"E"``) or a fixed size.
        rebuild: puts the arguments together again around other tensors: ``(args, kwargs)``.
        upstream: row of the edge list that holds the sources: 0, or 1 with ``flow="target_to_source"``.
    """

    tensors: Sequence[Tensor]
    dims: Sequence[tuple[int | str, ...]]
    rebuild: Callable[[list[Tensor]], tuple[tuple[Any, ...], dict[str, Any]]]
    upstream: int = 0

    def graphs(self) -> list[int]:
        """The numbers of the edge lists ``[2, E]`` among the tensors."""
        return [
            i
            for i, (tensor, dims) in enumerate(zip(self.tensors, self.dims, strict=True))
            if len(dims) == 2 and dims[0] == 2 and isinstance(dims[1], str) and not tensor.is_floating_point()
        ]

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
    if len(graphs) != 1 or inputs.spaces() - {"N", inputs.dims[graphs[0]][1]}:
        return Verification("none", reason="more than one node or edge type")
    rows = num_nodes if nodes is None else nodes.numel()
    if rows == 0:
        return Verification("none", reason="no rows")
    senders = _flows(forward) if senders is None else set(senders)
    if senders == {1}:
        inputs = replace(inputs, upstream=1)
    double = in_double(forward)
    forward = _untouched(forward)
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
            return _compare_rows(inputs, output, forward, double, reached, chosen, targets, rows, name)
    limit = min(budget, SUBGRAPH_EDGES)
    return _compare_subgraph(inputs, forward, double, engine, targets[:1], reason, name, limit)


@contextmanager
def pristine(model: torch.nn.Module) -> Iterator[None]:
    """Lets a model run on another graph and forget it: caches of ``cached=True`` layers are not used or
    filled."""
    with preserved(model):
        for module in model.modules():
            attributes = vars(module)
            if attributes.get("cached") is True:
                attributes["cached"] = False
            for name in [name for name in attributes if name.startswith("_cached")]:
                attributes[name] = None
        yield


def _flows(forward: Forward) -> set[int]:
    """The rows of the edge list from which the layers of a module send messages."""
    if not isinstance(forward, torch.nn.Module):
        return set()
    flows = {str(getattr(module, "flow", "")) for module in forward.modules()}
    return {row for row, flow in enumerate(("source_to_target", "target_to_source")) if flow in flows}


def _untouched(forward: Forward) -> Forward:
    """The callable to trust, which leaves a module as it was."""
    if not isinstance(forward, torch.nn.Module):
        return forward
    module, trusted = forward, getattr(forward, "oracle", forward)

    def run(*args: Any, **kwargs: Any) -> Any:
        with pristine(module):
            return trusted(*args, **kwargs)

    return run


def in_double(forward: Forward) -> Forward | None:
    """The same module in float64, copied only when it is called; None of a plain callable."""
    if not isinstance(forward, torch.nn.Module):
        return None
    module = forward

    def run(*args: Any, **kwargs: Any) -> Any:
        wide = copy.deepcopy(module).double()
        args, kwargs = pytree.tree_map(_widened, (args, kwargs))
        return _untouched(wide)(*args, **kwargs)

    return run


def _widened(leaf: Any) -> Any:
    return leaf.double() if isinstance(leaf, Tensor) and leaf.is_floating_point() else leaf


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


@dataclass(frozen=True)
class Pair:
    """One tensor of a result, and the same of the model's forward on a part of the graph.

    Attributes:
        ours: the rows to compare.
        whole: all that forward gives.
        rows: which of its rows those are; ``None`` for all.
        leaf: its number among the tensors that forward returns.
    """

    ours: Tensor
    whole: Tensor
    rows: Tensor | None
    leaf: int

    def of(self, whole: Tensor) -> Tensor:
        """The rows to compare of another run of forward."""
        return whole if self.rows is None else whole[self.rows.to(whole.device)]


def _compare_rows(
    inputs: Inputs,
    output: Any,
    forward: Forward,
    double: Forward | None,
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
        return Verification("none", reason=f"the model's forward fails on a part of the graph: {_first_line(expected)}")
    at = targets if kept is None else torch.searchsorted(around, targets)
    num = inputs.num_nodes() if kept is None else around.numel()
    pairs = []
    for leaf, (ours, theirs) in enumerate(zip(_leaves(output), _leaves(expected), strict=True)):
        if ours.dim() > 0 and theirs.dim() > 0 and ours.size(0) == rows and theirs.size(0) == num:
            pairs.append(Pair(ours[chosen.to(ours.device)], theirs, at, leaf))
    exact = _exactly(double, inputs.restricted(edges, kept))
    found = compare(pairs, targets, name, "their exact in-neighbourhood", exact)
    return Verification("neighbourhood", targets.numel(), edges.numel(), **found)


def _compare_subgraph(
    inputs: Inputs,
    forward: Forward,
    double: Forward | None,
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
        return Verification("none", reason=f"the model's forward fails on a part of the graph: {_first_line(expected)}")
    call = inputs.restricted(edges, kept)
    args, kwargs = call
    pairs = pairs_of(engine(*args, **kwargs), expected)
    shown = around if kept is not None else torch.arange(inputs.num_nodes())
    found = compare(pairs, shown, name, f"a subgraph of {edges.numel():,} edges", _exactly(double, call))
    return Verification("subgraph", around.numel(), edges.numel(), reason=reason, **found)


def pairs_of(output: Any, expected: Any) -> list[Pair]:
    """All tensors of two results, side by side."""
    leaves = zip(_leaves(output), _leaves(expected), strict=True)
    return [Pair(ours, theirs, None, leaf) for leaf, (ours, theirs) in enumerate(leaves)]


def _exactly(double: Forward | None, call: tuple[tuple[Any, ...], dict[str, Any]]) -> Callable[[], list[Tensor]]:
    """The tensors that the model returns in float64; none where it does not run in that type."""

    def run() -> list[Tensor]:
        args, kwargs = call
        try:
            with torch.no_grad():
                return [] if double is None else _leaves(double(*args, **kwargs))
        except Exception:  # the user's code may raise anything; then float32 alone decides
            return []

    return run


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


def compare(
    pairs: list[Pair], nodes: Tensor, name: str, where: str, exact: Callable[[], list[Tensor]]
) -> dict[str, Any]:
    """The largest difference and what is allowed, as attributes of a `Verification`.

    Args:
        pairs: what to compare.
        nodes: the node of every compared row, for the message.
        name, where: of the model and of the part of the graph, for the message.
        exact: runs the model in float64 on that part; asked only if a difference is too large.

    Raises:
        FullGraphMismatch: a difference is too large.
    """
    worst, allowed, wide = 0.0, 0.0, None
    for pair in pairs:
        ours, theirs = pair.ours, pair.of(pair.whole)
        if ours.shape != theirs.shape:
            raise FullGraphMismatch(
                f"The result has shape {list(ours.shape)} where {name}.forward gives {list(theirs.shape)} "
                f"(on {where}). " + _ADVICE
            )
        difference, limit = _difference(ours, theirs)
        if difference.numel() == 0:
            continue
        largest = float(difference.max())
        if largest > limit:
            wide = exact() if wide is None else wide
            rounded = _rounding(pair, wide)
            if rounded is None or rounded[0] > rounded[1]:
                raise FullGraphMismatch(_describe(ours, theirs, difference, limit, nodes, name, where))
            largest, limit = rounded
        worst, allowed = max(worst, largest), max(allowed, limit)
    return {"worst": worst, "allowed": allowed, "amplified": wide is not None}


def _rounding(pair: Pair, wide: list[Tensor]) -> tuple[float, float] | None:
    """How far the result is from float64 and how far it may be; None where that is not known."""
    if pair.leaf >= len(wide) or not pair.whole.is_floating_point() or wide[pair.leaf].shape != pair.whole.shape:
        return None
    own, _ = _difference(pair.whole, wide[pair.leaf])  # of all rows: the more there are, the surer is the maximum
    ours, _ = _difference(pair.ours, pair.of(wide[pair.leaf]))
    return float(ours.max()), AMPLIFIED * float(own.max())


def _difference(ours: Tensor, theirs: Tensor) -> tuple[Tensor, float]:
    """Element-wise distance in float64, infinite where only one is finite, and the distance allowed."""
    tolerance = TOLERANCE.get(theirs.dtype, 0.0)
    a, b = ours.detach().to("cpu", torch.float64), theirs.detach().to("cpu", torch.float64)
    same = (a == b) | (a.isnan() & b.isnan())
    difference = torch.where(same, 0.0, (a - b).abs()).nan_to_num(nan=float("inf"))
    finite = b[b.isfinite()]
    return difference, tolerance * (float(finite.abs().max()) if finite.numel() > 0 else 1.0)


_ADVICE = (
    "This result must not be used. Please report it with the model and the text of "
    "pyg_fullgraph.compile(model).explain(...). Meanwhile model(...) itself is right; verify='off' switches "
    "this check off."
)


def _describe(
    ours: Tensor, theirs: Tensor, difference: Tensor, limit: float, nodes: Tensor, name: str, where: str
) -> str:
    """The worst element, in words."""
    flat = int(difference.argmax())
    index = [int(i) for i in torch.unravel_index(torch.tensor(flat), difference.shape)]
    by_node = bool(index) and nodes.numel() == difference.size(0)
    row = f"node {int(nodes[index[0]])}" if by_node else f"row {index[0] if index else 0}"
    column = ", ".join(str(i) for i in index[1:])
    count = int((difference > limit).sum())
    return (
        f"{row}{f', column {column}' if column else ''}: pyg_fullgraph gives "
        f"{float(ours[tuple(index)]):.6g}, {name}.forward on {where} gives "
        f"{float(theirs[tuple(index)]):.6g}; they differ by {float(difference.flatten()[flat]):.2e}, more "
        f"than the tolerance {limit:.2e} ({count:,} of {difference.numel():,} compared values do). " + _ADVICE
    )


def _by_node(output: Any, rows: int) -> bool:
    """Whether some tensor of the output has one row per node."""
    return any(leaf.dim() > 0 and leaf.size(0) == rows for leaf in _leaves(output))


def _leaves(output: Any) -> list[Tensor]:
    return [leaf for leaf in pytree.tree_leaves(output) if isinstance(leaf, Tensor)]


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0] if lines else ''}"
