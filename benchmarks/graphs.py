"""The graphs that the benchmarks run on: R-MAT of any size, and the real ones in a folder of the user's."""

from __future__ import annotations

import argparse
import functools
import math
import os
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor
from torch_geometric.data import Data, HeteroData

from pyg_fullgraph.front.readers import read_npz
from pyg_fullgraph.graph.generate import rmat

#: Names the folder with the real graphs, one ``.npz`` each.
DATA_VARIABLE = "PYG_FULLGRAPH_DATA"

EdgeDict = dict[tuple[str, str, str], Tensor]


@dataclass(frozen=True)
class Source:
    """Which graph; small enough to send to another process.

    Attributes:
        log2_nodes: an R-MAT graph has ``2**log2_nodes`` nodes; if that is no power of two, the nodes of the next one
            are folded onto them, which keeps the degrees as skewed,
        degree: and this mean in-degree.
        seed: of its random numbers.
        real: the name of a real graph, in place of an R-MAT graph.
    """

    log2_nodes: float = 0
    degree: int = 0
    seed: int = 0
    real: str = ""

    @property
    def title(self) -> str:
        """The graph in a few words."""
        return self.real or f"R-MAT 2^{self.log2_nodes:g}, degree {self.degree}"

    @property
    def num_nodes(self) -> int:
        """N of an R-MAT graph."""
        return round(2**self.log2_nodes)

    @property
    def hetero(self) -> bool:
        """Whether its nodes have types."""
        return self.real.startswith("het_")


@dataclass(frozen=True)
class Edges:
    """A graph without features.

    Attributes:
        num_nodes: N.
        edge_index: ``[2, E]`` int64.
        edge_type: ``[E]`` int64 where the graph's edges have types.
    """

    num_nodes: int
    edge_index: Tensor
    edge_type: Tensor | None = None


@functools.lru_cache(maxsize=1)  # models that follow one another on a graph share it
def edges_of(source: Source) -> Edges:
    """Generates or reads a graph whose nodes have no types."""
    if not source.real:
        return Edges(source.num_nodes, _folded_rmat(source))
    data = _read(source.real)
    edge_type = data.get("edge_type")
    return Edges(int(data.num_nodes), data.edge_index.long(), None if edge_type is None else edge_type.long())


def _folded_rmat(source: Source) -> Tensor:
    """An R-MAT graph of any number of nodes, ``[2, degree * N]``."""
    scale = math.ceil(source.log2_nodes)
    edge_index = rmat(scale, source.degree, seed=source.seed)
    if source.num_nodes == 1 << scale:
        return edge_index
    return edge_index[:, : source.degree * source.num_nodes].remainder(source.num_nodes)


def typed_edges_of(source: Source) -> tuple[dict[str, int], EdgeDict]:
    """Reads a real graph whose nodes have types.

    Returns:
        The number of nodes of every type; ``edge_index`` ``[2, E_r]`` of every relation, and of its reverse.
    """
    data = _read(source.real)
    assert isinstance(data, HeteroData)
    edges: EdgeDict = {}
    for triple in data.edge_types:
        edge_index = data[triple].edge_index.long()
        edges[triple] = edge_index
        edges[triple[2], f"rev_{triple[1]}", triple[0]] = edge_index.flip(0).contiguous()
    return {kind: int(data[kind].num_nodes) for kind in data.node_types}, edges


def real_names() -> list[str]:
    """The real graphs at hand, smallest file first."""
    folder = os.environ.get(DATA_VARIABLE)
    files = sorted(Path(folder).glob("*.npz"), key=lambda file: file.stat().st_size) if folder else []
    return [file.stem for file in files]


def add_graph_arguments(parser: argparse.ArgumentParser, log2_nodes: int = 18) -> None:
    """The options that choose graphs; `sources` reads them."""
    parser.add_argument(
        "--log2-nodes",
        type=float,
        nargs="+",
        help=f"base-2 logarithms of the nodes of R-MAT graphs (default: {log2_nodes}, or none with --real)",
    )
    parser.add_argument("--degree", type=int, nargs="+", default=[16], help="mean in-degrees of each R-MAT graph")
    parser.add_argument("--real", nargs="+", default=[], help=f"real graphs, .npz files in the folder {DATA_VARIABLE}")
    parser.set_defaults(usual_log2_nodes=log2_nodes)


def sources(arguments: argparse.Namespace) -> list[Source]:
    """The graphs that the command line asks for, the generated ones first.

    Raises:
        SystemExit: if a real graph is not at hand; the text lists those that are.
    """
    unknown = sorted(set(arguments.real) - set(real_names()))
    if unknown:
        there = ", ".join(real_names()) or f"none: set {DATA_VARIABLE} to the folder with the .npz files"
        raise SystemExit(f"No such real graph: {', '.join(unknown)}. At hand: {there}.")
    usual = [] if arguments.real else [arguments.usual_log2_nodes]
    sizes = arguments.log2_nodes or usual
    made = [Source(size, degree) for degree in arguments.degree for size in sizes]
    return made + [Source(real=name) for name in arguments.real]


def _read(name: str) -> Data | HeteroData:
    """One file of the folder; its features stay sparse, since no benchmark uses them."""
    return read_npz(Path(os.environ[DATA_VARIABLE]) / f"{name}.npz", sparse_x=True)
