"""The public names with the real engine: exact results, one trace, verification, and an import that costs
nothing."""

from __future__ import annotations

import copy
import pickle
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch_geometric.data import Data
from torch_geometric.loader import NeighborLoader
from torch_geometric.nn import GATConv, GCNConv, GraphConv
from torch_geometric.nn.models import GAT, GCN, GIN, GraphSAGE

import pyg_fullgraph as fg
from tests.graphs import NASTY

pytestmark = pytest.mark.filterwarnings("ignore:.*without a 'pyg-lib' installation:UserWarning")

COLUMNS = 6
MODELS: dict[str, Callable[[], torch.nn.Module]] = {
    "GCN": lambda: GCN(COLUMNS, 8, 3, 3),
    "GCN, graph_norm, jk=cat": lambda: GCN(COLUMNS, 8, 2, 3, norm="graph_norm", jk="cat"),
    "GraphSAGE": lambda: GraphSAGE(COLUMNS, 8, 2, 3),
    "GraphSAGE, batch_norm": lambda: GraphSAGE(COLUMNS, 8, 2, 3, norm="batch_norm"),
    "GIN": lambda: GIN(COLUMNS, 8, 2, 3),
    "GAT": lambda: GAT(COLUMNS, 8, 2, 4, heads=2),
    "GAT v2": lambda: GAT(COLUMNS, 8, 2, 4, heads=2, v2=True),
    "a layer": lambda: GCNConv(COLUMNS, 3),
    "messages against the edges": lambda: GraphConv(COLUMNS, 3, flow="target_to_source"),
}


def random_data(num_nodes: int = 200, num_edges: int = 1200) -> Data:
    return Data(x=torch.randn(num_nodes, COLUMNS), edge_index=torch.randint(0, num_nodes, (2, num_edges)))


def exact(ours: Tensor, theirs: Tensor) -> None:
    """The promise for float32, element by element."""
    assert ours.shape == theirs.shape and ours.dtype == theirs.dtype
    if theirs.numel():
        assert (ours - theirs).abs().max() <= 1e-5 * theirs.abs().max()


@pytest.fixture
def data() -> Data:
    return random_data()


@pytest.mark.parametrize("name", MODELS)
def test_inference_equals_forward(name: str, data: Data) -> None:
    model = MODELS[name]().eval()
    with torch.no_grad():
        expected = model(data.x, data.edge_index)
    ours = fg.inference(model, data)
    exact(ours, expected)
    assert torch.equal(fg.inference(model, data, verify="always"), ours)
    nodes = torch.tensor([5, 199, 5, 0])
    exact(fg.inference(model, data, nodes=nodes), expected[nodes])


@pytest.mark.parametrize("graph", NASTY)
def test_nasty_graphs(graph: str) -> None:
    num_nodes, edge_index = NASTY[graph]
    data = Data(x=torch.randn(num_nodes, COLUMNS), edge_index=edge_index)
    for make in (lambda: GCN(COLUMNS, 8, 2, 3), lambda: GAT(COLUMNS, 8, 2, 4, heads=2)):
        model = make().eval()
        with torch.no_grad():
            expected = model(data.x, data.edge_index)
        exact(fg.inference(model, data), expected)


def test_the_drop_in_on_a_loader_that_cannot_sample(data: Data) -> None:
    loader = NeighborLoader(data, num_neighbors=[-1], batch_size=64)
    model = fg.accelerate(GCN(COLUMNS, 8, 2, 3).eval())
    with torch.no_grad():
        expected = model(data.x, data.edge_index)
    exact(model.inference(loader), expected)
    exact(model.inference(data.x, 0, loader), expected)
    exact(model.inference(loader, "cpu", embedding_device="cpu", progress_bar=True, cache=True), expected)
    fg.restore(model)
    assert model.inference.__func__ is GCN.inference
    with fg.accelerated(model):
        exact(model.inference(loader), expected)
    assert "inference" not in vars(model)


@pytest.mark.parametrize("way", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))], ids=["deepcopy", "pickle"])
def test_accelerated_models_can_be_copied_after_a_call(way: Any, data: Data) -> None:
    model = fg.accelerate(GIN(COLUMNS, 8, 2, 3).eval())
    before = model.inference(data)
    other = way(model)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.mul_(0.5)
        exact(other.inference(data), other(data.x, data.edge_index))
    assert torch.equal(model.inference(data), before)


def test_parameters_are_live_and_the_trace_is_kept(data: Data) -> None:
    model = GraphSAGE(COLUMNS, 8, 2, 3).eval()
    fg.inference(model, data)
    engine = next(iter(vars(model)["_fullgraph_engines"]._built.values()))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1)
        exact(fg.inference(model, data), model(data.x, data.edge_index))
        other = random_data(77, 500)
        exact(fg.inference(model, other), model(other.x, other.edge_index))
    assert re.search(r"traced calls: 1\b", repr(engine))


