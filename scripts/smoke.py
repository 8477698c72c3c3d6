"""Run a GCN and a GAT through an installed pyg_fullgraph and compare every row with PyG's full-batch forward.

    python scripts/smoke.py [--expect cpp|reference] [--not-from FOLDER]

Used by CI on a built wheel and on an installation without the extension.
"""

from __future__ import annotations

import argparse
from importlib.util import find_spec
from pathlib import Path

import torch
from torch_geometric.data import Data
from torch_geometric.nn.models import GAT, GCN

import pyg_fullgraph as fg


def random_graph(num_nodes: int = 500, num_edges: int = 4000) -> Data:
    """A random graph with a hub and isolated nodes."""
    edge_index = torch.randint(0, num_nodes - 20, (2, num_edges))
    edge_index[1, : num_nodes // 2] = 0
    return Data(x=torch.randn(num_nodes, 33), edge_index=edge_index)


def largest_difference(model: torch.nn.Module, data: Data) -> float:
    """The largest difference to the full-batch forward, relative to its largest output."""
    with torch.no_grad():
        expected = model(data.x, data.edge_index)
    return float((fg.inference(model, data) - expected).abs().max() / expected.abs().max())


def main() -> None:
    """Check where the package lies, which kernels serve, and what it computes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--expect", choices=("cpp", "reference"), help="fail if the other kernels serve")
    parser.add_argument("--not-from", type=Path, help="fail if the package was imported from this folder")
    arguments = parser.parse_args()

    place = Path(fg.__file__).resolve().parent
    built = "cpp" if find_spec("pyg_fullgraph._C") else "reference"
    print(f"    pyg_fullgraph {fg.__version__}, kernels: {built}")
    if arguments.not_from and place.is_relative_to(arguments.not_from.resolve()):
        raise SystemExit(f"error: imported from {place}, not from the installation under test")
    if arguments.expect and arguments.expect != built:
        raise SystemExit(f"error: expected the {arguments.expect} kernels, found {built}")

    torch.manual_seed(0)
    data = random_graph()
    for model in (GCN(33, 32, 2, 5), GAT(33, 32, 2, 5, heads=4)):
        difference = largest_difference(model.eval(), data)
        print(f"    {type(model).__name__}: largest difference to PyG {difference:.1e}")
        if not difference <= 1e-5:
            raise SystemExit(f"error: {type(model).__name__} is off by {difference:.1e}; at most 1e-5 is allowed")


if __name__ == "__main__":
    main()
