"""The demo: its emulation of PyG's mini-batches against brute force, its table, one run from end to end."""

from __future__ import annotations

import argparse

import pytest
import torch
from torch import Tensor
from torch_geometric.data import Data, HeteroData
from torch_geometric.nn.models import GAT, GCN, GIN, GraphSAGE

from pyg_fullgraph.errors import InputError
from pyg_fullgraph.front import demo
from pyg_fullgraph.front.measure import Measured
from pyg_fullgraph.front.readers import community_data, karate


def skewed(num_nodes: int = 120, num_edges: int = 900) -> Data:
    """A random directed graph with hubs, duplicates, self-loops and isolated nodes."""
    source = (num_nodes * torch.rand(num_edges) ** 2).long()
    destination = (num_nodes * torch.rand(num_edges) ** 3).long()
    return Data(x=torch.randn(num_nodes, 9), edge_index=torch.stack([source, destination]), num_nodes=num_nodes)


def sorted_edges(edge_index: Tensor) -> list[tuple[int, int]]:
    """The edges as a sorted list of pairs, duplicates kept."""
    return sorted(map(tuple, edge_index.t().tolist()))


@pytest.mark.parametrize("batch_size", [1, 7, 64, 1000])
def test_blocks_hold_exactly_the_in_edges_of_their_destinations(batch_size: int) -> None:
    data = skewed()
    covered = []
    start = 0
    for nodes, edge_index, size in demo.one_hop_blocks(data.edge_index, data.num_nodes, batch_size):
        assert nodes[:size].tolist() == list(range(start, start + size))
        assert nodes.unique().numel() == nodes.numel()
        assert bool((edge_index[1] < size).all())
        covered.append(nodes[edge_index])
        start += size
    assert start == data.num_nodes
    assert sorted_edges(torch.cat(covered, dim=1)) == sorted_edges(data.edge_index)


def test_blocks_of_a_graph_without_edges() -> None:
    blocks = list(demo.one_hop_blocks(torch.empty(2, 0, dtype=torch.long), 5, 2))
    assert [(nodes.tolist(), edges.shape[1], size) for nodes, edges, size in blocks] == [
        ([0, 1], 0, 2),
        ([2, 3], 0, 2),
        ([4], 0, 1),
    ]


@pytest.mark.parametrize("kind", [GraphSAGE, GIN, GAT])
def test_blockwise_inference_is_exact_where_pyg_is(kind: type) -> None:
    data = skewed()
    model = kind(9, 16, 3, 4).eval()
    out = demo.blockwise_inference(model, data, batch_size=32)
    torch.testing.assert_close(out, demo.forward(model, data), rtol=1e-5, atol=1e-5)


def test_blockwise_gcn_normalises_by_the_degrees_of_the_block() -> None:
    """One layer, by hand: in a block, a source that is no destination has no in-edge but its self-loop."""
    data = Data(x=torch.eye(4), edge_index=torch.tensor([[0, 2, 3, 1], [1, 0, 2, 3]]), num_nodes=4)
    model = GCN(4, 4, 1).eval()
    torch.nn.init.eye_(model.convs[0].lin.weight)
    out = demo.blockwise_inference(model, data, batch_size=1)
    half, mixed = 1 / 2, 2**-0.5  # in-degree 2 with the self-loop; the source counts only its self-loop
    expected = torch.diag(torch.full((4,), half))
    expected[1, 0] = expected[0, 2] = expected[2, 3] = expected[3, 1] = mixed
    torch.testing.assert_close(out, expected)
    whole = demo.forward(model, data)
    assert float((whole - out).abs().max()) == pytest.approx(mixed - half)


def test_blockwise_gcn_changes_with_the_batch_size() -> None:
    data, model = skewed(), GCN(9, 16, 2, 4).eval()
    small, large = (demo.blockwise_inference(model, data, size) for size in (8, 1000))
    torch.testing.assert_close(large, demo.forward(model, data), rtol=1e-5, atol=1e-5)
    assert float((small - large).abs().max()) > 1e-2 * float(large.abs().max())


