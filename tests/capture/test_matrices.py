"""Sparse matrices as arguments and in attributes of a model: forwards that multiply by them, against their results."""

from __future__ import annotations

import sys
import types
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import pyg_fullgraph as fg
from pyg_fullgraph.errors import CaptureError, FullGraphError

N, FEATURES = 30, 8


def entries(rows: int, columns: int, count: int, seed: int = 0) -> Tensor:
    """Different entries, the last rows and columns without any."""
    generator = torch.Generator().manual_seed(seed)
    flat = torch.randperm((rows - 2) * (columns - 2), generator=generator)[:count].sort().values
    return torch.stack([flat // (columns - 2), flat % (columns - 2)])


def coo(rows: int = N, columns: int = N, count: int = 120, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    indices = entries(rows, columns, count, seed)
    value = torch.rand(count, dtype=dtype, generator=torch.Generator().manual_seed(seed))
    return torch.sparse_coo_tensor(indices, value, (rows, columns)).coalesce()


def int32(matrix: Tensor) -> Tensor:
    made = matrix.to_sparse_csr()
    return torch.sparse_csr_tensor(made.crow_indices().int(), made.col_indices().int(), made.values(), made.shape)


def duplicates(matrix: Tensor) -> Tensor:
    """Not coalesced: every entry twice, in no order."""
    order = torch.randperm(2 * matrix.values().numel(), generator=torch.Generator().manual_seed(3))
    indices, value = torch.cat([matrix.indices()] * 2, 1)[:, order], torch.cat([matrix.values()] * 2)[order]
    return torch.sparse_coo_tensor(indices, value, matrix.shape)


LAYOUTS: dict[str, Callable[[Tensor], Tensor]] = {
    "coo": lambda m: m,
    "csr": lambda m: m.to_sparse_csr(),
    "csc": lambda m: m.to_sparse_csc(),
    "int32": int32,
    "duplicates": duplicates,
}


def close(got: Any, want: Any) -> None:
    if isinstance(want, (tuple, list)):
        assert len(got) == len(want)
        for a, b in zip(got, want, strict=True):
            close(a, b)
        return
    assert got.dtype == want.dtype and got.shape == want.shape
    tolerance = 1e-10 if want.dtype == torch.float64 else 2e-5
    torch.testing.assert_close(got, want, rtol=tolerance, atol=tolerance)


def checked(engine: Any) -> None:
    assert engine.verification is not None and engine.verification.how != "none", engine.verification


class Convolutions(nn.Module):
    """The layers of pygcn: `torch.spmm(adj, torch.mm(x, w)) + b`."""

    def __init__(self, product: Callable[[Tensor, Tensor], Tensor] = torch.spmm) -> None:
        super().__init__()
        self.w1, self.w2 = nn.Parameter(torch.randn(FEATURES, 16)), nn.Parameter(torch.randn(16, 3))
        self.bias, self.product = nn.Parameter(torch.randn(3)), product

    def forward(self, x: Tensor, adj: Tensor) -> Tensor:
        h = F.dropout(torch.relu(self.product(adj, torch.mm(x, self.w1))), 0.5, training=self.training)
        return F.log_softmax(self.product(adj, torch.mm(h, self.w2)) + self.bias, dim=1)


PRODUCTS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "spmm": torch.spmm,
    "sparse.mm": torch.sparse.mm,
    "mm": torch.mm,
    "matmul": torch.matmul,
    "@": lambda a, x: a @ x,
    "method": lambda a, x: a.matmul(x),
    "addmm": lambda a, x: torch.addmm(x, a, x),
    "sparse.addmm": lambda a, x: torch.sparse.addmm(x, a, x, beta=0.5),
    "from the right": lambda a, x: (x.t() @ a.t()).t(),
    "transposed": lambda a, x: a.t() @ x,
    "both ways": lambda a, x: torch.sparse.mm(a, x) + torch.sparse.mm(a.t(), x),
    "row sums": lambda a, x: torch.sparse.mm(a, x) / (torch.sparse.sum(a, dim=1).to_dense().view(-1, 1) + 1),
    "coalesced": lambda a, x: torch.sparse.mm(a.coalesce(), x),
    "softmax": lambda a, x: torch.sparse.softmax(a.coalesce(), dim=1) @ x,
    "dropout and relu": lambda a, x: F.relu(F.dropout(a, 0.5, training=False)) @ x,
    "squares": lambda a, x: a.pow(2) @ x * a.numel() + torch.abs(a) @ x,
    "below one another": lambda a, x: (torch.cat([a, a.t()]) @ x).view(2, -1, x.size(1)).sum(0),
    "beside one another": lambda a, x: torch.cat([a, a.t()], 1) @ torch.cat([x, x + 1]),
    "its entries": lambda a, x: torch.zeros_like(x).index_add(
        0, a.coalesce().indices()[0], a.coalesce().values().view(-1, 1) * x[a.coalesce().indices()[1]]
    ),
}


@pytest.mark.parametrize("name", PRODUCTS)
def test_products(name: str) -> None:
    model = Convolutions(PRODUCTS[name]).eval()
    engine = fg.compile(model)
    for rows, count in ((N, 120), (17, 17)):  # then as many entries as nodes
        x, adj = torch.randn(rows, FEATURES), coo(rows, rows, count)
        close(engine(x, adj), model(x, adj))
    checked(engine)
    assert len(engine._captured) == 1


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts(layout: str, dtype: torch.dtype) -> None:
    model = Convolutions().to(dtype).eval()
    x, adj = torch.randn(N, FEATURES, dtype=dtype), LAYOUTS[layout](coo(dtype=dtype))
    engine = fg.compile(model)
    close(engine(x, adj), model(x, adj))
    checked(engine)
    nodes = torch.tensor([4, 0, 29])
    close(engine(x, adj, nodes=nodes), model(x, adj)[nodes])


def test_written_in_place_between_calls() -> None:
    model, x = Convolutions().eval(), torch.randn(N, FEATURES)
    for adj in (coo(), coo().to_sparse_csr()):
        engine = fg.compile(model, verify="off")
        close(engine(x, adj), model(x, adj))
        adj.values().mul_(-2)
        close(engine(x, adj), model(x, adj))
        if adj.layout == torch.sparse_coo:
            adj._indices()[1].copy_(entries(N, N, 120, seed=5)[1].sort().values)
        else:
            adj.col_indices().copy_(adj.col_indices().flip(0))
        close(engine(x, adj), model(x, adj))


@pytest.mark.parametrize("where", ["row", "column"])
def test_out_of_range_entries_are_named(where: str) -> None:
    x, adj = torch.randn(N, FEATURES), coo()
    adj._indices()[0 if where == "row" else 1, 3] = N + 4
    with pytest.raises(FullGraphError, match=r"34.*adj_" + ("row" if where == "row" else "col") + "|adj_.*34"):
        fg.compile(Convolutions().eval())(x, adj)


class Interactions(nn.Module):
    """Users and items: a rectangular matrix, and its transpose."""

    def __init__(self) -> None:
        super().__init__()
        self.lin = nn.Linear(FEATURES, 6)

    def forward(self, users: Tensor, items: Tensor, ratings: Tensor) -> tuple[Tensor, Tensor]:
        u, i = self.lin(users), self.lin(items)
        for _ in range(2):
            u, i = u + ratings @ i, torch.tanh(i + ratings.t() @ u)
        return u, i


@pytest.mark.parametrize("layout", LAYOUTS)
def test_rectangular(layout: str) -> None:
    model = Interactions().eval()
    engine = fg.compile(model)
    for users, items in ((20, 33), (31, 12), (15, 15)):
        matrix = LAYOUTS[layout](coo(users, items, 60))
        call = torch.randn(users, FEATURES), torch.randn(items, FEATURES), matrix
        close(engine(*call), model(*call))
        checked(engine)


class Hops(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.lin = nn.Linear(2 * FEATURES, 4)

    def forward(self, x: Tensor, adjs: Any) -> Tensor:
        first, second = (adjs["one"], adjs["two"]) if isinstance(adjs, dict) else adjs
        return self.lin(torch.cat([torch.sparse.mm(first, x), torch.sparse.mm(second, x)], 1))


@pytest.mark.parametrize("form", ["dict", "list", "tuple", "same twice"])
def test_several_matrices(form: str) -> None:
    model, x, a, b = Hops().eval(), torch.randn(N, FEATURES), coo(), coo(seed=1, count=50).to_sparse_csr()
    made = {"dict": {"one": a, "two": b}, "list": [a, b], "tuple": (b, a), "same twice": [a, a]}[form]
    engine = fg.compile(model)
    close(engine(x, made), model(x, made))
    checked(engine)


class Sparse(nn.Module):
    """Features that are a sparse matrix."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.w, self.b = nn.Linear(12, 5), nn.Parameter(torch.randn(12, 5)), nn.Parameter(torch.randn(5))

    def forward(self, x: Tensor, adj: Tensor) -> Tensor:
        h = self.first(x) + torch.mm(x, self.w) + F.linear(x, self.w.t(), self.b)
        return adj @ torch.relu(h)


@pytest.mark.parametrize("layout", ["coo", "csr", "duplicates"])
def test_sparse_features(layout: str) -> None:
    model, engine = Sparse().eval(), fg.compile(Sparse().eval())
    engine = fg.compile(model)
    for rows in (N, 12):
        x, adj = LAYOUTS[layout](coo(rows, 12, 40)), coo(rows, rows, 60)
        close(engine(x, adj), model(x, adj))
        checked(engine)


class Recommender(nn.Module):
    """LightGCN: embeddings of users and items propagated by a matrix that the model keeps."""

    USERS, ITEMS = 18, 12

    def __init__(self, matrix: Any, keep: str) -> None:
        super().__init__()
        self.users, self.items = nn.Embedding(self.USERS, 6), nn.Embedding(self.ITEMS, 6)
        self.keep = keep
        if keep == "buffer":
            self.register_buffer("graph", matrix)
        elif keep == "parameter":
            self.graph = nn.Parameter(matrix, requires_grad=False)
        elif keep == "list":
            self.graphs = [None, (matrix,)]
        elif keep == "dict":
            self.graphs = {"norm": {"adj": matrix}}
        else:
            self.graph = matrix

    def matrix(self) -> Tensor:
        if self.keep == "list":
            return self.graphs[1][0]
        return self.graphs["norm"]["adj"] if self.keep == "dict" else self.graph

    def propagated(self) -> tuple[Tensor, ...]:
        h = layer = torch.cat([self.users.weight, self.items.weight])
        for _ in range(2):
            layer = torch.sparse.mm(self.matrix(), layer)
            h = h + layer
        return torch.split(h / 3, [self.USERS, self.ITEMS])

    def forward(self, user: Tensor, item: Tensor) -> Tensor:
        a, b = self.propagated()
        return (a[user] * b[item]).sum(1)


USER, ITEM = torch.arange(18), torch.arange(18) % 12


@pytest.mark.parametrize("keep", ["attribute", "buffer", "parameter", "list", "dict"])
@pytest.mark.parametrize("layout", ["coo", "csr"])
def test_attributes(layout: str, keep: str) -> None:
    model = Recommender(LAYOUTS[layout](coo()), keep).eval()
    engine = fg.compile(model)
    close(engine(USER, ITEM), model(USER, ITEM))
    checked(engine)
    model.matrix().values().mul_(3)
    close(engine(USER, ITEM), model(USER, ITEM))
    if keep not in ("list", "dict"):
        other = LAYOUTS[layout](coo(seed=2, count=77))
        model.graph = nn.Parameter(other, requires_grad=False) if keep == "parameter" else other
        close(engine(USER, ITEM), model(USER, ITEM))


def test_attributes_replaced_inside_of_containers() -> None:
    model = Recommender(coo(), "dict").eval()
    engine = fg.compile(model)
    close(engine(USER, ITEM), model(USER, ITEM))
    kept = model.graphs["norm"]["adj"]
    assert kept.layout == torch.sparse_coo  # neither a stand-in nor a part of it was left behind
    model.graphs["norm"]["adj"] = coo(seed=4)
    close(engine(USER, ITEM), model(USER, ITEM))
    model.graphs["norm"]["adj"] = coo(seed=4).to_sparse_csr()
    close(engine(USER, ITEM), model(USER, ITEM))


def test_bound_methods_and_state() -> None:
    model = Recommender(coo(), "buffer").eval()
    engine = fg.compile(model.propagated)
    close(engine(), model.propagated())
    checked(engine)
    model.load_state_dict(Recommender(coo(seed=6), "buffer").state_dict())
    close(engine(), model.propagated())
    model.double()
    close(engine(), model.propagated())
    with torch.no_grad():
        model.users.weight.mul_(0.5)
    close(engine(), model.propagated())


class Mixed(nn.Module):
    """A matrix of the model and one among the arguments, of modules inside."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.ModuleList([nn.Linear(FEATURES, FEATURES)])
        self.inner[0].adj = coo(seed=8)

    def forward(self, x: Tensor, adj: Tensor) -> Tensor:
        return adj @ torch.relu(self.inner[0](self.inner[0].adj.t() @ x))


def test_matrix_of_a_module_inside_and_an_argument() -> None:
    model, x = Mixed().eval(), torch.randn(N, FEATURES)
    engine = fg.compile(model)
    for adj in (coo(), coo(seed=1, count=44)):
        close(engine(x, adj), model(x, adj))
        checked(engine)


class Anywhere(nn.Module):
    """Matrices in objects, in a class, and deep in containers."""

    of_class = coo(seed=11)

    def __init__(self) -> None:
        super().__init__()
        self.dataset, self.args = Dataset(coo(seed=12)), types.SimpleNamespace(adj=coo(seed=13))
        self.deep = [[{"a": ((coo(seed=14),),)}]]

    def forward(self, x: Tensor) -> Tensor:
        h = self.of_class @ x + torch.sparse.mm(self.dataset.graph, x) + torch.spmm(self.args.adj, x)
        again = torch.sparse.FloatTensor(self.args.adj.indices(), self.args.adj.values(), self.args.adj.size())
        return h + self.deep[0][0]["a"][0][0].t() @ x + again @ x


class Dataset:
    def __init__(self, graph: Tensor) -> None:
        self.graph = graph


def test_objects_and_classes() -> None:
    model, x = Anywhere().eval(), torch.randn(N, FEATURES)
    engine = fg.compile(model)
    close(engine(x), model(x))
    checked(engine)
    for held in (model.of_class, model.dataset.graph, model.args.adj, model.deep[0][0]["a"][0][0]):
        assert type(held) is Tensor
        held.values().mul_(2)
        close(engine(x), model(x))
    model.dataset.graph = coo(seed=20, count=33)
    model.of_class = coo(seed=21)  # type: ignore[misc]
    close(engine(x), model(x))
    model.dataset = Dataset(coo(seed=22).to_sparse_csr())
    close(engine(x), model(x))
    assert "of_class" in vars(model) and Anywhere.of_class is not model.of_class


OUTSIDE = coo(seed=30)


class ReadsOutside(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.sparse.mm(OUTSIDE, x)


def test_of_no_module_is_refused() -> None:
    model, x = ReadsOutside().eval(), torch.randn(N, FEATURES)
    with pytest.raises(CaptureError, match=r"neither an argument nor held by a module.*Pass it to forward"):
        fg.compile(model)(x)
    close(fg.compile(model, fallback="eager")(x), model(x))


class SparseTensor:
    """As much of torch_sparse's class as these tests ask for."""

    def __init__(
        self,
        row: Tensor | None = None,
        rowptr: Tensor | None = None,
        col: Tensor | None = None,
        value: Tensor | None = None,
        sparse_sizes: Any = None,
        is_sorted: bool = False,
        trust_data: bool = False,
    ) -> None:
        self.parts, self.sizes = (row, col, value), sparse_sizes

    def coo(self) -> Any:
        return self.parts

    def sparse_sizes(self) -> Any:
        return self.sizes

    def t(self) -> SparseTensor:
        row, col, value = self.parts
        return SparseTensor(row=col, col=row, value=value, sparse_sizes=self.sizes[::-1])

    def matmul(self, x: Tensor) -> Tensor:
        row, col, value = self.parts
        messages = x[col] if value is None else value.view(-1, 1) * x[col]
        return torch.zeros(self.sizes[0], x.size(1)).index_add(0, row, messages)

    __matmul__ = matmul


@pytest.mark.parametrize("valued", [True, False], ids=["values", "no values"])
def test_sparse_tensors(valued: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    package = types.ModuleType("torch_sparse")
    package.SparseTensor, package.matmul = SparseTensor, SparseTensor.matmul  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "torch_sparse", package)

    def sparse(matrix: Tensor) -> SparseTensor:
        row, col = matrix.indices()
        return SparseTensor(
            row=row, col=col, value=matrix.values() if valued else None, sparse_sizes=tuple(matrix.shape)
        )

    class Both(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.adj_t = sparse(coo(seed=5))

        def forward(self, x: Tensor, adj: Any) -> Tensor:
            return self.adj_t.t() @ torch.relu(adj.matmul(x))

    model, x = Both().eval(), torch.randn(N, FEATURES)
    engine = fg.compile(model)
    close(engine(x, sparse(coo())), model(x, sparse(coo())))
    checked(engine)
    model.adj_t = sparse(coo(seed=7, count=40))
    close(engine(x, sparse(coo(count=25))), model(x, sparse(coo(count=25))))


def squared(x: Tensor, adj: Tensor) -> Tensor:
    return torch.sparse.mm(adj, adj) @ x


def by_blocks(x: Tensor, adj: Tensor) -> Tensor:
    return adj @ x


REFUSED = {
    "two matrices": (squared, coo(), r"product with another sparse matrix.*test_matrices.py"),
    "blocks": (by_blocks, coo(N, N).to_dense().to_sparse_bsr((2, 2)), r"'adj' is a sparse tensor of the layout"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_refused_with_a_way_out(what: str) -> None:
    function, adj, text = REFUSED[what]
    x = torch.randn(N, FEATURES)
    with pytest.raises(CaptureError, match=text):
        fg.compile(function)(x, adj)
    engine = fg.compile(function, fallback="eager")
    close(engine(x, adj), function(x, adj))
    close(engine(x, adj, nodes=[3, 1]), function(x, adj)[[3, 1]])
    assert "ran the model's own forward" in " ".join(engine.notes)


def test_sizes_that_do_not_fit() -> None:
    model = Convolutions().eval()
    engine = fg.compile(model)
    engine(torch.randn(N, FEATURES), coo())
    with pytest.raises(FullGraphError, match=r"30|29"):
        engine(torch.randn(N - 1, FEATURES), coo())


@pytest.mark.parametrize("count", [0, 1])
def test_hardly_any_entries(count: int) -> None:
    model = Convolutions().eval()
    engine = fg.compile(model)
    for rows in (N, 3):
        x, adj = torch.randn(rows, FEATURES), coo(rows, rows, count)
        close(engine(x, adj), model(x, adj))
