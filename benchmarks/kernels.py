"""How fast is each kernel, against what a user would call instead, and against what memory allows?

    python benchmarks/kernels.py [--scale 18] [--width 128] [--repeat 3] [--save]

Every line is one kernel and its peer, measured in turn in the same run. "GB/s" counts the bytes the kernel gathers
(each edge's row) plus what it writes; "of memory" is that over the measured rate of random reads of such rows from an
array of the same size, and passes 100 % where the rows of hubs stay in cache.
"""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from measure import busy, print_table, save_result, time_interleaved
from roofline import random_row_bandwidth
from torch import Tensor
from torch_geometric.utils import scatter, softmax

from pyg_fullgraph import ops
from pyg_fullgraph.graph.generate import rmat

HEADS = 4
DEGREE = 16


@dataclass
class Problem:
    """A generated graph with everything the kernels and their peers need, sorted by destination."""

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


@dataclass
class Line:
    """One comparison."""

    name: str
    ours: Callable[[], Any]
    peer_name: str
    peer: Callable[[], Any]
    row_bytes: int  # gathered per edge
    gathers: int = 1


def build(scale: int, width: int) -> Problem:
    """An R-MAT graph of 2**scale nodes and 16 edges per node."""
    torch.manual_seed(0)
    edge_index, nodes = rmat(scale, DEGREE), 2**scale
    rowptr, perm = ops.csr(edge_index[1], nodes)
    ordered = edge_index[:, perm]
    return Problem(
        nodes=nodes,
        edge_index=ordered,
        rowptr=rowptr,
        src=ordered[0].int(),
        x=torch.randn(nodes, width),
        weight=torch.rand(ordered.shape[1]),
        score_src=torch.randn(nodes, HEADS),
        score_dst=torch.randn(nodes, HEADS),
    )


def sum_lines(p: Problem) -> list[Line]:
    """Sums, against torch's sparse CSR product and PyG's gather and scatter."""
    src, dst = p.edge_index
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's sparse CSR calls itself beta
        matrix = torch.sparse_csr_tensor(p.rowptr, src, p.weight, (p.nodes, p.nodes))
        ones = torch.sparse_csr_tensor(p.rowptr, src, torch.ones_like(p.weight), (p.nodes, p.nodes))
    row = p.x.shape[1] * 4
    half, half_weight = p.x.bfloat16(), p.weight.bfloat16()
    csr, pyg = "torch.sparse CSR @ x", "PyG gather, scatter"
    return [
        Line("sum", lambda: ops.gather_reduce(p.x, p.src, p.rowptr), csr, lambda: ones @ p.x, row),
        Line(
            "weighted sum",
            lambda: ops.gather_reduce(p.x, p.src, p.rowptr, p.weight),
            csr,
            lambda: matrix @ p.x,
            row,
        ),
        Line(
            "weighted sum bfloat16",
            lambda: ops.gather_reduce(half, p.src, p.rowptr, half_weight),
            csr + " float32",
            lambda: matrix @ p.x,
            row // 2,
        ),
        Line(
            "mean",
            lambda: ops.gather_reduce(p.x, p.src, p.rowptr, reduce="mean"),
            pyg,
            lambda: scatter(p.x[src], dst, dim_size=p.nodes, reduce="mean"),
            row,
        ),
        Line(
            "max",
            lambda: ops.gather_reduce(p.x, p.src, p.rowptr, reduce="max"),
            "torch.sparse.mm max",
            lambda: torch.sparse.mm(ones, p.x, "amax"),
            row,
        ),
    ]


def attention_lines(p: Problem) -> list[Line]:
    """Attentions, against PyG's gather, softmax and scatter."""
    src, dst = p.edge_index
    value = p.x.unflatten(1, (HEADS, -1))
    att = torch.randn(HEADS, value.shape[2])
    row = p.x.shape[1] * 4

    def weighted(score: Tensor) -> Tensor:
        alpha = softmax(score, dst, num_nodes=p.nodes)
        return scatter(value[src] * alpha.unsqueeze(-1), dst, dim_size=p.nodes, reduce="sum")

    def leaky(v: Tensor) -> Tensor:
        return torch.nn.functional.leaky_relu(v, 0.2)

    peer = "PyG gather, softmax, scatter"
    return [
        Line(
            "attention, GAT",
            lambda: ops.attention_additive(value, p.src, p.rowptr, p.score_src, p.score_dst),
            peer,
            lambda: weighted(leaky(p.score_src[src] + p.score_dst[dst])),
            row + HEADS * 4,
        ),
        Line(
            "attention, GATv2",
            lambda: ops.attention_gatv2(value, p.src, p.rowptr, value, value, att),
            peer,
            lambda: weighted((leaky(value[src] + value[dst]) * att).sum(-1)),
            row,
            gathers=2,
        ),
        Line(
            "attention, dot",
            lambda: ops.attention_dot(value, p.src, p.rowptr, value, value, 0.2),
            peer,
            lambda: weighted((value[src] * value[dst]).sum(-1) * 0.2),
            row,
            gathers=2,
        ),
    ]


