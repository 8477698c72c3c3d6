"""How fast and how lean is a whole model on a whole graph, against PyG's own ways to run it?

    python benchmarks/whole_model.py --models sage gat --log2-nodes 18

Three-layer models, 128 columns wide, on an R-MAT graph of ``2**k`` nodes. One run prints, for every peer:
seconds (median of interleaved rounds) and how many times `fg.compile` is faster; the peak extra memory of the
first call on the graph and of a later one, each in a process of its own that has run the model on a tiny
graph before; the largest difference to PyG's full batch relative to the largest output magnitude; and for
`fg.compile` the bytes it moved against measured bandwidth.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from baselines import (
    FAN_OUT,
    LAYER_BATCH,
    SAMPLED_BATCH,
    csr_adjacency,
    full_batch,
    full_batch_csr,
    has_sampler,
    layer_wise,
    sampled_epoch,
)
from measure import (
    Timing,
    busy,
    machine,
    measured_bandwidth,
    mib,
    peak_extra_memory_apart,
    print_table,
    save_result,
    time_interleaved,
)
from torch import Tensor, nn
from torch_geometric.nn.models import GAT, GCN, GIN, PNA, GraphSAGE

import pyg_fullgraph as fg
from pyg_fullgraph.graph.generate import rmat

WIDTH = 128
LAYERS = 3
MODELS = ("sage", "gcn", "gin", "gat", "gatv2", "pna")
OURS = "fg.compile"
CSR = "PyG full batch, CSR"
#: Seen on R-MAT graphs: GAT agrees once duplicates are removed, GCN once self-loops are removed too.
CSR_DIFFERS = (
    "where a layer adds self-loops to a matrix, PyG merges duplicate edges and treats existing self-loops "
    "otherwise than in an edge list, hence the difference"
)


@dataclass(frozen=True)
class Setting:
    """One model on one graph; small enough to send to another process.

    Attributes:
        model: one of `MODELS`.
        log2_nodes: the graph has ``2**log2_nodes`` nodes.
        degree: the mean in-degree.
        seed: of graph, features and weights.
    """

    model: str
    log2_nodes: int
    degree: int
    seed: int = 0


def build_graph(setting: Setting) -> tuple[Tensor, Tensor]:
    """Features ``[N, 128]`` and ``edge_index`` ``[2, E]``."""
    edge_index = rmat(setting.log2_nodes, setting.degree, seed=setting.seed)
    x = torch.randn(1 << setting.log2_nodes, WIDTH, generator=torch.Generator().manual_seed(setting.seed))
    return x, edge_index


def build_model(setting: Setting, edge_index: Tensor) -> nn.Module:
    """The model with random weights, in evaluation mode. PNA reads the graph's degrees."""
    torch.manual_seed(setting.seed)
    sizes = {"in_channels": WIDTH, "hidden_channels": WIDTH, "num_layers": LAYERS, "out_channels": WIDTH}
    if setting.model == "pna":
        degrees = torch.bincount(torch.bincount(edge_index[1], minlength=1 << setting.log2_nodes))
        lists = {
            "aggregators": ["mean", "min", "max", "std"],
            "scalers": ["identity", "amplification", "attenuation"],
        }
        return PNA(**sizes, **lists, deg=degrees).eval()
    builders: dict[str, Callable[[], nn.Module]] = {
        "sage": lambda: GraphSAGE(**sizes),
        "gcn": lambda: GCN(**sizes),
        "gin": lambda: GIN(**sizes),
        "gat": lambda: GAT(**sizes, heads=4),
        "gatv2": lambda: GAT(**sizes, heads=4, v2=True),
    }
    return builders[setting.model]().eval()


def prepare(peer: str, model: nn.Module, x: Tensor, edge_index: Tensor) -> Callable[[], Tensor]:
    """What a peer runs, with everything done that its user would do beforehand."""
    if peer == OURS:
        engine = fg.compile(model)
        return lambda: engine(x, edge_index)
    if peer == "PyG full batch":
        return lambda: full_batch(model, x, edge_index)
    if peer == CSR:
        adj_t = csr_adjacency(edge_index, x.size(0))
        return lambda: full_batch_csr(model, x, adj_t)
    if peer.startswith("PyG inference()"):
        return lambda: layer_wise(model, x, edge_index)
    raise AssertionError(peer)


