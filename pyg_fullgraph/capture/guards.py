"""`Guards`: the symbolic sizes of a trace, and what the forward asks about them in plain Python.

`if n > 5`, `range(n)`, `list[n]` and `assert n < m` all end in one question to the `ShapeEnv`: is this expression
true, what number is it? Where the answer depends on the data, torch raises from deep inside of it; here the
trace is asked first, with the frame of the user's code that wants to know.
"""

from __future__ import annotations

import os
import sys
import weakref
from collections.abc import Callable
from types import FrameType
from typing import Any

import sympy
import torch
from torch.fx.experimental.symbolic_shapes import GuardOnDataDependentSymNode, ShapeEnv, statically_known_true

from pyg_fullgraph.capture.where import inside_forward, is_machinery

_TORCH = os.path.dirname(torch.__file__)
_SYMBOLS = tuple(
    os.path.join(_TORCH, *parts)
    for parts in (("__init__.py",), ("fx", "experimental"), ("utils", "_sympy"), ("_functorch",))
)
_MACHINERY = (
    *_SYMBOLS,
    *(os.path.join(_TORCH, name) for name in ("fx", "_subclasses", "_library", "_logging", "_dynamo", "_compile.py")),
    *(os.path.join(_TORCH, name) for name in ("utils", "_higher_order_ops", "_ops.py", "_inductor")),
)
_LAYERS = os.path.join(_TORCH, "nn", "modules") + os.sep
_SELF = __file__

#: How it is asked whether a size is 0 or 1: the relation, and the numbers on its right.
_LEAST: dict[type, tuple[int, ...]] = {
    sympy.Eq: (0, 1),
    sympy.Ne: (0, 1),
    sympy.Gt: (0, 1),
    sympy.Le: (0, 1),
    sympy.Lt: (1, 2),
    sympy.Ge: (1, 2),
}
_MANY = 2**20

#: Asked with the frame that wants to know and the question; the answer, or None to let torch raise.
Asked = Callable[[FrameType, sympy.Expr], "bool | int | float | None"]


class Guards(ShapeEnv):
    """A `ShapeEnv` that asks before it fails.

    Args:
        asked: called where code of the user or of a layer needs an answer that depends on the data.
        relied: called with every answer that such code got from what is known of the sizes alone.
    """

    def __init__(self, asked: Asked, relied: Callable[[sympy.Expr, bool], None]) -> None:
        super().__init__()
        # Weak: sizes keep their ShapeEnv alive, which must not keep the trace and the model alive in turn.
        self._asked = weakref.WeakMethod(asked)
        self._relied = weakref.WeakMethod(relied)
        self._read: set[sympy.Symbol] = set()

    def evaluate_expr(self, orig_expr: Any, *args: Any, **kwargs: Any) -> Any:
        """As in `ShapeEnv`."""
        if kwargs.get("size_oblivious") or True in args[2:3]:
            of_many = self._of_many(orig_expr)
            if of_many is not None:
                return sympy.sympify(of_many)
        try:
            answer = super().evaluate_expr(orig_expr, *args, **kwargs)
        except GuardOnDataDependentSymNode:
            frame = _asking_frame()
            asked = self._asked()
            given = asked(frame, orig_expr) if frame is not None and asked is not None else None
            if given is None:
                raise
            return sympy.sympify(given)
        if kwargs.get("fallback_value") is None and isinstance(orig_expr, sympy.Basic) and orig_expr.free_symbols:
            return self._decided(orig_expr, answer)
        return answer

    def _of_many(self, question: Any) -> bool | None:
        """The answer for sizes of many rows, where an operator asks if a size is 0 or 1 and only the data tells.

        So newer versions of torch answer by themselves, where the question only chooses between equal ways.
        """
        least = _LEAST.get(type(question))
        if least is None or question.rhs not in least or question.lhs.is_number:
            return None
        if self._maybe_evaluate_static(question, size_oblivious=True) is not None:
            return None  # torch knows
        return bool(question.subs(dict.fromkeys(question.free_symbols, _MANY)))

    def _get_user_frame(self) -> FrameType | None:
        """As in `ShapeEnv`, which imports all of `torch.export` (0.5 s) to know its own files."""
        frame: FrameType | None = sys._getframe(1)
        while frame is not None and frame.f_code.co_filename.startswith(_MACHINERY):
            frame = frame.f_back
        return frame

    def _log_create_unbacked_symbol(self, *args: Any, **kwargs: Any) -> None:
        """Nothing: the first such message, which nobody reads, costs the same imports."""

    def read_from_data(self, number: torch.SymInt) -> None:
        """Remember that a number is an element of a tensor: it may be negative, whatever a size may be."""
        self._read |= number.node.expr.free_symbols

    def is_size(self, number: torch.SymInt) -> None:
        """Take that back for a number among the arguments that is a size."""
        self._read -= number.node.expr.free_symbols

    def _decided(self, question: sympy.Basic, answer: Any) -> Any:
        """The answer to a question of user or layer code that was decided by the bounds of sizes."""
        frame, asked, relied = _asking_frame(), self._asked(), self._relied()
        if frame is None or asked is None or relied is None or not isinstance(question, sympy.logic.boolalg.Boolean):
            return answer
        if question.free_symbols & self._read:
            given = asked(frame, question) if self._needs_bounds(question) else None
            return answer if given is None else sympy.sympify(given)
        relied(question, bool(answer))
        return answer

    def _needs_bounds(self, question: sympy.Basic) -> bool:
        """True where the answer would not be known if the numbers read from tensors could be negative."""
        with self.ignore_fresh_unbacked_symbols():
            free = {symbol: self.create_unbacked_symint().node.expr for symbol in question.free_symbols & self._read}
        doubt = question.xreplace(free)
        return not any(statically_known_true(self.create_symboolnode(each)) for each in (doubt, sympy.Not(doubt)))


def _asking_frame() -> FrameType | None:
    """The frame of user or layer code whose own statement asks; None where an operator of torch does."""
    for frame in inside_forward():
        filename = frame.f_code.co_filename
        if filename == _SELF or filename.startswith(_SYMBOLS):
            continue
        return frame if not is_machinery(filename) or filename.startswith(_LAYERS) else None
    return None
