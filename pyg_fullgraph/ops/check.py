"""Checks and layouts shared by the operators: cheap enough for every block, and safe for the kernels.

The values of indices are not looked at here (a graph is validated once, when it is made), only types and shapes.
"""

from __future__ import annotations

import math
from typing import NoReturn

import torch
from torch import Tensor

from pyg_fullgraph.errors import OperatorError
from pyg_fullgraph.ops.backend import INDICES
from pyg_fullgraph.ops.memory import empty

REDUCTIONS = {"sum": 0, "mean": 1, "max": 2, "min": 3, "mul": 4}


def fail(operator: str, argument: str, got: object, valid: str) -> NoReturn:
    """Raise the error for a wrong argument: its name, what was got, what is valid."""
    if isinstance(got, Tensor):
        got = f"a tensor of shape {list(got.shape)}, {got.dtype}, on {got.device}"
    raise OperatorError(f"{operator}: `{argument}` is {got}; valid: {valid}")


def check_rowptr(operator: str, rowptr: Tensor) -> int:
    """Check `rowptr` and return the number of rows B."""
    if rowptr.dtype != torch.int64 or rowptr.dim() != 1 or rowptr.numel() == 0 or not rowptr.is_contiguous():
        fail(operator, "rowptr", rowptr, "a contiguous int64 tensor [B + 1] that starts each row's edges")
    return rowptr.numel() - 1


def check_index(operator: str, name: str, index: Tensor) -> None:
    """Check a tensor of row numbers [E]."""
    if index.dtype not in INDICES or index.dim() != 1:
        fail(operator, name, index, "an int32 or int64 tensor [E]")


def check_rows(operator: str, name: str, x: Tensor, rows: int | None, letter: str) -> None:
    """Check that a tensor has rows, and how many where that is known."""
    if x.dim() == 0 or (rows is not None and x.shape[0] != rows):
        fail(operator, name, x, f"[{letter}, ...]" + ("" if rows is None else f" with {letter} = {rows}"))


def check_reduce(operator: str, reduce: str) -> int:
    """Check a reduction's name and return its number."""
    code = REDUCTIONS.get(reduce)
    if code is None:
        fail(operator, "reduce", repr(reduce), ", ".join(REDUCTIONS))
    return code


def check_like(operator: str, name: str, x: Tensor, shape: tuple[int, ...], letters: str) -> None:
    """Check a tensor's whole shape."""
    if tuple(x.shape) != shape:
        fail(operator, name, x, f"{letters} = {list(shape)}")


def packed_rows(x: Tensor) -> bool:
    """Whether each row of `x` is one run of memory, wherever the next row starts."""
    if x.is_contiguous():
        return True
    if x.dim() == 0:
        return False
    expected = 1
    for size, stride in zip(reversed(x.shape[1:]), reversed(x.stride()[1:])):
        if size != 1 and stride != expected:
            return False
        expected *= size
    return True


def with_packed_rows(x: Tensor) -> Tensor:
    """The tensor itself if its rows are packed, else a contiguous copy."""
    return x if packed_rows(x) else x.contiguous()


def width(x: Tensor) -> int:
    """The elements of one row."""
    return math.prod(x.shape[1:])


def output(operator: str, out: Tensor | None, like: Tensor, shape: tuple[int, ...]) -> Tensor:
    """The tensor to write: a new one, or the caller's after a check."""
    if out is None:
        return empty(shape, like.dtype, like.device)
    check_out(operator, out, like, shape)
    return out


def check_out(operator: str, out: Tensor, like: Tensor, shape: tuple[int, ...]) -> None:
    """Check the caller's `out`."""
    same = tuple(out.shape) == shape and out.dtype == like.dtype and out.device == like.device
    if not same or not packed_rows(out):
        valid = f"{list(shape)}, {like.dtype}, on {like.device}, every row contiguous"
        fail(operator, "out", out, valid)
