"""How fast is each kernel, against what a user would call instead, and against what memory allows?

    python benchmarks/kernels.py --log2-nodes 18 --degree 3 16 45 --real github_social --save
    python benchmarks/kernels.py --groups sums --widths 1 2 3 4 7 8 16 17 32 64 100 128 256 512 1024 --save

A kernel and its peers (`kernel_lines.py`: torch.sparse with MKL, torch.sparse.mm with a reduction, SciPy, which uses
one thread, torch_scatter if it is installed, PyG's gather and scatter) are measured in turn in the same run; the best
round counts. "GB/s" counts the bytes that a kernel gathers (each edge's row) plus what it writes; "of memory" is that
over the measured rate of random reads of such rows from an array of the same size. It passes 100 % where the rows of
hubs stay in cache, and is low for rows below 64 bytes, since memory gives no less than that at a time.
"""

from __future__ import annotations

import argparse
from functools import lru_cache
from typing import Any

import torch
from graphs import Source, add_graph_arguments, edges_of, sources
from kernel_lines import GROUPS, Line, Peer, Problem, build
from measure import announce, available_bytes, mib, print_table, result_path, save_result, time_interleaved
from plots import Panel, save_plot
from roofline import random_row_bandwidth
from torch import Tensor

from pyg_fullgraph import ops
from pyg_fullgraph.ops import trusted

#: A peer runs only if what it holds fits into this share of the memory that is free.
MEMORY_SHARE = 0.6


@lru_cache(maxsize=64)
def allowed(row_bytes: int, size: int, threads: int) -> float:
    """Bytes per second that memory allows for such rows of such an array."""
    return random_row_bandwidth(row_bytes, size, threads)


def measure(p: Problem, line: Line, repeat: int, budget: float) -> list[dict[str, Any]]:
    """Runs a kernel and its peers in turn; one record for each peer."""
    rows = {name: {"kernel": line.name, "peer": name} for name in line.peers}
    able: dict[str, Peer] = {}
    for name, peer in line.peers.items():
        needed = peer.messages * p.edges * p.row
        if needed > MEMORY_SHARE * available_bytes():
            rows[name]["failed"] = f"not run: it would hold {mib(needed)} of messages"
        else:
            able[name] = peer
    expected = line.ours()
    for name, peer in able.items():
        if peer.exact:
            rows[name]["difference"] = relative_difference(expected, peer.run())
    del expected
    timings = time_interleaved({"": line.ours, **{name: peer.run for name, peer in able.items()}}, repeat, budget)
    ours = min(timings[""].seconds)
    rate = allowed(line.row_bytes, p.nodes * line.row_bytes, torch.get_num_threads())
    for name, row in rows.items():
        row |= {"seconds": ours, "bytes": line.bytes(p), "share": line.bytes(p) / ours / rate, "allowed": rate}
        if name in able:
            theirs = timings[name].seconds
            row |= {"peer_seconds": min(theirs), "rounds": len(theirs), "ratio": min(theirs) / ours}
    return list(rows.values())


def relative_difference(out: Tensor, reference: Tensor) -> float:
    """The largest absolute difference over the largest magnitude of the reference."""
    reference = reference.view_as(out)
    return float((out - reference).abs().max() / reference.abs().max().clamp(min=1e-30)) if out.numel() else 0.0


def mixed_slowdown(p: Problem) -> float:
    """How much longer a kernel and a torch product take in turn than each alone: two pools that fight would show."""
    layer, x = torch.randn(p.x.shape[1], p.x.shape[1]), p.x

    def aggregate() -> Tensor:
        return trusted.gather_reduce(x, p.src, p.rowptr)

    def product() -> Tensor:
        return x @ layer

    def both() -> None:
        aggregate()
        product()

    alone = time_interleaved({"aggregate": aggregate, "product": product, "both": both}, repeat=7)
    parts = min(alone["aggregate"].seconds) + min(alone["product"].seconds)
    return min(alone["both"].seconds) / parts


HEADER = ["kernel", "graph", "columns", "time", "GB/s", "of memory"]
HEADER += ["peer", "its time", "rounds", "faster", "difference"]


def cells(row: dict[str, Any]) -> list[str]:
    """A line of the table."""
    there = "peer_seconds" in row
    return [
        row["kernel"],
        row["graph"],
        str(row["width"]),
        f"{row['seconds'] * 1e3:.1f} ms",
        f"{row['bytes'] / row['seconds'] / 1e9:.1f}",
        f"{row['share']:.0%}",
        row["peer"],
        f"{row['peer_seconds'] * 1e3:.1f} ms" if there else "-",
        str(row["rounds"]) if there else "-",
        f"{row['ratio']:.2f}x" if there else "-",
        f"{row['difference']:.0e}" if "difference" in row else "-",
    ]


