"""`pyg-fullgraph demo`: train a GCN and a GAT on a graph, run each in three ways, print what each way costs.

The ways: PyG's full-batch forward, which defines the right answer; PyG's `model.inference(NeighborLoader)`,
or the same computation in plain torch where no sampler is installed; and `pyg_fullgraph.inference`.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
import torch.nn.functional as F
import torch_geometric.typing
from torch import Tensor
from torch_geometric.data import Data, HeteroData
from torch_geometric.loader import NeighborLoader
from torch_geometric.nn.models import GAT, GCN
from torch_geometric.nn.models.basic_gnn import BasicGNN

from pyg_fullgraph import api
from pyg_fullgraph.errors import InputError
from pyg_fullgraph.front.measure import Measured, measure
from pyg_fullgraph.front.readers import community_data, karate, random_split, read_graph

DATA_VARIABLE = "PYG_FULLGRAPH_DEMO_DATA"
FULL_BATCH = "PyG full-batch forward"
SPARSE_BELOW = 0.05  # share of non-zero features below which training on a sparse copy is the faster way


@dataclass(frozen=True)
class Settings:
    """What the demo trains and how.

    Args:
        epochs: full-batch training steps per model.
        hidden: columns of the hidden layer (GAT: `heads` heads together).
        heads: attention heads of the GAT.
        layers: layers of either model.
        batch_size: seed nodes per mini-batch of PyG's `inference()`.
        repeat: timed calls per way, after one that is not counted.
        seed: of the weights, dropout and random splits.
    """

    epochs: int = 30
    hidden: int = 64
    heads: int = 4
    layers: int = 2
    batch_size: int = 1024
    repeat: int = 3
    seed: int = 0


@dataclass(frozen=True)
class Row:
    """One way to run a model over a graph, and how it compares with the full-batch forward.

    Args:
        way: its name.
        accuracy: share of the test nodes whose label is right.
        difference: largest difference to the full-batch output, relative to that output's largest magnitude.
        changed: share of all nodes whose predicted label is not that of the full-batch forward.
        seconds: median.
        first: seconds of the first call.
        peak: extra memory at the peak, in bytes; -1 where it could not be measured.
    """

    way: str
    accuracy: float
    difference: float
    changed: float
    seconds: float
    first: float
    peak: int


def one_hop_blocks(edge_index: Tensor, num_nodes: int, batch_size: int) -> Iterator[tuple[Tensor, Tensor, int]]:
    """Yield what `NeighborLoader(num_neighbors=[-1])` yields for all nodes in order, in plain torch.

    Args:
        edge_index: `[2, E]`, source and destination.
        num_nodes: N.
        batch_size: destination nodes per block.

    Yields:
        The nodes of the block (its destinations first), its edges `[2, e]` in numbers of the block, and how
        many destinations it has.
    """
    order = torch.argsort(edge_index[1], stable=True)
    source = edge_index[0, order]
    degree = torch.bincount(edge_index[1], minlength=num_nodes)
    rowptr = F.pad(degree.cumsum(0), (1, 0))
    local = torch.full((num_nodes,), -1)
    for start in range(0, num_nodes, batch_size):
        seeds = torch.arange(start, min(start + batch_size, num_nodes))
        seen = source[rowptr[start] : rowptr[seeds[-1] + 1]]
        outside = (seen < start) | (seen > seeds[-1])
        nodes = torch.cat([seeds, torch.unique(seen[outside])])
        local[nodes] = torch.arange(nodes.numel())
        destination = torch.repeat_interleave(seeds - start, degree[seeds])
        yield nodes, torch.stack([local[seen], destination]), seeds.numel()


@torch.no_grad()
def blockwise_inference(model: BasicGNN, data: Data, batch_size: int) -> Tensor:
    """Compute what PyG's `model.inference(NeighborLoader(data, [-1]))` computes, without a sampler.

    It calls the model's own `inference_per_layer` on exact one-hop blocks, as PyG does. A GCN therefore
    normalises by the degrees *inside the block*, where nodes that are sources only have none: that is PyG's
    result, not a defect of this emulation.

    Args:
        model: with `num_layers` and `inference_per_layer`.
        data: with `x` `[N, F]` and `edge_index` `[2, E]`.
        batch_size: destination nodes per block.
    """
    x_all = data.x
    for layer in range(model.num_layers):
        outputs = [
            model.inference_per_layer(layer, x_all[nodes], edge_index, size)
            for nodes, edge_index, size in one_hop_blocks(data.edge_index, data.num_nodes, batch_size)
        ]
        x_all = torch.cat(outputs)
    return x_all


def sampler_name() -> str | None:
    """The package that lets PyG's NeighborLoader sample, None where there is none."""
    if torch_geometric.typing.WITH_PYG_LIB:
        return "pyg-lib"
    return "torch-sparse" if torch_geometric.typing.WITH_TORCH_SPARSE else None


@torch.no_grad()
def forward(model: BasicGNN, data: Data) -> Tensor:
    """Run the model over the whole graph at once: the definition of the right answer."""
    return model(data.x, data.edge_index)


