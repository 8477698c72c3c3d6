"""`Graph`: edges, and the vocabulary on them, to write a graph neural network in.

::

    src, dst                          node -> edge
    sum, mean, max, min, mul, ...     edge -> node
    softmax                           edge -> edge
    everything else                   ordinary torch on rows

One class serves three situations, told apart at every call: run eagerly by the kernels; run eagerly where a gradient
is wanted, in plain torch that torch differentiates; and recorded by a trace, as the words that the compiler knows.
"""

from __future__ import annotations

import math
from numbers import Integral
from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor

from pyg_fullgraph.errors import GraphError
from pyg_fullgraph.graph.contents import fingerprint
from pyg_fullgraph.graph.convert import to_edges
from pyg_fullgraph.graph.csr import CSR
from pyg_fullgraph.graph.validate import check_endpoints
from pyg_fullgraph.ops import trusted
from pyg_fullgraph.ops.forked import survives_fork

#: The reductions from edges to nodes, and what each gives a node without edges.
REDUCTIONS = {"sum": 0, "mean": 0, "max": 0, "min": 0, "mul": 1, "var": 0, "std": 0}
_SCATTER = {"sum": "sum", "mean": "sum", "max": "amax", "min": "amin", "mul": "prod"}
_LEAST_VARIANCE = 1e-5  # of torch_geometric's StdAggregation


