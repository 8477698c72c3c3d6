"""`accelerate`: the installed `model.inference`, its copies, its undoing, its notes."""

from __future__ import annotations

import copy
import inspect
import io
import pickle
from typing import Any

import pytest
import torch
from torch import Tensor
from torch_geometric.data import Data, HeteroData
from torch_geometric.loader import NeighborLoader
from torch_geometric.nn import SAGEConv, to_hetero
from torch_geometric.nn.models import GCN, GIN, GraphSAGE

import pyg_fullgraph as fg
from pyg_fullgraph.errors import InputError
from pyg_fullgraph.front.accelerate import Inference, install, installed, uninstall
from pyg_fullgraph.front.run import Options
from tests.front.front_doubles import COLUMNS, EagerEngine, make_data

pytestmark = pytest.mark.filterwarnings("ignore:.*without a 'pyg-lib' installation:UserWarning")


class Handwritten(torch.nn.Module):
    """An example's model, whose inference() needs a loader that nobody can iterate."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = SAGEConv(COLUMNS, 3)

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        return self.conv(x, edge_index).log_softmax(dim=-1)

    def inference(self, x_all: Tensor, device: Any = None, loader: Any = None) -> Tensor:
        raise AssertionError("the hand-written inference() must not run")


class HeteroWrapper(torch.nn.Module):
    """benchmark/utils/hetero_sage.py: an outer inference() that returns None, an inner to_hetero model."""

    def __init__(self, metadata: Any) -> None:
        super().__init__()
        self.model = to_hetero(GraphSAGE(4, 8, 2, 3), metadata)

    def forward(self, x_dict: dict[str, Tensor], edge_index_dict: dict[Any, Tensor]) -> dict[str, Tensor]:
        return self.model(x_dict, edge_index_dict)

    def inference(self, loader: Any, device: Any, progress_bar: bool = False, **kwargs: Any) -> None:
        raise AssertionError("must not run")


def accelerate(model: torch.nn.Module, data: Any = None, **options: Any) -> torch.nn.Module:
    return install(model, Options(**options), EagerEngine, data)


def loader_of(data: Any, **options: Any) -> NeighborLoader:
    return NeighborLoader(data, num_neighbors=[-1], batch_size=16, **options)


def hetero() -> HeteroData:
    data = HeteroData()
    data["a"].x, data["b"].x = torch.randn(5, 4), torch.randn(6, 4)
    data["a", "to", "b"].edge_index = torch.stack([torch.randint(0, 5, (9,)), torch.randint(0, 6, (9,))])
    data["b", "to", "a"].edge_index = torch.stack([torch.randint(0, 6, (9,)), torch.randint(0, 5, (9,))])
    return data


@pytest.mark.parametrize("make", [lambda: GraphSAGE(COLUMNS, 8, 2, 3), lambda: GCN(COLUMNS, 8, 2, 3), Handwritten])
def test_the_method_is_replaced_and_restored(make: Any, data: Data) -> None:
    model = make().eval()
    assert accelerate(model) is model
    expected = model(data.x, data.edge_index)
    assert torch.equal(model.inference(loader_of(data)), expected)
    assert torch.equal(model.inference(data.x, 0, loader_of(data)), expected)
    assert torch.equal(model.inference(loader_of(data), device="cpu", progress_bar=False, cache=True), expected)
    assert uninstall(model) is model
    assert model.inference.__func__ is type(model).inference
    assert not any(name.startswith("_fullgraph") for name in vars(model))


def test_signature_is_pygs(data: Data) -> None:
    model = accelerate(GCN(COLUMNS, 8, 2, 3).eval())
    ours = inspect.signature(model.inference).parameters
    theirs = inspect.signature(GCN.inference).parameters
    assert {name: p.default for name, p in theirs.items() if name not in ("self", "loader")}.items() <= {
        name: p.default for name, p in ours.items()
    }.items()


def test_a_model_without_inference_gets_one(data: Data) -> None:
    class Net(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = SAGEConv(COLUMNS, 3)

        def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
            return self.conv(x, edge_index)

    model = accelerate(Net().eval())
    assert torch.equal(model.inference(data), model(data.x, data.edge_index))
    uninstall(model)
    assert not hasattr(model, "inference")


def test_an_instance_method_of_the_user_comes_back(data: Data) -> None:
    model = GraphSAGE(COLUMNS, 8, 2, 3).eval()
    mine = model.inference = lambda loader: "mine"
    accelerate(accelerate(model))
    assert isinstance(model.inference, Inference)
    assert uninstall(model).inference is mine


def test_context_manager(data: Data) -> None:
    model = Handwritten().eval()
    with installed(model, Options(), EagerEngine) as same:
        assert same is model
        assert torch.equal(model.inference(data.x, loader_of(data)), model(data.x, data.edge_index))
    assert "inference" not in vars(model)


def test_features_alone_need_the_graph_given_before(data: Data) -> None:
    """examples/cluster_gcn_reddit.py: `model.inference(x_all)`, the loader is a global."""
    model = accelerate(Handwritten().eval())
    with pytest.raises(InputError, match="no graph was passed"):
        model.inference(data.x)
    accelerate(model, data)
    assert torch.equal(model.inference(2 * data.x), model(2 * data.x, data.edge_index))
    other = make_data(seed=5)
    assert torch.equal(model.inference(other), model(other.x, other.edge_index))


COPIES = {
    "deepcopy": copy.deepcopy,
    "pickle": lambda model: pickle.loads(pickle.dumps(model)),
    "torch.save": lambda model: _saved_and_loaded(model),
}


def _saved_and_loaded(model: torch.nn.Module) -> torch.nn.Module:
    buffer = io.BytesIO()
    torch.save(model, buffer)
    buffer.seek(0)
    return torch.load(buffer, weights_only=False)


@pytest.mark.parametrize("way", COPIES)
@pytest.mark.parametrize("used", [False, True], ids=["before its first call", "after a call"])
def test_copies_run_their_own_parameters(way: str, used: bool, data: Data) -> None:
    model = accelerate(GIN(COLUMNS, 8, 2, 3).eval())
    if used:
        model.inference(data)
    other = COPIES[way](model)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.mul_(0.5)
    assert torch.equal(other.inference(data), other(data.x, data.edge_index))
    assert torch.equal(model.inference(data), model(data.x, data.edge_index))
    assert not torch.equal(other.inference(data), model.inference(data))
    uninstall(other)
    assert isinstance(model.inference, Inference)


def test_state_dict_and_modules_are_unchanged() -> None:
    model = GIN(COLUMNS, 8, 2, 3).eval()
    before = (list(model.state_dict()), [name for name, _ in model.named_modules()])
    accelerate(model)
    assert (list(model.state_dict()), [name for name, _ in model.named_modules()]) == before


def test_wrapped_models(data: Data) -> None:
    inner = GraphSAGE(COLUMNS, 8, 2, 3).eval()
    for wrapped in (torch.nn.DataParallel(inner), torch.compile(inner)):
        assert accelerate(wrapped) is wrapped
        expected = inner(data.x, data.edge_index)
        assert torch.equal(wrapped.inference(loader_of(data)), expected)
        assert torch.equal(inner.inference(data.x, 0, loader_of(data)), expected)
        uninstall(wrapped)
        assert "inference" not in vars(inner) and "inference" not in vars(wrapped)


def test_hetero_parts_are_replaced_too() -> None:
    data = hetero()
    model = accelerate(HeteroWrapper(data.metadata()).eval())
    expected = model(data.x_dict, data.edge_index_dict)
    for found in (
        model.inference(loader_of(data, input_nodes="a"), "cpu", progress_bar=False),
        model.model.inference(loader_of(data, input_nodes="a")),
    ):
        assert all(torch.equal(found[key], expected[key]) for key in expected)
    uninstall(model)
    assert not hasattr(model.model, "inference")


def test_to_hetero_models_can_be_copied() -> None:
    data = hetero()
    model = accelerate(HeteroWrapper(data.metadata()).eval())
    other = copy.deepcopy(model)
    expected = model(data.x_dict, data.edge_index_dict)
    found = other.inference(data)
    assert all(torch.equal(found[key], expected[key]) for key in expected)


def test_options_of_accelerate_are_defaults_of_the_call(data: Data) -> None:
    EagerEngine.built.clear()
    model = accelerate(GIN(COLUMNS, 8, 2, 3).eval(), threads=2, verify="off")
    model.inference(data)
    model.inference(data, threads=1)
    assert [engine.options["threads"] for engine in EagerEngine.built] == [2, 1]


def test_accelerate_needs_a_model() -> None:
    with pytest.raises(InputError, match=r"needs a torch.nn.Module \(got Data\)"):
        accelerate(Data())


# ---- notes -------------------------------------------------------------------------------------------------


def notes(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.name == "pyg_fullgraph" and record.levelno >= 30]


def test_the_note_on_degrees_comes_once_per_class(data: Data, caplog: pytest.LogCaptureFixture) -> None:
    for _ in range(2):
        accelerate(GCN(COLUMNS, 8, 2, 3).eval()).inference(loader_of(data))
    (note,) = notes(caplog)
    assert note.startswith("GCN: results equal model.forward over the whole graph. PyG's inference(loader) differs")
    assert "GCNConv 'convs.0' would normalise by the degrees inside each sampled batch" in note


@pytest.mark.parametrize(
    ("make", "text"),
    [
        pytest.param(
            lambda: GraphSAGE(COLUMNS, 8, 2, 3, norm="graph_norm"),
            "GraphNorm 'norms.0' would take",
            id="graph_norm",
        ),
        pytest.param(
            lambda: GraphSAGE(COLUMNS, 8, 2, 3, norm="layer_norm"),
            "LayerNorm 'norms.0' would take",
            id="layer_norm",
        ),
        pytest.param(lambda: GCN(COLUMNS, 8, 2, 3, normalize=False), "edge_weight would be dropped", id="weights"),
        pytest.param(Handwritten, "repeats the model by hand", id="hand-written"),
    ],
)
def test_notes_name_what_differs(make: Any, text: str, caplog: pytest.LogCaptureFixture) -> None:
    data = make_data(weights=True)
    accelerate(make().eval(), verify="off").inference(loader_of(data))
    assert any(text in note for note in notes(caplog))


def test_no_note_where_nobody_asked_for_pygs_inference(data: Data, caplog: pytest.LogCaptureFixture) -> None:
    fg.inference(GCN(COLUMNS, 8, 2, 3).eval(), data)
    assert notes(caplog) == []
    fg.inference(GCN(COLUMNS, 8, 2, 3).eval(), loader_of(data))
    assert len(notes(caplog)) == 1


def test_no_note_where_pyg_is_exact(data: Data, caplog: pytest.LogCaptureFixture) -> None:
    accelerate(GraphSAGE(COLUMNS, 8, 2, 3, norm="batch_norm").eval()).inference(loader_of(data))
    assert notes(caplog) == []
