"""Structure made tile by tile is that made whole, to the bit, and takes the memory that it may."""

from __future__ import annotations

import weakref
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch_geometric.nn import (
    ChebConv,
    GATConv,
    GCNConv,
    HGTConv,
    MessagePassing,
    PNAConv,
    RGCNConv,
    SAGEConv,
    TransformerConv,
)
from torch_geometric.utils import degree, remove_self_loops

import pyg_fullgraph as fg
from pyg_fullgraph.engine import Engine
from pyg_fullgraph.runtime import Structure, tiles
from pyg_fullgraph.runtime.indices import check_indices

from .test_indices import CASES as INDEXED

KINDS = (["a", "b"], [("a", "to", "b"), ("b", "to", "a"), ("a", "to", "a")])


class Marked(MessagePassing):
    """Edges told apart by masks, types, and the numbers of those that a mask keeps."""

    def __init__(self) -> None:
        super().__init__("sum")

    def forward(self, x: Tensor, edge_index: Tensor, edge_type: Tensor) -> Tensor:
        kept = (edge_type > 0).nonzero().view(-1)
        own = edge_index[0] > edge_index[1]
        all_edges = self.propagate(edge_index, x=x, own=own, share=edge_type.float() / 3)
        some = edge_index[:, kept]
        return all_edges + self.propagate(some, x=x, own=some[0] > some[1], share=edge_type[kept] / 7)

    def message(self, x_j: Tensor, own: Tensor, share: Tensor) -> Tensor:
        return torch.where(own[:, None], x_j, -x_j) * share[:, None]


class Shares(MessagePassing):
    """A weight of each edge that is no whole number, and the sum of these at each node, added in order."""

    def __init__(self) -> None:
        super().__init__("sum")

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        edge_index, _ = remove_self_loops(edge_index)
        share = 1 / (1 + degree(edge_index[0], x.size(0)))[edge_index[0]]
        total = torch.zeros(x.size(0)).index_add(0, edge_index[1], share)
        total = total + torch.zeros(x.size(0)).scatter_add(0, edge_index[0], share)
        return self.propagate(edge_index, x=x, share=share) + total[:, None]

    def message(self, x_j: Tensor, share: Tensor) -> Tensor:
        return x_j * share[:, None]


def graph(name: str) -> Tensor:
    random = torch.Generator().manual_seed(1)
    if name == "hub":
        edge_index = torch.randint(12, (2, 60), generator=random)
        edge_index[1, 20:50] = 3
        return edge_index
    if name == "loops":
        return torch.cat([torch.arange(12).repeat(2, 2), torch.randint(12, (2, 20), generator=random)], 1)
    if name == "twice":
        return torch.randint(12, (2, 13), generator=random).repeat(1, 3)
    return torch.randint(12, (2, 12), generator=random)  # as many edges as nodes


def case(name: str, edge_index: Tensor) -> tuple[nn.Module, tuple[Any, ...]]:
    torch.manual_seed(0)
    count, nodes = edge_index.shape[1], int(max(edge_index.max(), 11)) + 1
    x, types = torch.randn(nodes, 6), torch.arange(count) % 3
    cases: dict[str, tuple[nn.Module, tuple[Any, ...]]] = {
        "sage": (SAGEConv(6, 5), ()),
        "gcn": (GCNConv(6, 5), ()),
        "gcn weighted": (GCNConv(6, 5), (torch.rand(count),)),
        "gat": (GATConv(6, 5, heads=2), ()),
        "gat with attributes": (GATConv(6, 5, edge_dim=2, fill_value="mean"), (torch.randn(count, 2),)),
        "rgcn": (RGCNConv(6, 5, 3), (types,)),
        "pna": (PNAConv(6, 5, ["mean", "std"], ["identity", "attenuation"], torch.tensor([0, 2, 3])), ()),
        "transformer": (TransformerConv(6, 5, edge_dim=2), (torch.randn(count, 2),)),
        "cheb": (ChebConv(6, 5, 3), ()),
        "marked": (Marked(), (types,)),
        "shares": (Shares(), ()),
    }
    if name == "hgt":
        edges = {kind: edge_index.flip(0) if kind[0] == "b" else edge_index for kind in KINDS[1]}
        edges["a", "to", "a"] = edge_index[:, ::2]
        return HGTConv(6, 4, KINDS).eval(), ({"a": x, "b": x[:, :6] * 2}, edges)
    if name == "hgt, nine relations":
        kinds = ["a", "b", "c"]
        triples = [(source, "to", target) for source in kinds for target in kinds]
        edges = {triple: edge_index[:, : count - number] for number, triple in enumerate(triples)}  # no two as many
        model = HGTConv(6, 4, (kinds, triples), heads=2).eval()
        return model, ({kind: x * (1 + number) for number, kind in enumerate(kinds)}, edges)
    model, more = cases[name]
    return model.eval(), (x, edge_index, *more)


NAMES = ["sage", "gcn", "gcn weighted", "gat", "gat with attributes", "rgcn", "pna", "transformer", "cheb"]
NAMES += ["marked", "shares", "hgt", "hgt, nine relations"]


def traced(engine: Engine, args: tuple[Any, ...], **kwargs: Any) -> tuple[Any, dict[str, Tensor]]:
    state, signature, tensors = engine._bind(args, kwargs)
    return engine._capture(signature, state, tensors), dict(zip(signature.names, tensors, strict=True))


def prepared(captured: Any, inputs: dict[str, Tensor]) -> Structure:
    structure = Structure(captured.program, inputs)
    check_indices(captured.program, structure)
    captured.compiled.prepare(structure)
    return structure