def prepare_apart(peer: str, setting: Setting) -> Callable[[], Tensor]:
    """As `prepare`, in a fresh process, after one call on a tiny graph: imports and tracing do not count."""
    x, edge_index = build_graph(setting)
    model = build_model(setting, edge_index)
    tiny = build_graph(replace(setting, log2_nodes=8))
    if peer == OURS:
        engine = fg.compile(model)
        engine(*tiny)
        return lambda: engine(x, edge_index)
    prepare(peer, model, *tiny)()
    return prepare(peer, model, x, edge_index)


def peer_names(arguments: argparse.Namespace) -> list[str]:
    """The peers of this run, ours first."""
    emulated = "" if has_sampler() else " (emulated)"
    names = [OURS, "PyG full batch", CSR]
    return names if arguments.no_layer_wise else [*names, f"PyG inference(){emulated}"]


def measure_memory(peers: list[str], setting: Setting) -> dict[str, tuple[int, int] | str]:
    """Peak extra bytes of the first and a second call of every peer, or why there is none."""
    memory: dict[str, tuple[int, int] | str] = {}
    for peer in peers:
        try:
            first, again = peak_extra_memory_apart(prepare_apart, peer, setting, runs=2)
            memory[peer] = (first.extra, again.extra)
        except RuntimeError as error:
            memory[peer] = str(error)
    return memory


def run_model(setting: Setting, arguments: argparse.Namespace, bandwidth: float) -> list[dict[str, Any]]:
    """Measures every peer of one model, prints the table and returns its rows."""
    memory = measure_memory(peer_names(arguments), setting)
    # A peer that fails alone in a process would take this one down with it.
    able = [peer for peer, peak in memory.items() if not isinstance(peak, str)]
    x, edge_index = build_graph(setting)
    model = build_model(setting, edge_index)
    runs = {peer: prepare(peer, model, x, edge_index) for peer in able}
    timings = time_interleaved(runs, arguments.repeat)
    reference = full_batch(model, x, edge_index) if "PyG full batch" in able else None
    rows = []
    for peer in able:
        difference = None if reference is None else relative_difference(runs[peer](), reference)
        rows.append(_row(setting, peer, timings, memory, difference))
    if OURS in able:
        _add_traffic(rows[0], model, x, edge_index, bandwidth)
    if not arguments.no_sampled:
        rows.append(_sampled_row(setting, model, x, edge_index, timings.get(OURS)))
    rows += [{**asdict(setting), "peer": peer, "failed": why} for peer, why in memory.items() if isinstance(why, str)]
    _print(setting, edge_index.size(1), rows)
    return rows


def relative_difference(out: Tensor, reference: Tensor) -> float:
    """The largest absolute difference over the largest magnitude of the reference."""
    return float((out - reference).abs().max() / reference.abs().max().clamp(min=1e-30))


def _row(
    setting: Setting,
    peer: str,
    timings: dict[str, Timing],
    memory: dict[str, tuple[int, int] | str],
    difference: float | None,
) -> dict[str, Any]:
    """One peer's record; ratios are peer over ours."""
    peaks = memory[peer]
    assert isinstance(peaks, tuple)
    first, again = peaks
    row = {
        **asdict(setting),
        "peer": peer,
        "seconds": timings[peer].median,
        "spread": timings[peer].spread,
        "first_call_seconds": timings[peer].first,
        "extra_bytes": first,
        "extra_bytes_again": again,
        "difference": difference,
    }
    if OURS in timings:
        ours = memory[OURS]
        assert isinstance(ours, tuple)
        row["times_ours"] = timings[peer].median / timings[OURS].median
        row["memory_times_ours"] = first / max(ours[0], 1)
    return row


def _add_traffic(row: dict[str, Any], model: nn.Module, x: Tensor, edge_index: Tensor, bandwidth: float) -> None:
    """Adds the bytes that our run moved, and their share of the measured bandwidth."""
    moved = getattr(fg.compile(model).explain(x, edge_index), "bytes_moved", None)
    if moved is not None:
        row["bytes_moved"] = int(moved)
        row["bandwidth_share"] = moved / row["seconds"] / bandwidth