class Graph:
    """The edges of a graph, from source nodes to destination nodes.

    Values of nodes are tensors ``[N, ...]``, values of edges ``[E, ...]``, always in the order in which the edges
    were given: ``data.edge_attr`` can be used as it is. Nothing is sorted or copied before it is needed.

    Args:
        edges: ``edge_index`` ``[2, E]`` (row 0 sources, row 1 destinations), or anything else that PyG users pass
            as a graph: a ``Data``, an edge type's store of a ``HeteroData``, an ``EdgeIndex``, a ``SparseTensor``, a
            ``torch.sparse`` or SciPy matrix (whose edges are in the order of its entries). Kept by reference.
        size: the number of nodes; ``(num_src, num_dst)`` where sources and destinations are different nodes.
            ``None`` takes what ``edges`` tells.
        validate: check every edge first (one pass).
        name: what the user calls these edges; used in error messages.

    Raises:
        GraphError: if the edges are malformed (it names the first bad one), or nothing tells how many nodes there
            are.
    """

    @survives_fork
    def __init__(
        self, edges: Any, size: int | tuple[int, int] | None = None, *, validate: bool = True, name: str = "edge_index"
    ) -> None:
        edge_index, _, found = to_edges(edges, name=name)
        size = _known(size, found, edges, name)
        num_src, num_dst = size if isinstance(size, tuple) else (size, size)
        self._assign(edge_index, num_src, num_dst, isinstance(size, tuple))
        if validate and not _is_recording(edge_index):
            check_endpoints(edge_index[0], edge_index[1], num_src, num_dst, name=name)

    def _assign(self, edge_index: Tensor, num_src: Any, num_dst: Any, bipartite: bool) -> None:
        self.edge_index = edge_index
        self.num_src, self.num_dst = num_src, num_dst
        self.bipartite = bipartite
        self._valid: dict[int, tuple[bytes, int]] = {}  # row -> contents known to be valid, for how many nodes
        self._csr: CSR | None = None
        self._shown: CSR | None = None  # a copy, which users may write into

    @classmethod
    def from_edges(
        cls, src: Tensor, dst: Tensor, num_src: int, num_dst: int | None = None, *, validate: bool = True
    ) -> Graph:
        """Builds the graph from two vectors.

        Args:
            src: ``[E]`` int64 or int32, the source of every edge.
            dst: ``[E]`` of the same type, the destination of every edge.
            num_src: the number of source nodes.
            num_dst: the number of destination nodes; ``None`` where they are the source nodes.
            validate: check every edge first (one pass).

        Raises:
            GraphError: if the edges are malformed; it names the first bad edge.
        """
        if src.shape != dst.shape or src.dim() != 1:
            shapes = f"{list(src.shape)} and {list(dst.shape)}"
            raise GraphError(f"Sources and destinations must be two vectors of one length (got {shapes}).")
        size = num_src if num_dst is None else (num_src, num_dst)
        return cls(torch.stack([src, dst]), size, validate=validate)

    @classmethod
    def from_hetero(cls, data: Any) -> dict[tuple[str, str, str], Graph]:
        """Builds one graph per edge type of a ``HeteroData``.

        Args:
            data: with ``edge_index`` or ``adj_t`` in every edge type, and nodes whose number is known.

        Returns:
            Edge type ``(source, relation, destination)`` -> its graph.

        Raises:
            GraphError: if the number of nodes of a type is unknown, or edges are malformed.
        """
        graphs = {}
        for kind in data.edge_types:
            counts = [_count(data[end], end) for end in (kind[0], kind[-1])]
            size = counts[0] if kind[0] == kind[-1] else (counts[0], counts[1])
            graphs[kind] = cls(data[kind], size, name=f"data[{', '.join(map(repr, kind))}].edge_index")
        return graphs

    @classmethod
    def rebuilt(cls, edge_index: Tensor, num_src: Any, num_dst: Any, bipartite: bool) -> Graph:
        """A graph around tensors and sizes known to fit, symbolic ones while a program is traced."""
        graph = cls.__new__(cls)
        graph._assign(edge_index, num_src, num_dst, bipartite)
        return graph

    # -- what it is -------------------------------------------------------------------------------------------

    @property
    def num_edges(self) -> int:
        """The number of edges E."""
        return self.edge_index.size(1)

    @property
    def num_nodes(self) -> int:
        """The number of nodes N.

        Raises:
            GraphError: if sources and destinations are different nodes.
        """
        if self.bipartite:
            raise GraphError(
                f"This graph leads from {self.num_src} source nodes to {self.num_dst} other nodes: "
                "use num_src or num_dst."
            )
        return self.num_dst

    @property
    def device(self) -> torch.device:
        """Where the edges lie."""
        return self.edge_index.device

    @property
    def csr(self) -> CSR:
        """The edges sorted by destination; sorted at the first use, and again after a change of the edges."""
        found = self._sorted()
        if self._shown is None:
            tensors = (found.rowptr.clone(), found.src.clone(), found.perm.clone())
            self._shown = CSR(*tensors, found.num_src, found.num_dst)
        return self._shown

    @survives_fork
    def _sorted(self) -> CSR:
        """The edges sorted by destination, for kernels alone."""
        src, dst = self._end(0), self._end(1)
        if self._csr is None:
            self._csr = CSR.from_edges(src, dst, self.num_src, self.num_dst, validate=False)
            self._shown = None
        return self._csr

    def _end(self, row: int) -> Tensor:
        """The sources or destinations, which kernels believe: checked wherever their contents are new."""
        index, count = self.edge_index[row], (self.num_src, self.num_dst)[row]
        found = fingerprint(index), count
        if self._valid.get(row) != found:
            check_endpoints(self.edge_index[0], self.edge_index[1], self.num_src, self.num_dst)
            self._valid[row], self._csr = found, None
        return index

    def to(self, device: torch.device | str | int) -> Graph:
        """Returns this graph on a device; itself if it is there."""
        moved = self.edge_index.to(device)
        if moved is self.edge_index:
            return self
        return Graph.rebuilt(moved, self.num_src, self.num_dst, self.bipartite)

    def reverse(self) -> Graph:
        """Returns the graph with every edge turned round; the edges keep their order."""
        return Graph.rebuilt(self.edge_index.flip(0), self.num_dst, self.num_src, self.bipartite)

    def __repr__(self) -> str:
        nodes = f"{self.num_src:,} -> {self.num_dst:,} nodes" if self.bipartite else f"{self.num_dst:,} nodes"
        return f"Graph({nodes}, {self.num_edges:,} edges)"

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_csr": None, "_shown": None}

    # -- node -> edge -----------------------------------------------------------------------------------------

    def src(self, x: Tensor) -> Tensor:
        r"""Gives every edge the row of its source, :math:`\mathrm{out}_e = \mathbf{x}_{j(e)}`.

        Args:
            x: ``[num_src, ...]``, any type.

        Returns:
            ``[E, ...]``.

        Raises:
            GraphError: if ``x`` has not one row per source node.
        """
        _check_rows("src", x, self.num_src, "source node" if self.bipartite else "node")
        return self._endpoint(x, 0)

    def dst(self, x: Tensor) -> Tensor:
        r"""Gives every edge the row of its destination, :math:`\mathrm{out}_e = \mathbf{x}_{i(e)}`.

        Args:
            x: ``[num_dst, ...]``, any type.

        Returns:
            ``[E, ...]``.

        Raises:
            GraphError: if ``x`` has not one row per destination node.
        """
        _check_rows("dst", x, self.num_dst, "destination node" if self.bipartite else "node")
        return self._endpoint(x, 1)

    @survives_fork
    def _endpoint(self, x: Tensor, row: int) -> Tensor:
        if _is_recording(x) or _is_recording(self.edge_index):
            return x.index_select(0, self.edge_index[row])
        return trusted.gather(x, self._end(row))

    # -- edge -> node -----------------------------------------------------------------------------------------

    @survives_fork
    def reduce(self, e: Tensor, reduce: str) -> Tensor:
        """Combines the values of the in-edges of every destination.

        Args:
            e: ``[E, ...]``.
            reduce: ``"sum"``, ``"mean"``, ``"max"``, ``"min"``, ``"mul"``, ``"var"`` or ``"std"``.

        Returns:
            ``[num_dst, ...]`` of the same type. A node without in-edges gets 0, from ``"mul"`` 1, as in PyG.

        Raises:
            GraphError: if there is no such reduction, or ``e`` has not one row per edge.
        """
        if reduce not in REDUCTIONS:
            raise GraphError(f"There is no reduction {reduce!r}; there are {', '.join(REDUCTIONS)}.")
        if reduce in ("var", "std"):
            return self.var(e) if reduce == "var" else self.std(e)
        _check_rows(reduce, e, self.num_edges, "edge")
        if _wants_grad(e):
            return _scattered(e, self.edge_index[1], self.num_dst, reduce)
        if _is_recording(e):
            recorded: Tensor = torch.ops.pyg_fullgraph.reduce_by(e, self.edge_index[1], self.num_dst, reduce)
            return recorded
        found = self._sorted()
        return trusted.gather_reduce(e, found.perm, found.rowptr, reduce=reduce)

    def sum(self, e: Tensor) -> Tensor:
        """Sum over the in-edges of every node, ``[E, ...]`` -> ``[num_dst, ...]``; see `reduce`."""
        return self.reduce(e, "sum")

    def mean(self, e: Tensor) -> Tensor:
        """Mean over the in-edges of every node, ``[E, ...]`` -> ``[num_dst, ...]``; 0 without any."""
        return self.reduce(e, "mean")

    def max(self, e: Tensor) -> Tensor:
        """Largest value, column by column, of the in-edges of every node; 0 without any."""
        return self.reduce(e, "max")

    def min(self, e: Tensor) -> Tensor:
        """Smallest value, column by column, of the in-edges of every node; 0 without any."""
        return self.reduce(e, "min")

    def mul(self, e: Tensor) -> Tensor:
        """Product over the in-edges of every node; 1 without any."""
        return self.reduce(e, "mul")

    def var(self, e: Tensor) -> Tensor:
        r"""Variance over the in-edges, :math:`\mathrm{mean}(e^2) - \mathrm{mean}(e)^2`, as PyG's ``VarAggregation``."""
        mean = self.mean(e)
        return self.mean(e * e) - mean * mean

    def std(self, e: Tensor) -> Tensor:
        r"""Standard deviation over the in-edges, as PyG's ``StdAggregation``: 0 from :math:`\sqrt{10^{-5}}` down."""
        out = self.var(e).clamp(min=_LEAST_VARIANCE).sqrt()
        return out.masked_fill(out <= math.sqrt(_LEAST_VARIANCE), 0.0)

    def degree(self) -> Tensor:
        """Returns the number of in-edges of every destination, ``[num_dst]`` int64."""
        if not _is_recording(self.edge_index):
            return self._sorted().degree()
        index = self.edge_index[1]
        zeros = torch.zeros(self.num_dst, dtype=torch.int64, device=index.device)
        return zeros.scatter_add(0, index.long(), torch.ones_like(index, dtype=torch.int64))

    # -- edge -> edge -----------------------------------------------------------------------------------------

    @survives_fork
    def softmax(self, e: Tensor) -> Tensor:
        r"""Softmax among the in-edges of every destination, column by column.

        .. math:: \mathrm{out}_e = \frac{\exp(x_e - m_i)}{\sum_{f \to i} \exp(x_f - m_i) + 10^{-16}}

        with :math:`m_i` the largest of them: ``torch_geometric.utils.softmax``.

        Args:
            e: ``[E, ...]``.

        Returns:
            ``[E, ...]`` of the same type.

        Raises:
            GraphError: if ``e`` has not one row per edge.
        """
        _check_rows("softmax", e, self.num_edges, "edge")
        if _wants_grad(e):
            return self._softmax(e)
        if _is_recording(e):
            recorded: Tensor = torch.ops.pyg_fullgraph.softmax_by(e, self.edge_index[1], self.num_dst)
            return recorded
        found = self._sorted()
        order = found.perm
        in_order = trusted.segment_softmax(trusted.gather(e, order), found.rowptr)
        return torch.empty_like(in_order).index_copy_(0, order.long(), in_order)

    def _softmax(self, e: Tensor) -> Tensor:
        """The softmax in operators that torch differentiates."""
        index, wide = self.edge_index[1], _widen(e)
        largest = _scattered(wide.detach(), index, self.num_dst, "max")
        power = (wide - largest.index_select(0, index)).exp()
        total = _scattered(power, index, self.num_dst, "sum") + 1e-16
        return (power / total.index_select(0, index)).to(e.dtype)


