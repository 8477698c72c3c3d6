"""`Program`: a traced model as a flat list of values, each on one level and in one stage.

The grammar, on one page::

    Program   ::= Value*  outputs
    Value     ::= name = op(args)            one per line, in execution order
    op        ::= input | param              a leaf: an argument of forward, a parameter or buffer
                | const                      a tensor literal of the model's code
                | aten                       an ATen operator (`target`), row-wise or whole, see `ir.locality`
                | gather(x, index)           rows of x at every edge's endpoint `index`      (node -> edge)
                | reduce(x, index)           rows of x combined by `index`                   (edge -> node)
                | softmax(x, index)          normalised over the edges of one `index`        (edge -> edge)
                | pool(...)                  an ATen reduction over all rows (`target`)      (node -> graph)
                | group_pool(x, index)       rows that are destinations, combined by `index` (node -> group)
                | gather_reduce(x, src, index, weight)                     fused by `passes.fuse`
                | attention(value, src, index, score parts)                fused by `passes.fuse`
    arg       ::= Ref(name) | Dim(expr) | constant | tuple of arg
    level     ::= rows of a space (a symbolic size: N nodes, E edges, ...) at dimension `row_dim`, or none
    stage     ::= CONST (the model's code only) | PARAM (and parameters) | STRUCT (code, integer inputs and sizes)
                | DATA (everything else)

The tagging of every tensor by its level follows SAR's SRC/DST/EDGE/PARAM marks; spaces are the symbolic sizes
of the trace, so that no name is guessed.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import sympy
import torch

Size = Any  # an int, or a sympy expression in the symbolic sizes


class Stage(enum.IntEnum):
    """What a value depends on, hence when it is computed: per call (CONST, PARAM), per graph (STRUCT), else per row."""

    CONST = 0
    PARAM = 1
    STRUCT = 2
    DATA = 3


@dataclass(frozen=True)
class Ref:
    """A use of another value, by name."""

    name: str

    def __repr__(self) -> str:
        return f"%{self.name}"


@dataclass(frozen=True)
class Dim:
    """A symbolic scalar argument: a size of the graph, or arithmetic on sizes."""

    expr: sympy.Expr

    def __repr__(self) -> str:
        return str(self.expr)


@dataclass(frozen=True)
class Value:
    """One value of a program.

    Args:
        name: unique within the program.
        op: the vocabulary word (see the module's grammar).
        args, kwargs: arguments as trees of `Ref`, `Dim` and constants.
        shape: sizes, symbolic where they depend on the graph; of the first output where there are several.
        dtype: element type of the (first) output.
        stage: CONST, PARAM, STRUCT or DATA.
        target: the ATen overload of an `aten` value.
        local: for `aten`: True where output row r needs only input rows r (`ir.locality`).
        where: the user's source line this value comes from.
        multi: True where the operator returns a tuple; its users are `getitem` values.
    """

    name: str
    op: str
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    shape: tuple[Size, ...]
    dtype: torch.dtype | None
    stage: Stage
    target: Any = None
    local: bool = True
    where: str = ""
    multi: bool = False

    @cached_property
    def row_dim(self) -> int | None:
        """Position of the only symbolic size, None where there is none or more than one."""
        symbolic = [i for i, size in enumerate(self.shape) if is_symbolic(size)]
        return symbolic[0] if len(symbolic) == 1 else None

    @property
    def space(self) -> sympy.Expr | None:
        """The symbolic size that counts this value's rows; None for values that have no rows."""
        return None if self.row_dim is None else self.shape[self.row_dim]

    @property
    def is_pairwise(self) -> bool:
        """True where more than one size is symbolic (all pairs of nodes)."""
        return sum(is_symbolic(size) for size in self.shape) > 1

    @property
    def is_pool(self) -> bool:
        """True for a value that is known once all blocks of a superstep have added their part."""
        return self.op in ("pool", "group_pool")

    @property
    def width(self) -> int:
        """Elements per row (of the whole value where it has no rows)."""
        out = 1
        for size in self.shape:
            out *= 1 if is_symbolic(size) else int(size)
        return out

    @property
    def row_bytes(self) -> int:
        """Bytes per row."""
        return self.width * (self.dtype.itemsize if self.dtype is not None else 8)

    @property
    def is_argument(self) -> bool:
        """True for an argument of the call, also one without rows, which is read like a parameter."""
        return self.op == "input" or (self.op == "param" and str(self.args[0]).startswith("@"))

    def refs(self) -> list[str]:
        """Names of the values used, in argument order, with repeats."""
        return list(self._refs)

    @cached_property
    def _refs(self) -> list[str]:
        return refs_of((self.args, self.kwargs))

    @cached_property
    def _symbols(self) -> frozenset[sympy.Symbol]:
        return frozenset(symbols_of(self))

    def with_args(self, args: tuple[Any, ...], kwargs: dict[str, Any] | None = None) -> Value:
        return replace(self, args=args, kwargs=self.kwargs if kwargs is None else kwargs)


def is_symbolic(size: Any) -> bool:
    return isinstance(size, sympy.Expr) and not size.is_Integer


def is_aten(value: Value, packet: Any) -> bool:
    """True where `value` is a call of this ATen operator, in any overload."""
    return packet is not None and packet_of(value) is packet


def packet_of(value: Value) -> Any:
    """The ATen (or registered) operator that `value` calls, in any overload; None for all other values."""
    return getattr(value.target, "overloadpacket", None) if value.op == "aten" else None


def by_column(value: Value) -> bool:
    """True for a reduction that treats each column by itself: all but those that call a whole module."""
    return value.op == "reduce" and isinstance(value.kwargs["reduce"], str)


def map_args(tree: Any, fn: Callable[[Any], Any]) -> Any:
    """Apply `fn` to every leaf of an argument tree (tuples, lists and dicts are containers)."""
    if isinstance(tree, tuple):
        return tuple(map_args(item, fn) for item in tree)
    if isinstance(tree, list):
        return [map_args(item, fn) for item in tree]
    if isinstance(tree, dict):
        return {key: map_args(item, fn) for key, item in tree.items()}
    return fn(tree)


def refs_of(tree: Any) -> list[str]:
    """Names of all `Ref` leaves of an argument tree, in order."""
    found: list[str] = []
    map_args(tree, lambda leaf: found.append(leaf.name) if isinstance(leaf, Ref) else None)
    return found


def symbols_of(value: Value) -> set[sympy.Symbol]:
    """The symbolic sizes that appear in a value's shape or arguments."""
    found: set[sympy.Symbol] = set()
    for size in value.shape:
        if is_symbolic(size):
            found |= size.free_symbols
    map_args(
        (value.args, value.kwargs),
        lambda leaf: found.update(leaf.expr.free_symbols) if isinstance(leaf, Dim) else None,
    )
    return found


@dataclass
class Program:
    """A model as values in execution order.

    Args:
        values: by name, in execution order.
        outputs: tree of `Ref`s shaped as the model's return value.
        spaces: name of every symbolic size that is an input's (`N`, `E`, `N:paper`), for printing.
        notes: what the user should know of this capture.
        definers: data-dependent size -> the value whose evaluation determines it.
        wrapping: gathers whose negative numbers count from the end, as in `x[index]`.
        likely: symbolic size -> a number to choose by, where results are the same either way; of the first graph.
    """

    values: dict[str, Value]
    outputs: Any
    spaces: dict[sympy.Expr, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    definers: dict[sympy.Symbol, str] = field(default_factory=dict)
    likely: dict[sympy.Expr, int] = field(default_factory=dict)
    wrapping: set[str] = field(default_factory=set)
    _fresh: int = 0

    def __iter__(self) -> Iterator[Value]:
        return iter(self.values.values())

    def __getitem__(self, name: str) -> Value:
        return self.values[name]

    def users(self) -> dict[str, list[str]]:
        """Name -> names of the values that use it (a value that uses it twice is named once)."""
        out: dict[str, list[str]] = {name: [] for name in self.values}
        for value in self:
            for ref in dict.fromkeys(value.refs()):
                out[ref].append(value.name)
        return out

    def users_of(self, name: str) -> list[str]:
        """Names of the values that use one value: `users()` for who asks for one at a time."""
        return [value.name for value in self if name in value._refs]

    def output_names(self) -> list[str]:
        return refs_of(self.outputs)

    def fresh(self, stem: str) -> str:
        """A value name not yet taken."""
        while f"{stem}_{self._fresh}" in self.values:
            self._fresh += 1
        return f"{stem}_{self._fresh}"

    def insert_before(self, anchor: str, new: Iterable[Value]) -> None:
        """Insert values just before `anchor`."""
        rebuilt: dict[str, Value] = {}
        for name, value in self.values.items():
            if name == anchor:
                rebuilt.update({item.name: item for item in new})
            rebuilt[name] = value
        self.values = rebuilt

    def substitute(self, mapping: dict[str, str]) -> None:
        """Redirect every use of a key of `mapping` to its value's name."""
        if not mapping:
            return

        def swap(leaf: Any) -> Any:
            while isinstance(leaf, Ref) and leaf.name in mapping:
                leaf = Ref(mapping[leaf.name])
            return leaf

        for name, value in self.values.items():
            if any(ref in mapping for ref in value._refs):
                self.values[name] = value.with_args(map_args(value.args, swap), map_args(value.kwargs, swap))
        self.outputs = map_args(self.outputs, swap)

    def drop_dead(self) -> int:
        """Remove values that reach no output, parameters too; returns how many. Arguments stay: they are the call."""
        live = set(self.output_names())
        for value in reversed(list(self)):
            if value.name in live:
                live.update(value._refs)
                live.update(self.definers[s] for s in value._symbols if s in self.definers)
        dead = [name for name, value in self.values.items() if name not in live and not value.is_argument]
        for name in dead:
            del self.values[name]
        return len(dead)

    def space_name(self, space: sympy.Expr | None) -> str:
        """Printable name of a space: `N`, `E`, or an expression of such names."""
        if space is None:
            return "-"
        names = {symbol: sympy.Symbol(self.spaces[symbol]) for symbol in space.free_symbols if symbol in self.spaces}
        return str(space.xreplace(names)).replace(" ", "")
