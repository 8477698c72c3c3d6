"""A graph written in whatever way between two calls: the next call computes on what it holds now, checked."""

from __future__ import annotations

import copy
import ctypes
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch_geometric.data import Data, HeteroData
from torch_geometric.nn import GAT, GCN, GraphSAGE, HeteroConv, RGCNConv, SAGEConv, global_mean_pool

import pyg_fullgraph as fg
from pyg_fullgraph.errors import GraphError

N, E, F = 50, 200, 8


def edges() -> Tensor:
    return torch.randint(0, N, (2, E))


def _by_another_process(tensor: Tensor, new: Tensor) -> None:
    tensor.share_memory_()
    child = os.fork()
    if child == 0:
        tensor.numpy()[...] = new.numpy()
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0


def _in_bytes(tensor: Tensor, new: Tensor) -> None:
    ctypes.memmove(tensor.data_ptr(), new.contiguous().data_ptr(), new.nbytes)


def _in_a_view(tensor: Tensor, new: Tensor) -> None:
    for row, values in zip(tensor.unbind(0), new.unbind(0), strict=True):
        row.copy_(values)


#: Every way replaces all of a tensor.
WAYS: dict[str, Callable[[Tensor, Tensor], Any]] = {
    "numpy": lambda tensor, new: np.copyto(tensor.numpy(), new.numpy()),
    "data in place": lambda tensor, new: tensor.data.copy_(new),
    "data replaced": lambda tensor, new: setattr(tensor, "data", new),
    "dlpack": lambda tensor, new: torch.from_dlpack(tensor).copy_(new),
    "numpy by dlpack": lambda tensor, new: np.copyto(torch.from_dlpack(tensor).numpy(), new.numpy()),
    "storage": lambda tensor, new: tensor.untyped_storage().copy_(new.untyped_storage()),
    "another process": _by_another_process,
    "bytes": _in_bytes,
    "views": _in_a_view,
    "detached": lambda tensor, new: tensor.detach().copy_(new),
    "in place": lambda tensor, new: tensor.copy_(new),
    "set_": lambda tensor, new: tensor.set_(new),
    "one entry": lambda tensor, new: tensor.numpy().__setitem__((..., 3), new.numpy()[..., 3]),
}


def same(got: Any, expected: Any) -> None:
    for ours, theirs in zip(
        torch.utils._pytree.tree_leaves(got), torch.utils._pytree.tree_leaves(expected), strict=True
    ):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)


def through_all_ways(run: Callable[[], Any], own: Callable[[], Any], tensor: Tensor, new: Callable[[], Tensor]) -> None:
    """Compares with the model's own forward after each way to write."""
    with torch.no_grad():
        same(run(), own())
        for way, write in WAYS.items():
            write(tensor, new())
            try:
                same(run(), own())
            except AssertionError as error:
                raise AssertionError(f"written by {way}") from error


def entrance(way: str, model: nn.Module, x: Tensor, edge_index: Tensor) -> Callable[[], Any]:
    if way in ("engine", "order", "nodes"):
        engine = fg.Engine(model, verify="off", order="rcm" if way == "order" else None)
        nodes = torch.tensor([3, 1]) if way == "nodes" else None
        return lambda: engine(x, edge_index, nodes=nodes)
    if way == "inference":
        return lambda: fg.inference(model, x, edge_index)
    if way == "accelerate":
        fast, data = fg.accelerate(copy.deepcopy(model)), Data(x=x, edge_index=edge_index)
        return lambda: fast.inference(data)
    patched = fg.nn.patch(copy.deepcopy(model))
    return lambda: patched(x, edge_index)


@pytest.mark.parametrize("way", ["engine", "order", "nodes", "inference", "accelerate", "patch"])
def test_edges_written_in_every_way(way: str) -> None:
    model = {"order": GAT, "nodes": GCN, "accelerate": GCN}.get(way, GraphSAGE)(F, 8, 2, 4).eval()
    x, edge_index = torch.randn(N, F), edges()
    rows = torch.tensor([3, 1]) if way == "nodes" else slice(None)
    run = entrance(way, model, x, edge_index)
    through_all_ways(run, lambda: model(x, edge_index)[rows], edge_index, edges)


