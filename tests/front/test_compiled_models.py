"""Models, layers and functions that torch.jit compiled: refused by a sentence, or captured by their Python code."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch_geometric.nn import SAGEConv

import pyg_fullgraph as fg
from pyg_fullgraph.cli import main
from pyg_fullgraph.errors import CaptureError, InputError

pytestmark = pytest.mark.filterwarnings("ignore")
X, EDGES = torch.randn(50, 8), torch.randint(0, 50, (2, 200))


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.lin = SAGEConv(8, 16), nn.Linear(16, 4)

    def forward(self, x: torch.Tensor, edge_index: torch.Tensor) -> torch.Tensor:
        return self.lin(self.conv(x, edge_index).relu())


def _saved(path: Path) -> nn.Module:
    torch.jit.save(torch.jit.script(Net().eval()), path / "net.pt")
    return torch.jit.load(path / "net.pt")


FORMS: dict[str, Callable[[Path], nn.Module]] = {
    "scripted": lambda path: torch.jit.script(Net().eval()),
    "traced": lambda path: torch.jit.trace(Net().eval(), (X, EDGES)),
    "frozen": lambda path: torch.jit.freeze(torch.jit.script(Net().eval())),
    "loaded": _saved,
    "in a wrapper": lambda path: nn.DataParallel(torch.jit.script(Net().eval())),
}


@pytest.mark.parametrize("form", FORMS)
@torch.no_grad()
def test_a_compiled_model_is_refused_with_what_to_pass(form: str, tmp_path: Path) -> None:
    model = FORMS[form](tmp_path)
    ways: list[Callable[[], Any]] = [
        lambda: fg.inference(model, X, EDGES),
        lambda: fg.compile(model)(X, EDGES),
        lambda: fg.accelerate(model).inference(X, EDGES),
    ]
    for way in ways:
        with pytest.raises(InputError, match=r"was compiled by torch\.jit .* Pass the eager model"):
            way()


def test_on_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        _saved(tmp_path)
    (tmp_path / "build.py").write_text(f"import torch\nmodel = torch.jit.load({str(tmp_path / 'net.pt')!r})\n")
    np.savez(tmp_path / "graph.npz", x=X.numpy(), edge_index=EDGES.numpy())
    arguments = ["--model", f"{tmp_path / 'build.py'}:model", "--graph", str(tmp_path / "graph.npz")]
    assert main(["infer", *arguments, "--out", str(tmp_path / "out.npy")]) == 2
    told = capsys.readouterr().err
    assert "Pass the eager model" in told and "Traceback" not in told
    assert not (tmp_path / "out.npy").exists()


class Parts(nn.Module):
    """A layer, and something compiled."""

    def __init__(self, part: Any, in_list: bool = False) -> None:
        super().__init__()
        self.conv = SAGEConv(8, 8)
        self.part = [part] if in_list else part

    def forward(self, x: torch.Tensor, edge_index: torch.Tensor) -> torch.Tensor:
        part = self.part[0] if isinstance(self.part, list) else self.part
        return part(self.conv(x, edge_index))


def _linear() -> nn.Module:
    return nn.Linear(8, 8).eval()


COMPILED: dict[str, Callable[[nn.Module], nn.Module]] = {
    "scripted": torch.jit.script,
    "traced": lambda layer: torch.jit.trace(layer, X),
    "frozen": lambda layer: torch.jit.freeze(torch.jit.script(layer)),
}


@pytest.mark.parametrize("in_list", [False, True])
@pytest.mark.parametrize("compiled", COMPILED.values(), ids=COMPILED.keys())
@torch.no_grad()
def test_a_compiled_layer_is_named(compiled: Callable[[nn.Module], nn.Module], in_list: bool) -> None:
    model = Parts(compiled(_linear()), in_list).eval()
    with pytest.raises(CaptureError, match=r"What torch\.jit compiled .*'part(\[0\])?' has no Python code"):
        fg.compile(model)(X, EDGES)
    own = fg.compile(model, fallback="eager")
    torch.testing.assert_close(own(X, EDGES), model(X, EDGES))


@torch.jit.script
def _scaled(h: torch.Tensor) -> torch.Tensor:
    return h.relu() * 2.0 / h.size(0)


@torch.no_grad()
def test_a_scripted_function_is_captured() -> None:
    model = Parts(_scaled).eval()
    torch.testing.assert_close(fg.compile(model)(X, EDGES), model(X, EDGES))
