"""The layers of `docs/layout.md`, checked on every import statement of the package."""

from __future__ import annotations

import ast
import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "pyg_fullgraph"
NAME = PACKAGE.name

#: layer -> the layers it may import, as in the table of docs/layout.md; `errors` may be imported by all.
MAY_IMPORT = {
    "errors": set[str](),
    "ops": set[str](),
    "graph": {"ops"},
    "ir": {"graph", "ops"},
    "capture": {"ir", "graph", "ops"},
    "passes": {"ir", "graph", "ops"},
    "plan": {"passes", "capture", "ir", "graph", "ops"},
    "runtime": {"plan", "passes", "capture", "ir", "graph", "ops"},
    "report": {"runtime", "plan", "passes", "capture", "ir", "graph", "ops"},
}
CORE = set(MAY_IMPORT) - {"errors"}
#: What users touch, and the engine: these may import each other (the cycle test still holds file by file).
TOP = {"engine", "front", "nn", "dynamo", "api", "cli", "__init__", "__main__"}
MAY_IMPORT |= {layer: CORE | TOP for layer in TOP}

#: Where models and PyG data come in; `graph/convert.py` only to recognise what the user already passed.
TORCH_GEOMETRIC = re.compile(r"(capture/.*|front/.*|nn/.*|api|cli|graph/convert)\.py")
#: A path of one machine: a workplace, a home folder, a scratch environment.
MACHINE_PATH = re.compile(
    r"(?<![\w.$}/~-])/(?:work|root|home/\w+|Users/\w+|tmp/[a-z]\w{0,2}(?![\w.]))(?:/\w|(?=[\s\"'`:;,)]|$))",
    re.M,
)
TEXT_SUFFIXES = {
    "", ".py", ".pyi", ".md", ".toml", ".cfg", ".ini", ".txt", ".yml", ".yaml", ".json", ".sh", ".in",
    ".ipynb", ".c", ".cpp", ".h", ".hpp", ".cu", ".cuh", ".html", ".css", ".js", ".svg", ".csv",
}  # fmt: skip


@dataclass(frozen=True)
class Import:
    """One import of a module."""

    file: Path
    line: int
    module: str
    lazy: bool  # inside a function
    typing_only: bool  # under `if TYPE_CHECKING`

    def __str__(self) -> str:
        return f"{self.file.relative_to(ROOT)}:{self.line}: imports {self.module}"


def module_name(file: Path) -> str:
    """The dotted name of a file of the package."""
    parts = file.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def layer(module: str) -> str:
    """The layer a module of ours belongs to: its folder, or its own name at the top."""
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else "__init__"


def sources() -> list[Path]:
    """The Python files of the package."""
    return sorted(PACKAGE.rglob("*.py"))


def known_modules() -> set[str]:
    """The dotted names of all modules of the package."""
    return {module_name(file) for file in sources()}


def is_type_checking(test: ast.expr) -> bool:
    """Whether an `if` asks for TYPE_CHECKING."""
    return "TYPE_CHECKING" in ast.dump(test)