def test_the_options_of_the_call_leave_training_state_alone(data: Data) -> None:
    model = GCN(COLUMNS, 8, 2, 3, dropout=0.5)
    expected = model.eval()(data.x, data.edge_index).detach()
    model.train()
    with pytest.raises(fg.InputError, match="force_eval"):
        fg.inference(model, data)
    exact(fg.inference(model, data, force_eval=True), expected)
    assert model.training and model.dropout.training


@pytest.mark.parametrize("warm", [False, True], ids=["cold", "warm"])
def test_cached_layers_keep_their_cache_to_themselves(warm: bool, data: Data) -> None:
    """`cached=True` holds the edges of the first graph it saw: ours never, another graph's never ours."""

    class Net(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = GCNConv(COLUMNS, 3, cached=True)

        def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
            return self.conv(x, edge_index)

    model = Net().eval()
    expected = model(data.x, data.edge_index).detach()
    cache = model.conv._cached_edge_index
    if not warm:
        cache = model.conv._cached_edge_index = None
    exact(fg.inference(model, data), expected)
    assert model.conv._cached_edge_index is cache


def test_weights_come_from_the_data(data: Data) -> None:
    data.edge_weight = torch.rand(data.num_edges)
    model = GCN(COLUMNS, 8, 2, 3).eval()
    with torch.no_grad():
        exact(fg.inference(model, data), model(data.x, data.edge_index, edge_weight=data.edge_weight))


@pytest.mark.parametrize("layout", ["coo", "csr"])
@pytest.mark.parametrize("weighted", [False, True], ids=["ones", "weights"])
def test_sparse_matrices(layout: str, weighted: bool) -> None:
    """Against PyG given the same matrix."""
    ring = torch.arange(40)
    edge_index = torch.stack([torch.cat([ring, ring]), torch.cat([(ring + 1) % 40, (ring + 7) % 40])])
    value = torch.rand(80) + 0.1 if weighted else torch.ones(80)
    adj_t = torch.sparse_coo_tensor(edge_index.flip(0), value, (40, 40)).coalesce()
    adj_t = adj_t.to_sparse_csr() if layout == "csr" else adj_t
    data = Data(x=torch.randn(40, COLUMNS), adj_t=adj_t)
    for model in (GCN(COLUMNS, 8, 2, 3), GraphConv(COLUMNS, 3), GATConv(COLUMNS, 3)):
        with torch.no_grad():
            expected = model.eval()(data.x, adj_t)
        exact(fg.inference(model, data, verify="always"), expected)


def test_compile_returns_an_engine(data: Data) -> None:
    model = GraphSAGE(COLUMNS, 8, 2, 3).eval()
    for wrapped in (model, torch.compile(model), torch.nn.DataParallel(model)):
        engine = fg.compile(wrapped, threads=1)
        assert isinstance(engine, fg.Engine)
        assert engine.model is model
    with torch.no_grad():
        exact(engine(data.x, data.edge_index), model(data.x, data.edge_index))
    with pytest.raises(fg.InputError, match=r"needs a torch\.nn\.Module"):
        fg.compile(data)


def test_unknown_options_are_refused(data: Data) -> None:
    with pytest.raises(fg.InputError, match="Unknown option 'thread'"):
        fg.accelerate(GCN(COLUMNS, 8, 2, 3), thread=2)


class Untraceable(torch.nn.Module):
    """Asks its data, which no capture can answer."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = GCNConv(COLUMNS, 3)

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        h = self.conv(x, edge_index)
        return h * 2 if float(h.abs().max()) > 1e3 else h


def test_what_cannot_be_captured_is_an_error_or_runs_eagerly(data: Data, caplog: pytest.LogCaptureFixture) -> None:
    model = Untraceable().eval()
    with pytest.raises(fg.CaptureError, match=r"test_api\.py"):
        fg.inference(model, data)
    with torch.no_grad():
        expected = model(data.x, data.edge_index)
    assert torch.equal(fg.inference(model, data, fallback="eager"), expected)
    assert "ran the model's own forward" in caplog.text


def test_importing_the_package_imports_nothing_heavy() -> None:
    code = (
        "import sys, pyg_fullgraph as fg; "
        "heavy = {'torch', 'numpy', 'torch_geometric'} & set(sys.modules); assert not heavy, heavy; "
        "assert 'inference' in dir(fg) and fg.__version__; "
        "from pyg_fullgraph import inference, Graph, errors; assert 'torch' in sys.modules"
    )
    root = Path(__file__).resolve().parent.parent
    subprocess.run([sys.executable, "-c", code], check=True, cwd=root, timeout=120)


def test_public_names_exist_and_unknown_ones_say_so() -> None:
    root = Path(__file__).resolve().parent.parent
    assert set(fg.__all__) == {"__version__", *fg._HOMES}
    for name in fg.__all__:
        assert getattr(fg, name) is not None
    with pytest.raises(AttributeError, match="has no attribute 'inferense'"):
        fg.inferense  # noqa: B018
    assert f'version = "{fg.__version__}"' in (root / "pyproject.toml").read_text()
