"""Print one line on what was installed: versions, and which kernels serve."""

from __future__ import annotations

import platform
from importlib.metadata import version
from importlib.util import find_spec


def main() -> None:
    """Print the versions that decide what a run does."""
    names = ("torch", "torch_geometric", "pyg_fullgraph")
    kernels = "C++ kernels" if find_spec("pyg_fullgraph._C") else "NO C++ kernels (reference operators)"
    versions = ", ".join(f"{name} {version(name)}" for name in names)
    print(f"    Python {platform.python_version()}, {versions}, {kernels}")


if __name__ == "__main__":
    main()
