"""setup.py: what it compiles, what it does where it cannot, and that instruction sets do not leak."""

from __future__ import annotations

import re
import shutil
import subprocess

import pytest

from .conftest import ROOT

KERNEL_FILES = sorted(path.stem for path in (ROOT / "csrc/cpu/kernels").glob("*.cpp"))


def test_setup_imports_no_torch(python):
    run = "import sys, runpy; sys.argv = ['setup.py', '--version']; runpy.run_path('setup.py')"
    assert python("-c", f"{run}; print('torch' in sys.modules)").stdout.split()[-1] == "False"


def test_unknown_choice_lists_the_valid_ones(python):
    done = python("setup.py", "--version", PYG_FULLGRAPH_BUILD="rust")
    assert done.returncode != 0
    assert "PYG_FULLGRAPH_BUILD='rust': valid values are cpp, python" in done.stderr


def test_without_a_compiler_it_warns_and_goes_on(python, tmp_path):
    done = python(
        "setup.py", "build_ext", "--build-lib", str(tmp_path / "lib"), "--build-temp", str(tmp_path / "temp"),
        CXX="no-such-compiler", PYG_FULLGRAPH_BUILD=None,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "installed WITHOUT its C++ kernels: no C++ compiler found (tried no-such-compiler)" in done.stderr


def test_without_a_compiler_cpp_is_an_error(python, tmp_path):
    done = python(
        "setup.py", "build_ext", "--build-lib", str(tmp_path / "lib"), "--build-temp", str(tmp_path / "temp"),
        CXX="no-such-compiler", PYG_FULLGRAPH_BUILD="cpp",
    )  # fmt: skip
    assert done.returncode != 0
    assert "PYG_FULLGRAPH_BUILD=cpp, but the extension was not built" in done.stderr


def test_python_choice_builds_nothing(python):
    show = (
        "import sys; sys.argv = ['setup.py', '--version']; names = {'__name__': 'x', '__file__': 'setup.py'};"
        "exec(open('setup.py').read(), names); print(names['extensions']())"
    )
    assert python("-c", show, PYG_FULLGRAPH_BUILD="python").stdout.strip().endswith("[]")


@pytest.mark.parametrize("machine,expected", [("x86_64", 3), ("aarch64", 1)])
def test_kernels_are_compiled_once_per_instruction_set(python, machine, expected):
    show = (
        "import sys; sys.argv = ['setup.py', '--version']; names = {'__name__': 'x', '__file__': 'setup.py'};"
        "exec(open('setup.py').read(), names); from pathlib import Path;"
        "print(names['ninja_file'](Path('/o'), Path('/t.so')))"
    )
    text = python("-c", show, PYG_FULLGRAPH_MACHINE=machine).stdout
    for name in KERNEL_FILES:
        assert len(re.findall(rf"build /o/{name}_\w+\.o:", text)) == expected
    assert "march=native" not in text
    assert ("-mavx" in text) == (machine == "x86_64")


def test_no_function_of_a_wider_instruction_set_can_be_shared():
    """A weak symbol in a kernel object could replace the baseline's copy at link time and crash older processors."""
    objects = [o for name in KERNEL_FILES for o in ROOT.glob(f"build/temp.*/pyg_fullgraph_C/{name}_*.o")]
    if not objects or shutil.which("nm") is None:
        pytest.skip("no object files of an in-place build, or no nm")
    for path in objects:
        isa = path.stem.split("_")[-1]
        symbols = subprocess.run(["nm", "-C", str(path)], capture_output=True, text=True, check=True).stdout
        for line in symbols.splitlines():
            kind, name = line[17:18], line[19:]
            assert kind not in "WVuw", f"{path.name} shares {name}"
            if kind in "TDBR":
                assert f"fg::{isa}::" in name or name == f"fg::kernels_{isa}()", f"{path.name} defines {name}"