def contents(structure: Structure) -> dict[Any, Any]:
    found: dict[Any, Any] = dict(structure.values)
    for index, edges in structure.in_edges.items():
        found |= {(index, name): value for name, value in edges.values.items()}
        found[index, "rowptr"], found[index, "perm"] = edges.rowptr, edges.perm
    return found


def assert_same(got: Structure, want: Structure) -> None:
    assert got.sizes == want.sizes
    assert contents(got).keys() == contents(want).keys()
    for key, value in contents(want).items():
        same = contents(got)[key]
        assert type(same) is type(value), key
        if isinstance(value, Tensor):
            assert same.dtype == value.dtype and torch.equal(same, value), key


@pytest.mark.parametrize("name", NAMES)
def test_tiles_give_the_bits_of_the_whole(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model, args = case(name, graph("hub"))
    engine = fg.compile(model)
    torch.testing.assert_close(engine(*args), model(*args), rtol=1e-5, atol=1e-5)
    for kind in ("hub", "loops", "twice", "as many"):
        captured, inputs = traced(engine, case(name, graph(kind))[1])
        want = prepared(captured, inputs)
        for size in (1, 5, 16):
            monkeypatch.setattr(tiles, "TILE", size)
            got = prepared(captured, inputs)
            monkeypatch.undo()
            assert_same(got, want)


@pytest.mark.parametrize("name", NAMES)
def test_a_call_in_tiles_is_exact(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tiles, "TILE", 7)
    model, args = case(name, graph("hub"))
    engine = fg.compile(model)
    for kind in ("hub", "loops", "twice", "as many"):
        _, args = case(name, graph(kind))
        torch.testing.assert_close(engine(*args), model(*args), rtol=1e-5, atol=1e-5)
        if isinstance(args[0], Tensor):
            rows = torch.tensor([3, 0])
            torch.testing.assert_close(engine(*args, nodes=rows), model(*args)[rows], rtol=1e-5, atol=1e-5)


def test_sorted_edges_are_the_stable_order() -> None:
    edge_index = graph("twice")
    engine = fg.compile(case("transformer", edge_index)[0])
    structure = prepared(*traced(engine, case("transformer", edge_index)[1]))
    ((_, edges),) = structure.in_edges.items()
    perm = torch.sort(edge_index[1], stable=True).indices
    (source,) = edges.values.values()
    assert edges.perm is not None and edges.perm.dtype == source.dtype == torch.int32
    assert torch.equal(edges.perm, perm.int()) and torch.equal(source, edge_index[0, perm].int())
    assert edges.num_edges == edge_index.shape[1] and edges.largest == int(edge_index[1].bincount().max())


@pytest.mark.parametrize("name", INDEXED)
def test_indices_of_all_kinds_in_tiles(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model, args, kwargs = INDEXED[name]
    engine = fg.compile(model.eval())
    want = engine(*args, **kwargs)
    captured, inputs = traced(engine, args, **kwargs)
    whole = prepared(captured, inputs)
    monkeypatch.setattr(tiles, "TILE", 2)
    assert_same(prepared(captured, inputs), whole)
    torch.testing.assert_close(fg.compile(model)(*args, **kwargs), want, rtol=0, atol=0)


@pytest.mark.parametrize("name", ["sage", "gcn", "rgcn", "hgt"])
def test_the_first_bad_edge_is_named(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tiles, "TILE", 5)
    model, args = case(name, graph("hub"))
    edges = args[1]["a", "to", "b"] if name == "hgt" else args[1]
    engine = fg.compile(model)
    engine(*args)
    edges[0, 17] = 99
    with pytest.raises(fg.GraphError, match="99"):
        engine(*args)


class Counted(TorchDispatchMode):
    """Bytes of the tensors that were made in it and are alive, now and at most."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.most = 0
        self.alive: dict[int, int] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        given = {t.untyped_storage().data_ptr() for t in tree_leaves((args, kwargs)) if isinstance(t, Tensor)}
        for tensor in tree_leaves(out):
            if isinstance(tensor, Tensor) and tensor.untyped_storage().data_ptr() not in given:
                self._add(tensor.untyped_storage())
        return out

    def _add(self, storage: torch.UntypedStorage) -> None:
        size = storage.nbytes()
        self.now += size
        self.most = max(self.most, self.now)
        weakref.finalize(storage, self._drop, size)

    def _drop(self, size: int) -> None:
        self.now -= size


NODES, DEGREE = 1 << 12, 16
#: Bytes per edge that a structure may hold; it may take 24 to make it. The mean of the attributes, that is given to
#: self-loops, is an aggregation of its own, of the edges that a mask keeps, which a call reads as well.
HELD = {"sage": 5, "gcn": 9, "gat": 5, "transformer": 9, "gcn weighted": 13, "gat with attributes": 9 + 5 + 1}


@pytest.mark.parametrize("name", HELD)
@pytest.mark.parametrize("dtype", [torch.int64, torch.int32])
def test_bytes_of_an_edge(name: str, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    random = torch.Generator().manual_seed(0)
    model, args = case(name, graph("hub"))
    engine = fg.compile(model)
    engine(*args)
    monkeypatch.setattr(tiles, "TILE", 1 << 9)
    edge_index = torch.randint(NODES, (2, NODES * DEGREE), generator=random)
    edge_index[:, :2] = NODES - 1  # both ends have the highest number
    captured, inputs = traced(engine, case(name, edge_index)[1])
    if dtype is torch.int32:
        inputs = {key: value.to(dtype) if value.dtype is torch.int64 else value for key, value in inputs.items()}
    with Counted() as counted:
        structure = prepared(captured, inputs)
    edges = edge_index.shape[1]
    assert structure.nbytes() / edges <= HELD[name]
    assert structure.nbytes() <= counted.now <= structure.nbytes() + 4096
    assert counted.most / edges <= 24