def test_compare_counts_labels_and_differences() -> None:
    reference = torch.tensor([[2.0, 0.0], [0.0, 4.0], [1.0, 0.0], [0.0, 1.0]])
    value = torch.tensor([[2.0, 0.0], [0.0, 3.0], [0.0, 1.0], [0.0, 1.0]])
    data = Data(y=torch.tensor([0, 1, 0, 0]), test_mask=torch.tensor([True, True, True, False]))
    row = demo.compare("a way", Measured(value, 3.0, 1.0, 2**20), reference, data)
    assert row == demo.Row("a way", pytest.approx(2 / 3), pytest.approx(0.25), pytest.approx(0.25), 1.0, 3.0, 2**20)


def test_table_is_aligned_markdown() -> None:
    rows = [
        demo.Row("forward", 0.5, 0.0, 0.0, 1.25, 2.5, 3 * 2**20),
        demo.Row("b", 1.0, 1e-7, 0.105, 0.5, 0.25, -1),
    ]
    lines = demo.format_table(rows).splitlines()
    assert len({len(line) for line in lines}) == 1
    assert set(lines[1]) == set("|-: ")
    assert [cell.strip() for cell in lines[2].split("|")[1:-1]] == [
        "forward", "0.5000", "0.0e+00", "0.00 %", "1.250", "2.500", "3 MiB",
    ]  # fmt: skip
    assert lines[3].count("unknown") == 1


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (HeteroData(), "heterogeneous"),
        (Data(edge_index=torch.zeros(2, 1, dtype=torch.long), num_nodes=1), "no x and no y"),
        (Data(x=torch.ones(3, 2), edge_index=torch.zeros(2, 1, dtype=torch.long)), "no y"),
        (
            Data(x=torch.ones(3, 2), y=torch.ones(1), edge_index=torch.zeros(2, 1, dtype=torch.long)),
            r"shape \(1,\)",
        ),
    ],
    ids=["hetero", "structure only", "no labels", "graph label"],
)
def test_graphs_it_cannot_train_on_are_refused(data: Data | HeteroData, problem: str) -> None:
    with pytest.raises(InputError, match=problem):
        demo.check_graph(data, "the graph")


def test_missing_masks_are_drawn_and_sparse_features_made_dense() -> None:
    data = community_data(200)
    expected = data.x.clone()
    del data.train_mask, data.val_mask, data.test_mask
    data.x = data.x.to_sparse_csr()
    checked = demo.check_graph(data, "the graph")
    assert not bool((checked.train_mask & checked.test_mask).any())
    assert bool(checked.train_mask.any()) and bool(checked.test_mask.any())
    torch.testing.assert_close(checked.x, expected)


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        (["--hidden", "0"], "--hidden must be at least 1"),
        (["--hidden", "10", "--heads", "4"], "multiple of --heads"),
    ],
)
def test_impossible_settings_are_refused(options: list[str], problem: str) -> None:
    parser = argparse.ArgumentParser()
    demo.add_arguments(parser)
    with pytest.raises(InputError, match=problem):
        demo.settings_from(parser.parse_args(options))


def test_without_a_source_it_says_so_and_uses_graphs_that_need_no_network(
    capsys: pytest.CaptureFixture[str],
) -> None:
    named = dict(demo.graphs(None))
    assert [name.split()[0].split(":")[0] for name in named] == ["karate", "community"]
    assert "No graph was named" in capsys.readouterr().out
    assert all(bool(data.test_mask.any()) and bool(data.train_mask.any()) for data in named.values())


def test_a_short_run_is_exact(capsys: pytest.CaptureFixture[str]) -> None:
    """GCN and GAT on a small graph: ours equals the forward, whatever PyG's own inference gives."""
    settings = demo.Settings(epochs=3, hidden=16, batch_size=64, repeat=1)
    results = demo.show("community", community_data(600), settings)
    assert list(results) == ["GCN", "GAT"]
    for rows in results.values():
        full, _, ours = rows
        assert full.difference == 0 and full.changed == 0
        assert ours.difference <= 1e-5 and ours.accuracy == full.accuracy
    assert results["GCN"][1].difference > 1e-2
    assert "pyg_fullgraph.inference" in capsys.readouterr().out


@pytest.mark.full
def test_the_command_line_runs(capsys: pytest.CaptureFixture[str]) -> None:
    assert demo.main(["--data", "karate", "--epochs", "2", "--hidden", "8", "--heads", "2", "--repeat", "1"]) == 0
    printed = capsys.readouterr().out
    assert "34 nodes, 156 edges" in printed and "largest difference:" in printed


def test_karate_is_the_graph_of_pyg() -> None:
    assert (karate().num_nodes, karate().num_edges) == (34, 156)
