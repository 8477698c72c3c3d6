"""Graphs from files, names and generators; every refusal says what to do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch_geometric.datasets
from torch_geometric.data import Data, HeteroData

from pyg_fullgraph.errors import GraphError, InputError
from pyg_fullgraph.front.readers import (
    community_data,
    karate,
    random_split,
    read_dataset,
    read_graph,
    read_npz,
    read_pt,
)

pytestmark = pytest.mark.filterwarnings("ignore:Sparse")

X = np.array([[0, 2.5, 0], [0, 0, 0], [1, 0, 4]], dtype=np.float32)
CSR = {
    "x_indptr": np.array([0, 1, 1, 3], dtype=np.int32),
    "x_indices": np.array([1, 0, 2], dtype=np.int32),
    "x_data": np.array([2.5, 1, 4], dtype=np.float32),
    "x_shape": np.array([3, 3]),
}
EDGES = np.array([[0, 1], [1, 2]], dtype=np.int32)


def save(folder: Path, **arrays: Any) -> Path:
    path = folder / "graph.npz"
    np.savez_compressed(path, **arrays)
    return path


@pytest.mark.parametrize("sparse", [False, True], ids=["dense", "sparse"])
def test_csr_features(tmp_path: Path, sparse: bool) -> None:
    data = read_npz(save(tmp_path, edge_index=EDGES, y=np.array([0, 1, -1], np.int8), **CSR), sparse_x=sparse)
    assert isinstance(data, Data)
    assert data.x.layout == (torch.sparse_csr if sparse else torch.strided)
    assert torch.equal(data.x.to_dense(), torch.from_numpy(X))
    assert data.edge_index.dtype == torch.int64
    assert data.edge_index.tolist() == EDGES.tolist()
    assert data.y.tolist() == [0, 1, -1]
    assert data.y.dtype == torch.int64
    assert data.num_nodes == 3


def test_other_arrays_and_splits(tmp_path: Path) -> None:
    mask = np.array([[True, False, False], [False, True, False]])
    path = save(tmp_path, edge_index=EDGES, x=X, train_mask=mask, edge_type=np.array([0, 3], np.int16))
    data = read_npz(path, split=1)
    assert data.train_mask.tolist() == [False, True, False]
    assert data.edge_type.dtype == torch.int64
    with pytest.raises(InputError, match=r"has 2 splits.*there is no split 2"):
        read_npz(path, split=2)


def test_many_graphs(tmp_path: Path) -> None:
    path = save(tmp_path, edge_index=EDGES, graph_ptr=np.array([0, 3, 3, 5]), y=np.array([1, 0, 1]))
    data = read_npz(path)
    assert data.num_nodes == 5
    assert data.batch.tolist() == [0, 0, 0, 2, 2]


def test_structure_only(tmp_path: Path) -> None:
    assert read_npz(save(tmp_path, edge_index=EDGES)).num_nodes == 3
    assert read_npz(save(tmp_path, edge_index=EDGES[:, :0])).num_nodes == 0


def test_heterogeneous(tmp_path: Path) -> None:
    parts = {f"x__paper_{key.removeprefix('x_')}": value for key, value in CSR.items()}
    path = save(
        tmp_path,
        edge_index__paper__to__author=np.array([[0, 2], [4, 1]], dtype=np.int32),
        edge_optional__to=np.array([0, 1], dtype=np.uint8),
        num_nodes__paper=np.int64(3),
        num_nodes__author=np.int64(5),
        y__paper=np.array([0, 1, 1]),
        x__author=np.ones((5, 2), dtype=np.float32),
        **parts,
    )
    data = read_npz(path)
    assert isinstance(data, HeteroData)
    assert torch.equal(data["paper"].x, torch.from_numpy(X))
    assert data["author"].x.shape == (5, 2)
    assert data["paper"].y.tolist() == [0, 1, 1]
    assert data["paper", "to", "author"].edge_index.tolist() == [[0, 2], [4, 1]]
    assert data["paper", "to", "author"].edge_optional.tolist() == [0, 1]
    assert (data["paper"].num_nodes, data["author"].num_nodes) == (3, 5)


def test_npz_errors(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"There is no file .*absent\.npz"):
        read_npz(tmp_path / "absent.npz")
    (tmp_path / "text.npz").write_text("not an archive")
    with pytest.raises(InputError, match=r"is not an \.npz file of plain arrays"):
        read_npz(tmp_path / "text.npz")
    with pytest.raises(InputError, match=r"is not an \.npz file of plain arrays"):
        read_npz(save(tmp_path, edge_index=np.array([{"code": 1}])))
    with pytest.raises(InputError, match=r"holds no 'edge_index' \[2, E\] \(found: edges\)"):
        read_npz(save(tmp_path, edges=EDGES))
    with pytest.raises(GraphError, match=r"Edge 1 of 'edge_index of graph.npz' goes from 1 to 2"):
        read_npz(save(tmp_path, edge_index=EDGES, x=X[:2]))
    broken = {**CSR, "x_indices": np.array([1, 0, 3], dtype=np.int32)}
    with pytest.raises(InputError, match=r"'x' are not a valid CSR matrix of 3 x 3"):
        read_npz(save(tmp_path, edge_index=EDGES, **broken))
    with pytest.raises(InputError, match="must be named 'edge_index__source__relation__destination'"):
        read_npz(save(tmp_path, edge_index__a__b=EDGES))
    with pytest.raises(InputError, match="needs 'num_nodes__a' and 'num_nodes__b'"):
        read_npz(save(tmp_path, edge_index__a__to__b=EDGES))


def test_pt_heterogeneous(tmp_path: Path) -> None:
    saved = HeteroData()
    saved["a"].x = torch.from_numpy(X)
    saved["a", "to", "a"].edge_index = torch.from_numpy(EDGES).long()
    torch.save(saved, tmp_path / "graph.pt")
    data = read_graph(tmp_path / "graph.pt")
    assert isinstance(data, HeteroData)
    assert torch.equal(data["a"].x, saved["a"].x)
    assert torch.equal(data["a", "to", "a"].edge_index, saved["a", "to", "a"].edge_index)


@pytest.mark.parametrize("wrap", [lambda data: data, lambda data: (data, None)], ids=["data", "tuple"])
def test_pt(tmp_path: Path, wrap: Any) -> None:
    saved = Data(x=torch.from_numpy(X), edge_index=torch.from_numpy(EDGES).long())
    torch.save(wrap(saved), tmp_path / "graph.pt")
    data = read_pt(tmp_path / "graph.pt")
    assert torch.equal(data.x, saved.x)
    assert torch.equal(data.edge_index, saved.edge_index)


class Unsafe:
    """A class that no reader may construct."""


def test_pt_errors(tmp_path: Path) -> None:
    torch.save({"graph": Unsafe()}, tmp_path / "unsafe.pt")
    with pytest.raises(InputError, match=r"holds objects of the class .*\.Unsafe.* can run any code"):
        read_pt(tmp_path / "unsafe.pt")
    torch.save({"x": torch.ones(3)}, tmp_path / "dict.pt")
    with pytest.raises(InputError, match="holds a dict, not a graph"):
        read_pt(tmp_path / "dict.pt")
    (tmp_path / "text.pt").write_text("not a pickle")
    with pytest.raises(InputError, match=r"text\.pt"):
        read_pt(tmp_path / "text.pt")
    with pytest.raises(InputError, match="There is no file"):
        read_pt(tmp_path / "absent.pt")


class Offline:
    """Stands for a data set that must be downloaded, where there is no network."""

    def __init__(self, root: str, name: str) -> None:
        raise ConnectionError(f"cannot reach the host for {name} in {root}")


def test_dataset_errors(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(torch_geometric.datasets, "Planetoid", Offline)
    with pytest.raises(InputError, match=r"'Planetoid/PubMed' could not be downloaded.*'karate' or 'community'"):
        read_graph("Planetoid/PubMed", root=tmp_path)
    with pytest.raises(InputError, match="Planetoid needs a name: 'Planetoid/NAME'"):
        read_dataset("Planetoid")
    with pytest.raises(InputError, match="Flickr takes no name"):
        read_dataset("Flickr/small")
    with pytest.raises(InputError, match="has no data set 'Nonsense'"):
        read_dataset("Nonsense")
    with pytest.raises(InputError, match=r"needs block_sizes, edge_probs, which cannot be given here"):
        read_dataset("StochasticBlockModelDataset")


def test_dataset_without_download() -> None:
    data = read_graph("KarateClub")
    assert (data.num_nodes, data.num_edges) == (34, 156)


def test_names() -> None:
    assert read_graph("karate").num_edges == 156
    assert read_graph("community:300").num_nodes == 300
    for wrong in ("graph.csv", "community:-3", "../up", "nonsense"):
        with pytest.raises(InputError, match=r"neither a file this program reads .*Examples: graph\.npz"):
            read_graph(wrong)


def test_fall_backs_have_what_training_needs() -> None:
    for data in (karate(), community_data(400)):
        assert data.x.size(0) == data.y.size(0) == data.num_nodes
        assert data.train_mask.any()
        assert data.test_mask.any()
        assert not (data.train_mask & data.test_mask).any()


def test_random_split_covers_the_labelled_once() -> None:
    data = Data(y=torch.tensor([0, -1] * 500), num_nodes=1000)
    random_split(data)
    total = data.train_mask.int() + data.val_mask.int() + data.test_mask.int()
    assert total.tolist() == [1, 0] * 500
    assert 250 < int(data.train_mask.sum()) < 350


def test_real_files(data_dir: Path) -> None:
    """Sizes as `SOURCES.md` beside the files states them."""
    cora = read_npz(data_dir / "cora.npz")
    assert (cora.num_nodes, cora.num_edges, cora.num_features) == (2708, 10556, 1433)
    assert int(cora.train_mask.sum()) == 140
    assert torch.equal(read_npz(data_dir / "cora.npz", sparse_x=True).x.to_dense(), cora.x)
    tolokers = read_npz(data_dir / "tolokers.npz", split=3)
    assert tolokers.x.shape == (11758, 10)
    assert tolokers.train_mask.shape == (11758,)
    imdb = read_npz(data_dir / "het_imdb.npz")
    assert imdb["movie"].x.shape == (4278, 3066)
    assert imdb["movie", "to", "actor"].num_edges == 12828


EDGES = np.array([[0, 1, 2], [1, 2, 0]])


@pytest.mark.parametrize(
    "edges,kind",
    [
        (EDGES.astype("f4") + 0.5, "float32"),
        (EDGES.astype("f8"), "float64"),
        (EDGES > 0, "bool"),
        (EDGES.astype("c8"), "complex64"),
        (EDGES * np.nan, "float64"),
    ],
    ids=str,
)
def test_edges_that_are_no_integers(tmp_path: Path, edges: np.ndarray, kind: str) -> None:
    path, x = tmp_path / "g.npz", np.ones((3, 2), "f4")
    np.savez(path, edge_index=edges, x=x)
    with pytest.raises(InputError, match=rf"edge_index in .*g\.npz is {kind} \[2, 3\]; it must be int64"):
        read_graph(path)
    np.savez(path, edge_index__a__to__a=edges, x__a=x)
    with pytest.raises(InputError, match=rf"edge_index__a__to__a in .*g\.npz is {kind}"):
        read_graph(path)
    np.savez(path, edge_index=EDGES, x=x, edge_type=edges[0])
    with pytest.raises(InputError, match=rf"edge_type in .*g\.npz is {kind} \[3\]"):
        read_graph(path)
    np.savez(path, edge_index=EDGES, x=x, graph_ptr=edges[0])
    with pytest.raises(InputError, match=rf"graph_ptr in .*g\.npz is {kind}"):
        read_graph(path)


@pytest.mark.parametrize("part", ["indptr", "indices", "shape"])
def test_sparse_features_whose_numbers_are_no_integers(tmp_path: Path, part: str) -> None:
    parts = {"indptr": [0, 1, 2, 2], "indices": [0, 1], "shape": [3, 2]}
    arrays = {f"x_{key}": np.array(value) for key, value in parts.items()}
    arrays[f"x_{part}"] = arrays[f"x_{part}"] + 0.5
    np.savez(tmp_path / "g.npz", edge_index=EDGES, x_data=np.ones(2, "f4"), **arrays)
    with pytest.raises(InputError, match=rf"x_{part} in .* is float64"):
        read_graph(tmp_path / "g.npz")


def test_every_value_is_kept(tmp_path: Path) -> None:
    target = np.array([0.25, 1.5, -3.75])
    value = np.array([1 / 3, 2.0])
    arrays = {"x_indptr": np.array([0, 1, 2, 2]), "x_indices": np.array([0, 1]), "x_shape": np.array([3, 2])}
    np.savez(tmp_path / "g.npz", edge_index=EDGES.astype("u4"), y=target, x_data=value, **arrays)
    data = read_graph(tmp_path / "g.npz")
    assert torch.equal(data.y, torch.from_numpy(target)) and data.edge_index.dtype == torch.int64
    assert data.x.dtype == torch.float64 and float(data.x[0, 0]) == 1 / 3
    np.savez(tmp_path / "g.npz", edge_index=EDGES, y=np.array([1, 0, 2], "i1"), x_data=np.array([1, 2]), **arrays)
    data = read_graph(tmp_path / "g.npz")
    assert data.y.dtype == torch.int64 and data.x.dtype == torch.float32
    np.savez(tmp_path / "g.npz", edge_index=np.full((2, 3), 2**63, "u8"), x=np.ones((3, 2)))
    with pytest.raises(InputError, match="more than an int64"):
        read_graph(tmp_path / "g.npz")


def test_files_that_are_no_graphs(tmp_path: Path) -> None:
    def refused(name: str, *words: str) -> None:
        with pytest.raises(InputError) as caught:
            read_graph(tmp_path / name)
        assert all(word in str(caught.value) for word in (name, *words))

    for name in ("empty.npz", "empty.pt"):
        (tmp_path / name).touch()
        refused(name, "empty")
    for name in ("text.npz", "text.pt", "text.pth"):
        (tmp_path / name).write_text("hello, this is no graph\n")
        refused(name)
    np.save(tmp_path / "array.npy", EDGES)
    (tmp_path / "array.npy").rename(tmp_path / "array.npz")
    refused("array.npz")
    np.savez(tmp_path / "arrays.npz", edge_index=EDGES)
    (tmp_path / "arrays.npz").rename(tmp_path / "renamed.pt")
    refused("renamed.pt")
    torch.save({"a": torch.zeros(3)}, tmp_path / "dict.pt")
    refused("dict.pt", "dict")
    (tmp_path / "dict.pt").rename(tmp_path / "dict.npz")
    refused("dict.npz")
    np.savez(tmp_path / "words.npz", edge_index=EDGES, x=np.array(["a", "b", "c"]))
    refused("words.npz", "x is <U1 [3], text")
    np.savez(tmp_path / "turned.npz", edge_index=np.zeros((5, 2), "i8"), x=np.ones((3, 2)))
    with pytest.raises(GraphError, match=r"edge_index of turned\.npz.*\[5, 2\].*t\(\)"):
        read_graph(tmp_path / "turned.npz")
    with pytest.raises(InputError, match="at least 1 node"):
        read_graph("community:0")