class Relations(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = RGCNConv(F, 8, 3)

    def forward(self, x: Tensor, edge_index: Tensor, edge_type: Tensor) -> Tensor:
        return self.conv(x, edge_index, edge_type)


class Pooled(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = GCN(F, 8, 1)

    def forward(self, x: Tensor, edge_index: Tensor, batch: Tensor) -> tuple[Tensor, Tensor]:
        h = self.conv(x, edge_index)
        return global_mean_pool(h, batch, 4), h - global_mean_pool(h, batch, 4)[batch]


def test_other_integers_written_in_every_way() -> None:
    x, edge_index = torch.randn(N, F), edges()
    for model, most, count in ((Relations().eval(), 3, E), (Pooled().eval(), 4, N)):
        values = torch.randint(0, most, (count,))
        engine = fg.Engine(model, verify="off")

        def new(most: int = most, count: int = count) -> Tensor:
            return torch.randint(0, most, (count,))

        through_all_ways(
            lambda: engine(x, edge_index, values),  # noqa: B023
            lambda: model(x, edge_index, values),  # noqa: B023
            values,
            new,
        )


def test_a_mask_written_in_every_way() -> None:
    class Masked(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = SAGEConv(F, 4)

        def forward(self, x: Tensor, edge_index: Tensor, mask: Tensor) -> Tensor:
            return self.conv(torch.where(mask.view(-1, 1), x, -x), edge_index)

    model, x, edge_index, mask = Masked().eval(), torch.randn(N, F), edges(), torch.rand(N) > 0.5
    engine = fg.Engine(model, verify="off")
    through_all_ways(
        lambda: engine(x, edge_index, mask), lambda: model(x, edge_index, mask), mask, lambda: torch.rand(N) > 0.5
    )


def test_one_type_of_many_written_in_every_way() -> None:
    data = HeteroData()
    data["a"].x, data["b"].x = torch.randn(N, F), torch.randn(N, F)
    kinds = [("a", "to", "b"), ("b", "to", "a"), ("a", "next", "a")]
    for kind in kinds:
        data[kind].edge_index = edges()
    model = HeteroConv({kind: SAGEConv(F, 4) for kind in kinds}).eval()
    engine = fg.Engine(model, verify="off")
    through_all_ways(
        lambda: engine(data.x_dict, data.edge_index_dict),
        lambda: model(data.x_dict, data.edge_index_dict),
        data[kinds[1]].edge_index,
        edges,
    )


def words(graph: fg.Graph, x: Tensor) -> list[Tensor]:
    e = graph.src(x) * graph.dst(x)
    return [graph.sum(e), graph.max(graph.softmax(e)), graph.degree()]


def test_every_word_of_a_graph_sees_what_is_written() -> None:
    x, edge_index = torch.randn(N, F), edges()
    graph, compiled = fg.Graph(edge_index, N), fg.compile(words, verify="off")

    def own() -> list[Tensor]:
        return words(fg.Graph(edge_index.clone(), N), x)

    through_all_ways(lambda: words(graph, x), own, edge_index, edges)
    through_all_ways(lambda: compiled(graph, x), own, edge_index, edges)
    same([graph.csr.rowptr, graph.csr.src], [fg.Graph(edge_index.clone(), N).csr.rowptr, graph.csr.src])


def test_a_sorted_graph_that_was_handed_out_may_be_written() -> None:
    x, graph = torch.randn(N, F), fg.Graph(edges(), N)
    expected, shown = words(graph, x), graph.csr
    for tensor in (shown.rowptr, shown.src, shown.perm):
        tensor.fill_(10**9)
    same(words(graph, x), expected)


BAD = (N, N + 3, -1, 2**31 - 1, -(2**31))


@pytest.mark.parametrize("dtype", [torch.int64, torch.int32])
def test_an_index_out_of_range_is_refused_however_written(dtype: torch.dtype) -> None:
    x, edge_index = torch.randn(N, F), edges().to(dtype)
    engine = fg.Engine(GraphSAGE(F, 8, 2, 4).eval(), verify="off")
    engine(x, edge_index)
    graph = fg.Graph(edge_index, N)
    words(graph, x)
    before = edge_index.clone()
    for place in ((0, 7), (1, E - 1)):
        for bad in BAD:
            edge_index.numpy()[place] = bad
            for call in (
                lambda: engine(x, edge_index),
                lambda: engine(x, edge_index, nodes=torch.tensor([1])),
                lambda: graph.src(x) if place[0] == 0 else graph.dst(x),  # noqa: B023
                lambda: graph.sum(torch.randn(E, F)),
                lambda: graph.softmax(torch.randn(E, F)),
                lambda: graph.csr,
                lambda: graph.degree(),
            ):
                for _ in range(2):  # what was refused is refused again
                    with pytest.raises(GraphError, match=str(bad)):
                        call()
            edge_index.copy_(before)
    same(engine(x, edge_index), engine.model(x, edge_index))
    same(words(graph, x), words(fg.Graph(before, N), x))


def test_an_unchecked_graph_is_checked_before_kernels_read_it() -> None:
    edge_index = edges()
    edge_index[0, 5] = N
    graph = fg.Graph(edge_index, N, validate=False)
    with pytest.raises(GraphError, match="Edge 5"):
        graph.src(torch.randn(N, F))


def test_fewer_or_more_edges_put_in_place() -> None:
    model, x, edge_index = GCN(F, 8, 2, 4).eval(), torch.randn(N, F), edges()
    engine, graph = fg.Engine(model, verify="off"), fg.Graph(edge_index, N)
    with torch.no_grad():
        for count in (E, 17, 3 * E, E):
            edge_index.data = torch.randint(0, N, (2, count))
            same(engine(x, edge_index), model(x, edge_index))
            same(words(graph, x), words(fg.Graph(edge_index.clone(), N), x))


def test_a_file_mapped_into_memory(tmp_path: Path) -> None:
    file = np.memmap(tmp_path / "edges", dtype=np.int64, mode="w+", shape=(2, E))
    file[...] = edges().numpy()
    edge_index, model, x = torch.from_numpy(file), GraphSAGE(F, 8, 2, 4).eval(), torch.randn(N, F)
    engine = fg.Engine(model, verify="off")
    with torch.no_grad():
        for _ in range(3):
            same(engine(x, edge_index), model(x, edge_index))
            (tmp_path / "edges").open("r+b").write(edges().numpy().tobytes())


def test_the_same_graph_in_another_tensor_uses_what_is_there() -> None:
    engine, x, edge_index = fg.Engine(GCN(F, 8, 2, 4).eval(), verify="off"), torch.randn(N, F), edges()
    engine(x, edge_index)
    (captured,) = engine._captured.values()

    def structures() -> list[int]:
        return [id(entry.item) for entry in captured.structures._items.values()]

    before = structures()
    wider = torch.zeros((2, E + 5), dtype=torch.int64)
    wider[:, 5:] = edge_index
    for other in (edge_index.clone(), edge_index.t().contiguous().t(), wider[:, 5:], torch.tensor(edge_index.tolist())):
        engine(x, other)
        assert structures() == before


def test_what_is_kept_is_not_the_users_own_memory() -> None:
    """Else a write into it would change what a later call with the old contents finds."""
    model, x, edge_index = Pooled().eval(), torch.randn(N, F), edges()
    engine, batch = fg.Engine(model, verify="off"), torch.randint(0, 4, (N,))
    before, again = batch.clone(), edge_index.clone()
    expected = engine(x, edge_index, batch)
    engine(x, again, before)  # another holder of the same contents
    batch.numpy()[:] = 10**6
    edge_index.numpy()[:] = 10**6
    same(engine(x, again, before), expected)