def ways(model: BasicGNN, data: Data, batch_size: int) -> dict[str, Callable[[], Tensor]]:
    """The ways to run a model over all nodes, by name; the first is the reference."""
    if sampler_name():
        loader = NeighborLoader(data, num_neighbors=[-1], batch_size=batch_size, shuffle=False)
        theirs, label = partial(model.inference, loader), f"PyG inference(), batches of {batch_size}"
    else:
        theirs = partial(blockwise_inference, model, data, batch_size)
        label = f"PyG inference(), batches of {batch_size} *"
    return {
        FULL_BATCH: partial(forward, model, data),
        label: theirs,
        "pyg_fullgraph.inference": partial(api.inference, model, data),
    }


def train(model: BasicGNN, data: Data, epochs: int) -> float:
    """Train on the training nodes, full batch, and return the loss of the last step."""
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01, weight_decay=5e-4)
    loss = torch.zeros(())
    filled = float(data.x.count_nonzero()) / max(data.x.numel(), 1)
    x = data.x.to_sparse() if filled < SPARSE_BELOW else data.x
    model.train()
    for _ in range(epochs):
        optimizer.zero_grad()
        out = model(x, data.edge_index)
        loss = F.cross_entropy(out[data.train_mask], data.y[data.train_mask])
        loss.backward()
        optimizer.step()
    model.eval()
    return float(loss.detach())


def compare(way: str, run: Measured[Tensor], reference: Tensor, data: Data) -> Row:
    """Put one way's output beside the reference `[N, classes]`."""
    labels, right = run.value.argmax(dim=-1), reference.argmax(dim=-1)
    test = data.test_mask
    scale = float(reference.abs().max())
    return Row(
        way=way,
        accuracy=float((labels[test] == data.y[test]).float().mean()),
        difference=float((run.value - reference).abs().max()) / scale,
        changed=float((labels != right).float().mean()),
        seconds=run.seconds,
        first=run.first,
        peak=run.peak,
    )


def evaluate(model: BasicGNN, data: Data, settings: Settings) -> list[Row]:
    """Run a trained model in every way and compare each with the full-batch forward."""
    rows: list[Row] = []
    reference: Tensor | None = None
    for way, call in ways(model, data, settings.batch_size).items():
        run = measure(call, repeat=settings.repeat)
        reference = run.value if reference is None else reference
        rows.append(compare(way, run, reference, data))
    return rows


def build_models(data: Data, settings: Settings) -> dict[str, BasicGNN]:
    """The two models of the demo, untrained, by name."""
    columns, classes = data.x.size(1), int(data.y.max()) + 1
    sizes = (columns, settings.hidden, settings.layers, classes)
    return {
        "GCN": GCN(*sizes, dropout=0.5),
        "GAT": GAT(*sizes, dropout=0.5, heads=settings.heads),
    }


def check_graph(data: Data | HeteroData, source: str) -> Data:
    """Return the graph if the demo can train on it, with random masks where it has none.

    Raises:
        InputError: if it is heterogeneous, or has no node features or no node labels.
    """
    if isinstance(data, HeteroData):
        raise InputError(f"the demo trains on one node type, but '{source}' is heterogeneous; give another graph")
    missing = [name for name in ("x", "y") if getattr(data, name, None) is None]
    if missing or data.y.dim() != 1 or data.y.size(0) != data.num_nodes:
        what = f"no {' and no '.join(missing)}" if missing else f"y of shape {tuple(data.y.shape)}"
        raise InputError(
            f"the demo needs features x [N, F] and one label per node y [N], but '{source}' has {what}; "
            "give another graph, for example --data community"
        )
    if getattr(data, "train_mask", None) is None or getattr(data, "test_mask", None) is None:
        random_split(data)
    data.x = data.x.float() if data.x.layout == torch.strided else data.x.to_dense().float()
    return data


def graphs(source: str | None) -> Iterator[tuple[str, Data]]:
    """Yield the graphs to show, by name; without a source those that need neither a file nor a network."""
    if source:
        name = Path(source).name if source.endswith((".npz", ".pt", ".pth")) else source
        yield name, check_graph(read_graph(source), source)
        return
    print(
        "No graph was named (--data FILE.npz, FILE.pt or Planetoid/PubMed), so none is looked for on the\n"
        "network. These two need neither network nor file: Zachary's karate club, the largest real graph\n"
        "that the PyG package itself contains, and a generated community graph."
    )
    yield "karate (real)", karate()
    data = community_data()
    yield f"{data.name} (generated)", data


def format_row(row: Row) -> list[str]:
    """The cells of one row."""
    peak = "unknown" if row.peak < 0 else f"{row.peak / 2**20:,.0f} MiB"
    return [
        row.way,
        f"{row.accuracy:.4f}",
        f"{row.difference:.1e}",
        f"{100 * row.changed:.2f} %",
        f"{row.seconds:.3f}",
        f"{row.first:.3f}",
        peak,
    ]


