"""Who takes part in `whole_model.py`: a peer is a name, the models that it can take, and how it is prepared.

| key | exact | what it is |
| --- | --- | --- |
| `ours` | yes | `fg.compile` |
| `full` | yes | PyG's forward on ``edge_index`` |
| `csr` | see `CSR_DIFFERS` | PyG's forward on a ``torch.sparse`` CSR matrix |
| `edge_index` | yes | PyG's forward on an `EdgeIndex`, sorted by destination, its caches filled before |
| `inference` | but for GCN | ``model.inference(NeighborLoader)`` or its emulation, at the best of several batch sizes |
| `sampled` | no | every node once in sampled mini-batches, extrapolated from a few of them |
| `dgl` | yes | DGL's own layers with the same weights, in an environment of its own (`dgl_peer.py`) |
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from baselines import (
    FAN_OUT,
    SAMPLED_BATCH,
    csr_adjacency,
    full_batch,
    full_batch_csr,
    has_sampler,
    layer_wise,
    sampled_epoch,
    sorted_edge_index,
)
from dgl_peer import DGL_MODELS, VARIABLE, DglProcess, dgl_python
from measure import Peak, peak_extra_memory, resident_bytes, seconds_of, start_clean
from models import (
    HAS_INFERENCE,
    MODELS,
    SAMPLED,
    TAKES_MATRIX,
    Setting,
    build_inputs,
    build_model,
    num_edges,
    num_nodes,
    tiny_inputs,
)
from torch import nn
from torch.utils._pytree import tree_leaves

import pyg_fullgraph as fg

#: Destination nodes per batch that `inference` chooses from, the usual best first.
BATCH_SIZES = (4096, 16384, 1024, 65536)
#: Seen on R-MAT graphs: GAT agrees once duplicates are removed, GCN once self-loops are removed too.
CSR_DIFFERS = (
    "where a layer adds self-loops to a matrix, PyG merges duplicate edges and treats existing self-loops "
    "otherwise than in an edge list, hence the difference"
)


@dataclass(frozen=True)
class Task:
    """What a peer is to run.

    Attributes:
        name: of the model.
        model: in evaluation mode.
        inputs: the arguments of forward.
        tiny: such arguments of a tiny graph.
        budget: seconds that a peer may spend on finding its best settings.
    """

    name: str
    model: nn.Module
    inputs: tuple[Any, ...]
    tiny: tuple[Any, ...]
    budget: float


@dataclass(frozen=True)
class Prepared:
    """A peer that is ready to run, with everything done that its user would do beforehand.

    Attributes:
        run: one call.
        times_itself: ``run`` returns the seconds that it measured in place of a result.
        output: one call that returns the result, where ``run`` does not; ``None`` if there is none to compare.
        pid: the process whose memory counts; ``None`` where memory says nothing.
        note: what a reader should know of the way it was prepared.
        traffic: the bytes that a call moves, where the peer can tell.
        close: frees what would outlive the process.
    """

    run: Callable[[], Any]
    times_itself: bool = False
    output: Callable[[], Any] | None = None
    pid: int | str | None = "self"
    note: str = ""
    traffic: Callable[[], int] | None = None
    close: Callable[[], None] | None = None


@dataclass(frozen=True)
class Peer:
    """One way to run a model over a whole graph.

    Attributes:
        name: in tables.
        models: those that it can take.
        why_not: why it cannot take the others.
        prepare: makes it ready.
        warm: whether a call on a tiny graph, prepared apart, warms it up; else it does so by itself.
    """

    name: str
    models: frozenset[str]
    why_not: str
    prepare: Callable[[Task], Prepared]
    warm: bool = True


def _ours(task: Task) -> Prepared:
    engine = fg.compile(task.model)
    engine(*task.tiny)  # traces
    return Prepared(lambda: engine(*task.inputs), traffic=lambda: int(engine.explain(*task.inputs).bytes_moved))


def _full(task: Task) -> Prepared:
    return Prepared(lambda: full_batch(task.model, *task.inputs))


def _csr(task: Task) -> Prepared:
    x, edge_index = task.inputs
    adj_t = csr_adjacency(edge_index, x.size(0))
    return Prepared(lambda: full_batch_csr(task.model, x, adj_t))


def _edge_index(task: Task) -> Prepared:
    x, edge_index = task.inputs
    ordered = sorted_edge_index(edge_index, x.size(0))
    return Prepared(lambda: full_batch(task.model, x, ordered))


def _inference(task: Task) -> Prepared:
    """Tries the batch sizes as long as the budget lasts, then keeps the fastest."""
    x, edge_index = task.inputs
    sizes = [size for size in BATCH_SIZES if size < x.size(0)] or [x.size(0)]
    seconds: dict[int, float] = {}
    for size in sizes if len(sizes) > 1 else []:
        if seconds and sum(seconds.values()) + max(seconds.values()) > task.budget:
            break
        seconds[size] = seconds_of(lambda size=size: layer_wise(task.model, x, edge_index, batch_size=size))
    best = min(seconds, key=seconds.__getitem__) if seconds else sizes[0]
    tried = f", the fastest of {', '.join(f'{size:,}' for size in sorted(seconds))}" if len(seconds) > 1 else ""
    return Prepared(
        lambda: layer_wise(task.model, x, edge_index, batch_size=best), note=f"batches of {best:,} nodes{tried}"
    )


def _sampled(task: Task) -> Prepared:
    def epoch() -> float:
        return sampled_epoch(task.model, *task.inputs, fan_out=FAN_OUT, batch_size=SAMPLED_BATCH).seconds

    fan_out = "-".join(map(str, FAN_OUT))
    note = f"inexact: fan-out {fan_out}, batches of {SAMPLED_BATCH:,}; seconds extrapolated from at most 6 of them"
    return Prepared(epoch, times_itself=True, pid=None, note=note)


def _dgl(task: Task) -> Prepared:
    process = DglProcess(task.name, task.model, *task.inputs)
    return Prepared(
        process.run,
        times_itself=True,
        output=process.output,
        pid=process.pid,
        note=process.versions,
        close=process.close,
    )


_EMULATED = "" if has_sampler() else " (emulated)"
PEERS = {
    "ours": Peer("fg.compile", frozenset(MODELS), "", _ours, warm=False),
    "full": Peer("PyG full batch", frozenset(MODELS), "", _full),
    "csr": Peer("PyG full batch, CSR", TAKES_MATRIX, "the model takes no matrix: its edges have types", _csr),
    "edge_index": Peer(
        "PyG full batch, EdgeIndex", TAKES_MATRIX, "not prepared for models whose edges have types", _edge_index
    ),
    "inference": Peer(
        f"PyG inference(){_EMULATED}", HAS_INFERENCE, "PyG gives inference() to its ready models only", _inference
    ),
    "sampled": Peer(
        f"sampled mini-batches{_EMULATED}", SAMPLED, "not prepared for models whose edges have types", _sampled
    ),
    "dgl": Peer("DGL", DGL_MODELS, "DGL has no such layer, or with other arithmetic", _dgl, warm=False),
}


def why_not(key: str, model: str) -> str:
    """Why a peer cannot take the model here; empty if it can."""
    if model not in PEERS[key].models:
        return PEERS[key].why_not
    if key == "dgl" and dgl_python() is None:
        return f"no environment with DGL: scripts/install-dgl makes one, {VARIABLE} names it"
    return ""


class Runner:
    """One peer on one model and graph, in the process in which it is measured.

    Args:
        key: of `PEERS`.
        setting: the model and the graph.
        budget: seconds that a peer may spend on finding its best settings.
    """

    def __init__(self, key: str, setting: Setting, budget: float) -> None:
        model, inputs, tiny = build_model(setting), build_inputs(setting), tiny_inputs(setting)
        peer = PEERS[key]
        if peer.warm:
            peer.prepare(Task(setting.model, model, tiny, tiny, budget)).run()
        self._prepared = peer.prepare(Task(setting.model, model, inputs, tiny, budget))
        self._size = {"nodes": num_nodes(inputs), "edges": num_edges(inputs)}
        self._calls = 0
        start_clean()
        pid = self._prepared.pid
        self._before = None if pid is None else resident_bytes(pid)

    def first(self, path: Path | None) -> dict[str, Any]:
        """The first call on the graph: its record; the tensors of its result, if any, go to the file, if any."""
        prepared = self._prepared
        peak = self._measured()
        result = None if prepared.times_itself else peak.out
        if path is not None and prepared.output is not None:
            result = prepared.output()
            self._calls += 1
        if path is not None and result is not None:
            torch.save(tree_leaves(result), path)
        return {
            **self._size,
            "first_call_seconds": peak.out if prepared.times_itself else peak.seconds,
            "extra_bytes": None if prepared.pid is None else peak.extra,
            "note": prepared.note,
        }

    def later(self, number: int) -> int | None:
        """The peak extra memory of the call of that number, over the size before the first, those between included."""
        if self._before is None:
            return None
        most = 0
        while self._calls < number:
            most = self._measured().extra
        return most

    def _measured(self) -> Peak:
        self._calls += 1
        return peak_extra_memory(self._prepared.run, before=self._before, pid=self._prepared.pid or "self")

    def timed(self) -> float:
        """Seconds of one call."""
        return float(self._prepared.run()) if self._prepared.times_itself else seconds_of(self._prepared.run)

    def traffic(self) -> int | None:
        """The bytes that a call moves, where the peer can tell."""
        return None if self._prepared.traffic is None else self._prepared.traffic()

    def close(self) -> None:
        """Frees what would outlive this process."""
        if self._prepared.close is not None:
            self._prepared.close()
