"""Usual mistakes in a call: each is answered by an error that names the argument, what it is, and what to do."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch_geometric.data import Data
from torch_geometric.nn import GAT, GCN, GATConv, GCNConv, GINConv, GraphConv, GraphSAGE, SAGEConv

import pyg_fullgraph as fg
from pyg_fullgraph.errors import CallError, FullGraphError, GraphError, InputError

X, EDGES = torch.randn(60, 8), torch.randint(0, 60, (2, 200))

MODELS = {
    "GCN": lambda: GCN(8, 16, 2, 4),
    "GAT": lambda: GAT(8, 16, 2, 4),
    "SAGEConv": lambda: SAGEConv(8, 4),
    "GraphConv": lambda: GraphConv(8, 4),
    "GINConv": lambda: GINConv(nn.Sequential(nn.Linear(8, 4))),
}


@pytest.fixture(params=MODELS)
def model(request):
    return MODELS[request.param]().eval()


def as_the_forward(model, args, match, calls=("engine",)):
    """An error of ours where the model's own forward fails, else its result."""
    ways = {"engine": fg.compile(model), "inference": lambda *given: fg.inference(model, *given)}
    try:
        want = model(*args)
    except Exception:  # whatever torch and PyG raise
        want = None
    for name in calls:
        if want is not None:
            assert torch.allclose(ways[name](*args), want, atol=1e-4)
            continue
        with pytest.raises(FullGraphError, match=match):
            ways[name](*args)


@pytest.mark.parametrize("dtype", [torch.int64, torch.float64, torch.float16], ids=str)
def test_features_of_another_type(model, dtype, capfd):
    kind = str(dtype).removeprefix("torch.")
    match = rf"(?s)x is {kind}.*float32.*x\.float\(\)"
    as_the_forward(model, (X.to(dtype), EDGES), match, ("engine", "inference"))
    assert "failed while attempting" not in capfd.readouterr().err
    assert torch.allclose(fg.compile(model)(X, EDGES), model(X, EDGES), atol=1e-5)


def test_a_model_of_another_type(model):
    as_the_forward(model.double(), (X, EDGES), r"x is float32, the parameters are float64. Pass x\.double\(\)")
    as_the_forward(model.bfloat16(), (X, EDGES), r"x is float32, the parameters are bfloat16")


@pytest.mark.parametrize("dtype", [torch.float32, torch.int16, torch.uint8, torch.bool], ids=str)
def test_edges_of_another_type(model, dtype):
    kind = str(dtype).removeprefix("torch.")
    edges = (EDGES % 2).to(dtype)
    as_the_forward(model, (X, edges), rf"edge_index.*{kind}.*long\(\)", ("engine",))
    as_the_forward(model, (X, edges), rf"edge_index.*{kind}", ("inference",) if dtype.is_floating_point else ())
    if dtype == torch.float32:
        with pytest.raises(FullGraphError, match=r"edge_index is float32 \[2, 200\].*int64.*edge_index\.long\(\)"):
            fg.inference(model, Data(x=X, edge_index=edges))


def test_edges_in_numpy_and_in_another_order(model):
    with pytest.raises(InputError, match=r"edge_index is a numpy array.*torch\.from_numpy\(edge_index\)"):
        fg.compile(model)(X, EDGES.numpy())
    with pytest.raises(InputError, match=r"edge_index is a numpy array"):
        fg.inference(model, X, EDGES.numpy())
    with pytest.raises(InputError, match=r"x is int64 \[2, 200\] and edge_index is float32 \[60, 8\].*order"):
        fg.compile(model)(EDGES, X)
    assert torch.allclose(fg.inference(model, EDGES, X), model(X, EDGES), atol=1e-5)  # by their types


def test_edges_of_another_shape_to_inference(model):
    with pytest.raises(InputError, match=r"edge_index has shape \[200, 2\].*edge_index\.t\(\)\.contiguous\(\)"):
        fg.inference(model, X, EDGES.t().contiguous())
    with pytest.raises(FullGraphError, match=r"\[200, 2\]"):
        fg.inference(model, Data(x=X, edge_index=EDGES.t().contiguous()))
    with pytest.raises(InputError, match=r"edge_index has shape \[3, 200\]"):
        fg.inference(model, X, torch.randint(0, 60, (3, 200)))


