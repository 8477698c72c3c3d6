"""Every shape in which an inference call is written, against the model's own forward, element by element."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch_geometric import EdgeIndex
from torch_geometric.data import Batch, Data, HeteroData
from torch_geometric.loader import (
    CachedLoader,
    DataLoader,
    LinkNeighborLoader,
    NeighborLoader,
    NeighborSampler,
)
from torch_geometric.nn import GATConv, GCNConv, GINEConv, GraphConv, SAGEConv, Sequential, to_hetero
from torch_geometric.nn.models import GAT, GCN, PNA, GraphSAGE

from pyg_fullgraph.errors import FullGraphMismatch, InputError
from pyg_fullgraph.front.run import Options, run
from tests.front.front_doubles import COLUMNS, NUM_EDGES, NUM_NODES, EagerEngine, NoMatrices, make_data

pytestmark = pytest.mark.filterwarnings("ignore:.*without a 'pyg-lib' installation:UserWarning")


def loader_of(data: Data, cls: type = NeighborLoader, **options: Any) -> Any:
    """A real loader. Without pyg-lib and torch-sparse it cannot be iterated, which proves that nobody
    does."""
    options = {"num_neighbors": [-1], "batch_size": 16, **options}
    return cls(data, **options)


def sampler_of(data: Data, sizes: tuple[int, ...] = (-1,)) -> NeighborSampler:
    """The older NeighborSampler; its constructor needs torch-sparse, so its fields are set as it would set
    them."""
    sampler = NeighborSampler.__new__(NeighborSampler)
    torch.utils.data.DataLoader.__init__(sampler, list(range(NUM_NODES)), batch_size=16)
    sampler.__dict__.update(edge_index=data.edge_index, sizes=list(sizes), num_nodes=NUM_NODES, __val__=None)
    return sampler


class Rows:
    """A store of rows in the manner of quiver.Feature: not a tensor, but indexed by node numbers."""

    def __init__(self, x: Tensor) -> None:
        self._x = x

    def __getitem__(self, index: Tensor) -> Tensor:
        return self._x[index]

    def size(self, dim: int) -> int:
        return self._x.size(dim)


class Blocks(torch.nn.Module):
    """The examples' GraphSAGE over sampled blocks: `forward(x, adjs)`, and an inference() without the
    softmax."""

    def __init__(self) -> None:
        super().__init__()
        self.convs = torch.nn.ModuleList([SAGEConv(COLUMNS, 8), SAGEConv(8, 3)])

    def forward(self, x: Tensor, adjs: list[Any]) -> Tensor:
        for i, (edge_index, _, size) in enumerate(adjs):
            x = self.convs[i]((x, x[: size[1]]), edge_index)
            if i + 1 < len(adjs):
                x = x.relu()
        return x.log_softmax(dim=-1)

    def inference(self, x_all: Tensor) -> Tensor:
        raise AssertionError("the hand-written inference() must not run")


class WholeData(torch.nn.Module):
    """`forward(data)`."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = GCNConv(COLUMNS, 3)

    def forward(self, data: Data) -> Tensor:
        return self.conv(data.x, data.edge_index)


class Swapped(torch.nn.Module):
    """`forward(edge_index, features)`: the order is the user's business."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = GCNConv(COLUMNS, 3)

    def forward(self, edge_index: Tensor, features: Tensor, edge_weight: Tensor | None = None) -> Tensor:
        return self.conv(features, edge_index, edge_weight)


class Pair(torch.nn.Module):
    """Returns a tuple, as some published models do."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = SAGEConv(COLUMNS, 3)

    def forward(self, x: Tensor, edge_index: Tensor) -> tuple[Tensor, Tensor]:
        h = self.conv(x, edge_index)
        return h, h.softmax(dim=-1)


def infer(model: torch.nn.Module, *args: Any, engine: type = EagerEngine, **kwargs: Any) -> Any:
    """`fg.inference` with the double for the engine."""
    fields = Options.__dataclass_fields__
    options = Options(**{name: kwargs.pop(name) for name in list(kwargs) if name in fields})
    return run(model, args, kwargs, options, engine)


