"""Fixtures of the front: a small graph, a double for the engine, and notes that start anew."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from torch_geometric.data import Data

from pyg_fullgraph.front.notes import ONCE
from tests.front.front_doubles import EagerEngine, make_data


@pytest.fixture
def data() -> Data:
    return make_data()


@pytest.fixture
def engine() -> Iterator[type[EagerEngine]]:
    """The double's class, fresh for every test."""
    fresh = type("EagerEngine", (EagerEngine,), {"built": [], "__module__": EagerEngine.__module__})
    yield fresh


@pytest.fixture(autouse=True)
def notes_start_anew() -> None:
    ONCE.forget()
