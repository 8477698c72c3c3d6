"""The command line: what it writes, what it prints, and how it fails."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch_geometric.data import Data
from torch_geometric.nn.models import GCN

from pyg_fullgraph.cli import main

MODEL = """
import torch
from torch_geometric.nn.models import GCN

def build():
    torch.manual_seed(5)
    return GCN(6, 8, 2, 3)

def build_for(data):
    torch.manual_seed(5)
    return GCN(data.num_features, 8, 2, 3)

def two(a, b):
    return None

def fails():
    raise KeyError("a name")

class Pair(torch.nn.Module):
    def forward(self, x, edge_index):
        return x, x

number = 3
model = build()
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a model's file and a graph."""
    (tmp_path / "my_model.py").write_text(MODEL)
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(50, 6, generator=generator)
    edge_index = torch.randint(0, 50, (2, 300), generator=generator)
    np.savez(tmp_path / "graph.npz", x=x.numpy(), edge_index=edge_index.numpy().astype(np.int32))
    torch.save(Data(x=x, edge_index=edge_index), tmp_path / "graph.pt")
    return tmp_path


def expected(folder: Path) -> torch.Tensor:
    data = torch.load(folder / "graph.pt", weights_only=False)
    torch.manual_seed(5)
    with torch.no_grad():
        return GCN(6, 8, 2, 3).eval()(data.x, data.edge_index)


def infer(
    folder: Path, *more: str, model: str = "my_model.py:build", graph: str = "graph.npz", out: str = "out.npy"
) -> int:
    return main(
        [
            "infer",
            "--model",
            f"{folder}/{model}",
            "--graph",
            f"{folder}/{graph}",
            "--out",
            f"{folder}/{out}",
            *more,
        ]
    )


def close(found: torch.Tensor, wanted: torch.Tensor) -> None:
    assert found.shape == wanted.shape
    assert (found - wanted).abs().max() <= 1e-5 * wanted.abs().max()