@pytest.fixture
def model() -> GraphSAGE:
    return GraphSAGE(COLUMNS, 8, 2, 3).eval()


#: id -> how to call inference with (data, loader). All of them mean the same.
SHAPES: dict[str, Callable[[Data, Any], tuple[tuple[Any, ...], dict[str, Any]]]] = {
    "data": lambda d, l: ((d,), {}),
    "data by name": lambda d, l: ((), {"data": d}),
    "loader": lambda d, l: ((l,), {}),
    "loader by name": lambda d, l: ((), {"loader": l}),
    "loader, device": lambda d, l: ((l, "cpu"), {}),
    "loader, torch.device": lambda d, l: ((l, torch.device("cpu")), {}),
    "loader, device, embedding_device, progress, cache": lambda d, l: ((l, "cpu", "cpu", False, True), {}),
    "loader, keywords of PyG": lambda d, l: (
        (l,),
        {"device": "cpu", "embedding_device": "cpu", "progress_bar": False, "cache": True},
    ),
    "x_all, loader": lambda d, l: ((d.x, l), {}),
    "x_all, loader, device": lambda d, l: ((d.x, l, "cpu"), {}),
    "x_all, device, loader": lambda d, l: ((d.x, "cpu", l), {}),
    "x_all, rank, loader": lambda d, l: ((d.x, 0, l), {}),
    "loader, device, x_all": lambda d, l: ((l, torch.device("cpu"), d.x), {}),
    "x_all=, subgraph_loader=": lambda d, l: ((), {"x_all": d.x, "subgraph_loader": l}),
    "x_all, layer_loader=, batch_size=": lambda d, l: ((d.x,), {"layer_loader": l, "batch_size": 7}),
    "loader, dtype": lambda d, l: ((l,), {"dtype": torch.float32}),
    "loader, verbose": lambda d, l: ((l,), {"verbose": False}),
    "loader, data": lambda d, l: ((l, "cpu"), {"data": None, "x": d.x}),
    "x, edge_index": lambda d, l: ((d.x, d.edge_index), {}),
    "edge_index, x": lambda d, l: ((d.edge_index, d.x), {}),
    "x=, edge_index=": lambda d, l: ((), {"x": d.x, "edge_index": d.edge_index}),
    "x, edge_index, device": lambda d, l: ((d.x, d.edge_index, "cpu"), {}),
    "x, EdgeIndex": lambda d, l: ((d.x, EdgeIndex(d.edge_index)), {}),
    "numpy x, data": lambda d, l: ((d.x.numpy(), d), {}),
    "store of rows, loader": lambda d, l: ((Rows(d.x), "cpu", l), {}),
    "x, NeighborSampler": lambda d, l: ((d.x, sampler_of(d)), {}),
    "x, rank, NeighborSampler": lambda d, l: ((d.x, 0, sampler_of(d)), {}),
    "CachedLoader": lambda d, l: ((CachedLoader(l),), {}),
    "LinkNeighborLoader": lambda d, l: ((loader_of(d, LinkNeighborLoader),), {}),
    "DataLoader of one graph": lambda d, l: ((DataLoader([d]),), {}),
}


@pytest.mark.parametrize("shape", SHAPES)
def test_every_call_shape_gives_forward(shape: str, model: GraphSAGE, data: Data, engine: type[EagerEngine]) -> None:
    args, kwargs = SHAPES[shape](data, loader_of(data))
    assert torch.equal(infer(model, *args, engine=engine, **kwargs), model(data.x, data.edge_index))
    assert len(engine.built) == 1


def test_the_loader_cannot_be_iterated_here(data: Data) -> None:
    """If this fails, a sampler was installed, and the other tests no longer prove that loaders are not
    iterated."""
    if sampler_installed():
        pytest.skip("a sampler is installed")
    with pytest.raises(ImportError, match="NeighborSampler"):
        next(iter(loader_of(data)))


