"""How much work values are: the sizes to count with, and what a product costs beside bytes that move."""

from __future__ import annotations

from collections.abc import Callable

import sympy

from pyg_fullgraph.ir.program import Program, Size, Value, is_symbolic

#: Operators that take about an exponential per element, by the names of their packets.
_EXPONENTIALS = frozenset(
    [
        "exp", "exp2", "expm1", "log", "log1p", "log2", "sigmoid", "tanh", "gelu", "elu", "celu", "selu",
        "silu", "mish", "softplus", "log_sigmoid_forward", "erf", "pow", "sin", "cos", "atan2", "_softmax",
        "_log_softmax", "logaddexp",
    ]
)  # fmt: skip
#: Operators that only look at what they are given in another way.
_VIEWS = frozenset(
    [
        "view", "_unsafe_view", "reshape", "select", "slice", "permute", "transpose", "t", "expand",
        "unsqueeze", "squeeze", "split", "split_with_sizes", "unbind", "narrow", "detach", "alias",
    ]
)  # fmt: skip

#: How often a fused operator goes over its source rows' columns; a reduction of messages once for each reduction.
_FUSED_PASSES = {
    "gather_reduce": 1,
    "attention": 2,
    "message": 1,
    "message_reduce": 1,
    "softmax_reduce": 2,
    "edge_dot": 1,
}

SizeOf = Callable[[sympy.Expr], int | float]
FLOPS_PER_BYTE = 10  # of matrix products, that take as long as one byte of other work


def product_flops(program: Program, value: Value) -> int:
    """Floating point operations of a matrix product per row; 0 for any other operator."""
    name = _packet_name(value)
    if name != "typed_linear" and "mm" not in name:
        return 0
    matrix = program[value.args[1].name] if name == "typed_linear" else program[value.refs()[-1]]
    inner = matrix.shape[-2]
    return 2 * inner * value.width if isinstance(inner, int) else 0


def _packet_name(value: Value) -> str:
    return value.target.overloadpacket.__name__ if value.op == "aten" and value.target is not None else ""


def element_work(program: Program, value: Value) -> tuple[int, int]:
    """Elements that an operator makes or takes per row of its own (for a fused one: per edge), and exponentials."""
    if value.op == "aten":
        name = _packet_name(value)
        if not name or name in _VIEWS or product_flops(program, value):
            return 0, 0
        return value.width, value.width if name in _EXPONENTIALS else 0
    if value.op in ("gather", "reduce"):
        return program[value.args[0].name].width, 0
    if value.op == "softmax":
        return 2 * value.width, value.width
    if value.op not in _FUSED_PASSES or value.args[0] is None:
        return 0, 0
    x = program[value.args[0].name]
    heads = x.shape[1] if value.op == "attention" and len(x.shape) > 1 else x.width
    exponentials = int(heads) if value.op in ("attention", "softmax_reduce") else 0
    passes = len(value.kwargs["reduces"]) if value.op == "message_reduce" else _FUSED_PASSES[value.op]
    return passes * x.width, exponentials


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