def walk(node: ast.AST, lazy: bool = False, typing_only: bool = False) -> Iterator[tuple[ast.stmt, bool, bool]]:
    """All import statements below a node; is each inside a function, is it for type checkers only."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import | ast.ImportFrom):
            yield child, lazy, typing_only
        elif isinstance(child, ast.If) and is_type_checking(child.test):
            yield from walk(ast.Module(child.body, []), lazy, True)
            yield from walk(ast.Module(child.orelse, []), lazy, typing_only)
        else:
            inside = lazy or isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
            yield from walk(child, inside, typing_only)


def targets(statement: ast.stmt, file: Path, known: set[str]) -> list[str]:
    """The modules an import names: relative ones resolved, `from package import module` seen through."""
    if isinstance(statement, ast.Import):
        return [alias.name for alias in statement.names]
    assert isinstance(statement, ast.ImportFrom)
    base = statement.module or ""
    if statement.level:
        package = module_name(file).split(".")
        keep = len(package) - statement.level + (file.name == "__init__.py")
        base = ".".join([*package[:keep], *([base] if base else [])])
    named = [f"{base}.{alias.name}" for alias in statement.names]
    inner = [name for name in named if name in known]
    return inner + ([base] if len(inner) < len(named) else [])


def imports(files: list[Path]) -> list[Import]:
    """Every import of the files."""
    known = known_modules()
    return [
        Import(file, statement.lineno, module, lazy, typing_only)
        for file in files
        for statement, lazy, typing_only in walk(ast.parse(file.read_text(), str(file)))
        for module in targets(statement, file, known)
    ]


def ours(item: Import) -> bool:
    """Whether an import is of this package."""
    return item.module.split(".")[0] == NAME


def fail_with(problems: list[str], rule: str) -> None:
    """Fail once with all the problems and the rule they break."""
    if problems:
        pytest.fail(f"{rule}\n" + "\n".join(problems), pytrace=False)


def cycles(edges: dict[str, set[str]]) -> list[list[str]]:
    """One import cycle through each module that lies on one, each cycle once."""
    found: dict[frozenset[str], list[str]] = {}
    state: dict[str, int] = {}
    path: list[str] = []

    def visit(module: str) -> None:
        state[module] = 1
        path.append(module)
        for other in sorted(edges.get(module, ())):
            if state.get(other) == 1:
                cycle = path[path.index(other) :]
                found.setdefault(frozenset(cycle), [*cycle, other])
            elif other not in state:
                visit(other)
        path.pop()
        state[module] = 2

    for module in sorted(edges):
        if module not in state:
            visit(module)
    return list(found.values())


def test_every_layer_is_known() -> None:
    """A new folder needs a row in docs/layout.md and in MAY_IMPORT."""
    unknown = {layer(module) for module in known_modules()} - set(MAY_IMPORT)
    assert not unknown, f"not in docs/layout.md: {sorted(unknown)}"


def test_imports_go_down() -> None:
    problems = []
    for item in filter(ours, imports(sources())):
        here, there = layer(module_name(item.file)), layer(item.module)
        if here != there and there != "errors" and there not in MAY_IMPORT.get(here, set()):
            problems.append(f"{item}: layer '{here}' may not import '{there}'")
    fail_with(problems, "imports go one way, as in docs/layout.md:")


def test_no_cycles() -> None:
    edges: dict[str, set[str]] = {}
    for item in filter(ours, imports(sources())):
        module = module_name(item.file)
        if not item.typing_only and not item.lazy and item.module != module:
            edges.setdefault(module, set()).add(item.module)
    fail_with([" -> ".join(cycle) for cycle in cycles(edges)], "modules import each other:")


def test_no_local_imports_of_ours() -> None:
    """Only the package's own `__init__` may be lazy (PEP 562), so that importing it costs nothing."""
    init = PACKAGE / "__init__.py"
    lazy = [item for item in imports(sources()) if ours(item) and item.lazy and item.file != init]
    fail_with([str(item) for item in lazy], "an import inside a function hides a cycle; import at the top:")


def test_torch_geometric_only_where_models_and_data_come_in() -> None:
    problems = [
        str(item)
        for item in imports(sources())
        if item.module.split(".")[0] == "torch_geometric"
        and not TORCH_GEOMETRIC.fullmatch(item.file.relative_to(PACKAGE).as_posix())
    ]
    fail_with(problems, "torch_geometric is imported only in capture/, front/, nn/, api, cli and graph/convert:")


def test_graph_convert_imports_torch_geometric_lazily() -> None:
    problems = [
        str(item)
        for item in imports([PACKAGE / "graph" / "convert.py"])
        if item.module.split(".")[0] == "torch_geometric" and not (item.lazy or item.typing_only)
    ]
    fail_with(problems, "graph/convert only recognises what the user passed; import torch_geometric inside:")


def test_torch_distributed_in_one_file() -> None:
    files = {item.file for item in imports(sources()) if item.module.startswith("torch.distributed")}
    used = re.compile(r"\btorch\.distributed\b|\bdist\.(?:all_|send|recv|init_process_group)")
    files |= {file for file in sources() if used.search(strip_strings(file))}
    fail_with(
        [str(file.relative_to(ROOT)) for file in sorted(files)] if len(files) > 1 else [],
        "torch.distributed belongs in one file:",
    )


def strip_strings(file: Path) -> str:
    """The code of a file without comments and with its strings emptied."""

    class Emptied(ast.NodeTransformer):
        def visit_Constant(self, node: ast.Constant) -> ast.Constant:
            return ast.Constant("") if isinstance(node.value, str) else node

    return ast.unparse(Emptied().visit(ast.parse(file.read_text())))