@pytest.mark.parametrize("graph", ["graph.npz", "graph.pt"])
@pytest.mark.parametrize("name", ["build", "build_for", "model"])
def test_infer_writes_every_row(name: str, graph: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert infer(folder, model=f"my_model.py:{name}", graph=graph) == 0
    close(torch.from_numpy(np.load(folder / "out.npy")), expected(folder))
    assert "[50, 3] float32" in capsys.readouterr().out
    assert sorted(path.name for path in folder.iterdir() if "partial" in path.name) == []


def test_infer_some_nodes_as_pt(folder: Path) -> None:
    (folder / "ids.txt").write_text("3\n49, 0\n")
    assert infer(folder, "--nodes", f"{folder}/ids.txt", "--no-verify", "--threads", "1", out="out.pt") == 0
    close(torch.load(folder / "out.pt"), expected(folder)[[3, 49, 0]])


def test_weights_are_loaded(folder: Path) -> None:
    torch.manual_seed(9)
    model = GCN(6, 8, 2, 3).eval()
    torch.save(
        {"epoch": 3, "model_state_dict": {f"module.{k}": v for k, v in model.state_dict().items()}},
        folder / "w.pt",
    )
    assert infer(folder, "--weights", f"{folder}/w.pt") == 0
    data = torch.load(folder / "graph.pt", weights_only=False)
    close(torch.from_numpy(np.load(folder / "out.npy")), model(data.x, data.edge_index).detach())


FAILURES: dict[str, tuple[list[str], dict[str, str], str]] = {
    "no such file": ([], {"model": "other.py:build"}, "there is no such file"),
    "no such name": ([], {"model": "my_model.py:built"}, "has no 'built' (it defines: GCN, build"),
    "no name": ([], {"model": "my_model.py"}, "write FILE.py:NAME"),
    "two arguments": ([], {"model": "my_model.py:two"}, "needs the arguments a, b"),
    "fails": ([], {"model": "my_model.py:fails"}, "KeyError: 'a name' (my_model.py:"),
    "not a model": ([], {"model": "my_model.py:number"}, "is a int; it must be a model"),
    "syntax error": ([], {"model": "broken.py:build"}, "broken.py:1:"),
    "no graph": ([], {"graph": "other.npz"}, "other.npz"),
    "bad suffix": ([], {"out": "out.csv"}, "must end in .npy or .pt"),
    "no folder": ([], {"out": "absent/out.npy"}, "there is no folder"),
    "no weights": (["--weights", "absent.pt"], {}, "absent.pt: there is no such file"),
    "wrong weights": (["--weights", "{}/wrong.pt"], {}, "do not fit the model"),
    "weights are a graph": (["--weights", "{}/graph.pt"], {}, "Save the state dict"),
    "no state dict": (["--weights", "{}/number.pt"], {}, "holds no state dict"),
    "node out of range": (["--nodes", "{}/far.txt"], {}, "nodes= holds node 50"),
    "words for nodes": (["--nodes", "{}/my_model.py"], {}, "must hold whole node numbers"),
    "no threads": (["--threads", "0"], {}, "--threads must be at least 1"),
    "text for weights": (["--weights", "{}/my_model.py"], {}, "my_model.py holds more than tensors"),
    "an empty file": ([], {"graph": "empty.npz"}, "empty.npz is empty"),
    "text for a graph": ([], {"graph": "text.pt"}, "text.pt is not a file written by torch.save"),
    "features of another type": ([], {"graph": "double.npz"}, "x is float64, the parameters are float32"),
    "edges of another type": ([], {"graph": "floats.npz"}, "floats.npz is float64 [2, 3]; it must be int64"),
    "no features": ([], {"graph": "bare.npz", "model": "looks.py:build"}, "'bare' has no x (has: edge_index"),
    "a pair in .npy": ([], {"model": "my_model.py:Pair"}, "Use --out"),
}


@pytest.mark.parametrize("case", FAILURES)
def test_mistakes_are_explained_without_a_traceback(
    case: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "broken.py").write_text("def build(:\n")
    (folder / "far.txt").write_text("50")
    (folder / "empty.npz").touch()
    (folder / "text.pt").write_text("hello, this is no graph")
    (folder / "looks.py").write_text("def build(data):\n    return data.x.size(1)\n")
    edges, x = np.array([[0, 1, 2], [1, 2, 0]]), np.ones((3, 6))
    np.savez(folder / "double.npz", edge_index=edges, x=x)
    np.savez(folder / "floats.npz", edge_index=edges / 2, x=x)
    np.savez(folder / "bare.npz", edge_index=edges)
    torch.save({"weight": torch.ones(1)}, folder / "wrong.pt")
    torch.save(3, folder / "number.pt")
    more, named, text = FAILURES[case]
    assert infer(folder, *[item.format(folder) for item in more], **named) == 2
    shown = capsys.readouterr().err
    assert shown.startswith("error: ") and text in shown and "Traceback" not in shown
    assert not (folder / named.get("out", "out.npy")).exists()


def test_what_a_model_raises_is_one_line(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = ["import torch", "class Broken(torch.nn.Module):", "    def forward(self, x, edge_index):"]
    (folder / "raises.py").write_text("\n".join([*lines, "        raise KeyError('no')"]))
    assert infer(folder, model="raises.py:Broken") in (1, 2)
    shown = capsys.readouterr().err
    assert "error: " in shown and "KeyError" in shown and "Traceback" not in shown


def test_a_failed_write_leaves_the_old_file(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "out.npy").write_bytes(b"the old content")

    def fail(*args: object, **kwargs: object) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(np, "save", fail)
    assert infer(folder) == 2
    assert (folder / "out.npy").read_bytes() == b"the old content"
    assert [path for path in folder.iterdir() if "partial" in path.name] == []


def test_explain_prints_the_program(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explain", "--model", f"{folder}/my_model.py:build", "--graph", f"{folder}/graph.npz"]) == 0
    assert "superstep" in capsys.readouterr().out


def test_doctor_says_what_serves_and_that_it_is_exact(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor"]) == 0
    shown = capsys.readouterr().out
    for text in ("torch", "torch_geometric", "serving", "self-test", "GCN", "GAT", "exact", "all is well"):
        assert text in shown


def test_module_and_version() -> None:
    root = Path(__file__).resolve().parent.parent
    run = subprocess.run(
        [sys.executable, "-m", "pyg_fullgraph", "--version"],
        cwd=root,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert run.returncode == 0 and run.stdout.startswith("pyg-fullgraph ")


@pytest.mark.parametrize("argv", [[], ["infer"], ["nothing"]], ids=["none", "incomplete", "unknown"])
def test_usage_errors(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(argv)
    assert stopped.value.code == 2
    assert "usage: pyg-fullgraph" in capsys.readouterr().err


def test_demo_is_passed_on(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["demo", "--help"])
    assert stopped.value.code == 0
    assert "--data" in capsys.readouterr().out