def _scattered(e: Tensor, index: Tensor, rows: int, reduce: str) -> Tensor:
    """A reduction in operators that torch differentiates, half types in float32. [rows, ...]"""
    wide = _widen(e)
    where = index.long().view(-1, *[1] * (e.dim() - 1))
    out = wide.new_full((rows, *e.shape[1:]), 1 if reduce == "mul" else 0)
    keep = reduce in ("sum", "mean", "mul")
    out = out.scatter_reduce(0, where.expand_as(wide), wide, _SCATTER[reduce], include_self=keep)
    if reduce == "mean":
        ones = torch.ones_like(index, dtype=wide.dtype)
        count = wide.new_zeros(rows).scatter_add(0, index.long(), ones).clamp(min=1)
        out = out / count.view(-1, *[1] * (e.dim() - 1))
    return out.to(e.dtype)


def _widen(x: Tensor) -> Tensor:
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x


def _is_recording(x: Tensor) -> bool:
    """Whether operators are written down, by a trace of ours or by Dynamo, and not run."""
    return torch.compiler.is_compiling() or isinstance(x, FakeTensor)


def _wants_grad(x: Tensor) -> bool:
    return x.requires_grad and torch.is_grad_enabled()


def _check_rows(word: str, x: Tensor, rows: Any, what: str) -> None:
    """One row per node or edge; of symbolic sizes, a trace learns here that they are equal."""

    def message() -> str:
        got = [_number(size) for size in x.shape]
        return f"{word} takes one row per {what}: the first axis must be {_number(rows)}, got a tensor {got}."

    if x.dim() == 0:
        raise GraphError(message())
    if torch.compiler.is_compiling():
        torch._check(x.size(0) == rows)
    elif isinstance(x, FakeTensor):
        try:
            torch._check(x.size(0) == rows)
        except RuntimeError as error:
            raise GraphError(message()) from error
    elif x.size(0) != rows:
        raise GraphError(message())


