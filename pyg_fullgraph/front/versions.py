"""Which versions the package was tried with, and what a user is told where another one is installed."""

from __future__ import annotations

import functools
import platform
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version

from pyg_fullgraph.front.notes import LOGGER

#: What `scripts/version-matrix` was run with, docs/versions.md has the results: the first two numbers of each version.
TRIED: dict[str, tuple[str, ...]] = {
    "Python": ("3.11",),
    "torch": ("2.6", "2.9", "2.13", "2.14"),
    "torch_geometric": ("2.5", "2.6", "2.7", "2.8"),
    "numpy": ("1.26", "2.4"),
}


def installed(package: str) -> str:
    """The version of a package, or of Python; empty where it is not installed."""
    if package == "Python":
        return platform.python_version()
    try:
        return version(package)
    except PackageNotFoundError:
        return ""


def untried(found: Mapping[str, str] | None = None) -> list[str]:
    """What is installed here in a version that the package was never tried with, a sentence each.

    Args:
        found: package -> version; those that are installed if None.
    """
    found = {package: installed(package) for package in TRIED} if found is None else found
    told = []
    for package, whole in found.items():
        minor = ".".join(whole.split("+")[0].split(".")[:2])
        if whole and minor not in TRIED[package]:
            told.append(f"{package} {whole} was never tried with this package (tried: {', '.join(TRIED[package])})")
    return told


@functools.cache
def tell_untried() -> tuple[str, ...]:
    """Log them, once per process; what was told."""
    found = tuple(untried())
    if found:
        LOGGER.warning(
            "%s. Results are compared with the model's own forward at the first call, unless verify='off'; "
            "`pyg-fullgraph doctor` runs a self-test.",
            "; ".join(found),
        )
    return found