def structure_lines(p: Problem) -> list[Line]:
    """The plain gather and the sort."""
    shuffled = p.edge_index[1][torch.randperm(p.edges)]
    return [
        Line("gather", lambda: ops.gather(p.x, p.src), "x[index]", lambda: p.x[p.edge_index[0]], p.x.shape[1] * 4),
        Line(
            "csr",
            lambda: ops.csr(shuffled, p.nodes),
            "torch.sort",
            lambda: torch.sort(shuffled, stable=True),
            8,
        ),
    ]


def mixed_slowdown(p: Problem) -> float:
    """How much longer a kernel and a torch product take in turn than each alone: two pools that fight would show."""
    layer, x = torch.randn(p.x.shape[1], p.x.shape[1]), p.x

    def aggregate() -> Tensor:
        return ops.gather_reduce(x, p.src, p.rowptr)

    def product() -> Tensor:
        return x @ layer

    def both() -> None:
        aggregate()
        product()

    alone = time_interleaved({"aggregate": aggregate, "product": product, "both": both}, repeat=7)
    parts = min(alone["aggregate"].seconds) + min(alone["product"].seconds)
    return min(alone["both"].seconds) / parts


def measure(p: Problem, line: Line, repeat: int) -> dict[str, Any]:
    """Run a kernel and its peer in turn."""
    timings = time_interleaved({"ours": line.ours, "peer": line.peer}, repeat)
    ours, peer = (min(timings[name].seconds) for name in ("ours", "peer"))
    moved = p.edges * line.row_bytes * line.gathers + p.nodes * line.row_bytes
    allowed = random_row_bandwidth(line.row_bytes, p.nodes * line.row_bytes, torch.get_num_threads())
    return {
        "kernel": line.name,
        "seconds": ours,
        "peer": line.peer_name,
        "peer_seconds": peer,
        "ratio": peer / ours,
        "bytes": moved,
        "share": moved / ours / allowed,
    }


def main() -> None:
    """Measure, print, and save if asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scale", type=int, default=18, help="2**scale nodes, 16 edges each")
    parser.add_argument("--width", type=int, default=128, help="columns, a multiple of 4 heads")
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--save", action="store_true", help="keep the result under benchmarks/results")
    arguments = parser.parse_args()
    warning, told = busy(), ops.kernels()
    print(f"{told['isa']} of {told['isas']}, {told['threads']} threads ({told['thread_pool']}), {told['compiler']}")
    p = build(arguments.scale, arguments.width)
    print(f"R-MAT, {p.nodes} nodes, {p.edges} edges, {arguments.width} columns, float32 where not said otherwise")
    lines = sum_lines(p) + attention_lines(p) + structure_lines(p)
    rows = [measure(p, line, arguments.repeat) for line in lines]
    table = [
        [
            row["kernel"],
            f"{row['seconds'] * 1e3:.0f} ms",
            f"{row['bytes'] / row['seconds'] / 1e9:.1f}",
            f"{row['share']:.0%}",
            row["peer"],
            f"{row['peer_seconds'] * 1e3:.0f} ms",
            f"{row['ratio']:.1f}x",
        ]
        for row in rows
    ]
    print_table(["kernel", "time", "GB/s", "of memory", "peer", "its time", "faster"], table)
    slowdown = mixed_slowdown(p)
    print(f"kernel and torch.mm in turn take {slowdown:.2f} of the sum of both alone")
    if warning:
        print(warning)
    if arguments.save:
        rows.append({"kernel": "mixed with torch.mm", "ratio": slowdown})
        print(save_result("kernels", vars(arguments), rows))


if __name__ == "__main__":
    main()