def _number(size: Any) -> Any:
    """A size for an error's text: the number behind a symbol, where it is known."""
    hint = size.node.hint if isinstance(size, torch.SymInt) else size
    return size if hint is None else hint


def _known(
    size: int | tuple[int, int] | None, found: tuple[int, int] | None, edges: Any, name: str
) -> int | tuple[int, int]:
    """The size that was given, else what the edges tell; a square matrix or a `Data` has one kind of node."""
    if size is None and found is None:
        given = f"Graph({name}, num_nodes) or Graph({name}, (num_src, num_dst))"
        raise GraphError(f"A {type(edges).__name__} does not tell how many nodes there are. Pass {given}.")
    if size is not None:
        pair = isinstance(size, (tuple, list))
        if pair and len(size) != 2:  # type: ignore[arg-type]
            raise GraphError(f"The size of a graph is num_nodes or (num_src, num_dst), got {size!r}.")
        for count in size if isinstance(size, (tuple, list)) else (size,):
            _check_count(count)
        return (size[0], size[1]) if isinstance(size, (tuple, list)) else size
    assert found is not None
    return found[0] if found[0] == found[1] else found


def _check_count(count: Any) -> None:
    """A number of nodes is a whole one, or one that is traced."""
    if isinstance(count, torch.SymInt):
        return
    if isinstance(count, bool) or not isinstance(count, Integral) or count < 0:
        raise GraphError(f"The number of nodes must be a whole number, at least 0 (got {count!r}).")


def _count(store: Any, kind: str) -> int:
    count = store.num_nodes
    if count is None:
        raise GraphError(f"The number of nodes of type {kind!r} is unknown: set data[{kind!r}].num_nodes or .x.")
    return int(count)