def _sampled_row(
    setting: Setting, model: nn.Module, x: Tensor, edge_index: Tensor, ours: Timing | None
) -> dict[str, Any]:
    """The record of sampled mini-batches: inexact, and extrapolated from a few batches."""
    epoch = sampled_epoch(model, x, edge_index, fan_out=FAN_OUT, batch_size=SAMPLED_BATCH)
    row = {
        **asdict(setting),
        "peer": f"sampled {'-'.join(map(str, FAN_OUT))}{'' if has_sampler() else ' (emulated)'}",
        "seconds": epoch.seconds,
        "note": f"inexact; extrapolated from {epoch.timed} of {epoch.batches} batches of {SAMPLED_BATCH} "
        "seeds, "
        f"{epoch.nodes_per_batch:,.0f} nodes each",
    }
    if ours is not None:
        row["times_ours"] = epoch.seconds / ours.median
    return row


def _print(setting: Setting, num_edges: int, rows: list[dict[str, Any]]) -> None:
    """The table of one model and its footnotes."""
    print(
        f"\n{setting.model}: {LAYERS} layers x {WIDTH} columns, {1 << setting.log2_nodes:,} nodes, {num_edges:,} edges"
    )
    header = [
        "peer",
        "seconds",
        "x ours",
        "first call",
        "extra memory",
        "x ours",
        "again",
        "difference",
        "spread",
    ]
    table = []
    for row in rows:
        if "failed" in row:
            continue
        table.append(
            [
                row["peer"],
                f"{row['seconds']:.3f}",
                _ratio(row.get("times_ours")),
                f"{row['first_call_seconds']:.3f}" if "first_call_seconds" in row else "-",
                mib(row["extra_bytes"]) if "extra_bytes" in row else "-",
                _ratio(row.get("memory_times_ours")),
                mib(row["extra_bytes_again"]) if "extra_bytes_again" in row else "-",
                f"{row['difference']:.1e}" if row.get("difference") is not None else "-",
                f"{row['spread']:.2f}" if "spread" in row else "-",
            ]
        )
    print_table(header, table)
    for row in rows:
        if "bytes_moved" in row:
            print(
                f"{row['peer']}: moved {mib(row['bytes_moved'])}, {row['bandwidth_share']:.0%} of the "
                "measured bandwidth"
            )
        if row["peer"] == CSR and (row.get("difference") or 0.0) > 1e-4:
            print(f"{CSR}: {CSR_DIFFERS}")
        if "note" in row:
            print(f"{row['peer']}: {row['note']}")
        if "failed" in row:
            print(f"{row['peer']}: not measured. {row['failed']}")


def _ratio(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", choices=MODELS, default=["sage", "gcn", "gat"], help="models to run")
    parser.add_argument("--log2-nodes", type=int, default=18, help="base-2 logarithm of the number of nodes")
    parser.add_argument("--degree", type=int, default=16, help="mean in-degree")
    parser.add_argument("--repeat", type=int, default=3, help="timed rounds after the first")
    parser.add_argument("--threads", type=int, default=None, help="torch threads (default: torch's own)")
    parser.add_argument("--no-sampled", action="store_true", help="leave out the sampled mini-batches")
    parser.add_argument(
        "--no-layer-wise", action="store_true", help=f"leave out inference() in batches of {LAYER_BATCH}"
    )
    parser.add_argument("--save", action="store_true", help="write a dated file under benchmarks/results")
    return parser.parse_args(argv)


def main() -> None:
    """Runs the benchmark."""
    arguments = parse()
    if arguments.threads is not None:
        torch.set_num_threads(arguments.threads)
    warning = busy()
    print("; ".join(f"{key} {value}" for key, value in machine().items()))
    if warning is not None:
        print(warning)
    bandwidth = measured_bandwidth()
    print(f"memory bandwidth (triad): {bandwidth / 1e9:.1f} GB/s; sampler: {'installed' if has_sampler() else 'none'}")
    rows: list[dict[str, Any]] = []
    for name in arguments.models:
        rows += run_model(Setting(name, arguments.log2_nodes, arguments.degree), arguments, bandwidth)
    if arguments.save:
        settings = {
            **vars(arguments),
            "warning": warning,
            "bandwidth_bytes_per_second": bandwidth,
            "width": WIDTH,
            "layers": LAYERS,
        }
        print(f"\nwritten: {save_result('whole-model', settings, rows)}")


if __name__ == "__main__":
    main()
