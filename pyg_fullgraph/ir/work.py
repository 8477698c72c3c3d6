"""How much work values are: the sizes to count with, and what a product costs beside bytes that move."""

from __future__ import annotations

from collections.abc import Callable

import sympy

from pyg_fullgraph.ir.program import Program, Size, Value, is_symbolic

SizeOf = Callable[[sympy.Expr], int | float]
FLOPS_PER_BYTE = 10  # of matrix products, that take as long as one byte of other work


def product_flops(program: Program, value: Value) -> int:
    """Floating point operations of a matrix product per row; 0 for any other operator."""
    if value.op != "aten" or value.target is None or "mm" not in str(value.target.overloadpacket):
        return 0
    inner = program[value.refs()[-1]].shape[-2]
    return 2 * inner * value.width if isinstance(inner, int) else 0


def likely_size(program: Program, size: Size) -> float | None:
    """What a size will be about, from `Program.likely`; None where nothing is known.

    Sizes that values decide (the edges of one relation, found by a mask) are taken for equal shares of what the masks
    are over: nothing is computed.
    """
    if not is_symbolic(size):
        return float(size)
    found = {symbol: _likely(program, symbol) for symbol in size.free_symbols}
    if any(number is None for number in found.values()):
        return None
    return float(size.subs(found))


def _likely(program: Program, symbol: sympy.Symbol) -> float | None:
    if symbol in program.likely:
        return program.likely[symbol]
    whole = _divided(program, symbol)
    if whole is None:
        return None
    parts = sum(_divided(program, other) == whole for other in program.definers)
    number = likely_size(program, whole)
    return None if number is None else number / parts


def _divided(program: Program, symbol: sympy.Symbol) -> sympy.Expr | None:
    """The size of what the value that decides this size looks at."""
    value = program.values.get(program.definers.get(symbol, ""))
    seen = [] if value is None else [program[ref].space for ref in value.refs()]
    return seen[0] if seen else None
