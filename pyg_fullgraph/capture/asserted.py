"""Checks in user code: `assert (x > 0).all()`, and `if x.isnan().any(): raise ValueError(...)`.

Such a statement changes no value, so a captured program can leave it out (and the user is told). It can be left
out only where one outcome of the decision does nothing but raise, and where nobody catches what it raises: a
`try` around it would turn the error into another result. Both are read from the code: the decision from the
bytecode of the frame that asks, which says exactly what is asked there, the `try` from the source.
"""

from __future__ import annotations

import ast
import bisect
import dis
import itertools
import linecache
import os
from collections.abc import Iterable
from types import FrameType

from pyg_fullgraph.capture.where import is_machinery

_CALLS = ("CALL", "PRECALL", "CALL_FUNCTION", "CALL_METHOD", "CALL_KW", "CALL_FUNCTION_KW", "CALL_FUNCTION_EX")
_PASSED_OVER = frozenset((*_CALLS, "CACHE", "COMPARE_OP", "TO_BOOL", "EXTENDED_ARG", "NOP", "NOT_TAKEN"))
_JUMPS = ("POP_JUMP_IF_", "POP_JUMP_FORWARD_IF_")
_EFFECTS = ("STORE_", "DELETE_", "RETURN_", "YIELD_", "JUMP_", "POP_JUMP_", "FOR_ITER", "SEND", "IMPORT_")
_LIBRARY = os.path.dirname(linecache.__file__) + os.sep
_LONGEST_MESSAGE = 80  # instructions


def harmless_answer(frames: Iterable[FrameType]) -> bool | None:
    """The truth value with which a check passes.

    Args:
        frames: of the traced forward, innermost first, from the one that asks for a truth value.

    Returns:
        None where the decision is no check, or where the forward could catch what the check raises.
    """
    frames = list(frames)
    answer = _passing(frames[0]) if frames else None
    if answer is None or any(_caught(frame) for frame in frames if not is_machinery(frame.f_code.co_filename)):
        return None
    return answer


def is_discarded(frames: Iterable[FrameType]) -> bool:
    """True where the statement that runs in user code keeps no value: a call like `print(x)`, or a check.

    Args:
        frames: of the traced forward, innermost first; code of Python's own library (logging) is passed over.
    """
    frame = next((f for f in frames if not _is_library(f.f_code.co_filename)), None)
    tree = _tree(frame) if frame is not None else None
    if frame is None or tree is None:
        return False
    at = _position(frame)
    found = [node for node in ast.walk(tree) if isinstance(node, ast.stmt) and _spans(node, at)]
    innermost = max(found, key=lambda node: (node.lineno, node.col_offset), default=None)
    return isinstance(innermost, (ast.Expr, ast.Assert, ast.Raise))


def _position(frame: FrameType) -> tuple[int, int]:
    """Line and column that run now; the column is 0 before Python 3.11."""
    if not hasattr(frame.f_code, "co_positions"):
        return frame.f_lineno, 0
    line, _, column, _ = next(itertools.islice(frame.f_code.co_positions(), frame.f_lasti // 2, None))
    return line or frame.f_lineno, column or 0


def _spans(node: ast.stmt, at: tuple[int, int]) -> bool:
    end = (node.end_lineno or node.lineno, node.end_col_offset or 0)
    start = (node.lineno, node.col_offset if at[1] else 0)
    return start <= at <= end


def _is_library(filename: str) -> bool:
    own = filename.startswith(_LIBRARY) and "site-packages" not in filename and "dist-packages" not in filename
    return own or is_machinery(filename)


def _passing(frame: FrameType) -> bool | None:
    """The truth value for which the jump that follows in this frame avoids a branch that only raises."""
    steps = list(dis.get_instructions(frame.f_code))
    offsets = [step.offset for step in steps]
    at = bisect.bisect_right(offsets, frame.f_lasti) - 1
    inverted = False
    while at < len(steps) and (steps[at].opname in _PASSED_OVER or steps[at].opname == "UNARY_NOT"):
        inverted ^= steps[at].opname == "UNARY_NOT"
        at += 1
    if at >= len(steps) or not steps[at].opname.startswith(_JUMPS) or "NONE" in steps[at].opname:
        return None
    jumps_if = steps[at].opname.endswith("TRUE")
    target = bisect.bisect_left(offsets, steps[at].argval)
    if _only_raises(steps, at + 1):
        return jumps_if != inverted
    if _only_raises(steps, target):
        return (not jumps_if) != inverted
    return None


def _only_raises(steps: list[dis.Instruction], start: int) -> bool:
    """True where the code from here builds an exception and raises it, in one straight line."""
    for step in steps[start : start + _LONGEST_MESSAGE]:
        if step.opname == "RAISE_VARARGS":
            return True
        if step.opname.startswith(_EFFECTS):
            return False
    return False


def _caught(frame: FrameType) -> bool:
    """True where an exception at the frame's line could be caught in its function; also where that is not known."""
    tree = _tree(frame)
    if tree is None:
        return True
    for node in ast.walk(tree):
        if isinstance(node, ast.Try) and node.handlers and _covers(node.body, frame.f_lineno):
            if not all(_reraises(handler) for handler in node.handlers):
                return True
        elif isinstance(node, (ast.With, ast.AsyncWith)) and _covers(node.body, frame.f_lineno):
            entered = " ".join(ast.dump(item.context_expr) for item in node.items)
            if "suppress" in entered or "raises" in entered:
                return True
    return False


def _tree(frame: FrameType) -> ast.AST | None:
    """The syntax tree of a frame's file, or None where it cannot be read."""
    lines = linecache.getlines(frame.f_code.co_filename, frame.f_globals)
    if not 0 < frame.f_lineno <= len(lines):
        return None
    try:
        return ast.parse("".join(lines))
    except SyntaxError:
        return None


def _covers(body: list[ast.stmt], line: int) -> bool:
    return body[0].lineno <= line <= (body[-1].end_lineno or body[-1].lineno)


def _reraises(handler: ast.ExceptHandler) -> bool:
    leaves = any(isinstance(node, (ast.Return, ast.Continue, ast.Break)) for node in ast.walk(handler))
    return isinstance(handler.body[-1], ast.Raise) and not leaves
