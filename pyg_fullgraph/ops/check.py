"""The door through which every tensor enters a kernel: types, shapes, layouts, devices and lazy signs.

Cheap enough for every block. The values of indices are not looked at here (a graph is validated once, when it is
made; `ops.checked` looks at those of a user's call). That `rowptr` never decreases is checked by the extension, which
reads it anyway. A tensor may be a view with a lazy minus sign or a lazy conjugate: its memory then holds other values
than torch shows, so whatever is read by address comes out of `with_packed_rows` or `flat`.
"""

from __future__ import annotations

import math
from typing import Any, NoReturn

import torch
from torch import Tensor

from pyg_fullgraph.errors import OperatorError
from pyg_fullgraph.ops.backend import INDICES, PLAIN
from pyg_fullgraph.ops.memory import empty

MOST_ROWS = 1 << 62
RISES = "values that never decrease"
REDUCTIONS = {"sum": 0, "mean": 1, "max": 2, "min": 3, "mul": 4}


def fail(operator: str, argument: str, got: object, valid: str) -> NoReturn:
    """Raise the error for a wrong argument: its name, what was got, what is valid."""
    if isinstance(got, Tensor):
        layout = "" if got.layout is torch.strided else f", {got.layout}"
        lazy = ", a lazily negated or conjugated view" if got.is_neg() or got.is_conj() else ""
        got = f"a tensor of shape {list(got.shape)}, {got.dtype}, on {got.device}{layout}{lazy}"
    raise OperatorError(f"{operator}: `{argument}` is {got}; valid: {valid}")


def check_rowptr(operator: str, rowptr: Tensor) -> int:
    """Check `rowptr` and return the number of rows B."""
    fine = rowptr.dtype == torch.int64 and rowptr.layout is torch.strided and rowptr.dim() == 1
    if not fine or rowptr.numel() == 0 or not rowptr.is_contiguous():
        fail(operator, "rowptr", rowptr, "a contiguous int64 tensor [B + 1] that starts each row's edges")
    return rowptr.numel() - 1


def check_count(operator: str, name: str, count: int) -> None:
    """Check a number of rows."""
    if type(count) is not int and (isinstance(count, torch.SymInt) or torch.compiler.is_compiling()):
        return
    if isinstance(count, bool) or not isinstance(count, int) or not 0 <= count < MOST_ROWS:
        fail(operator, name, repr(count), "a whole number of rows, at least 0")


def check_together(operator: str, **tensors: Tensor | None) -> None:
    """Check, where no kernel serves, that all tensors of a call are strided and on one device."""
    given = [(name, tensor) for name, tensor in tensors.items() if tensor is not None]
    first, like = given[0]
    for name, tensor in given:
        if tensor.layout is not torch.strided:
            fail(operator, name, tensor, "a dense tensor")
        if tensor.device != like.device:
            fail(operator, name, tensor, f"a tensor on {like.device}, where `{first}` is")


def check_edges(operator: str, name: str, edges: Tensor, rowptr: Tensor, module: Any, **others: Tensor | None) -> None:
    """Check that the edge arrays are those of these rows, and that no row ends before it starts.

    Args:
        edges: the edge array `name`, [E, ...].
        module: the extension if it serves, which has looked at all tensors; None for the reference.
        others: the other tensors of the call.
    """
    if module is None:
        check_together(operator, **{"rowptr": rowptr, name: edges, **others})
    if rowptr.is_neg() or rowptr.is_meta:
        fail(operator, "rowptr", rowptr, "a contiguous int64 tensor [B + 1] whose memory holds its values")
    if module is not None:
        fine = module.count_edges(rowptr.data_ptr(), rowptr.numel() - 1) == edges.shape[0]
    elif type(rowptr) in PLAIN:
        fine = bool((rowptr.diff() >= 0).all()) and int(rowptr[-1]) - int(rowptr[0]) == edges.shape[0]
    else:
        return  # a fake tensor: there are no values to look at
    if not fine:
        first, last = int(rowptr[0]), int(rowptr[-1])
        valid = (
            f"[E, ...] with E = rowptr[-1] - rowptr[0] = {last} - {first} = {last - first}, and rowptr never "
            "decreasing (pass the edges of exactly these rows)"
        )
        fail(operator, name, edges, valid)


def check_rises(operator: str, rowptr: Tensor) -> None:
    """Check, for the reference, that no row ends before it starts."""
    if type(rowptr) in PLAIN and not bool((rowptr.diff() >= 0).all()):
        fail(operator, "rowptr", rowptr, RISES)


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


def shown(x: Tensor) -> Tensor:
    """A tensor of any type itself if its memory holds its values, else a copy that does (a lazy conjugate)."""
    return x.resolve_conj() if x.is_conj() else x


def with_packed_rows(x: Tensor) -> Tensor:
    """The tensor itself if its rows are packed and hold its values, else a contiguous copy."""
    if x.is_neg():
        x = x.resolve_neg()
    return x if packed_rows(x) else x.contiguous()


def flat(x: Tensor) -> Tensor:
    """The tensor itself if it is contiguous and holds its values, else a contiguous copy."""
    return (x.resolve_neg() if x.is_neg() else x).contiguous()


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
    if not same or not packed_rows(out) or out.is_neg() or out.is_conj():
        valid = f"{list(shape)}, {like.dtype}, on {like.device}, every row contiguous"
        fail(operator, "out", out, valid)
