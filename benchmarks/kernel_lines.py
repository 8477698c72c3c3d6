"""What `kernels.py` measures: each kernel with everything that a user would call instead."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import Any

import torch
from baselines import by_destination, in_edge_pointers
from graphs import Source, edges_of
from torch import Tensor
from torch_geometric.utils import scatter, softmax

from pyg_fullgraph import ops
from pyg_fullgraph.ops import memory, trusted

HEADS = 4
#: Kernel -> its name in torch.sparse.mm and in torch_scatter.
REDUCTIONS = {"sum": ("sum", "sum"), "mean": ("mean", "mean"), "max": ("amax", "max")}

Run = Callable[[], Any]


@dataclass(frozen=True)
class Problem:
    """A graph with everything the kernels and their peers need, sorted by destination."""

    nodes: int
    edge_index: Tensor  # [2, E], by destination
    rowptr: Tensor
    src: Tensor  # int32
    x: Tensor  # [N, F]
    weight: Tensor  # [E]
    score_src: Tensor  # [N, H]
    score_dst: Tensor  # [N, H]

    @property
    def edges(self) -> int:
        """The number of edges."""
        return self.src.numel()

    @property
    def row(self) -> int:
        """Bytes of a row of features."""
        return self.x.shape[1] * self.x.element_size()


@dataclass(frozen=True)
class Peer:
    """What a user would call instead.

    Attributes:
        run: one call.
        messages: how many ``[E, F]`` arrays it holds at once: what makes it impossible on large graphs.
        exact: whether its result is to equal ours.
    """

    run: Run
    messages: int = 0
    exact: bool = True


@dataclass(frozen=True)
class Line:
    """One kernel and its peers.

    Attributes:
        name: of the kernel.
        ours: one call.
        row_bytes: gathered for each edge, and written for each node.
        peers: name -> peer.
        gathers: rows gathered for each edge.
    """

    name: str
    ours: Run
    row_bytes: int
    peers: dict[str, Peer] = field(default_factory=dict)
    gathers: int = 1

    def bytes(self, p: Problem) -> int:
        """What the kernel gathers and writes."""
        return p.edges * self.row_bytes * self.gathers + p.nodes * self.row_bytes


def build(source: Source, width: int, huge_pages: bool = False) -> Problem:
    """A graph with random features of that width, in 2 MiB pages if asked for (where Linux gives them)."""
    graph, generator = edges_of(source), torch.Generator().manual_seed(source.seed)
    ordered = by_destination(graph.edge_index, graph.num_nodes)
    x = torch.randn(graph.num_nodes, width, generator=generator)
    return Problem(
        nodes=graph.num_nodes,
        edge_index=ordered,
        rowptr=in_edge_pointers(graph.edge_index, graph.num_nodes),
        src=ordered[0].int(),
        x=memory.empty(tuple(x.shape), x.dtype, x.device).copy_(x) if huge_pages else x,
        weight=torch.rand(ordered.shape[1], generator=generator),
        score_src=torch.randn(graph.num_nodes, HEADS, generator=generator),
        score_dst=torch.randn(graph.num_nodes, HEADS, generator=generator),
    )


def sum_lines(p: Problem) -> list[Line]:
    """Sum, weighted sum, mean and max, against the products of torch and SciPy, torch_scatter and PyG."""
    ones = torch_csr(p, torch.ones_like(p.weight))
    matrix = torch_csr(p, p.weight)
    half, half_weight = p.x.bfloat16(), p.weight.bfloat16()
    weighted = Line(
        "weighted sum",
        lambda: trusted.gather_reduce(p.x, p.src, p.rowptr, p.weight),
        p.row,
        product_peers(p, matrix, p.weight)
        | {"torch.sparse.mm sum": Peer(lambda: torch.sparse.mm(matrix, p.x, "sum"))}
        | scatter_peers(p, "sum", p.weight),
    )
    short = Line(
        "weighted sum bfloat16",
        lambda: trusted.gather_reduce(half, p.src, p.rowptr, half_weight),
        p.row // 2,
        {"torch.sparse CSR @ x, float32": Peer(lambda: matrix @ p.x, exact=False)},
    )
    lines = [weighted, short]
    for name, (in_torch, _) in REDUCTIONS.items():
        peers = {f"torch.sparse.mm {name}": Peer(lambda how=in_torch: torch.sparse.mm(ones, p.x, how))}
        if name == "sum":
            peers = product_peers(p, ones, None) | peers
        ours: Run = lambda how=name: trusted.gather_reduce(p.x, p.src, p.rowptr, reduce=how)  # noqa: E731
        lines.append(Line(name, ours, p.row, peers | scatter_peers(p, name, None)))
    return lines


def torch_csr(p: Problem, value: Tensor) -> Tensor:
    """The matrix of the graph in torch."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's sparse CSR calls itself beta
        return torch.sparse_csr_tensor(p.rowptr, p.edge_index[0], value, (p.nodes, p.nodes), check_invariants=False)


