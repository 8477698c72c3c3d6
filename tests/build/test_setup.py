"""setup.py: what it compiles, what it does where it cannot, and that instruction sets do not leak."""

from __future__ import annotations

import contextlib
import os
import pty
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile

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


def test_a_wheel_without_kernels_is_for_every_platform(python, tmp_path):
    """Else the wheel of a machine without a compiler would be taken for one with kernels."""
    for part in ("pyg_fullgraph", "csrc"):
        shutil.copytree(ROOT / part, tmp_path / part, ignore=shutil.ignore_patterns("*.so", "__pycache__"))
    for part in ("setup.py", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / part, tmp_path)
    done = python(
        "setup.py", "bdist_wheel", "--dist-dir", "out", cwd=tmp_path, CXX="no-such-compiler", PYG_FULLGRAPH_BUILD=None
    )
    assert done.returncode == 0, done.stderr
    (wheel,) = (tmp_path / "out").iterdir()
    assert wheel.name.endswith("-py3-none-any.whl")
    names = zipfile.ZipFile(wheel).namelist()
    assert "pyg_fullgraph/engine.py" in names and not any(name.endswith(".so") for name in names)


def test_what_pip_hides_is_told_on_the_terminal(tmp_path):
    """A build under pip has no terminal for its output, but the process has one."""
    command = [sys.executable, "setup.py", "build_ext", "--build-lib", "lib", "--build-temp", str(tmp_path / "temp")]
    surroundings = {**os.environ, "CXX": "no-such-compiler"}
    surroundings.pop("PYG_FULLGRAPH_BUILD", None)
    child, terminal = pty.fork()
    if child == 0:  # the child, whose controlling terminal is the new one
        os.chdir(ROOT)
        with (tmp_path / "hidden").open("w") as hidden:
            os.dup2(hidden.fileno(), 1)
            os.dup2(hidden.fileno(), 2)
        os.execve(sys.executable, command, surroundings)
    shown = b""
    with contextlib.suppress(OSError):  # how a terminal says that nobody writes to it any more
        while part := os.read(terminal, 4096):
            shown += part
    assert os.waitpid(child, 0)[1] == 0, (tmp_path / "hidden").read_text()
    assert b"WITHOUT its C++ kernels" in shown
    assert "WITHOUT its C++ kernels" in (tmp_path / "hidden").read_text()


def test_the_readme_of_the_package_has_no_link_into_the_repository(python):
    show = (
        "import sys; sys.argv = ['setup.py', '--version']; names = {'__name__': 'x', '__file__': 'setup.py'};"
        "exec(open('setup.py').read(), names); print(names['description']())"
    )
    text = python("-c", show).stdout
    assert "docs/usage.md" in text and "```python" in text
    assert not re.search(r"\]\((?!\w+:|#)", text)


def test_the_sources_bring_what_their_tests_need(python, tmp_path):
    """Every file that git knows, but for the settings of editors and of git, is in the source distribution."""
    known = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True)
    if known.returncode:
        pytest.skip("no checkout")
    done = python("setup.py", "sdist", "--dist-dir", str(tmp_path), PYG_FULLGRAPH_BUILD="python")
    assert done.returncode == 0, done.stderr
    (archive,) = tmp_path.glob("*.tar.gz")
    with tarfile.open(archive) as sources:
        names = {name.partition("/")[2] for name in sources.getnames()}
    assert {"tests/conftest.py", "tests/cases/table.py", "docs/usage.md", "scripts/step", ".ci/run"} <= names
    assert not sorted({name for name in known.stdout.split() if (ROOT / name).exists()} - names)
