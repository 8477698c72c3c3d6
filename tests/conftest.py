"""What all tests share: the folder of real graphs, a fixed seed, and a quiet log of traces."""

from __future__ import annotations

import logging
import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from pyg_fullgraph.passes.pipeline import CHECKED
from tests.cases.case import Case
from tests.cases.table import ALL
from tests.graphs import DATA_VARIABLE, data_folder
from tests.texts import Golden


def pytest_report_header() -> str:
    """Say at the top of a run what it runs on, so that skipped data tests surprise nobody."""
    folder = data_folder()
    real = f"{len(list(folder.glob('*.npz')))} files" if folder else f"none ({DATA_VARIABLE} names no folder)"
    return f"torch {torch.__version__}, {torch.get_num_threads()} threads; real graphs: {real}"


#: Folders whose tests are about no module of the package, and take long: benchmarks, and what is built and installed.
FULL = ("benchmarks", "build")
QUICK_EVERY = 40


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests of the tier `quick`, and those of one case of the coverage table.

    Quick are the first of each test's parameter sets and every fortieth after it, but for what is marked `full` or lies
    in a folder of `FULL`. Tests of one case meet in one process, where they share its trace (`tests.traces`).
    """
    seen: Counter[str] = Counter()
    for item in items:
        test = item.nodeid.partition("[")[0]
        full = item.get_closest_marker("full") or item.path.parent.name in FULL
        if not full and seen[test] % QUICK_EVERY == 0:
            item.add_marker(pytest.mark.quick)
        seen[test] += 1
        case = getattr(item, "callspec", None) and item.callspec.params.get("case")
        if isinstance(case, Case):
            item.add_marker(pytest.mark.xdist_group(case.id))


def pytest_addoption(parser: pytest.Parser) -> None:
    """`--update-golden`."""
    parser.addoption("--update-golden", action="store_true", help="rewrite tests/golden from the cases that run")


@pytest.fixture(scope="session")
def golden(request: pytest.FixtureRequest) -> Iterator[Golden]:
    """The golden texts; with --update-golden the files are rewritten at the end."""
    update = request.config.getoption("--update-golden")
    if update and os.environ.get("PYTEST_XDIST_WORKER"):
        raise pytest.UsageError("--update-golden writes whole files: run it in one process, without -n")
    texts = Golden(update)
    yield texts
    if update:
        texts.write([case.id for case in ALL])


@pytest.fixture(autouse=True, scope="session")
def checked_programs() -> Iterator[None]:
    """Every program of a test is checked after every pass (`pyg_fullgraph.ir.check`)."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(CHECKED, "1")
        yield


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
