"""What all tests share: the folder of real graphs, a fixed seed, and a quiet log of traces."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from tests.cases.case import Case
from tests.graphs import DATA_VARIABLE, data_folder


def pytest_report_header() -> str:
    """Say at the top of a run what it runs on, so that skipped data tests surprise nobody."""
    folder = data_folder()
    real = f"{len(list(folder.glob('*.npz')))} files" if folder else f"none ({DATA_VARIABLE} names no folder)"
    return f"torch {torch.__version__}, {torch.get_num_threads()} threads; real graphs: {real}"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests of one case of the coverage table meet in one process, where they share its trace (`tests.traces`)."""
    for item in items:
        case = getattr(item, "callspec", None) and item.callspec.params.get("case")
        if isinstance(case, Case):
            item.add_marker(pytest.mark.xdist_group(case.id))


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """The folder of real graphs; skips the test where there is none."""
    folder = data_folder()
    if folder is None:
        pytest.skip(f"no folder of real graphs: set {DATA_VARIABLE}")
    return folder


@pytest.fixture(autouse=True)
def fixed_seed() -> None:
    """Every test starts from the same random state, alone or among others."""
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def quiet_trace_log() -> Iterator[None]:
    """Keep torch's structured trace log off: pytest's log capture would render every fake tensor."""
    logger = logging.getLogger("torch.__trace")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    yield
    logger.setLevel(level)
