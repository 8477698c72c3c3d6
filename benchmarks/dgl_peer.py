"""DGL as a peer: a process in an environment of its own that runs the same model on the same graph when it is told to.

`scripts/install-dgl` makes the environment; `PYG_FULLGRAPH_DGL` names its folder. `dgl_models.py` is what runs there.
"""

from __future__ import annotations

import os
import subprocess
import tempfile
from pathlib import Path

import torch
from baselines import in_edge_pointers
from torch import Tensor, nn

#: Names the folder of the environment with DGL.
VARIABLE = "PYG_FULLGRAPH_DGL"
#: Models that `dgl_models.py` builds of DGL's own layers.
DGL_MODELS = frozenset(["sage", "gcn", "gin", "gat", "gatv2"])


def dgl_python() -> Path | None:
    """The interpreter of DGL's environment, or ``None`` where there is none."""
    folder = os.environ.get(VARIABLE)
    python = Path(folder) / "bin" / "python" if folder else None
    return python if python is not None and python.exists() else None


class DglProcess:
    """One model on one graph in DGL's environment; a context manager.

    Args:
        name: one of `DGL_MODELS`.
        model: PyG's model, a ``BasicGNN``; its weights are sent.
        x: ``[N, F]``.
        edge_index: ``[2, E]``.

    Attributes:
        versions: of torch and DGL there.
        pid: of the process.

    Raises:
        RuntimeError: if there is no environment, or the process dies; what it said is on standard error.
    """

    def __init__(self, name: str, model: nn.Module, x: Tensor, edge_index: Tensor) -> None:
        python = dgl_python()
        if python is None:
            raise RuntimeError(f"No environment with DGL: make one with scripts/install-dgl, name it in {VARIABLE}.")
        self._folder = tempfile.TemporaryDirectory()
        problem = Path(self._folder.name) / "problem.pt"
        order = edge_index[1].argsort(stable=True)
        ptr = in_edge_pointers(edge_index, x.size(0))
        state = {key: value.contiguous() for key, value in model.state_dict().items()}
        graph = {"x": x, "ptr": ptr, "src": edge_index[0][order]}
        torch.save({"model": name, "state": state, "threads": torch.get_num_threads(), **graph}, problem)
        here = str(Path(__file__).parent)
        self._process = subprocess.Popen(
            [python, "-c", "import dgl_models; dgl_models.main()", problem],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": str(torch.get_num_threads()), "PYTHONPATH": here},
        )
        self.pid = self._process.pid
        self.versions = self._answer()

    def run(self) -> float:
        """Runs the model once; its seconds as measured there."""
        return float(self._ask("run"))

    def output(self) -> Tensor:
        """Runs the model once and fetches the result."""
        path = Path(self._folder.name) / "output.pt"
        self._ask(f"output {path}")
        out: Tensor = torch.load(path, weights_only=True)
        return out

    def close(self) -> None:
        """Ends the process and removes what was sent to it."""
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()
        self._folder.cleanup()

    def __enter__(self) -> DglProcess:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _ask(self, command: str) -> str:
        assert self._process.stdin is not None
        self._process.stdin.write(command + "\n")
        self._process.stdin.flush()
        return self._answer()

    def _answer(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"DGL's process ended with exit code {self._process.wait()}.")
        return line.strip()
