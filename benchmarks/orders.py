"""When does another order of the nodes pay? What each costs, and what one sum over all edges then takes.

    python benchmarks/orders.py [--graphs rmat community mesh grid] [--scale 18] [--width 128] [--data FOLDER] [--save]

"pays after" is how many such sums over that many columns make up for computing the order, without the copies of inputs
and outputs ("permute" is one such copy of all rows). Sources alone, or destinations alone, are renumbered on the lines
that say so. Generated graphs are numbered at random; `NAME` and `NAME:shuffled` are a graph of the data folder as it
is and numbered at random.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from measure import busy, print_table, save_result, time_interleaved
from torch import Tensor

from pyg_fullgraph import ops
from pyg_fullgraph.graph.generate import grid, rmat
from pyg_fullgraph.graph.order import ORDERS, inverse, order_nodes
from pyg_fullgraph.ops import trusted

DEGREE, COMMUNITY, INSIDE = 16, 1000, 0.9


def communities(num_nodes: int) -> Tensor:
    """Blocks of 1000 nodes, 90 % of the edges inside a block, both directions."""
    generator = torch.Generator().manual_seed(0)
    count = num_nodes * DEGREE // 2
    one = torch.randint(num_nodes, (count,), generator=generator)
    base = one // COMMUNITY * COMMUNITY
    width = (num_nodes - base).clamp(max=COMMUNITY)
    near = base + (torch.rand(count, generator=generator) * width).long()
    inside = torch.rand(count, generator=generator) < INSIDE
    other = torch.where(inside, near, torch.randint(num_nodes, (count,), generator=generator))
    return torch.cat([torch.stack([one, other]), torch.stack([other, one])], dim=1)


def mesh(side: int) -> Tensor:
    """A cube of side**3 nodes, each joined with the up to 26 around it."""
    at = torch.stack(torch.meshgrid(*[torch.arange(side)] * 3, indexing="ij"), dim=-1).view(-1, 3)
    steps = torch.cartesian_prod(*[torch.tensor([-1, 0, 1])] * 3)
    ends = at[:, None] + steps[steps.any(dim=1)]  # [N, 26, 3]
    fine = ((ends >= 0) & (ends < side)).all(dim=2)
    number = (ends * torch.tensor([side * side, side, 1])).sum(dim=2)
    return torch.stack([number[fine], torch.arange(side**3).repeat_interleave(fine.sum(dim=1))])


def read(name: str, scale: int, data: Path | None) -> tuple[Tensor, int]:
    """Edges [2, E] int32 and how many nodes they join."""
    side = 1 << scale // 2
    made = {"rmat": lambda: rmat(scale, DEGREE), "community": lambda: communities(1 << scale)}
    made |= {"grid": lambda: grid(side, side), "mesh": lambda: mesh(round(2 ** (scale / 3)))}
    stem = name.removesuffix(":shuffled")
    if stem in made:
        edge_index = made[stem]()
    elif data is not None:
        edge_index = torch.from_numpy(np.load(data / f"{stem}.npz")["edge_index"].astype(np.int64))
    else:
        raise SystemExit(f"{stem} is a file: --data names its folder.")
    num_nodes = int(edge_index.max()) + 1
    if stem in made or stem != name:
        generator = torch.Generator().manual_seed(1)
        edge_index = torch.randperm(num_nodes, generator=generator)[edge_index]
        edge_index = edge_index[:, torch.randperm(edge_index.size(1), generator=generator)]
    return edge_index.int(), num_nodes


def measure(edge_index: Tensor, num_nodes: int, width: int, repeat: int) -> list[dict[str, Any]]:
    """All orders of one graph, their sums timed in turn."""
    src, dst = edge_index
    lines, sums = [], {}
    x, out = torch.randn(num_nodes, width), torch.empty(num_nodes, width)
    for name in ("given", *ORDERS):
        began = time.perf_counter()
        order = torch.arange(num_nodes) if name == "given" else order_nodes(name, src, dst, num_nodes)
        cost, new = time.perf_counter() - began, inverse(order).int()
        moved = {name: (new[src.long()], new[dst.long()])}
        if name == "rcm":
            moved |= {"rcm, sources alone": (new[src.long()], dst), "rcm, destinations alone": (src, new[dst.long()])}
        for line, (sources, destinations) in moved.items():
            rowptr, perm = ops.csr(destinations, num_nodes)
            args = (sources.index_select(0, perm), rowptr)
            sums[line] = lambda args=args: trusted.gather_reduce(x, *args, out=out)
            lines.append({"order": line, "seconds_to_order": cost})
        sums["permute"] = lambda order=order: trusted.gather(x, order, out=out)
    timings = time_interleaved(sums, repeat)
    given = timings["given"].median
    for line in lines:
        seconds = timings[line["order"]].median
        line |= {"seconds": seconds, "gb_per_s": src.numel() * (4 * width + 4) / seconds / 1e9}
        line |= {"pays_after": line["seconds_to_order"] / (given - seconds) if seconds < given else None}
    return [*lines, {"order": "permute", "seconds": timings["permute"].median}]


def main() -> None:
    """Measure, print, and save if asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--graphs", nargs="+", default=["rmat", "community", "mesh", "grid"])
    parser.add_argument("--scale", type=int, default=18, help="base-2 logarithm of the number of nodes")
    parser.add_argument("--width", type=int, default=128, help="float32 columns")
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--data", type=Path, help="folder of .npz files with an edge_index")
    parser.add_argument("--save", action="store_true", help="keep the result under benchmarks/results")
    arguments = parser.parse_args()
    warning, rows = busy(), []
    for name in arguments.graphs:
        edge_index, num_nodes = read(name, arguments.scale, arguments.data)
        about = {"graph": name, "nodes": num_nodes, "edges": edge_index.size(1), "width": arguments.width}
        rows += [{**about, **line} for line in measure(edge_index, num_nodes, arguments.width, arguments.repeat)]
    table = [
        [
            row["graph"],
            row["order"],
            f"{row.get('seconds_to_order', 0) * 1e3:.0f}",
            f"{row['seconds'] * 1e3:.1f}",
            f"{row['gb_per_s']:.1f}" if "gb_per_s" in row else "",
            f"{row['pays_after']:.0f}" if row.get("pays_after") else "",
        ]
        for row in rows
    ]
    print_table(["graph", "order", "to order, ms", "one sum, ms", "GB/s", "pays after"], table)
    if warning:
        print(warning)
    if arguments.save:
        about = {key: str(value) for key, value in vars(arguments).items() if key != "data"}
        print(save_result("orders", about, rows))


if __name__ == "__main__":
    main()
