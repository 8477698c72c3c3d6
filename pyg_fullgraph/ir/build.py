"""Make new values for a program: shape, element type, stage and locality follow from the operator itself.

The operator is run once on meta tensors, with a prime in the place of every symbolic size, and the primes are read
back from the result's shape.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import sympy
import torch

from pyg_fullgraph.ir.locality import is_row_local
from pyg_fullgraph.ir.program import Dim, Program, Ref, Stage, Value, is_symbolic, map_args

_FIRST_PRIME = 10_007


class Builder:
    """Collects new values and puts them in front of an anchor.

    Args:
        program: what the values are for; their arguments must be in it, before the anchor.
        anchor: name of the value before which the new ones are inserted by `commit`.
    """

    def __init__(self, program: Program, anchor: str) -> None:
        self.program, self.anchor = program, anchor
        self.made: list[Value] = []

    def aten(self, target: Any, *args: Any, name: str | None = None, like: Value | None = None, **kwargs: Any) -> Ref:
        """A call of an ATen (or registered) operator overload.

        Args:
            target: the overload.
            args, kwargs: `Ref`s, `Dim`s, constants, lists of them.
            name: the value's name; a fresh one if None.
            like: a value of the same shape and element type, where there is one: it saves working them out.
        """
        shape, dtype = (like.shape, like.dtype) if like is not None else infer(self.program, target, args, kwargs)
        where = self.program[self.anchor].where
        value = Value(name or "", "aten", args, kwargs, shape, dtype, Stage.DATA, target=target, where=where)
        return self.add(value)

    def gather(self, x: Ref, index: Ref, like: Value) -> Ref:
        """Rows of `x` (rows first) at every endpoint `index`."""
        table, rows = self.program[x.name], self.program[index.name]
        assert table.row_dim == 0 and rows.space is not None
        shape = (rows.space, *table.shape[1:])
        return self.add(Value("", "gather", (x, index), {}, shape, table.dtype, Stage.DATA, where=like.where))

    def add(self, value: Value) -> Ref:
        """Take a value in, under a fresh name where it has none; its stage and locality are worked out here."""
        if not value.name:
            stem = value.op if value.target is None else value.target.overloadpacket.__name__
            value = replace(value, name=self.program.fresh(stem))
        stage = stage_of(self.program, value) if value.op == "aten" else value.stage
        value = replace(value, stage=stage)
        self.program.values[value.name] = value  # found by `fresh`, `infer` and the rules; moved by `commit`
        if value.op == "aten":
            self.program.values[value.name] = value = replace(value, local=is_row_local(self.program, value))
        self.made.append(value)
        return Ref(value.name)

    def commit(self) -> None:
        """Put what was made in front of the anchor, in order."""
        for value in self.made:
            if value.name != self.anchor:
                del self.program.values[value.name]
        self.program.insert_before(self.anchor, [value for value in self.made if value.name != self.anchor])
        self.made = []

    def replace_anchor(self, ref: Ref) -> None:
        """Commit, and have every use of the anchor use `ref`."""
        anchor = self.anchor
        self.commit()
        if ref.name != anchor:
            self.program.substitute({anchor: ref.name})
            del self.program.values[anchor]


def rebuilt(program: Program, value: Value, args: tuple[Any, ...], kwargs: dict[str, Any] | None = None) -> Value:
    """`value` under its own name with other arguments: shape, stage and locality anew."""
    kwargs = value.kwargs if kwargs is None else kwargs
    shape, dtype = infer(program, value.target, args, kwargs)
    changed = replace(value, args=args, kwargs=kwargs, shape=shape, dtype=dtype)
    changed = replace(changed, stage=stage_of(program, changed))
    return replace(changed, local=is_row_local(program, changed))


def stage_of(program: Program, value: Value) -> Stage:
    """What a value depends on, by its arguments, its shape and the sizes among its arguments."""
    sized = any(is_symbolic(size) for size in value.shape) or _has_dim((value.args, value.kwargs))
    return joined_stage((program[name].stage for name in value.refs()), sized)


def joined_stage(stages: Iterable[Stage], sized: bool) -> Stage:
    """The stage of an operator on operands of these stages.

    Args:
        stages: of the operands.
        sized: True where a size of the graph is among the arguments or in the shape.
    """
    found = set(stages) | ({Stage.STRUCT} if sized else set())
    if Stage.DATA in found or {Stage.PARAM, Stage.STRUCT} <= found:
        return Stage.DATA
    return max(found, default=Stage.CONST)


def _has_dim(tree: Any) -> bool:
    found: list[Dim] = []
    map_args(tree, lambda leaf: found.append(leaf) if isinstance(leaf, Dim) else None)
    return bool(found)


def infer(
    program: Program, target: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[tuple[Any, ...], torch.dtype | None]:
    """Shape and element type of `target(*args, **kwargs)`; of the first output where there are several."""
    sizes = _Sizes()

    def leaf(item: Any) -> Any:
        if isinstance(item, Ref):
            value = program[item.name]
            return torch.empty([sizes.number(size) for size in value.shape], dtype=value.dtype, device="meta")
        if isinstance(item, Dim):
            return sizes.number(item.expr)
        return item

    meta_args, meta_kwargs = map_args(args, leaf), map_args(kwargs, leaf)
    if "device" in meta_kwargs:
        meta_kwargs["device"] = torch.device("meta")
    out = target(*meta_args, **meta_kwargs)
    out = out[0] if isinstance(out, (tuple, list)) else out
    return _joined_shape(program, target, args) or tuple(sizes.expression(size) for size in out.shape), out.dtype


def _joined_shape(program: Program, target: Any, args: tuple[Any, ...]) -> tuple[Any, ...] | None:
    """The shape of a `cat` of values, added up in symbols: a sum of many numbers does not tell which were its terms."""
    if target is not torch.ops.aten.cat.default or not all(isinstance(part, Ref) for part in args[0]):
        return None
    shapes = [program[part.name].shape for part in args[0]]
    if len({len(shape) for shape in shapes}) > 1:  # one is the empty tensor that joins with any
        return None
    dim = (args[1] if len(args) > 1 else 0) % len(shapes[0])
    return (*shapes[0][:dim], sum(shape[dim] for shape in shapes), *shapes[0][dim + 1 :])


class _Sizes:
    """Symbolic sizes and the numbers that stand for them."""

    def __init__(self) -> None:
        self.numbers: dict[sympy.Symbol, int] = {}
        self.expressions: dict[int, sympy.Expr] = {}

    def number(self, size: Any) -> int:
        if not is_symbolic(size):
            return int(size)
        for symbol in sorted(size.free_symbols, key=str):
            if symbol not in self.numbers:
                self.numbers[symbol] = sympy.nextprime(_FIRST_PRIME, len(self.numbers) + 1)
        number = int(size.subs(self.numbers))
        self.expressions.setdefault(number, size)
        return number

    def expression(self, number: int) -> Any:
        """The size that a number stands for: as given, a multiple, or a sum of sizes that were given."""
        number = int(number)
        if number in self.expressions:
            return self.expressions[number]
        if number < _FIRST_PRIME:
            return number
        for known, expr in sorted(self.expressions.items(), reverse=True):
            if number % known == 0:
                return expr * (number // known)
        found = self._sum(number, sorted(self.expressions, reverse=True))
        assert found is not None, f"the size {number} is none of {self.expressions}"
        return found

    def _sum(self, number: int, known: list[int]) -> sympy.Expr | None:
        """`number` as a sum of known numbers, each any number of times."""
        if number == 0:
            return sympy.Integer(0)
        for position, item in enumerate(known):
            rest = self._sum(number - item, known[position:]) if item <= number else None
            if rest is not None:
                return rest + self.expressions[item]
        return None


__all__ = ["Builder", "infer", "joined_stage", "rebuilt", "stage_of"]
