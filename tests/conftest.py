"""What all tests share: the folder of real graphs, quiet threads, and a fixed seed."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).resolve().parent.parent


def data_folder() -> Path | None:
    """The folder of real graphs: `PYG_FULLGRAPH_DATA`, else `../shared/data`, else none."""
    named = os.environ.get("PYG_FULLGRAPH_DATA")
    folder = Path(named) if named else ROOT.parent / "shared" / "data"
    return folder if folder.is_dir() else None


def pytest_report_header() -> str:
    """Say at the top of a run what it runs on, so that skipped data tests surprise nobody."""
    folder = data_folder()
    real = (
        f"{len(list(folder.glob('*.npz')))} files"
        if folder
        else "none (set PYG_FULLGRAPH_DATA to a folder of .npz)"
    )
    return f"torch {torch.__version__}, {torch.get_num_threads()} threads; real graphs: {real}"


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """The folder of real graphs; skips the test where there is none."""
    folder = data_folder()
    if folder is None:
        pytest.skip("no folder of real graphs: set PYG_FULLGRAPH_DATA")
    return folder


@pytest.fixture(scope="session")
def root() -> Path:
    """The root of the checkout."""
    return ROOT


@pytest.fixture(autouse=True)
def fixed_seed() -> None:
    """Every test starts from the same random state, alone or among others."""
    torch.manual_seed(0)