def test_weights_of_another_type():
    for layer in (GCNConv(8, 4).eval(), GraphConv(8, 4).eval(), GCN(8, 8, 2, 4).eval()):
        as_the_forward(layer, (X, EDGES, torch.ones(200, dtype=torch.float64)), r"edge_weight is float64")
    with pytest.raises(InputError, match=r"edge_weight is int64 \[200\], but GCNConv computes in float32"):
        fg.compile(GCNConv(8, 4).eval())(X, EDGES, torch.ones(200, dtype=torch.int64))
    with pytest.raises(InputError, match=r"edge_attr is float64"):
        fg.compile(GATConv(8, 4, edge_dim=3).eval())(X, EDGES, torch.ones(200, 3, dtype=torch.float64))


def test_integers_that_the_model_takes_are_no_mistake():
    class Coded(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table, self.conv = nn.Embedding(5, 8), SAGEConv(8, 4)

        def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
            return self.conv(self.table(x), edge_index)

    codes, model = torch.randint(0, 5, (60,)), Coded().eval()
    assert torch.allclose(fg.compile(model)(codes, EDGES), model(codes, EDGES), atol=1e-5)
    assert torch.allclose(fg.compile(model)(codes, EDGES.int()), model(codes, EDGES), atol=1e-5)


REFUSED_BY_ITSELF = {
    "float64": ((X.double(), EDGES), r"x is float64, the parameters are float32. Pass x.float\(\)"),
    "float16": ((X.half(), EDGES), r"x is float16, the parameters are float32"),
    "weights": ((X, EDGES, torch.rand(EDGES.size(1)).double()), r"edge_weight is float64"),
    "float edges": ((X, EDGES.float()), r"edge_index is float32.*must be int64"),
    "width": (
        (X[:, :5].contiguous(), EDGES),
        r"own forward raises RuntimeError.*mat1 and mat2 shapes.*fallback='eager'",
    ),
}


@pytest.mark.parametrize("name", REFUSED_BY_ITSELF)
def test_eager_fallback_where_the_forward_refuses_the_call_too(name):
    """A typed error that says what to pass; the forward's own error is its cause."""
    args, text = REFUSED_BY_ITSELF[name]
    model = GCN(8, 16, 2, 4).eval()
    with pytest.raises(CallError, match=text) as caught:
        fg.compile(model, fallback="eager")(*args)
    assert isinstance(caught.value.__cause__, RuntimeError)
    with pytest.raises(InputError):
        fg.inference(model, *args, fallback="eager")
    assert torch.allclose(fg.compile(model, fallback="eager")(X, EDGES), model(X, EDGES), atol=1e-5)


def test_eager_fallback_raises_the_models_own_kinds_of_errors():
    class Unlikely(Exception):
        pass

    class Refuses(nn.Module):
        def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
            if x.sum() < 1e9:
                raise Unlikely("as the model says it")
            return x.new_tensor(x.tolist())

    with pytest.raises(Unlikely, match="as the model says it"):
        fg.compile(Refuses().eval(), fallback="eager")(X, EDGES)


OPTIONS = [
    ({"order": "metis"}, "order='metis'.*rcm"),
    ({"order": "rmc"}, "Did you mean 'rcm'"),
    ({"order": 3}, "order=3"),
    ({"home": "disk"}, "home='disk'.*mapped"),
    ({"home": None}, "home=None.*mapped"),
    ({"threads": "2"}, "threads='2'.*whole number"),
    ({"threads": 1.5}, "threads=1.5.*whole number"),
    ({"threads": 0}, "threads=0.*at least 1"),
    ({"threads": True}, "threads=True"),
    ({"calls": 0}, "calls=0"),
    ({"calls": "many"}, "calls='many'"),
    ({"verify": "maybe"}, "(?s)verify.*maybe"),
    ({"verify": []}, "verify"),
    ({"fallback": "egaer"}, "fallback='egaer'.*Did you mean 'eager'"),
]


@pytest.mark.parametrize("options,match", OPTIONS, ids=str)
def test_options(options, match):
    model = SAGEConv(8, 4).eval()
    with pytest.raises(InputError, match=match):
        fg.compile(model, **options)
    with pytest.raises(InputError, match=match):
        fg.inference(model, X, EDGES, **options)


def test_options_of_compile():
    model = SAGEConv(8, 4).eval()
    for skip in ("hoist", ["hoist", "hiost"], 3):
        with pytest.raises(InputError, match="skip_passes"):
            fg.compile(model, skip_passes=skip)
    with pytest.raises(InputError, match=r"(?s)progress_bar.*Options: threads"):
        fg.compile(model, progress_bar=True)
    with pytest.raises(InputError, match="Did you mean 'threads'"):
        fg.compile(model, thread=2)
    with pytest.raises(InputError, match=r"'nope'.*x, edge_index"):
        fg.compile(model, dims={"nope": ("N", 8)})(X, EDGES)
    with pytest.raises(InputError, match="dims"):
        fg.compile(model, dims={"x": 3})
    engine = fg.compile(model, dims={"x": ("N", 8)})
    assert torch.allclose(engine(X, EDGES), model(X, EDGES), atol=1e-5)


@pytest.mark.parametrize("size", [30.5, -1, "60", (60, 60.5), (60,), True])
def test_sizes_of_a_graph(size):
    with pytest.raises(GraphError, match="nodes"):
        fg.Graph(EDGES, size)


@pytest.mark.parametrize("dtype", [torch.int64, torch.int32, torch.bool, torch.uint8], ids=str)
def test_out_of_a_type_that_cannot_hold_the_result(dtype):
    model, out = GraphSAGE(8, 16, 2, 4).eval(), torch.ones(60, 4, dtype=dtype)
    kind = str(dtype).removeprefix("torch.")
    for call in (lambda: fg.compile(model)(X, EDGES, out=out), lambda: fg.inference(model, X, EDGES, out=out)):
        with pytest.raises(InputError, match=f"out= is {kind}.*float32"):
            call()
    with pytest.raises(InputError, match="out= is"):
        fg.accelerate(GraphSAGE(8, 16, 2, 4).eval()).inference(X, EDGES, out=out)
    assert bool((out == 1).all())
    with pytest.raises(InputError, match="out= must be a tensor"):
        fg.compile(model)(X, EDGES, out=np.zeros((60, 4)))


def test_out_that_can_hold_the_result():
    model = GraphSAGE(8, 16, 2, 4).eval()
    want = model(X, EDGES)
    for dtype in (torch.float32, torch.float64, torch.complex64):
        out = torch.empty(60, 4, dtype=dtype)
        assert fg.compile(model)(X, EDGES, out=out) is out
        assert torch.allclose(out, want.to(dtype), atol=1e-5)

    class Largest(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = SAGEConv(8, 4)

        def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
            return self.conv(x, edge_index).argmax(1)

    model = Largest().eval()
    for dtype in (torch.int64, torch.float64):
        try:
            got = fg.compile(model)(X, EDGES, out=torch.empty(60, dtype=dtype))
        except InputError:
            assert dtype == torch.float64
        else:
            assert torch.equal(got.long(), model(X, EDGES))
    with pytest.raises(InputError, match=r"out= is int8.*int64"):
        fg.compile(model)(X, EDGES, out=torch.empty(60, dtype=torch.int8))


def lazy(x: Tensor) -> dict[str, Tensor]:
    return {
        "neg_view": torch._neg_view(-x),
        "imag of conj": torch.complex(torch.zeros_like(x), -x).conj().imag,
        "strided": torch._neg_view((-x).t().contiguous()).t(),
    }


@pytest.mark.parametrize("form", lazy(X))
def test_lazy_signs_are_values(model, form):
    x = lazy(X)[form]
    assert torch.allclose(fg.compile(model, verify="off")(x, EDGES), model(X, EDGES), atol=1e-5)
    assert torch.allclose(fg.inference(model, Data(x=x, edge_index=EDGES)), model(X, EDGES), atol=1e-5)


def test_lazy_signs_of_weights_edges_and_parameters():
    model, weight = GraphConv(8, 4).eval(), torch.rand(200)
    want = model(X, EDGES, weight)
    assert torch.allclose(fg.compile(model)(X, EDGES, torch._neg_view(-weight)), want, atol=1e-5)
    engine = fg.compile(model)
    for _ in range(2):
        assert torch.allclose(engine(X, torch._neg_view(-EDGES), weight), want, atol=1e-5)
    graph = fg.Graph(torch._neg_view(-EDGES), 60)
    assert torch.equal(graph.src(torch._neg_view(-X)), X[EDGES[0]])
    for sum_ in (graph.sum(torch._neg_view(-weight)), graph.sum(weight)):
        assert torch.allclose(sum_, torch.zeros(60).index_add(0, EDGES[1], weight), atol=1e-5)
    gat = GATConv(8, 4, heads=2).eval()
    want = gat(X, EDGES)
    gat.att_src.data = torch._neg_view(-gat.att_src.data)
    gat.lin.weight.data = torch._neg_view(-gat.lin.weight.data)
    assert torch.allclose(fg.compile(gat, verify="off")(X, EDGES), want, atol=1e-5)