def sampler_installed() -> bool:
    import torch_geometric.typing as typing

    return bool(typing.WITH_PYG_LIB or typing.WITH_TORCH_SPARSE)


def test_features_deleted_from_the_loader(model: GraphSAGE, data: Data) -> None:
    """examples/reddit.py: `del subgraph_loader.data.x`, num_nodes and n_id set by hand."""
    import copy

    loader = loader_of(copy.copy(data))
    del loader.data.x
    loader.data.num_nodes, loader.data.n_id = NUM_NODES, torch.arange(NUM_NODES)
    assert torch.equal(infer(model, data.x, loader), model(data.x, data.edge_index))


WRAPPERS: dict[str, Callable[[torch.nn.Module], torch.nn.Module]] = {
    "torch.compile": lambda m: torch.compile(m),
    "DataParallel": lambda m: torch.nn.DataParallel(m),
    "AveragedModel": lambda m: torch.optim.swa_utils.AveragedModel(m).eval(),
    "compiled DataParallel": lambda m: torch.compile(torch.nn.DataParallel(m)),
}


@pytest.mark.parametrize("wrapper", WRAPPERS)
def test_wrappers_are_opened(wrapper: str, model: GraphSAGE, data: Data) -> None:
    wrapped = WRAPPERS[wrapper](model)
    assert torch.equal(infer(wrapped, data), model(data.x, data.edge_index))


def test_ddp_is_opened(model: GraphSAGE, data: Data, tmp_path: Any) -> None:
    store = f"file://{tmp_path / 'store'}"
    torch.distributed.init_process_group("gloo", init_method=store, rank=0, world_size=1)
    try:
        wrapped = torch.nn.parallel.DistributedDataParallel(model)
        assert torch.equal(infer(wrapped, data), model(data.x, data.edge_index))
    finally:
        torch.distributed.destroy_process_group()


def test_forward_over_sampled_blocks(data: Data) -> None:
    model = Blocks().eval()
    triple = (data.edge_index, None, (NUM_NODES, NUM_NODES))
    expected = model(data.x, [triple, triple])
    assert torch.equal(infer(model, data), expected)
    assert torch.equal(infer(model, data.x, "cpu", sampler_of(data)), expected)
    assert torch.equal(infer(model, data.x, sampler_of(data, (-1, -1))), expected)
    assert torch.equal(infer(model, data.x, [triple, triple]), expected)


def test_forward_over_data(data: Data) -> None:
    model = WholeData().eval()
    expected = model(data)
    before = data.x
    assert torch.equal(infer(model, data), expected)
    assert torch.equal(infer(model, loader_of(data)), expected)
    assert torch.equal(infer(model, data.x, data.edge_index), expected)
    assert torch.equal(infer(model, 2 * data.x, data), model(Data(x=2 * data.x, edge_index=data.edge_index)))
    assert data.x is before


def test_forward_in_another_order(data: Data) -> None:
    model = Swapped().eval()
    weight = torch.rand(NUM_EDGES)
    assert torch.equal(infer(model, data), model(data.edge_index, data.x))
    assert torch.equal(infer(model, data.x, data.edge_index, weight), model(data.edge_index, data.x, weight))
    assert torch.equal(infer(model, data, edge_weight=weight), model(data.edge_index, data.x, weight))


def test_tuple_outputs(data: Data) -> None:
    model = Pair().eval()
    for ours, theirs in zip(infer(model, data), model(data.x, data.edge_index), strict=True):
        assert torch.equal(ours, theirs)


def test_pyg_sequential(data: Data) -> None:
    model = Sequential("x, edge_index", [(GCNConv(COLUMNS, 4), "x, edge_index -> x"), torch.nn.ReLU()]).eval()
    assert torch.equal(infer(model, data), model(data.x, data.edge_index))


