"""Checks of the forward that a trace could not answer for all graphs: they are made at each call instead.

`if edge_index.size(0) != 2: raise ValueError(...)` is asked in the trace about a size that stands for any graph's. The
trace goes on as if the check had passed, and what it asked is kept and asked again of the sizes of every call.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import sympy

from pyg_fullgraph.capture.where import Place
from pyg_fullgraph.errors import InputError

_MOST_KEPT = 64  # combinations of sizes that are known to pass


class Shaped(Protocol):
    """A leaf of a signature, as far as its shape goes."""

    @property
    def name(self) -> str: ...
    @property
    def dims(self) -> tuple[int | str, ...]: ...
    @property
    def value_class(self) -> str: ...


@dataclass
class Required:
    """What a forward requires of the sizes of its arguments.

    Args:
        symbols: space name -> the symbol that stood for its size.
        questions: (question, the answer with which the check passes) -> where it was asked.
    """

    symbols: dict[str, sympy.Symbol] = field(default_factory=dict)
    questions: dict[tuple[sympy.Expr, bool], Place] = field(default_factory=dict)
    _passed: set[tuple[int, ...]] = field(default_factory=set, repr=False)

    def take(self, question: sympy.Expr, answer: bool, place: Place) -> bool:
        """Remember a check, if it is about sizes of the graph alone."""
        if not question.free_symbols <= set(self.symbols.values()):
            return False
        self.questions.setdefault((question, answer), place)
        return True

    def compares_with_number(self, question: sympy.Basic) -> bool:
        """Whether it asks if a size of the graph is one certain number: `x.size(0) == 2`."""
        if not isinstance(question, (sympy.Eq, sympy.Ne)) or not question.free_symbols <= set(self.symbols.values()):
            return False
        return sorted((side.is_Integer, side.is_Symbol) for side in question.args) == [(False, True), (True, False)]

    def check(self, leaves: Sequence[Shaped], sizes: Mapping[str, int]) -> None:
        """Make all checks for a call.

        Args:
            leaves: the arguments.
            sizes: real size per space.

        Raises:
            InputError: the forward would raise; names the check and the arguments it is about.
        """
        if not self.questions:
            return
        real = tuple(sizes.get(space, -1) for space in self.symbols)
        if real in self._passed:
            return
        known = {symbol: sizes[space] for space, symbol in self.symbols.items() if space in sizes}
        for (question, answer), place in self.questions.items():
            if question.free_symbols <= known.keys() and bool(question.subs(known)) != answer:
                spaces = [space for space, symbol in self.symbols.items() if symbol in question.free_symbols]
                raise InputError(_unmet(place, spaces, leaves, sizes))
        if len(self._passed) >= _MOST_KEPT:
            self._passed.clear()
        self._passed.add(real)


def _unmet(place: Place, spaces: Sequence[str], leaves: Sequence[Shaped], sizes: Mapping[str, int]) -> str:
    """The text for a check that fails."""
    asked = f"the model checks `{place.code}` at {place.where}" if place.code else f"the model's check at {place.where}"
    about = [leaf for leaf in leaves if any(space in leaf.dims for space in spaces)]
    for leaf in about:
        hint = misshapen(leaf, sizes)
        if hint:
            return f"{hint} ({asked}.)"
    shapes = "; ".join(f"{leaf.name} has shape {shape_of(leaf, sizes)}" for leaf in about)
    return f"{shapes[:1].upper()}{shapes[1:]}: {asked}, and it fails for these sizes."


def shape_of(leaf: Shaped, sizes: Mapping[str, int]) -> list[int]:
    """The real shape of an argument."""
    return [sizes[dim] if isinstance(dim, str) else dim for dim in leaf.dims]


def misshapen(leaf: Shaped, sizes: Mapping[str, int]) -> str:
    """What is wrong with the shape of an argument whose name says that it is an edge list; else nothing."""
    shape = shape_of(leaf, sizes)
    if not is_edge_list(leaf.name) or (len(shape) == 2 and shape[0] == 2):
        return ""
    text = f"{leaf.name} has shape {shape}; it must be [2, E], a row of sources and a row of destinations."
    if len(shape) == 2 and shape[1] == 2:
        return f"{text} Pass {leaf.name}.t().contiguous()."
    if len(shape) == 2 and shape[0] > 2:
        return f"{text} Pass {leaf.name}[:2], and what the other rows hold as arguments of their own."
    return text


def is_edge_list(name: str) -> bool:
    """Whether an argument is called as edge lists are."""
    return "edge_index" in name or name in ("edges", "edge_list", "adj")
