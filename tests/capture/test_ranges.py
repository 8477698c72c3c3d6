"""Integer arguments that select rows: out of range where the forward fails, and as the forward where it does not."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch_geometric.data import Data
from torch_geometric.nn import (
    FastRGCNConv,
    FiLMConv,
    GATConv,
    RGATConv,
    RGCNConv,
    global_add_pool,
    global_mean_pool,
)

import pyg_fullgraph as fg
from pyg_fullgraph.errors import InputError

N, E, TYPES = 30, 100, 3
RANDOM = torch.Generator().manual_seed(0)
X = torch.randn(N, 8, generator=RANDOM)
EDGES = torch.randint(0, N, (2, E), generator=RANDOM)
EDGE_TYPE = torch.randint(0, TYPES, (E,), generator=RANDOM)
NODE_TYPE = torch.randint(0, TYPES, (N,), generator=RANDOM)
BATCH = torch.arange(N) // 10


class Typed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.table, self.conv, self.lin = nn.Embedding(TYPES, 8), GATConv(8, 4), nn.Linear(8 + TYPES, 4)


class ByEmbedding(Typed):
    def forward(self, x: Tensor, edge_index: Tensor, node_type: Tensor) -> Tensor:
        return self.conv(x + self.table(node_type), edge_index)


class ByBrackets(Typed):
    def forward(self, x: Tensor, edge_index: Tensor, node_type: Tensor) -> Tensor:
        return self.conv(x + self.table.weight[node_type], edge_index)


class BySelection(Typed):
    def forward(self, x: Tensor, edge_index: Tensor, node_type: Tensor) -> Tensor:
        return self.conv(x + self.table.weight.index_select(0, node_type), edge_index)


class ByOneHot(Typed):
    def forward(self, x: Tensor, edge_index: Tensor, node_type: Tensor) -> Tensor:
        return self.lin(torch.cat([x, F.one_hot(node_type, TYPES)], 1)) + self.conv(x, edge_index)


class ByShifted(Typed):
    def forward(self, x: Tensor, edge_index: Tensor, node_type: Tensor) -> Tensor:
        return self.conv(x + self.table(node_type - 1), edge_index)


class Counted(Typed):
    """What it counts it does not use."""

    def forward(self, x: Tensor, edge_index: Tensor, node_type: Tensor) -> Tensor:
        torch.zeros(TYPES).scatter_add_(0, node_type, torch.ones(node_type.size(0)))
        return self.conv(x, edge_index)


class Compared(Typed):
    def forward(self, x: Tensor, edge_index: Tensor, node_type: Tensor) -> Tensor:
        for kind in range(TYPES):
            x = x + (node_type == kind).unsqueeze(1) * self.table.weight[kind]
        return self.conv(x, edge_index)


class Pooled(Typed):
    def forward(self, x: Tensor, edge_index: Tensor, batch: Tensor) -> Tensor:
        return global_add_pool(self.conv(x, edge_index), batch)


class PooledToThree(Typed):
    def forward(self, x: Tensor, edge_index: Tensor, batch: Tensor) -> Tensor:
        return global_mean_pool(self.conv(x, edge_index), batch, 3)


class TwoRelational(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = RGCNConv(8, 8, TYPES), FastRGCNConv(8, 4, TYPES)

    def forward(self, x: Tensor, edge_index: Tensor, edge_type: Tensor) -> Tensor:
        return self.second(self.first(x, edge_index, edge_type).relu(), edge_index, edge_type)


class OfData(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = RGATConv(8, 4, TYPES)

    def forward(self, data: Data) -> Tensor:
        return self.conv(data.x, data.edge_index, data.edge_type)


MODELS = {
    "RGCN": (lambda: RGCNConv(8, 4, TYPES), EDGE_TYPE, "edge_type"),
    "RGCN with bases": (lambda: RGCNConv(8, 4, TYPES, num_bases=2), EDGE_TYPE, "edge_type"),
    "RGCN with blocks": (lambda: RGCNConv(8, 4, TYPES, num_blocks=2), EDGE_TYPE, "edge_type"),
    "FastRGCN": (lambda: FastRGCNConv(8, 4, TYPES), EDGE_TYPE, "edge_type"),
    "RGAT": (lambda: RGATConv(8, 4, TYPES), EDGE_TYPE, "edge_type"),
    "FiLM": (lambda: FiLMConv(8, 4, TYPES), EDGE_TYPE, "edge_type"),
    "two layers": (TwoRelational, EDGE_TYPE, "edge_type"),
    "embedding": (ByEmbedding, NODE_TYPE, "node_type"),
    "brackets": (ByBrackets, NODE_TYPE, "node_type"),
    "index_select": (BySelection, NODE_TYPE, "node_type"),
    "one_hot": (ByOneHot, NODE_TYPE, "node_type"),
    "shifted": (ByShifted, NODE_TYPE % 2 + 1, "node_type"),
    "counted": (Counted, NODE_TYPE, "node_type"),
    "compared": (Compared, NODE_TYPE, "node_type"),
    "pooled": (Pooled, BATCH, "batch"),
    "pooled to three": (PooledToThree, BATCH, "batch"),
}


@pytest.mark.parametrize("name", MODELS)
def test_as_the_forward(name):
    make, good, argument = MODELS[name]
    torch.manual_seed(0)
    model = make().eval()
    warm = fg.compile(model)
    assert torch.allclose(warm(X, EDGES, good), model(X, EDGES, good), atol=1e-5)
    for bad in (-1, 3, 10**6):
        numbers = good.clone()
        numbers[4] = bad
        try:
            with torch.no_grad():
                want = model(X, EDGES, numbers)
        except (IndexError, RuntimeError):
            want = None
        for engine in (fg.compile(model), warm) if bad == -1 else (warm,):
            if want is not None:
                assert torch.allclose(engine(X, EDGES, numbers), want, atol=1e-5)
                continue
            with pytest.raises(InputError, match=argument) as caught:
                engine(X, EDGES, numbers)
            shown = bad - 1 if name == "shifted" else bad  # the number that selects
            assert "[4]" in str(caught.value) and str(shown) in str(caught.value)
    assert torch.allclose(warm(X, EDGES, good), model(X, EDGES, good), atol=1e-5)


def test_inference_and_data_objects():
    bad = EDGE_TYPE.clone()
    bad[7] = 5
    data = Data(x=X, edge_index=EDGES, edge_type=bad)
    with pytest.raises(InputError, match=r"edge_type\[7\] is 5.*0 to 2"):
        fg.inference(RGCNConv(8, 4, TYPES).eval(), data)
    with pytest.raises(InputError, match=r"edge_type\[7\] is 5.*0 to 2"):
        fg.inference(OfData().eval(), data)
    with pytest.raises(InputError, match=r"edge_type\[7\] is 5"):
        fg.accelerate(RGCNConv(8, 4, TYPES).eval()).inference(X, EDGES, bad)


def test_written_in_place_after_a_good_call():
    model, kinds = RGCNConv(8, 4, TYPES).eval(), EDGE_TYPE.clone()
    engine = fg.compile(model)
    engine(X, EDGES, kinds)
    kinds[9] = 3
    with pytest.raises(InputError, match=r"edge_type\[9\] is 3"):
        engine(X, EDGES, kinds)
    kinds[9] = 2
    assert torch.allclose(engine(X, EDGES, kinds), model(X, EDGES, kinds), atol=1e-5)


def test_the_user_chose_the_loop(monkeypatch):
    """Where PyG is told not to count relations its forward takes any number, and so does the engine."""
    monkeypatch.setattr("torch_geometric.backend.use_segment_matmul", False)
    model, kinds = RGCNConv(8, 4, TYPES).eval(), EDGE_TYPE.clone()
    kinds[0] = 9
    assert torch.allclose(fg.compile(model)(X, EDGES, kinds), model(X, EDGES, kinds), atol=1e-5)