def test_a_batch_of_graphs(data: Data, engine: type[EagerEngine]) -> None:
    engine.has_global_reduction = True
    batch = Batch.from_data_list([data, make_data(seed=1)])
    model = GCN(COLUMNS, 8, 2, 3, norm="graph_norm").eval()
    assert torch.equal(infer(model, batch, engine=engine), model(batch.x, batch.edge_index, batch=batch.batch))


def test_hetero_data_reaches_to_hetero_models() -> None:
    data = HeteroData()
    data["a"].x, data["b"].x = torch.randn(5, 4), torch.randn(6, 4)
    data["a", "to", "b"].edge_index = torch.stack([torch.randint(0, 5, (9,)), torch.randint(0, 6, (9,))])
    data["b", "to", "a"].edge_index = torch.stack([torch.randint(0, 6, (9,)), torch.randint(0, 5, (9,))])
    model = to_hetero(GraphSAGE(4, 8, 2, 3), data.metadata()).eval()
    expected = model(data.x_dict, data.edge_index_dict)
    for args in ((data,), (data.x_dict, data.edge_index_dict), (loader_of(data, input_nodes="a"),)):
        found = infer(model, *args)
        assert found.keys() == expected.keys()
        assert all(torch.equal(found[key], expected[key]) for key in expected)


# ---- edge arguments ----------------------------------------------------------------------------------------


def test_edge_weight_is_passed_where_forward_takes_it(caplog: pytest.LogCaptureFixture) -> None:
    data = make_data(weights=True)
    model = GCN(COLUMNS, 8, 2, 3).eval()
    expected = model(data.x, data.edge_index, edge_weight=data.edge_weight)
    assert torch.equal(infer(model, data), expected)
    assert "data.edge_weight passed to forward" in caplog.text
    assert torch.equal(infer(model, loader_of(data)), expected)
    assert torch.equal(infer(model, data, edge_weight=None), model(data.x, data.edge_index))
    doubled = model(data.x, data.edge_index, edge_weight=2 * data.edge_weight)
    assert torch.equal(infer(model, data, edge_weight=2 * data.edge_weight), doubled)


@pytest.mark.parametrize(
    "model",
    [
        pytest.param(GraphSAGE(COLUMNS, 8, 2, 3), id="no weights in the layer"),
        pytest.param(GAT(COLUMNS, 8, 2, 3), id="no edge_dim"),
        pytest.param(
            PNA(COLUMNS, 8, 2, 3, aggregators=["mean"], scalers=["identity"], deg=torch.ones(9).long()),
            id="PNA",
        ),
    ],
)
def test_edge_arguments_the_layers_do_not_use_are_left_out(model: torch.nn.Module) -> None:
    data = make_data(weights=True)
    data.edge_attr = torch.rand(NUM_EDGES, 5)
    assert torch.equal(infer(model.eval(), data), model(data.x, data.edge_index))


def test_edge_attr_is_passed_to_layers_built_for_it() -> None:
    data = make_data()
    data.edge_attr = torch.rand(NUM_EDGES, 5)
    model = GAT(COLUMNS, 8, 2, 3, edge_dim=5).eval()
    assert torch.equal(infer(model, data), model(data.x, data.edge_index, edge_attr=data.edge_attr))
    assert not torch.equal(infer(model, data), model(data.x, data.edge_index))


def test_missing_edge_attr_names_the_layer_and_what_there_is() -> None:
    data = make_data(weights=True)
    model = GAT(COLUMNS, 8, 2, 3, edge_dim=5).eval()
    with pytest.raises(InputError, match=r"GATConv 'convs.0' \(edge_dim=5\).*edge_weight \[150\].*Set data.edge_attr"):
        infer(model, data)
    assert torch.equal(infer(model, data, edge_attr=None), model(data.x, data.edge_index))


