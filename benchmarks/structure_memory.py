"""What does an engine keep with a graph, and what does it take to make it, in bytes per edge?

    python benchmarks/structure_memory.py --models sage gcn gat --log2-nodes 20 --degree 16

Every model has a process of its own, which traces it on a tiny graph and then makes the structure of a random graph of
int64 edges: checks of the indices, sorting the edges, what depends on them alone. *Held* are the bytes of all tensors
that are kept, *resident* what the process holds more than before, *peak* the most that it held meanwhile; the user's
own tensors count nowhere. Edges are those of the user: self-loops that a layer adds are not among them.

With ``--first-call`` there is one more table: the peak of the first call of a whole model (GraphSAGE of three layers on
2^18 nodes unless told otherwise) over what was resident before `fg.compile`, trace, imports and result included.
"""

from __future__ import annotations

import argparse
from typing import Any

import torch
from apart import Apart
from graphs import Source
from measure import announce, mib, peak_extra_memory, print_table, resident_bytes, save_result, start_clean
from models import EDGE_TYPES, Setting, build_inputs, build_model
from torch import Tensor, nn
from torch_geometric.nn import GATConv, GCNConv, HGTConv, PNAConv, RGCNConv, SAGEConv, TransformerConv

import pyg_fullgraph as fg
from pyg_fullgraph.graph.generate import uniform
from pyg_fullgraph.runtime.kept import Key

WIDTH = 16
RELATIONS = 4
TYPES = (["paper", "author", "field"], EDGE_TYPES)


def _hetero(nodes: int, degree: int) -> tuple[dict[str, Tensor], dict[Any, Tensor]]:
    """As many nodes and edges in all, shared equally by types."""
    count = nodes // 3
    x = {name: torch.randn(count, WIDTH) for name in TYPES[0]}
    edges = count * degree // 3
    return x, {kind: torch.randint(count, (2, edges)) for kind in EDGE_TYPES}


def layer_and_inputs(name: str, nodes: int, degree: int) -> tuple[nn.Module, tuple[Any, ...], int]:
    """A layer, the arguments of its forward on a random graph, and how many edges that has.

    Args:
        name: one of `LAYERS`.
        nodes, degree: of the graph.
    """
    torch.manual_seed(0)
    if name == "hgt":
        x_dict, edges_dict = _hetero(nodes, degree)
        return HGTConv(WIDTH, WIDTH, TYPES, heads=2), (x_dict, edges_dict), sum(e.shape[1] for e in edges_dict.values())
    edges = uniform(nodes, nodes * degree, seed=0)
    count, x = edges.shape[1], torch.randn(nodes, WIDTH)
    return LAYERS[name](), (x, edges, *EXTRA.get(name, lambda _: ())(count)), count


LAYERS: dict[str, Any] = {
    "sage": lambda: SAGEConv(WIDTH, WIDTH),
    "gcn": lambda: GCNConv(WIDTH, WIDTH),
    "gcn_weighted": lambda: GCNConv(WIDTH, WIDTH),
    "gat": lambda: GATConv(WIDTH, WIDTH),
    "rgcn": lambda: RGCNConv(WIDTH, WIDTH, RELATIONS),
    "pna": lambda: PNAConv(
        WIDTH, WIDTH, ["mean", "max", "std"], ["identity", "amplification"], torch.tensor([0, 3, 5, 9])
    ),
    "transformer": lambda: TransformerConv(WIDTH, WIDTH, edge_dim=4),
    "hgt": None,
}
EXTRA: dict[str, Any] = {
    "gcn_weighted": lambda count: (torch.rand(count),),
    "rgcn": lambda count: (torch.randint(RELATIONS, (count,)),),
    "transformer": lambda count: (torch.randn(count, 4),),
}


class StructureRunner:
    """One model in a process of its own."""

    def __init__(self, name: str, nodes: int, degree: int) -> None:
        tiny, tiny_inputs, _ = layer_and_inputs(name, 96, 4)
        _, self.inputs, self.edges = layer_and_inputs(name, nodes, degree)
        self.engine = fg.compile(tiny.eval(), verify=False)
        self.engine(*tiny_inputs)

    def measure(self) -> dict[str, Any]:
        """Bytes per edge held and at the peak, and seconds."""
        engine = self.engine
        state, signature, tensors = engine._bind(self.inputs, {})
        captured, key = engine._capture(signature, state, tensors), Key.of(signature, tensors)
        start_clean()
        before = resident_bytes()
        peak = peak_extra_memory(lambda: engine._structure(captured, tensors, key), before=before)
        start_clean()
        held, each = peak.out.nbytes(), self.edges
        return {
            "edges": each,
            "held": held / each,
            "resident": (resident_bytes() - before) / each,
            "peak": peak.extra / each,
            "seconds": peak.seconds,
        }


class FirstCallRunner:
    """A first call in a process of its own, of which nothing was done before."""

    def __init__(self, setting: Setting) -> None:
        self.model, self.inputs = build_model(setting).eval(), build_inputs(setting)

    def measure(self) -> dict[str, Any]:
        """The peak over what was resident before the model was compiled, and seconds."""
        start_clean()
        peak = peak_extra_memory(lambda: fg.compile(self.model)(*self.inputs))
        return {"extra": peak.extra, "result": peak.result, "seconds": peak.seconds}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", choices=list(LAYERS), default=list(LAYERS))
    parser.add_argument("--log2-nodes", type=int, default=20)
    parser.add_argument("--degree", type=int, default=16)
    parser.add_argument("--first-call", nargs="*", metavar="MODEL", help="of models.py; sage if none is named")
    parser.add_argument("--first-log2-nodes", type=int, default=18)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--save", action="store_true")
    arguments = parser.parse_args()
    announce(arguments.threads)
    rows = []
    for name in arguments.models:
        with Apart(StructureRunner, name, 1 << arguments.log2_nodes, arguments.degree) as process:
            rows.append({"model": name, **process.call("measure")})
        row = rows[-1]
        print(" ".join(f"{key}={row[key]:.2f}" if isinstance(row[key], float) else str(row[key]) for key in row))
    print_table(
        ["model", "edges", "held", "resident", "peak", "seconds"],
        [
            [r["model"], f"{r['edges']:,}", *(f"{r[key]:.2f}" for key in ("held", "resident", "peak", "seconds"))]
            for r in rows
        ],
    )
    firsts = []
    if arguments.first_call is not None:
        for name in arguments.first_call or ["sage"]:
            setting = Setting(name, Source(arguments.first_log2_nodes, arguments.degree))
            with Apart(FirstCallRunner, setting) as process:
                firsts.append({"model": name, **process.call("measure")})
        print_table(
            ["first call", "peak", "result", "seconds"],
            [[r["model"], mib(r["extra"]), mib(r["result"]), f"{r['seconds']:.2f}"] for r in firsts],
        )
    if arguments.save:
        save_result("structure-memory", vars(arguments), rows + firsts)


if __name__ == "__main__":
    main()