def slower(rows: list[dict[str, Any]]) -> list[str]:
    """Where a peer is faster than we are, one line for each kernel, graph and peer."""
    found: dict[tuple[str, str, str], list[str]] = {}
    for row in rows:
        if row.get("ratio", 1.0) < 1.0:
            key = (row["kernel"], row["graph"], row["peer"])
            found.setdefault(key, []).append(f"{row['width']} columns ({row['ratio']:.2f}x)")
    if not found:
        return ["slower than no peer at any width"]
    return [f"SLOWER than {peer}: {kernel} on {graph}: {', '.join(at)}" for (kernel, graph, peer), at in found.items()]


def panels(rows: list[dict[str, Any]]) -> list[Panel]:
    """One panel per kernel and graph: bytes per second over columns, ours, each peer and what memory allows."""
    lines: dict[str, dict[str, dict[int, float]]] = {}
    for row in rows:
        panel = lines.setdefault(f"{row['kernel']}, {row['graph']}", {})
        panel.setdefault("ours", {})[row["width"]] = row["bytes"] / row["seconds"] / 1e9
        panel.setdefault("random rows, measured", {})[row["width"]] = row["allowed"] / 1e9
        if "peer_seconds" in row:
            panel.setdefault(row["peer"], {})[row["width"]] = row["bytes"] / row["peer_seconds"] / 1e9
    found = []
    for title, names in lines.items():
        points = {name: list(at.items()) for name, at in names.items()}
        rate = points.pop("random rows, measured")
        found.append(Panel(title, points, {"random rows, measured": rate}))
    return found


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_graph_arguments(parser)
    parser.add_argument("--widths", type=int, nargs="+", default=[128], help="columns of the features")
    parser.add_argument("--groups", nargs="+", choices=GROUPS, default=list(GROUPS), help="which kernels")
    parser.add_argument("--repeat", type=int, default=5, help="timed rounds after the first")
    parser.add_argument("--budget", type=float, default=30.0, help="seconds of a kernel or peer in one line")
    parser.add_argument("--huge-pages", action="store_true", help="features, which all read, in 2 MiB pages")
    parser.add_argument("--threads", type=int, default=None, help="torch threads (default: torch's own)")
    parser.add_argument("--save", action="store_true", help="write a dated file and a plot under benchmarks/results")
    return parser.parse_args(argv)


def fits(source: Source, width: int) -> bool:
    """Whether features, half of them in bfloat16, and two results fit into the memory that is free."""
    nodes = edges_of(source).num_nodes
    return 3.5 * nodes * width * 4 < MEMORY_SHARE * available_bytes()


def run_graph(source: Source, arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """Every chosen kernel at every width on one graph."""
    rows = []
    for width in arguments.widths:
        if not fits(source, width):
            print(f"{source.title}, {width} columns: left out, since it would take most of the free memory", flush=True)
            continue
        print(f"{source.title}, {width} columns ...", flush=True)
        p = build(source, width, arguments.huge_pages)
        where = {"graph": source.title, "nodes": p.nodes, "edges": p.edges, "width": width}
        for group in arguments.groups:
            for line in GROUPS[group](p):
                rows += [{**where, **row} for row in measure(p, line, arguments.repeat, arguments.budget)]
    return rows


def run_all(arguments: argparse.Namespace, graphs: list[Source]) -> list[dict[str, Any]]:
    """Every graph, the file written again after each, then the table, where we are slower, and the plot."""
    rows: list[dict[str, Any]] = []
    path = result_path("kernels") if arguments.save else None
    for source in graphs:
        rows += run_graph(source, arguments)
        if path is not None:
            save_result("kernels", vars(arguments), rows, path)
    print()
    print_table(HEADER, [cells(row) for row in rows], left=2)
    failed = [
        f"{row['kernel']}, {row['graph']}, {row['width']} columns, {row['peer']}: {row['failed']}"
        for row in rows
        if "failed" in row
    ]
    print("\n".join(["", *failed, *slower(rows)]))
    if path is not None:
        title = f"Kernels, float32, {torch.get_num_threads()} threads"
        print(f"written: {path}\n{save_plot(path, title, 'columns', 'GB/s', panels(rows))}")
    return rows


def main() -> None:
    """Measures, prints, and saves if asked."""
    arguments = parse()
    graphs = sources(arguments)
    arguments.warning, told = announce(arguments.threads), ops.kernels()
    print(f"{told['isa']} of {told['isas']}, {told['threads']} threads ({told['thread_pool']}), {told['compiler']}")
    run_all(arguments, graphs)
    slowdown = mixed_slowdown(build(graphs[0], max(arguments.widths[0], 64)))
    print(f"kernel and torch.mm in turn take {slowdown:.2f} of the sum of both alone")


if __name__ == "__main__":
    main()
