"""`accelerate` under PyG's own sampler: what a real `NeighborLoader` gives, and that ours never asks it for a batch.

In an environment of its own, which `scripts/install-sampler` makes and PYG_FULLGRAPH_SAMPLER names; skipped without.
"""

from __future__ import annotations

import os
import subprocess
import textwrap
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
VARIABLE = "PYG_FULLGRAPH_SAMPLER"

BEFORE = """
import torch
from torch_geometric.data import Data
from torch_geometric.loader import NeighborLoader
from torch_geometric.nn.models import GAT, GCN, GraphSAGE
import pyg_fullgraph as fg
from tests.cases.case import replay_graph

def close(got, expected):
    return bool((got - expected).abs().max() <= 1e-5 * expected.abs().max())

torch.manual_seed(0)
nodes, edge_index = replay_graph(200, 900)
data = Data(x=torch.randn(nodes, 8), edge_index=edge_index)
loader = NeighborLoader(data, num_neighbors=[-1], batch_size=32)
assert len(list(loader)) == 7
"""


@pytest.fixture
def sampling() -> Path:
    """The interpreter that has a sampler."""
    folder = os.environ.get(VARIABLE)
    if not folder:
        pytest.skip(f"no environment with a sampler: scripts/install-sampler makes one, {VARIABLE} names it")
    return Path(folder) / "bin" / "python"


def run(python: Path, text: str) -> None:
    """Run text behind `BEFORE` in that environment."""
    surroundings = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [str(python), "-W", "ignore", "-c", BEFORE + textwrap.dedent(text)]
    done = subprocess.run(command, cwd=ROOT, env=surroundings, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("model", ["GraphSAGE(8, 16, 3, 4)", "GAT(8, 16, 2, 4, heads=2)"])
def test_the_same_as_pygs_own_inference(sampling: Path, model: str) -> None:
    """These layers see the same in a batch with all neighbours as in the whole graph."""
    run(
        sampling,
        f"""
        model = {model}.eval()
        with torch.no_grad():
            whole, layerwise = model(data.x, data.edge_index), model.inference(loader)
        fg.accelerate(model)
        assert close(layerwise, whole) and close(model.inference(loader), whole)
        """,
    )


def test_a_gcn_is_that_of_the_whole_graph(sampling: Path) -> None:
    """PyG's own normalises by the degrees inside of each batch."""
    run(
        sampling,
        """
        model = GCN(8, 16, 2, 4).eval()
        with torch.no_grad():
            whole, layerwise = model(data.x, data.edge_index), model.inference(loader)
        fg.accelerate(model)
        assert close(model.inference(loader), whole) and not close(layerwise, whole)
        """,
    )


def test_no_batch_is_asked_for(sampling: Path) -> None:
    run(
        sampling,
        """
        asked = []
        class Counting(NeighborLoader):
            def collate_fn(self, index):
                asked.append(index)
                return super().collate_fn(index)
        model = fg.accelerate(GraphSAGE(8, 16, 2, 4).eval())
        counting = Counting(data, num_neighbors=[10, 5], batch_size=32)
        out = model.inference(counting)
        assert not asked and out.shape == (200, 4)
        next(iter(counting))
        assert asked
        """,
    )