def product_peers(p: Problem, matrix: Tensor, weight: Tensor | None) -> dict[str, Peer]:
    """A sparse matrix times the features: torch's (MKL's) and SciPy's, which uses one thread."""
    peers = {"torch.sparse CSR @ x": Peer(lambda: matrix @ p.x)}
    if find_spec("scipy") is not None:
        from scipy.sparse import csr_array

        value = (torch.ones(p.edges) if weight is None else weight).numpy()
        theirs = csr_array((value, p.src.numpy(), p.rowptr.int().numpy()), (p.nodes, p.nodes))
        peers["SciPy CSR @ x"] = Peer(lambda: torch.from_numpy(theirs @ p.x.numpy()))
    return peers


def scatter_peers(p: Problem, reduce: str, weight: Tensor | None) -> dict[str, Peer]:
    """Gather, then reduce by destination: PyG's own `scatter`, and torch_scatter's `segment_csr` where there is one."""
    src, dst = p.edge_index

    def messages() -> Tensor:
        return p.x[src] if weight is None else p.x[src] * weight.unsqueeze(1)

    count = 1 if weight is None else 2
    pyg = Peer(lambda: scatter(messages(), dst, dim_size=p.nodes, reduce=reduce), count + 1)
    peers = {"PyG gather, scatter": pyg}
    if find_spec("torch_scatter") is not None:
        from torch_scatter import segment_csr

        how = REDUCTIONS[reduce][1]
        peers["torch_scatter segment_csr"] = Peer(lambda: segment_csr(messages(), p.rowptr, reduce=how), count)
    return peers


def attention_lines(p: Problem) -> list[Line]:
    """Attentions, against PyG's gather, softmax and scatter; none where the heads do not divide the columns."""
    if p.x.shape[1] % HEADS:
        return []
    src, dst = p.edge_index
    value = p.x.unflatten(1, (HEADS, -1))
    att = torch.randn(HEADS, value.shape[2], generator=torch.Generator().manual_seed(0))

    def weighted(score: Tensor) -> Tensor:
        alpha = softmax(score, dst, num_nodes=p.nodes)
        return scatter(value[src] * alpha.unsqueeze(-1), dst, dim_size=p.nodes, reduce="sum")

    def leaky(v: Tensor) -> Tensor:
        return torch.nn.functional.leaky_relu(v, 0.2)

    def line(name: str, ours: Run, score: Callable[[], Tensor], messages: int, **sizes: int) -> Line:
        return Line(name, ours, peers={peer: Peer(lambda: weighted(score()), messages)}, **sizes)

    peer = "PyG gather, softmax, scatter"
    return [
        line(
            "attention, GAT",
            lambda: trusted.attention_additive(value, p.src, p.rowptr, p.score_src, p.score_dst),
            lambda: leaky(p.score_src[src] + p.score_dst[dst]),
            3,
            row_bytes=p.row + HEADS * 4,
        ),
        line(
            "attention, GATv2",
            lambda: trusted.attention_gatv2(value, p.src, p.rowptr, value, value, att),
            lambda: (leaky(value[src] + value[dst]) * att).sum(-1),
            4,
            row_bytes=p.row,
            gathers=2,
        ),
        line(
            "attention, dot",
            lambda: trusted.attention_dot(value, p.src, p.rowptr, value, value, 0.2),
            lambda: (value[src] * value[dst]).sum(-1) * 0.2,
            3,
            row_bytes=p.row,
            gathers=2,
        ),
    ]


def structure_lines(p: Problem) -> list[Line]:
    """The plain gather and the sort."""
    shuffled = p.edge_index[1][torch.randperm(p.edges, generator=torch.Generator().manual_seed(0))]
    sort = Peer(lambda: torch.sort(shuffled, stable=True), exact=False)
    index = Peer(lambda: p.x[p.edge_index[0]], 1)
    return [
        Line("gather", lambda: trusted.gather(p.x, p.src), p.row, {"x[index]": index}),
        Line("csr", lambda: ops.csr(shuffled, p.nodes), 8, {"torch.sort": sort}),
    ]


GROUPS = {"sums": sum_lines, "attention": attention_lines, "structure": structure_lines}
