"""Golden texts: for every exact case of the coverage table what runs in each superstep, after all passes.

`tests/golden/FAMILY.txt` has a section per case, and a line per block program: its superstep, the space of its rows,
its operators in order (those on the edges of a row in braces), and what it stores. A fusion that is lost adds
operators or stored tables, and so changes a line. The texts are of the program and the schedule, not of the Python
text that is emitted from them. `tests/test_exactness.py` compares them with what it has captured anyway;

    python -m pytest tests/test_exactness.py --update-golden     # one process: no -n

rewrites those of the cases that run (`-k` picks some). torch and torch_geometric decompose models in their own ways, so
the texts are of one version of each, named in their first line, and compared only where these are installed.
"""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

import torch
import torch_geometric

from pyg_fullgraph.ir import Program, Value
from pyg_fullgraph.ir.superstep import BlockProgram, Schedule

FOLDER = Path(__file__).parent / "golden"
SHORT = {"float": "f", "int": "i", "uint": "u", "bfloat": "bf", "complex": "c"}


def versions() -> str:
    """The versions that decide how a model is decomposed; a patch does not."""
    ours = (("torch", torch.__version__), ("torch_geometric", torch_geometric.__version__))
    return ", ".join(f"{name} {'.'.join(version.split('.')[:2])}" for name, version in ours)


def text_of(program: Program, schedule: Schedule) -> str:
    """What runs in each superstep, a line for each block program and for what runs on whole tables."""
    lines = []
    for number, step in enumerate(schedule.steps):
        if step.whole:
            words = [word_of(program[name]) for name in step.whole]
            lines.append(f"{number} whole: {counted(words)} -> {tables(program, step.whole)}")
        lines += [f"{number} {block_text(program, block)}" for block in step.blocks]
    return "\n".join(lines) or "nothing to compute from row to row"


def block_text(program: Program, block: BlockProgram) -> str:
    """`N: mm, {gather, mul}, reduce -> f32[N, 8]`."""
    parts = []
    for on_edges, run in itertools.groupby(block.order, lambda item: item[1] is not None):
        words = counted(word_of(program[name]) for name, _ in run)
        parts.append(f"{{{words}}}" if on_edges else words)
    return f"{program.space_name(block.space)}: {', '.join(parts)} -> {tables(program, block.stored)}"


def word_of(value: Value) -> str:
    """The operator's name, without its overload."""
    if value.op != "aten":
        return value.op
    if value.target is None:
        return "getitem"
    return str(getattr(value.target, "overloadpacket", value.target).__name__)


def counted(words: Iterable[str]) -> str:
    """`mul, add x3`: equal neighbours once."""
    runs = [(word, len(list(run))) for word, run in itertools.groupby(words)]
    return ", ".join(word if count == 1 else f"{word} x{count}" for word, count in runs)


def tables(program: Program, names: Iterable[str]) -> str:
    """The types of stored values, in an order that does not depend on their names."""
    return counted(sorted(table(program, program[name]) for name in names)) or "nothing"


def table(program: Program, value: Value) -> str:
    sizes = ", ".join(str(size) if isinstance(size, int) else program.space_name(size) for size in value.shape)
    kind = str(value.dtype).removeprefix("torch.")
    letters = kind.rstrip("0123456789")
    return f"{SHORT.get(letters, letters)}{kind[len(letters) :]}[{sizes}]"


class Golden:
    """The texts in the files, and those of this run where they are to be rewritten.

    Args:
        update: rewrite instead of comparing.
    """

    def __init__(self, update: bool) -> None:
        self.update = update
        self.read: dict[str, tuple[str, dict[str, str]]] = {}
        self.found: dict[str, dict[str, str]] = defaultdict(dict)

    def check(self, family: str, name: str, text: str) -> None:
        """Compare the text of a case with its golden one; nothing where the files are of other versions.

        Raises:
            AssertionError: they differ.
        """
        if self.update:
            self.found[family][name] = text
            return
        if family not in self.read:
            self.read[family] = read(family)
        made_with, texts = self.read[family]
        if made_with == versions():
            assert text == texts.get(name, ""), (
                f"{name} runs otherwise than tests/golden/{family}.txt says. If it should, run\n"
                "    python -m pytest tests/test_exactness.py --update-golden\nand look at the difference"
            )

    def write(self, order: list[str]) -> None:
        """Rewrite the files; sections that this run did not make stay, those of no case in `order` go."""
        for family, found in self.found.items():
            made_with, texts = read(family)
            texts = {**(texts if made_with == versions() else {}), **found}
            sections = [f"[{name}]\n{texts[name]}\n" for name in order if name in texts]
            FOLDER.mkdir(exist_ok=True)
            (FOLDER / f"{family}.txt").write_text(f"# {versions()}\n\n" + "\n".join(sections))


def read(family: str) -> tuple[str, dict[str, str]]:
    """The versions that a file was made with, and its sections."""
    file = FOLDER / f"{family}.txt"
    if not file.exists():
        return "", {}
    head, *sections = file.read_text().split("\n[")
    parted = (section.partition("]\n") for section in sections)
    return head.strip("# \n"), {name: text.strip("\n") for name, _, text in parted}