def repository_files() -> list[Path]:
    """The text files git tracks or would track; without git, all but the ignored folders."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    try:
        listed = subprocess.run(command, cwd=ROOT, capture_output=True, check=True, text=True).stdout.split("\0")
    except (OSError, subprocess.CalledProcessError):
        skipped = re.compile(r"^build/|(^|/)(\.venv|\.git|__pycache__|[^/]*\.egg-info|\.[a-z]+_cache)(/|$)")
        relative = (str(path.relative_to(ROOT)) for path in ROOT.rglob("*"))
        listed = [path for path in relative if not skipped.search(path)]
    files = [ROOT / path for path in listed if path]
    return [file for file in files if file.is_file() and file.suffix in TEXT_SUFFIXES]


def test_no_machine_paths() -> None:
    """A file that names a folder of one machine works on that machine only."""
    problems = []
    for file in repository_files():
        if file == Path(__file__).resolve():
            continue
        for number, line in enumerate(file.read_text(errors="replace").splitlines(), start=1):
            if match := MACHINE_PATH.search(line):
                problems.append(f"{file.relative_to(ROOT)}:{number}: {match.group(0)!r} in {line.strip()[:90]}")
    fail_with(problems, "paths of one machine:")


FOLDER = "work"  # apart, so that this file holds no such path either


@pytest.mark.parametrize(
    ("text", "bad"),
    [
        (f"cd /{FOLDER}/project", True),
        ("'/tmp/v/bin/python'", True),
        ("/home/someone/data", True),
        ("/root/.cache", False),  # a dot folder is not matched; it is the user's own home in prose
        ("/tmp/embeddings/", False),
        (f"../{FOLDER}/project", False),
        (f"src/{FOLDER}/file", False),
        (f"node-a/{FOLDER}", False),
    ],
)
def test_machine_path_pattern(text: str, bad: bool) -> None:
    assert bool(MACHINE_PATH.search(text)) == bad


def test_cycle_finder_finds_cycles() -> None:
    assert cycles({"a": {"b"}, "b": {"c"}, "c": {"a"}, "d": {"a"}}) == [["a", "b", "c", "a"]]
    assert cycles({"a": {"b", "c"}, "b": {"c"}}) == []


def test_relative_imports_are_resolved() -> None:
    known = {"pyg_fullgraph.ops", "pyg_fullgraph.ops.csr", "pyg_fullgraph.errors"}
    inside = PACKAGE / "ops" / "gather.py"
    (statement,) = ast.parse("from .csr import csr").body
    assert targets(statement, inside, known) == ["pyg_fullgraph.ops.csr"]
    (statement,) = ast.parse("from ..errors import GraphError").body
    assert targets(statement, inside, known) == ["pyg_fullgraph.errors"]
    (statement,) = ast.parse("from . import csr").body
    assert targets(statement, PACKAGE / "ops" / "__init__.py", known) == ["pyg_fullgraph.ops.csr"]


#: Folders in which each module has a test file of its name. A new folder joins when its last exception is gone.
MIRRORED = ("graph", "ops", "passes", "plan", "runtime")
#: Modules that other files' tests cover, and none of their own does yet. This list only shrinks.
WITHOUT_MIRROR = {
    "ops/check", "ops/checked", "ops/forked", "ops/reference", "ops/trusted",
    "passes/accumulate", "passes/contexts", "passes/cse", "passes/cut", "passes/flat", "passes/fuse", "passes/joins",
    "passes/mean", "passes/rewrite", "passes/softmax",
    "plan/costs", "plan/tables",
    "runtime/aggregate", "runtime/arrange", "runtime/code", "runtime/evaluate", "runtime/hubs", "runtime/progress",
    "runtime/release", "runtime/results", "runtime/store", "runtime/unions",
}  # fmt: skip


def test_modules_have_tests_of_their_name() -> None:
    """Where a module runs, plans or rewrites, what it promises is found in `tests`, under its own name."""
    modules, without = set(), set()
    for folder in MIRRORED:
        for file in (PACKAGE / folder).rglob("*.py"):
            if file.stem != "__init__":
                module = file.relative_to(PACKAGE).with_suffix("").as_posix()
                modules.add(module)
                if not (ROOT / "tests" / folder / f"test_{file.stem}.py").exists():
                    without.add(module)
    fail_with(sorted(without - WITHOUT_MIRROR), "a module needs a test file of its name, tests/FOLDER/test_MODULE.py:")
    fail_with(sorted(WITHOUT_MIRROR - without), "these have a test or are gone, take them out of WITHOUT_MIRROR:")