def format_table(rows: list[Row]) -> str:
    """The rows as a Markdown table, columns aligned."""
    head = [
        "way",
        "test accuracy",
        "largest difference",
        "labels that differ",
        "seconds",
        "first call",
        "peak extra memory",
    ]
    cells = [head, *map(format_row, rows)]
    widths = [max(len(line[i]) for line in cells) for i in range(len(head))]
    lines = [
        [cell.ljust(w) if i == 0 else cell.rjust(w) for i, (cell, w) in enumerate(zip(line, widths))] for line in cells
    ]
    rule = ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]
    return "\n".join("| " + " | ".join(line) + " |" for line in [lines[0], rule, *lines[1:]])


def describe(name: str, data: Data) -> str:
    """One line on a graph."""
    classes = int(data.y.max()) + 1
    return (
        f"Graph {name}: {data.num_nodes:,} nodes, {data.num_edges:,} edges, {data.x.size(1):,} columns, "
        f"{classes} classes, {int(data.train_mask.sum()):,} training and {int(data.test_mask.sum()):,} test"
    )


def legend(settings: Settings) -> str:
    """What the columns mean."""
    lines = [
        "largest difference: to PyG's full-batch forward, relative to its largest output.",
        "labels that differ: predictions that are not those of the full-batch forward, of all nodes.",
        f"seconds: median of {settings.repeat} calls after the first; first call: with all one-time work.",
        "peak extra memory: growth of the process during a call, its result included.",
    ]
    if not sampler_name():
        lines.append(
            "* neither pyg-lib nor torch-sparse is installed, so PyG cannot sample: the same computation\n"
            "  on exact one-hop blocks, in plain torch. Like PyG, it normalises a GCN by the degrees inside\n"
            "  a block."
        )
    return "\n".join(lines)


def show(name: str, data: Data, settings: Settings) -> dict[str, list[Row]]:
    """Train both models on one graph, print a table for each, and return the rows by model."""
    print(f"\n{describe(name, data)}", flush=True)
    results = {}
    torch.manual_seed(settings.seed)
    for model_name, model in build_models(data, settings).items():
        start = time.perf_counter()
        loss = train(model, data, settings.epochs)
        took = time.perf_counter() - start
        print(
            f"\n{model_name}, {settings.layers} layers, {settings.hidden} wide: trained "
            f"{settings.epochs} epochs in {took:.1f} s (loss {loss:.3f}); now running it over all nodes ...",
            flush=True,
        )
        results[model_name] = evaluate(model, data, settings)
        print(format_table(results[model_name]), flush=True)
    return results


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the demo's options to a parser."""
    default = Settings()
    parser.add_argument(
        "--data",
        default=os.environ.get(DATA_VARIABLE),
        help=f"an .npz or .pt file, a PyG data set such as Planetoid/PubMed, karate, or community:NODES "
        f"(default: ${DATA_VARIABLE}, else two graphs that need no network)",
    )
    parser.add_argument("--epochs", type=int, default=default.epochs, help="training steps (default: %(default)s)")
    parser.add_argument("--hidden", type=int, default=default.hidden, help="hidden columns (default: %(default)s)")
    parser.add_argument("--heads", type=int, default=default.heads, help="heads of the GAT (default: %(default)s)")
    parser.add_argument("--layers", type=int, default=default.layers, help="layers (default: %(default)s)")
    parser.add_argument(
        "--batch-size",
        type=int,
        default=default.batch_size,
        help="batch of PyG's inference() (default: %(default)s)",
    )
    parser.add_argument("--repeat", type=int, default=default.repeat, help="timed calls (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=default.seed, help="random seed (default: %(default)s)")


def settings_from(arguments: argparse.Namespace) -> Settings:
    """The settings of a parsed command line.

    Raises:
        InputError: if a number is not positive, or the heads do not divide the hidden columns.
    """
    names = ("epochs", "hidden", "heads", "layers", "batch_size", "repeat", "seed")
    settings = Settings(**{name: getattr(arguments, name) for name in names})
    for name in names[1:-1]:
        if getattr(settings, name) < 1:
            raise InputError(f"--{name.replace('_', '-')} must be at least 1, got {getattr(settings, name)}")
    if settings.hidden % settings.heads:
        raise InputError(f"--hidden ({settings.hidden}) must be a multiple of --heads ({settings.heads})")
    return settings


def run(arguments: argparse.Namespace) -> int:
    """Run the demo for a parsed command line and return the exit status."""
    settings = settings_from(arguments)
    print(
        f"torch {torch.__version__}, torch_geometric {torch_geometric.__version__}, {torch.get_num_threads()} threads"
    )
    for name, data in graphs(arguments.data):
        show(name, data, settings)
    print("\n" + legend(settings))
    return 0


def main(argv: list[str] | None = None) -> int:
    """Parse a command line and run the demo."""
    parser = argparse.ArgumentParser(prog="pyg-fullgraph demo", description=__doc__)
    add_arguments(parser)
    return run(parser.parse_args(argv))


if __name__ == "__main__":
    raise SystemExit(main())
