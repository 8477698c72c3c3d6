"""Which integer arguments of a program hold node numbers, and of which nodes: read from how they are used."""

from __future__ import annotations

from typing import Any

import torch

from pyg_fullgraph.ir.program import Program, Value, is_symbolic
from pyg_fullgraph.ir.renumber import node_spaces
from pyg_fullgraph.ir.uses import Place, arguments_below, origins, uses


def ends(program: Program) -> dict[str, Any]:
    """Argument name -> the space whose nodes it numbers; a pair where the two rows of an edge list differ.

    An argument numbers the nodes whose rows it picks, or to whose rows it adds. That this holds wherever it is used is
    for `renumber` to check.
    """
    spaces = node_spaces(program)
    found: dict[Place, Any] = {}
    for use in uses(program):
        if use.rows and use.size in spaces:
            for place in origins(program, use.index):
                found.setdefault(place, use.size)
    numbers: dict[str, Any] = {}
    for value in _integers(program):
        name = value.name
        both = found.get((name, None))
        rows = tuple(found.get((name, row), both) for row in (0, 1))
        if len(value.shape) == 2 and value.shape[0] == 2 and rows != (None, None):
            numbers[value.args[0]] = rows if rows[0] != rows[1] else rows[0]
        elif both is not None:
            numbers[value.args[0]] = both
    return numbers


def pairs_of_ends(program: Program) -> dict[str, tuple[str | None, str | None] | None]:
    """The integer arguments `[2, E]` by name -> the spaces that their two rows number.

    None in the place of what is no space of nodes: as many as a number among the arguments says, or as there are rows
    of a parameter. None in the place of both where indices are computed from the argument in another way. Arguments
    that no index is computed from are left out: these are no edges.
    """
    found: dict[Place, str | None] = {}
    for use in uses(program):
        named = is_symbolic(use.size) and use.rows
        for place in origins(program, use.index):
            space = program.spaces.get(use.size, "") if named else ""
            if found.get(place) is None:
                found[place] = space if space.startswith("N") else None
    below = arguments_below(program, *(use.index for use in uses(program)))
    pairs: dict[str, tuple[str | None, str | None] | None] = {}
    for value in _integers(program):
        if len(value.shape) != 2 or value.shape[0] != 2 or not is_symbolic(value.shape[1]):
            continue
        places: list[Place] = [(value.name, row) for row in (0, 1, None)]
        if any(place in found for place in places):
            both = found.get(places[2])
            pairs[value.args[0]] = (found.get(places[0]) or both, found.get(places[1]) or both)
        elif value.name in below:
            pairs[value.args[0]] = None
    return pairs


def _integers(program: Program) -> list[Value]:
    inputs = [value for value in program if value.op == "input" and value.dtype not in (None, torch.bool)]
    return [value for value in inputs if value.dtype is not None and not value.dtype.is_floating_point]


def numbered_by_edges(program: Program) -> set[Any]:
    """The sizes, symbolic or plain numbers, of what the rows of edge lists `[2, E]` number."""
    edges = {value.name for value in _integers(program) if len(value.shape) == 2 and value.shape[0] == 2}
    return {use.size for use in uses(program) if any(name in edges for name, _ in origins(program, use.index))}
