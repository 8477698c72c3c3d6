"""Graphs for all tests: nasty ones that break assumptions, and real ones where their files are."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor

DATA_VARIABLE = "PYG_FULLGRAPH_DATA"

#: Homogeneous single graphs in the data folder, smallest first.
REAL_NAMES = (
    "cora",
    "citeseer",
    "amazon_photo",
    "minesweeper",
    "coauthor_cs",
    "twitch_de",
    "facebook_pagepage",
    "squirrel",
    "snap_cit_hepph",
    "amazon_computers",
    "github_social",
    "snap_slashdot0902",
    "tolokers",
    "web_cnr2000",
)


class RealGraph(NamedTuple):
    """A graph read from a file: structure only, features are up to the test."""

    name: str
    num_nodes: int
    edge_index: Tensor  # [2, E] int64


def _edges(*pairs: tuple[int, int]) -> Tensor:
    return torch.tensor(pairs, dtype=torch.int64).view(-1, 2).t().contiguous()


def _random(num_nodes: int, num_edges: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, num_nodes, (2, num_edges), generator=generator)


def _mixed() -> tuple[int, Tensor]:
    """Random edges, self-loops, duplicates, a hub on either side, isolated nodes at the ends and inside."""
    generator = torch.Generator().manual_seed(1)
    n = 300
    inner = torch.randint(5, n - 5, (2, 900), generator=generator)
    inner = inner[:, (inner % 7 != 0).all(dim=0)]  # every multiple of 7 stays isolated
    every = torch.arange(6, n - 6)
    every = every[every % 7 != 0]
    hub = torch.full_like(every, 11)
    loops = torch.tensor([[12, 13, 13], [12, 13, 13]])
    parts = [inner, torch.stack([every, hub]), torch.stack([hub, every]), loops, inner[:, :40], inner[:, :40]]
    edge_index = torch.cat(parts, dim=1)
    return n, edge_index[:, torch.randperm(edge_index.size(1), generator=generator)]


def _nasty() -> dict[str, tuple[int, Tensor]]:
    ids = torch.arange(40)
    ring = torch.stack([ids, (ids + 1) % 40])
    zero = torch.zeros_like(ids)
    return {
        "empty": (0, _edges()),
        "one_node": (1, _edges()),
        "one_node_loop": (1, _edges((0, 0))),
        "no_edges": (7, _edges()),
        "isolated": (9, _edges((1, 2), (2, 1), (5, 2), (5, 6))),
        "only_self_loops": (6, _edges((0, 0), (2, 2), (3, 3), (3, 3), (5, 5))),
        "duplicates": (5, _edges((0, 1), (0, 1), (1, 0), (0, 1), (3, 1), (3, 1), (4, 4), (1, 0))),
        "hub_in": (40, torch.stack([ids, zero])),
        "hub_out": (40, torch.stack([zero, ids])),
        "hub_both": (
            60,
            torch.cat([_random(60, 200, 2) * torch.tensor([[1], [0]]), torch.stack([zero, ids])], dim=1),
        ),
        "N_equals_E": (40, ring),
        "bipartite": (30, torch.stack([_random(20, 120, 3)[0], 20 + _random(10, 120, 4)[1]])),
        "path": (25, torch.stack([torch.arange(24), torch.arange(1, 25)])),
        "complete": (12, torch.cartesian_prod(torch.arange(12), torch.arange(12)).t().contiguous()),
        "random": (200, _random(200, 1500, 5)),
        "mixed": _mixed(),
    }


#: id -> (number of nodes, edge_index [2, E] int64). Treat the tensors as read-only.
NASTY: dict[str, tuple[int, Tensor]] = _nasty()


def nasty(*, skip: tuple[str, ...] = ()) -> Callable:
    """Decorator: runs a test that takes ``num_nodes, edge_index`` on every nasty graph.

    Args:
        skip: ids to leave out, for tests whose reference itself cannot do them.
    """
    cases = [pytest.param(*graph, id=name) for name, graph in NASTY.items() if name not in skip]
    return pytest.mark.parametrize(("num_nodes", "edge_index"), cases)


def data_folder() -> Path | None:
    """The folder with the real graphs: the environment's, else ``shared/data`` beside the checkout."""
    named = os.environ.get(DATA_VARIABLE)
    folder = Path(named) if named else Path(__file__).resolve().parents[2] / "shared" / "data"
    return folder if folder.is_dir() else None


def load_real(name: str) -> RealGraph:
    """Reads one real graph, or skips the running test where its file is absent."""
    folder = data_folder()
    if folder is None or not (folder / f"{name}.npz").exists():
        pytest.skip(f"{name}.npz is absent: set {DATA_VARIABLE} to a folder with the real graphs")
    with np.load(folder / f"{name}.npz", allow_pickle=False) as arrays:
        edge_index = torch.from_numpy(arrays["edge_index"]).long()
        keys = set(arrays.files)
        num_nodes = int(edge_index.max()) + 1
        if "x_shape" in keys:
            num_nodes = int(arrays["x_shape"][0])
        elif "x" in keys:
            num_nodes = int(arrays["x"].shape[0])
        elif "y" in keys:
            num_nodes = int(arrays["y"].shape[0])
    return RealGraph(name, num_nodes, edge_index)


def real_graphs(max_edges: int | None = None) -> Iterator[RealGraph]:
    """Yields the real graphs that are present, smallest first; skips the running test where there are none.

    Args:
        max_edges: leave out graphs with more edges than this.
    """
    folder = data_folder()
    present = [name for name in REAL_NAMES if folder is not None and (folder / f"{name}.npz").exists()]
    if not present:
        pytest.skip(f"no real graphs: set {DATA_VARIABLE} to a folder with them")
    for name in present:
        graph = load_real(name)
        if max_edges is None or graph.edge_index.size(1) <= max_edges:
            yield graph
