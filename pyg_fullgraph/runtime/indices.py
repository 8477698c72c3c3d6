"""Every index is in range before any work is done: the kernels believe what they are given.

What must be in range is read from the program: the numbers that pick rows of a table, or to whose rows something is
added, against that table's size. So integers that no table is read by may be anything, whatever their name and shape.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from pyg_fullgraph.errors import GraphError
from pyg_fullgraph.graph.validate import bad_edge, in_range
from pyg_fullgraph.ir import Program, Stage
from pyg_fullgraph.ir.program import is_symbolic
from pyg_fullgraph.ir.uses import Use, arguments_below, origins, uses
from pyg_fullgraph.runtime.structure import Structure


def check_indices(program: Program, structure: Structure) -> None:
    """Checks every structural index of a program for the graph at hand.

    Args:
        program: as it will run.
        structure: of the graph; what the indices are computed from is evaluated, and no more: an index is checked
            before anything is picked by it.

    Raises:
        GraphError: naming the argument, its first bad entry, and what this is the number of.
    """
    seen: set[tuple[str, Any, bool]] = set()
    for use in uses(program):
        key = (use.index, use.size, use.wraps)
        if key in seen or program[use.index].stage is not Stage.STRUCT or not _is_structure(program, structure, use):
            continue
        seen.add(key)
        size = _size(structure, use)
        within = structure.bounds.within
        if within(use.index, 0, size):
            continue
        if not use.wraps or not within(use.index, -size, size) or not _wrapped(program, structure, use, size):
            raise GraphError(_explained(program, structure, use))


def _wrapped(program: Program, structure: Structure, use: Use, size: int) -> bool:
    """Count negative numbers of rows from the end, for kernels, where nothing else reads them; False where it does."""
    if program[use.value].op != "gather":
        return True  # torch does so itself
    users = [value for value in program if use.index in value.refs()]
    alike = all(value.name in program.wrapping and value.op == "gather" for value in users)
    if (
        not alike
        or use.index in program.output_names()
        or any(program[value.args[0].name].space != use.size for value in users)
    ):
        return False
    numbers = structure.value(use.index)
    structure.values[use.index] = torch.where(numbers < 0, numbers + size, numbers)
    structure.bounds.forget()
    return True


def _is_structure(program: Program, structure: Structure, use: Use) -> bool:
    """Whether a size is known before the values of the data are."""
    if not is_symbolic(use.size):
        return True
    unknown = [symbol for symbol in use.size.free_symbols if symbol not in structure.sizes]
    return all(program[program.definers[symbol]].stage is Stage.STRUCT for symbol in unknown)


def _size(structure: Structure, use: Use) -> int:
    return int(structure.size_of(use.size)) if is_symbolic(use.size) else int(use.size)


def _explained(program: Program, structure: Structure, use: Use) -> str:
    """What is wrong, in the words of the user's own argument where the numbers are its entries."""
    size = _size(structure, use)
    for name, row in sorted(origins(program, use.index), key=str):
        tensor = structure.value(name)
        entries = tensor if row is None else tensor[row]
        if in_range(entries, size):
            continue
        if tensor.dim() == 2 and tensor.size(0) == 2:
            counts = _counts(program, structure, name)
            counts = [count if count is not None or row not in (None, i) else size for i, count in enumerate(counts)]
            return bad_edge(tensor[0], tensor[1], counts[0], counts[1], str(program[name].args[0]))
        return _bad_entry(entries, size, f"'{program[name].args[0]}'", _where(program, use))
    made_of = ", ".join(sorted(f"'{program[name].args[0]}'" for name in arguments_below(program, use.index)))
    what = f"an index computed from {made_of}" if made_of else "an index"
    return _bad_entry(structure.value(use.index), size, what, _where(program, use))


def _counts(program: Program, structure: Structure, name: str) -> list[int | None]:
    """How many things the entries of each row of a `[2, E]` argument number, as far as that is known by now."""
    counts: list[int | None] = [None, None]
    for use in uses(program):
        places = {row for place, row in origins(program, use.index) if place == name}
        if not places or not _is_known(structure, use):
            continue
        size = _size(structure, use)
        for row in (0, 1):
            known = counts[row]
            if places & {row, None}:
                counts[row] = size if known is None else min(size, known)
    return counts


def _is_known(structure: Structure, use: Use) -> bool:
    return not is_symbolic(use.size) or use.size.free_symbols <= structure.sizes.keys()


def _where(program: Program, use: Use) -> str:
    return program[use.value].where or use.value


def _bad_entry(entries: Tensor, size: int, what: str, where: str) -> str:
    flat = entries.reshape(-1)
    bad = ((flat < 0) | (flat >= size)).nonzero().view(-1)
    position = [int(i) for i in torch.unravel_index(bad[0], entries.shape)]
    shown = position[0] if len(position) == 1 else position
    valid = f"the {size:,} entries are numbered 0 to {size - 1}" if size else "there are none"
    return f"Entry {shown} of {what} is {int(flat[bad[0]])}, read as a number at {where}: {valid}." + (
        f" {bad.numel() - 1:,} more of {flat.numel():,} are out of range." if bad.numel() > 1 else ""
    )
