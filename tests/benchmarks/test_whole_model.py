"""The whole-model benchmark on a tiny graph: every peer that claims to be exact is, and every peer has a row."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import measure
import peers
import pytest
import torch
import whole_model
from apart import Apart
from baselines import full_batch
from graphs import Source
from models import HAS_INFERENCE, MODELS, TAKES_MATRIX, Setting, build_inputs, build_model, tiny_inputs

from tests.benchmarks.test_apart import OneCall


def test_peers_say_whom_they_cannot_take(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(peers.VARIABLE, raising=False)
    for name in MODELS:
        assert peers.why_not("ours", name) == peers.why_not("full", name) == ""
        assert (peers.why_not("csr", name) == "") == (peers.why_not("edge_index", name) == "") == (name in TAKES_MATRIX)
        assert (peers.why_not("inference", name) == "") == (name in HAS_INFERENCE)
        assert peers.why_not("dgl", name) != ""
    assert "scripts/install-dgl" in peers.why_not("dgl", "sage") and "arithmetic" in peers.why_not("dgl", "hgt")


@pytest.mark.parametrize("key", ["ours", "full", "csr", "edge_index", "inference"])
@pytest.mark.parametrize("name", ["sage", "gin", "pna"])
def test_exact_peers_agree(name: str, key: str) -> None:
    setting = Setting(name, Source(8, 4), 8)
    model, inputs = build_model(setting), build_inputs(setting)
    prepared = peers.PEERS[key].prepare(peers.Task(name, model, inputs, tiny_inputs(setting), 5.0))
    expected = full_batch(model, *inputs)
    assert whole_model.relative_difference(prepared.run(), expected) < (1e-4 if name == "pna" else 1e-5)


@pytest.mark.parametrize("name", sorted(TAKES_MATRIX))
def test_matrix_equals_edges_without_duplicates(name: str) -> None:
    """On a graph without duplicates and self-loops a matrix gives what an edge list gives, in every model."""
    setting = Setting(name, Source(5, 3), 8)
    model, (x, edge_index) = build_model(setting), build_inputs(setting)
    edge_index = torch.unique(edge_index[:, edge_index[0] != edge_index[1]], dim=1)
    prepared = peers.PEERS["csr"].prepare(peers.Task(name, model, (x, edge_index), (), 5.0))
    assert whole_model.relative_difference(prepared.run(), full_batch(model, x, edge_index)) < 1e-5


def test_inference_keeps_the_best_batch_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peers, "BATCH_SIZES", (128, 64, 100_000))
    setting = Setting("sage", Source(8, 4), 8)
    model, inputs = build_model(setting), build_inputs(setting)
    note = peers.PEERS["inference"].prepare(peers.Task("sage", model, inputs, (), 60.0)).note
    assert note in {f"batches of {best} nodes, the fastest of 64, 128" for best in (64, 128)}


def test_one_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Rows of ours, of a peer that is too slow for a second round, and of one that cannot take the model."""
    monkeypatch.setattr(measure, "RESULTS", tmp_path)
    monkeypatch.delenv(peers.VARIABLE, raising=False)
    words = "--models sage --peers ours full dgl --log2-nodes 8 --width 8 --repeat 3 --budget 1e-9 --save"
    arguments = whole_model.parse(words.split())
    rows = whole_model.run_all(arguments, whole_model.sources(arguments), bandwidth=1e9)
    assert json.loads(next(tmp_path.glob("*-whole-model.json")).read_text())["rows"] == rows
    ours, full, dgl = rows
    assert [row["peer"] for row in rows] == ["ours", "full", "dgl"]
    assert ours["difference"] < 1e-5 and ours["difference_from"] == "full" and "difference" not in full
    assert ours["rounds"] == full["rounds"] == 1 and ours["edges"] == 16 * 256
    assert full["times_ours"] == pytest.approx(full["seconds"] / ours["seconds"])
    assert full["memory_times_ours"] == pytest.approx(full["extra_bytes"] / max(ours["extra_bytes"], 1))
    assert ours["bandwidth_share"] == pytest.approx(ours["bytes_moved"] / ours["seconds"] / 1e9)
    assert "scripts/install-dgl" in dgl["failed"] and "seconds" not in dgl
    told = capsys.readouterr().out
    assert f"sage, R-MAT 2^8, degree 16, DGL: not measured: {dgl['failed']}" in told


def test_the_memory_of_the_second_and_the_tenth_call(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []
    runner = peers.Runner("full", Setting("sage", Source(6, 2), 8), 5.0)
    run = runner._prepared.run
    monkeypatch.setattr(runner, "_prepared", replace(runner._prepared, run=lambda: (calls.append(1), run())[1]))
    runner.first(None)
    assert [type(runner.later(number)) for number in whole_model.LATER.values()] == [int, int]
    assert len(calls) == max(whole_model.LATER.values()) == 10


def test_a_peer_that_dies_has_a_row(tmp_path: Path) -> None:
    """Its process ends while others run: its rounds until then are told, and why there are no more."""
    setting = Setting("sage", Source(6, 2), 8)
    with Apart(OneCall, 0.5) as process:
        entry = whole_model.Entry("full", tmp_path / "none", process, {"first_call_seconds": 1.0})
        runs = measure.take_rounds({"full": entry.timed}, 3, 60.0, {"full": 1.0})
    assert runs == {"full": [0.5, float("inf")]}
    entry.seconds = [0.5]
    row = whole_model.to_row(setting, entry, None)
    assert "out of memory" in row["failed"] and (row["rounds"], row["seconds"]) == (1, 0.5)
    assert "only 1 rounds: out of memory" in whole_model.footnotes([row])[0]


def test_command_line() -> None:
    arguments = whole_model.parse(["--models", "hgt", "edgeconv", "--peers", "ours", "dgl", "--width", "64"])
    assert arguments.models == ["hgt", "edgeconv"] and arguments.peers == ["ours", "dgl"] and arguments.width == 64
    with pytest.raises(SystemExit):
        whole_model.parse(["--models", "alexnet"])
