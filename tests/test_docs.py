"""The documentation is run: Python blocks, commands, links, `make` targets and the table of layers.

In a Markdown file, the Python blocks run from top to bottom in one namespace, in an empty folder. A block
headed `python file=NAME` is written to that file. Lines of `sh` blocks that start with `pyg-fullgraph`
are run too. What must not run stands under a line `<!-- not run -->`; its Python must still compile.
"""

from __future__ import annotations

import json
import re
import shlex
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import CodeType, ModuleType

import pytest

from pyg_fullgraph.cli import main
from tests.test_layout import MAY_IMPORT, TOP

ROOT = Path(__file__).resolve().parent.parent
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
NOTEBOOKS = sorted((ROOT / "notebooks").rglob("*.ipynb"))
FENCE = re.compile(
    r"(?P<skip><!-- not run -->\s*\n)?^```(?P<kind>\w+)(?: file=(?P<file>\S+))?[ ]*\n(?P<text>.*?)^```[ ]*$",
    re.M | re.S,
)
LINK = re.compile(r"(?<!!)\[[^\]]+\]\((?!https?:|mailto:|#)(?P<target>[^)#\s]+)")


@dataclass(frozen=True)
class Block:
    """One fenced block of a page.

    Args:
        line: number of its first line of text.
        kind: what stands behind the fence: python, sh.
        file: the file to write it to, if any.
        text: what it holds.
        run: whether it is to be run.
    """

    line: int
    kind: str
    file: str | None
    text: str
    run: bool


def blocks(page: str) -> Iterator[Block]:
    """The fenced blocks of a page that name a language."""
    for match in FENCE.finditer(page):
        line = page.count("\n", 0, match.start("text")) + 1
        yield Block(line, match["kind"], match["file"], match["text"], match["skip"] is None)


def name(path: Path) -> str:
    """A readable id."""
    return str(path.relative_to(ROOT))


def compiled(block: Block, path: Path) -> CodeType:
    """The block's code, with the lines of the page, so that a failure points there."""
    return compile("\n" * (block.line - 1) + block.text, str(path), "exec")


def new_module(called: str, monkeypatch: pytest.MonkeyPatch) -> dict[str, object]:
    """The namespace of a new module that can be found by name: PyG looks up the module of a user's layer."""
    module = ModuleType(called)
    monkeypatch.setitem(sys.modules, called, module)
    return module.__dict__


def run_commands(block: Block, path: Path) -> None:
    """Run the `pyg-fullgraph` lines of a shell block in this process."""
    text = block.text.replace("\\\n", " ")
    for command in (line for line in text.splitlines() if line.startswith("pyg-fullgraph ")):
        status = main(shlex.split(command, comments=True)[1:])
        assert status == 0, f"{name(path)}:{block.line}: exit status {status} of: {command}"


@pytest.mark.parametrize("path", PAGES, ids=name)
def test_examples_run(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    namespace = new_module("example", monkeypatch)
    for block in blocks(path.read_text()):
        if block.kind == "python":
            code = compiled(block, path)
            if block.file:
                Path(block.file).write_text(block.text)
            elif block.run:
                exec(code, namespace)
        elif block.kind == "sh" and block.run:
            run_commands(block, path)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=name)
def test_notebooks_run(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    namespace = new_module("notebook", monkeypatch)
    cells = [cell for cell in json.loads(path.read_text())["cells"] if cell["cell_type"] == "code"]
    for number, cell in enumerate(cells, start=1):
        exec(compile("".join(cell["source"]), f"{path.name}, code cell {number}", "exec"), namespace)


@pytest.mark.parametrize("path", PAGES, ids=name)
def test_links_lead_somewhere(path: Path) -> None:
    page = path.read_text()
    dead = [m["target"] for m in LINK.finditer(page) if not (path.parent / m["target"]).exists()]
    assert not dead, f"{name(path)} links to what is not there: {dead}"


@pytest.mark.parametrize("path", PAGES, ids=name)
def test_make_targets_exist(path: Path) -> None:
    known = set(re.findall(r"^([a-z][a-z-]*):", (ROOT / "Makefile").read_text(), re.M))
    named = set(re.findall(r"(?:^|`)make ([a-z][a-z-]*)", path.read_text(), re.M))
    assert named <= known, f"{name(path)} names make targets that are not there: {sorted(named - known)}"


def test_layout_page_has_the_layers_that_are_checked() -> None:
    page = (ROOT / "docs" / "layout.md").read_text()
    rows = re.findall(r"^\| `(\w+)` \| [^|]+ \| ([^|]+) \|$", page, re.M)
    allowed = {layer: set(re.findall(r"\w+", may)) for layer, may in rows}
    core = {layer: may for layer, may in MAY_IMPORT.items() if layer not in TOP}
    nothing = set(re.findall(r"\w+", "nothing of ours"))
    assert {layer: may - nothing for layer, may in allowed.items() if layer in core} == core
    assert set(allowed) - set(core) == {layer for layer in TOP if not layer.startswith("__")}


def test_blocks_are_found() -> None:
    page = (
        "a\n```python\nx = 1\n```\n<!-- not run -->\n```sh\nls\n```\n```\nno language\n```\n```python file=a.py\n```\n"
    )
    assert list(blocks(page)) == [
        Block(3, "python", None, "x = 1\n", True),
        Block(7, "sh", None, "ls\n", False),
        Block(13, "python", "a.py", "", True),
    ]
