"""Without the extension the package imports, says so once, and computes the same."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from .conftest import ROOT

# An editable installation would find its extension from anywhere: a child that is to do without forgets it.
SUM = """
import sys
sys.meta_path = [finder for finder in sys.meta_path if "editable" not in repr(finder)]
import torch, warnings
from pyg_fullgraph import ops
warnings.simplefilter("always")
x, src, rowptr = torch.eye(3), torch.tensor([0, 1, 1, 2]), torch.tensor([0, 2, 2, 4])
for _ in range(2):
    assert ops.gather_reduce(x, src, rowptr).tolist() == [[1, 1, 0], [0, 0, 0], [0, 1, 1]]
print(ops.kernels()["backend"], ops.kernels()["reason"])
"""


@pytest.fixture
def bare(tmp_path: Path) -> Path:
    """A copy of the package without its extension."""
    skip = shutil.ignore_patterns("*.so", "__pycache__", ".*")
    shutil.copytree(ROOT / "pyg_fullgraph", tmp_path / "pyg_fullgraph", ignore=skip)
    return tmp_path


def test_missing_is_told_once_with_the_remedy(python, bare):
    done = python("-c", SUM, cwd=bare, PYG_FULLGRAPH_BACKEND=None)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("python the C++ kernels of pyg_fullgraph cannot be loaded")
    assert done.stderr.count("RuntimeWarning") == 1
    assert "PYG_FULLGRAPH_BUILD=cpp" in done.stderr


def test_import_alone_says_nothing(python, bare):
    done = python("-W", "error", "-c", "import pyg_fullgraph.ops.backend", cwd=bare, PYG_FULLGRAPH_BACKEND=None)
    assert done.returncode == 0, done.stderr


def test_unloadable_is_told_with_the_reason(python, bare):
    (bare / "pyg_fullgraph" / "_C.abi3.so").write_bytes(b"not a library")
    done = python("-c", SUM, cwd=bare, PYG_FULLGRAPH_BACKEND=None)
    assert done.returncode == 0, done.stderr
    assert "_C.abi3.so" in done.stderr and done.stderr.count("RuntimeWarning") == 1


def test_asked_for_and_missing_is_an_error(python, bare):
    done = python("-c", SUM, cwd=bare, PYG_FULLGRAPH_BACKEND="cpp")
    assert done.returncode != 0
    assert "KernelError: PYG_FULLGRAPH_BACKEND=cpp, but the C++ kernels" in done.stderr
    assert "install a C++17 compiler" in done.stderr


def test_the_reference_can_be_asked_for(python):
    done = python("-c", SUM, PYG_FULLGRAPH_BACKEND="python")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("python PYG_FULLGRAPH_BACKEND=python asks")
    assert "RuntimeWarning" not in done.stderr


@pytest.mark.parametrize("name,value", [("PYG_FULLGRAPH_BACKEND", "fast"), ("PYG_FULLGRAPH_ISA", "pentium")])
def test_unknown_values_list_the_valid_ones(python, extension_built, name, value):
    done = python("-c", SUM, **{name: value})
    assert done.returncode != 0
    assert f"KernelError: {name}='{value}'" in done.stderr


def test_isa_can_be_asked_for(python, extension_built):
    show = SUM + "print(ops.kernels()['isa'])"
    done = python("-c", show, PYG_FULLGRAPH_ISA="baseline", PYG_FULLGRAPH_BACKEND=None)
    assert done.stdout.split()[-1] == "baseline", done.stderr
