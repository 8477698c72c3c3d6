"""DGL's own layers with the weights of a PyG model, in DGL's environment (`scripts/install-dgl`).

    cd benchmarks; FOLDER/bin/python -c "import dgl_models; dgl_models.main()" problem.pt

With ``--version`` in place of the file it tells the versions. It is no benchmark by itself: `dgl_peer.py` starts it.

``problem.pt`` holds `model`, `state` (PyG's state_dict), `x` ``[N, F]``, `ptr` ``[N + 1]`` and `src` ``[E]`` (in-edges
by destination), `threads`. Then, one per line on standard input: ``run`` runs the model once and answers its seconds,
``output FILE`` runs it and saves the result. Answers are on standard output; all else goes to standard error.

Structure is prepared once and not timed: in-edges in CSC with 32-bit numbers, self-loops, GCN's degrees.
"""

from __future__ import annotations

import os
import sys
import time
import types
from collections.abc import Callable
from typing import Any

import torch
from measure import start_clean
from torch import Tensor, nn

# Samplers are bound to a version of torch and refuse any other; no layer needs them.
sys.modules["dgl.graphbolt"] = types.ModuleType("dgl.graphbolt")

import dgl  # noqa: E402
from dgl.nn.pytorch import GATConv, GATv2Conv, GINConv, GraphConv, SAGEConv  # noqa: E402

VERSIONS = f"torch {torch.__version__}, dgl {dgl.__version__}"

State = dict[str, Tensor]
Layer = Callable[[Any, Tensor], Tensor]


def sage(graph: Any, weights: State) -> Layer:
    """SAGEConv with the mean: PyG's `lin_l` is for the neighbours, `lin_r` for the node itself."""
    rows, columns = weights["lin_l.weight"].shape
    conv = SAGEConv(columns, rows, "mean")
    fill(conv.fc_neigh.weight, weights["lin_l.weight"])
    fill(conv.fc_self.weight, weights["lin_r.weight"])
    fill(conv.fc_self.bias, weights["lin_l.bias"])
    return conv


def gcn(graph: Any, weights: State) -> Layer:
    """GraphConv; its own ``norm="both"`` takes out-degrees for sources where PyG takes in-degrees, so rows are scaled
    here, as it would scale them."""
    rows, columns = weights["lin.weight"].shape
    conv = GraphConv(columns, rows, norm="none", bias=False, allow_zero_in_degree=True)
    fill(conv.weight, weights["lin.weight"].t())
    scale = graph.in_degrees().float().pow(-0.5).unsqueeze(1)
    bias = weights["bias"]
    return lambda g, x: conv(g, x * scale) * scale + bias


def gin(graph: Any, weights: State) -> Layer:
    """GINConv with a network of two linear layers."""
    shapes = [weights[f"nn.lins.{i}.weight"].shape for i in range(2)]
    first, second = (nn.Linear(columns, rows) for rows, columns in shapes)
    for i, linear in enumerate((first, second)):
        fill(linear.weight, weights[f"nn.lins.{i}.weight"])
        fill(linear.bias, weights[f"nn.lins.{i}.bias"])
    return GINConv(nn.Sequential(first, nn.ReLU(), second), "sum", init_eps=float(weights.get("eps", 0.0)))


def gat(graph: Any, weights: State) -> Layer:
    """GATConv; heads side by side, or their mean where PyG's bias is one head wide."""
    _, heads, width = weights["att_src"].shape
    conv = GATConv(weights["lin.weight"].shape[1], width, heads, bias=False, allow_zero_in_degree=True)
    fill(conv.fc.weight, weights["lin.weight"])
    fill(conv.attn_l, weights["att_src"])
    fill(conv.attn_r, weights["att_dst"])
    return joined(conv, weights["bias"], heads * width)


def gatv2(graph: Any, weights: State) -> Layer:
    """GATv2Conv, and PyG's last bias, which it lacks."""
    _, heads, width = weights["att"].shape
    conv = GATv2Conv(weights["lin_l.weight"].shape[1], width, heads, allow_zero_in_degree=True)
    for ours, theirs in ((conv.fc_src, "lin_l"), (conv.fc_dst, "lin_r")):
        fill(ours.weight, weights[f"{theirs}.weight"])
        fill(ours.bias, weights[f"{theirs}.bias"])
    fill(conv.attn, weights["att"])
    return joined(conv, weights["bias"], heads * width)


def joined(conv: Layer, bias: Tensor, columns: int) -> Layer:
    """Joins the heads ``[N, H, F]`` of an attention as PyG does, and adds its bias."""
    if bias.numel() == columns:
        return lambda g, x: conv(g, x).flatten(1) + bias
    return lambda g, x: conv(g, x).mean(1) + bias


#: Models with equal layers in DGL. PNA, Transformer and HGT differ from PyG's in their arithmetic.
LAYERS: dict[str, Callable[[Any, State], Layer]] = {"sage": sage, "gcn": gcn, "gin": gin, "gat": gat, "gatv2": gatv2}
SELF_LOOPS = frozenset(["gcn", "gat", "gatv2"])


def fill(parameter: Tensor, value: Tensor) -> None:
    """Sets a parameter; a shape that does not fit raises."""
    with torch.no_grad():
        parameter.copy_(value.view(parameter.shape))


def build_graph(ptr: Tensor, src: Tensor, self_loops: bool) -> Any:
    """In-edges in CSC, edges numbered in that order: no look-up of edge numbers in any kernel."""
    nodes = ptr.numel() - 1
    graph = dgl.graph(("csc", (ptr.int(), src.int(), torch.empty(0, dtype=torch.int32))), num_nodes=nodes)
    if self_loops:
        graph = dgl.add_self_loop(dgl.remove_self_loop(graph))
        indptr, indices, _ = graph.adj_tensors("csc")
        graph = dgl.graph(("csc", (indptr, indices, torch.empty(0, dtype=torch.int32))), num_nodes=nodes)
    graph.create_formats_()
    return graph


def prepare(problem: dict[str, Any]) -> Callable[[], Tensor]:
    """The model on its graph, as a function without arguments."""
    name, state, x = problem["model"], problem["state"], problem["x"]
    graph = build_graph(problem["ptr"], problem["src"], name in SELF_LOOPS)
    count = 1 + max(int(key.split(".")[1]) for key in state)
    layers = []
    for number in range(count):
        prefix = f"convs.{number}."
        weights = {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}
        layers.append(LAYERS[name](graph, weights))

    @torch.no_grad()
    def run() -> Tensor:
        h = x
        for layer in layers[:-1]:
            h = layer(graph, h).relu()
        return layers[-1](graph, h)

    return run


def main() -> None:
    """Answers until standard input ends."""
    if sys.argv[1:] == ["--version"]:
        print(f"    {VERSIONS}")
        return
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # what libraries print must not mix with answers
    problem = torch.load(sys.argv[1], weights_only=True)
    torch.set_num_threads(problem["threads"])
    run = prepare(problem)
    start_clean()
    print(VERSIONS, file=answers)
    for line in sys.stdin:
        command, _, target = line.strip().partition(" ")
        start = time.perf_counter()
        out = run()
        seconds = time.perf_counter() - start
        if command == "output":
            torch.save(out, target)
        print(seconds, file=answers)
