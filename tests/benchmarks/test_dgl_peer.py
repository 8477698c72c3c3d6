"""DGL's layers with PyG's weights give PyG's output, element by element; skipped where DGL's environment is absent."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from benchmarks.dgl_peer import DGL_MODELS, VARIABLE, DglProcess, dgl_python
from benchmarks.graphs import Source
from benchmarks.models import Setting, build_inputs, build_model

needs_dgl = pytest.mark.skipif(dgl_python() is None, reason=f"no DGL: scripts/install-dgl, then set {VARIABLE}")


@needs_dgl
@pytest.mark.parametrize("name", sorted(DGL_MODELS))
def test_equals_pyg(name: str) -> None:
    setting = Setting(name, Source(7, 3), 16)  # with self-loops, duplicates and isolated nodes
    model, (x, edge_index) = build_model(setting), build_inputs(setting)
    _randomise_biases(model)
    assert bool((edge_index[0] == edge_index[1]).any())
    assert torch.bincount(edge_index[1], minlength=x.size(0)).min() == 0
    with torch.no_grad():
        expected: Tensor = model(x, edge_index)
    with DglProcess(name, model, x, edge_index) as peer:
        got = peer.output()
        assert peer.run() > 0
    assert got.shape == expected.shape
    assert float((got - expected).abs().max()) <= 1e-5 * float(expected.abs().max())


def _randomise_biases(model: torch.nn.Module) -> None:
    """PyG starts biases at zero: a bias that got lost on the way would not show."""
    for name, parameter in model.named_parameters():
        if name.endswith("bias"):
            torch.nn.init.normal_(parameter)


def test_without_environment_says_how_to_make_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    setting = Setting("sage", Source(4, 2), 8)
    with pytest.raises(RuntimeError, match="scripts/install-dgl"):
        DglProcess("sage", build_model(setting), *build_inputs(setting))