class NeedsEdges(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = GINEConv(torch.nn.Linear(COLUMNS, 3), edge_dim=2)

    def forward(self, x: Tensor, edge_index: Tensor, edge_attr: Tensor) -> Tensor:
        return self.conv(x, edge_index, edge_attr)


def test_required_argument_missing_in_data(data: Data) -> None:
    data.edge_weight = torch.rand(NUM_EDGES)
    with pytest.raises(InputError, match=r"needs 'edge_attr'.*If data.edge_weight is what you mean"):
        infer(NeedsEdges().eval(), data)

    class Positions(torch.nn.Module):
        def forward(self, x: Tensor, pos: Tensor, edge_index: Tensor) -> Tensor:
            return x + pos.sum(dim=-1, keepdim=True)

    with pytest.raises(InputError, match=r"needs 'pos', but data has no such attribute \(found: x \[40, 6\]"):
        infer(Positions().eval(), data)
    data.pos = torch.rand(NUM_NODES, 3)
    assert torch.equal(infer(Positions().eval(), data), data.x + data.pos.sum(dim=-1, keepdim=True))


def test_per_edge_rows_must_match() -> None:
    with pytest.raises(InputError, match=r"'edge_weight' has 7 rows, but the graph has 150 edges"):
        infer(GCN(COLUMNS, 8, 2, 3).eval(), make_data(), edge_weight=torch.rand(7))


# ---- refusals and warnings ---------------------------------------------------------------------------------


@pytest.mark.parametrize("first", [True, False], ids=["first layer", "defined last, used first"])
def test_wrong_width_names_the_layer(first: bool, data: Data, engine: type[EagerEngine]) -> None:
    class Net(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.out = torch.nn.Linear(8, 3) if not first else None
            self.conv = GCNConv(9, 8)

        def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
            h = self.conv(x, edge_index)
            return h if self.out is None else self.out(h)

    with pytest.raises(InputError, match=r"data.x has 6 columns, but GCNConv 'conv' expects 9"):
        infer(Net().eval(), data, engine=engine)
    assert engine.built == []


def test_layers_in_another_order_than_defined_are_not_refused(data: Data) -> None:
    class Net(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.head = torch.nn.Linear(8, 3)
            self.conv = GCNConv(COLUMNS, 8)

        def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
            return self.head(self.conv(x, edge_index))

    model = Net().eval()
    assert torch.equal(infer(model, data), model(data.x, data.edge_index))


def test_width_check_leaves_cached_layers_alone(data: Data) -> None:
    class Net(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.head = torch.nn.Linear(8, 3)
            self.conv = GCNConv(COLUMNS, 8, cached=True)

        def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
            return self.head(self.conv(x, edge_index))

    model = Net().eval()
    infer(model, data, engine=Untouched)
    assert model.conv._cached_edge_index is None


class Untouched(EagerEngine):
    """Runs nothing."""

    def __call__(self, *args: Any, **kwargs: Any) -> Tensor:
        return torch.zeros(NUM_NODES, 3)


def test_training_mode_is_refused_or_left_for_the_call(model: GraphSAGE, data: Data) -> None:
    expected = model(data.x, data.edge_index)
    model.train()
    with pytest.raises(InputError, match=r"model is in training mode.*model.eval\(\).*force_eval=True"):
        infer(model, data)
    assert torch.equal(infer(model, data, force_eval=True), expected)
    assert all(module.training for module in model.modules())
    model.eval().dropout.train()
    with pytest.raises(InputError, match="Dropout 'dropout' is in training mode"):
        infer(model, data)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        pytest.param({"shuffle": True}, "output rows are in node order", id="shuffle"),
        pytest.param({"num_neighbors": [10, 5]}, r"num_neighbors=\[10, 5\]: neighbours are not sampled", id="fan-out"),
        pytest.param({"drop_last": True}, "every node gets its row", id="drop_last"),
        pytest.param({"transform": lambda data: data}, "transform", id="transform"),
        pytest.param({"input_nodes": torch.arange(5)}, "pass nodes=", id="subset"),
    ],
)
def test_settings_of_the_loader_that_are_not_followed(
    options: dict[str, Any], text: str, model: GraphSAGE, data: Data
) -> None:
    with pytest.warns(UserWarning, match=text):
        result = infer(model, loader_of(data, **options))
    assert torch.equal(result, model(data.x, data.edge_index))


def test_a_usual_loader_warns_of_nothing(model: GraphSAGE, data: Data) -> None:
    loader = loader_of(data)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        infer(model, loader)


def test_times_per_seed_are_refused(model: GraphSAGE, data: Data) -> None:
    data.time = torch.arange(NUM_NODES)
    loader = loader_of(data, input_time=torch.arange(NUM_NODES), time_attr="time")
    with pytest.raises(InputError, match="input_time differs per node"):
        infer(model, loader)


REFUSED: dict[str, tuple[Callable[[Data], tuple[tuple[Any, ...], dict[str, Any]]], str]] = {
    "no graph": (lambda d: ((d.x,), {}), "needs 'edge_index', but no graph was passed"),
    "two graphs": (lambda d: ((d, d), {}), "second graph"),
    "unknown keyword": (lambda d: ((d,), {"edge_wieght": d.x}), "'edge_wieght' is neither an argument"),
    "unknown type": (lambda d: ((d, object()), {}), "type object was not understood"),
    "a function": (lambda d: ((d, F.cross_entropy), {}), "was not understood"),
    "not a device": (lambda d: (("store/", d), {}), "'store/' is not a device"),
    "too few rows": (lambda d: ((d.x[:9], d), {}), "'x' has 9 rows, but the graph has 40 nodes"),
    "other device": (lambda d: ((d, "meta"), {}), "model is on cpu. Call model.to"),
    "other dtype": (lambda d: ((d,), {"dtype": torch.float64}), "parameters are torch.float32"),
    "too many tensors": (lambda d: ((d, d.x, *[torch.rand(3)] * 9), {}), "Pass them by name"),
    "several graphs": (lambda d: ((DataLoader([d, d]),), {}), "holds 2 graphs"),
    "loader without data": (lambda d: ((torch.utils.data.DataLoader([1, 2]),), {}), "has no '.data'"),
    "verify": (lambda d: ((d,), {"verify": "sometimes"}), "verify must be 'auto'"),
    "words": (lambda d: ((d,), {"nodes": "test"}), "node numbers .*got str 'test'"),
    "float nodes": (lambda d: ((d,), {"nodes": [0.5]}), "node numbers"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refusals_say_what_to_do(case: str, model: GraphSAGE, data: Data, engine: type[EagerEngine]) -> None:
    make, text = REFUSED[case]
    args, kwargs = make(data)
    with pytest.raises(InputError, match=text):
        infer(model, *args, engine=engine, **kwargs)
    assert engine.built == []


def test_the_model_must_be_a_model(data: Data) -> None:
    with pytest.raises(InputError, match="first argument must be the model"):
        infer(data, data)


# ---- results, options, engines -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "nodes",
    [[3, 1, 1], torch.tensor([5]), np.array([0, 39]), torch.arange(NUM_NODES) % 7 == 0, range(4), []],
    ids=["list", "tensor", "array", "mask", "range", "empty"],
)
def test_nodes_restrict_the_rows(nodes: Any, model: GraphSAGE, data: Data) -> None:
    index = torch.as_tensor(list(nodes) if isinstance(nodes, range) else nodes)
    index = index if index.numel() else index.long()
    assert torch.equal(infer(model, data, nodes=nodes), model(data.x, data.edge_index)[index])


def test_options_reach_the_engine(model: GraphSAGE, data: Data, engine: type[EagerEngine]) -> None:
    infer(
        model, data, "cpu", "cpu", True, engine=engine, threads=3, home="mapped", fallback="eager", order="rcm", calls=2
    )
    (built,) = engine.built
    expected = {"threads": 3, "home": "mapped", "fallback": "eager", "order": "rcm", "calls": 2, "outputs": ()}
    assert built.options == expected
    assert built.calls[0][1]["progress"] is True


def test_out_is_a_tensor_or_a_file(model: GraphSAGE, data: Data, tmp_path: Path) -> None:
    expected = model(data.x, data.edge_index)
    out = torch.empty(NUM_NODES, 3)
    assert infer(model, data, out=out) is out
    assert torch.equal(out, expected)
    for name in ("rows.npy", "rows.pt"):
        assert torch.equal(infer(model, data, out=tmp_path / name), expected)
    assert np.array_equal(np.load(tmp_path / "rows.npy"), expected.detach().numpy())
    assert torch.equal(torch.load(tmp_path / "rows.pt"), expected)
    with pytest.raises(InputError, match="out= is a tensor"):
        infer(model, data, out=torch.empty(3))
    with pytest.raises(InputError, match=r"must end in .npy or .pt"):
        infer(model, data, out="rows.csv")


def test_engines_are_kept_per_model_and_options(data: Data, engine: type[EagerEngine]) -> None:
    models = [GraphSAGE(COLUMNS, 8, 2, 3).eval() for _ in range(2)]
    for model in models:
        infer(model, data, engine=engine)
        infer(model, make_data(seed=4), engine=engine)
        infer(model, loader_of(data), engine=engine)
    assert [built.model for built in engine.built] == models
    infer(models[0], data, engine=engine, threads=1)
    assert len(engine.built) == 3


def test_models_with_engines_are_freed(data: Data) -> None:
    import gc
    import weakref

    model = GraphSAGE(COLUMNS, 8, 2, 3).eval()
    infer(model, data, engine=EagerEngine)
    EagerEngine.built.clear()
    gone = weakref.ref(model)
    del model
    gc.collect()
    assert gone() is None


def test_features_are_converted_to_the_dtype(data: Data) -> None:
    model = GraphSAGE(COLUMNS, 8, 2, 3).eval().double()
    assert torch.equal(infer(model, data, dtype=torch.float64), model(data.x.double(), data.edge_index))


def test_sparse_features_are_made_dense(model: GraphSAGE, data: Data) -> None:
    expected = model(data.x, data.edge_index)
    data.x = data.x.to_sparse_csr()
    assert torch.equal(infer(model, data, engine=NoMatrices), expected)


# ---- verification ------------------------------------------------------------------------------------------


def test_a_wrong_engine_is_caught_at_the_first_call(model: GraphSAGE, data: Data, engine: type[EagerEngine]) -> None:
    engine.wrong = 0.1
    with pytest.raises(FullGraphMismatch, match=r"node \d+, column 0: pyg_fullgraph gives .*GraphSAGE.forward"):
        infer(model, data, engine=engine)
    assert infer(model, data, engine=engine, verify=False).shape == (NUM_NODES, 3)


def test_verification_runs_once(model: GraphSAGE, data: Data, engine: type[EagerEngine]) -> None:
    infer(model, data, engine=engine)
    engine.wrong = 0.1
    infer(model, data, engine=engine)
    with pytest.raises(FullGraphMismatch):
        infer(model, data, engine=engine, verify="always")


def test_verification_leaves_cached_layers_alone(data: Data) -> None:
    model = torch_geometric_cached().eval()
    infer(model, data, engine=EagerEngine)
    warm = model.conv._cached_edge_index[0]
    assert warm.size(1) >= NUM_EDGES - 20  # the whole graph, as the double left it
    infer(model, data, engine=EagerEngine, verify="always")
    assert model.conv._cached_edge_index[0] is warm


def torch_geometric_cached() -> torch.nn.Module:
    class Net(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = GCNConv(COLUMNS, 3, cached=True)

        def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
            return self.conv(x, edge_index)

    return Net()


@pytest.mark.parametrize(
    "make",
    [
        lambda: GATConv(COLUMNS, 3),
        lambda: GraphConv(COLUMNS, 3),
        lambda: GCNConv(COLUMNS, 3),
        lambda: SAGEConv(COLUMNS, 3),
    ],
    ids=["GATConv", "GraphConv", "GCNConv", "SAGEConv"],
)
def test_a_single_layer_is_a_model(make: Callable[[], torch.nn.Module], data: Data) -> None:
    model = make().eval()
    assert torch.equal(infer(model, data), model(data.x, data.edge_index))
