"""The kernel benchmark: exact peers agree with ours at odd widths, and it tells where a peer is faster."""

from __future__ import annotations

import json
from pathlib import Path

import kernel_lines
import kernels
import measure
import pytest
import roofline
import torch
from graphs import Source

from pyg_fullgraph.ops import backend


@pytest.fixture(autouse=True)
def short_probes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(roofline, "READ_BYTES", 1 << 20)


needs_probes = pytest.mark.skipif(backend.load()[0] is None, reason="the probes are part of the C++ kernels")


@pytest.mark.parametrize("width", [1, 3, 20])
def test_exact_peers_agree(width: int) -> None:
    p = kernel_lines.build(Source(8, 3), width)
    lines = [line for group in kernel_lines.GROUPS.values() for line in group(p)]
    assert any(line.name.startswith("attention") for line in lines) == (width % kernel_lines.HEADS == 0)
    compared = [(line, peer) for line in lines for peer in line.peers.values() if peer.exact]
    assert len(compared) >= 11
    for line, peer in compared:
        assert kernels.relative_difference(line.ours(), peer.run()) < 1e-5, line.name


def test_a_sum_is_the_sum() -> None:
    """Our side against a plain loop, so that a mistake in the common preparation would show."""
    p = kernel_lines.build(Source(5, 3, seed=1), 2)
    edge_index = kernel_lines.edges_of(Source(5, 3, seed=1)).edge_index
    expected = torch.zeros(32, 2).index_add_(0, edge_index[1], p.x[edge_index[0]])
    got = {line.name: line.ours() for line in kernel_lines.sum_lines(p)}
    assert torch.allclose(got["sum"], expected, atol=1e-5)


def test_features_in_huge_pages_are_the_same() -> None:
    small, huge = (kernel_lines.build(Source(14, 1), 128, pages) for pages in (False, True))
    assert huge.x.nbytes >= 8 << 20 and torch.equal(small.x, huge.x)


@needs_probes
def test_one_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(measure, "RESULTS", tmp_path)
    arguments = kernels.parse(
        ["--log2-nodes", "8", "--groups", "sums", "--widths", "1", "8", "--repeat", "2", "--save"]
    )
    rows = kernels.run_all(arguments, kernels.sources(arguments))
    assert json.loads(next(tmp_path.glob("*-kernels.json")).read_text())["rows"] == rows
    assert {row["width"] for row in rows} == {1, 8}
    for row in rows:
        assert row["ratio"] == pytest.approx(row["peer_seconds"] / row["seconds"]) and row["rounds"] == 2
        assert row["share"] == pytest.approx(row["bytes"] / row["seconds"] / row["allowed"])
        assert row.get("difference", 0.0) < 1e-5
    told = capsys.readouterr().out
    assert ("SLOWER than" in told) == any(row["ratio"] < 1 for row in rows)
    assert len(kernels.panels(rows)) == len({row["kernel"] for row in rows})


@needs_probes
def test_a_peer_beyond_memory_has_a_row(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernels, "available_bytes", lambda: 0)
    p = kernel_lines.build(Source(8, 3), 4)
    gather = kernel_lines.structure_lines(p)[0]
    (row,) = kernels.measure(p, gather, repeat=1, budget=1.0)
    assert row["failed"] == "not run: it would hold 0.0 MiB of messages" and "ratio" not in row
    assert row["seconds"] > 0 and kernels.cells({"graph": "g", "width": 4, **row})[-1] == "-"


def test_slower_names_kernel_graph_and_width() -> None:
    row = {"kernel": "sum", "graph": "g", "peer": "p"}
    rows = [row | {"width": 1, "ratio": 0.5}, row | {"width": 2, "ratio": 2.0}, row | {"width": 3, "ratio": 0.9}]
    assert kernels.slower(rows) == ["SLOWER than p: sum on g: 1 columns (0.50x), 3 columns (0.90x)"]
    assert kernels.slower(rows[1:2]) == ["slower than no peer at any width"]
