"""Helpers for the tests of the build: child processes with a chosen environment."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture
def python() -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run python with arguments in the repository, with changes to the environment (None removes)."""

    def run(*arguments: str, cwd: Path = ROOT, **changes: str | None) -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, "PYTHONPATH": str(cwd), **changes}
        kept = {name: value for name, value in environment.items() if value is not None}
        return subprocess.run(
            [sys.executable, *arguments], cwd=cwd, env=kept, capture_output=True, text=True, timeout=120
        )

    return run


@pytest.fixture
def extension_built() -> None:
    """Skip where the extension was not built in place."""
    if not list((ROOT / "pyg_fullgraph").glob("_C.*.so")):
        pytest.skip("the extension is not built in place")
