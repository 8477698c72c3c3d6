"""How fast and how lean is a whole model on a whole graph, against PyG's own ways to run it?

    python benchmarks/whole_model.py --models sage gat --log2-nodes 18

Three-layer models (`models.py`), 128 columns wide, on an R-MAT graph of ``2**k`` nodes. One run prints, for
every peer that can take the model: seconds (median of interleaved rounds) and how many times `fg.compile` is
faster; the peak extra memory of the first call on the graph and of a later one, each in a process of its own
that has run the model on a tiny graph before; the largest difference to PyG's full batch relative to the
largest output magnitude; and for `fg.compile` the bytes it moved against measured bandwidth.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import asdict, replace
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
from models import (
    HAS_INFERENCE,
    LAYERS,
    MODELS,
    SAMPLED,
    TAKES_MATRIX,
    Setting,
    build_inputs,
    build_model,
    num_edges,
)
from torch import nn
from torch.utils._pytree import tree_leaves

import pyg_fullgraph as fg

OURS = "fg.compile"
FULL = "PyG full batch"
CSR = "PyG full batch, CSR"
#: Seen on R-MAT graphs: GAT agrees once duplicates are removed, GCN once self-loops are removed too.
CSR_DIFFERS = (
    "where a layer adds self-loops to a matrix, PyG merges duplicate edges and treats existing self-loops "
    "otherwise than in an edge list, hence the difference"
)


def prepare(peer: str, model: nn.Module, inputs: tuple[Any, ...]) -> Callable[[], Any]:
    """What a peer runs, with everything done that its user would do beforehand."""
    if peer == OURS:
        engine = fg.compile(model)
        return lambda: engine(*inputs)
    if peer == FULL:
        return lambda: full_batch(model, *inputs)
    x, edge_index = inputs
    if peer == CSR:
        adj_t = csr_adjacency(edge_index, x.size(0))
        return lambda: full_batch_csr(model, x, adj_t)
    if peer.startswith("PyG inference()"):
        return lambda: layer_wise(model, x, edge_index)
    raise AssertionError(peer)


def prepare_apart(peer: str, setting: Setting) -> Callable[[], Any]:
    """As `prepare`, in a fresh process, after one call on a tiny graph: imports and tracing do not count."""
    inputs, model = build_inputs(setting), build_model(setting)
    tiny = build_inputs(replace(setting, log2_nodes=8))
    if peer == OURS:
        engine = fg.compile(model)
        engine(*tiny)
        return lambda: engine(*inputs)
    prepare(peer, model, tiny)()
    return prepare(peer, model, inputs)


def peer_names(arguments: argparse.Namespace, model: str) -> list[str]:
    """The peers of this run that can take the model, ours first."""
    emulated = "" if has_sampler() else " (emulated)"
    names = [OURS, FULL]
    if model in TAKES_MATRIX and not arguments.no_matrix:
        names.append(CSR)
    if model in HAS_INFERENCE and not arguments.no_layer_wise:
        names.append(f"PyG inference(){emulated}")
    return names


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
    memory = measure_memory(peer_names(arguments, setting.model), setting)
    # A peer that fails alone in a process would take this one down with it.
    able = [peer for peer, peak in memory.items() if not isinstance(peak, str)]
    inputs, model = build_inputs(setting), build_model(setting)
    runs = {peer: prepare(peer, model, inputs) for peer in able}
    timings = time_interleaved(runs, arguments.repeat)
    reference = full_batch(model, *inputs) if FULL in able else None
    rows = []
    for peer in able:
        difference = None if reference is None else relative_difference(runs[peer](), reference)
        rows.append(_row(setting, peer, timings, memory, difference))
    if OURS in able:
        _add_traffic(rows[0], model, inputs, bandwidth)
    if not arguments.no_sampled and setting.model in SAMPLED:
        rows.append(_sampled_row(setting, model, inputs, timings.get(OURS)))
    rows += [{**asdict(setting), "peer": peer, "failed": why} for peer, why in memory.items() if isinstance(why, str)]
    _print(setting, num_edges(inputs), rows)
    return rows


def relative_difference(out: Any, reference: Any) -> float:
    """The largest absolute difference over the largest magnitude of the reference, of the worst output tensor."""
    pairs = zip(tree_leaves(out), tree_leaves(reference), strict=True)
    return max(float((a - b).abs().max() / b.abs().max().clamp(min=1e-30)) for a, b in pairs)


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


def _add_traffic(row: dict[str, Any], model: nn.Module, inputs: tuple[Any, ...], bandwidth: float) -> None:
    """Adds the bytes that our run moved, and their share of the measured bandwidth."""
    moved = getattr(fg.compile(model).explain(*inputs), "bytes_moved", None)
    if moved is not None:
        row["bytes_moved"] = int(moved)
        row["bandwidth_share"] = moved / row["seconds"] / bandwidth


def _sampled_row(setting: Setting, model: nn.Module, inputs: tuple[Any, ...], ours: Timing | None) -> dict[str, Any]:
    """The record of sampled mini-batches: inexact, and extrapolated from a few batches."""
    epoch = sampled_epoch(model, *inputs, fan_out=FAN_OUT, batch_size=SAMPLED_BATCH)
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


def _print(setting: Setting, edges: int, rows: list[dict[str, Any]]) -> None:
    """The table of one model and its footnotes."""
    nodes = 1 << setting.log2_nodes
    print(f"\n{setting.model}: {LAYERS} layers x {setting.width} columns, {nodes:,} nodes, {edges:,} edges")
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
    parser.add_argument("--width", type=int, default=128, help="columns of features, hidden layers and output")
    parser.add_argument("--repeat", type=int, default=3, help="timed rounds after the first")
    parser.add_argument("--threads", type=int, default=None, help="torch threads (default: torch's own)")
    parser.add_argument("--no-sampled", action="store_true", help="leave out the sampled mini-batches")
    parser.add_argument(
        "--no-layer-wise", action="store_true", help=f"leave out inference() in batches of {LAYER_BATCH}"
    )
    parser.add_argument("--no-matrix", action="store_true", help="leave out PyG on a sparse matrix, where it takes one")
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
        rows += run_model(Setting(name, arguments.log2_nodes, arguments.degree, arguments.width), arguments, bandwidth)
    if arguments.save:
        settings = {
            **vars(arguments),
            "warning": warning,
            "bandwidth_bytes_per_second": bandwidth,
            "layers": LAYERS,
        }
        print(f"\nwritten: {save_result('whole-model', settings, rows)}")


if __name__ == "__main__":
    main()
