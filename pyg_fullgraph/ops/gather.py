"""Node to edge: `gather` (by source) and `repeat` (by destination)."""

from __future__ import annotations

import torch
from torch import Tensor

from pyg_fullgraph.ops import reference
from pyg_fullgraph.ops.backend import INDICES, PLAIN, load, threads_or_default
from pyg_fullgraph.ops.check import (
    RISES,
    check_index,
    check_out,
    check_rises,
    check_rowptr,
    check_rows,
    check_together,
    fail,
    flat,
    output,
    shown,
    width,
    with_packed_rows,
)


def copies(*tensors: Tensor) -> bool:
    """Whether plain copies of these tensors' rows will do: on the CPU, no gradient wanted. Any type."""
    for x in tensors:
        if type(x) not in PLAIN or not x.is_cpu or x.layout is not torch.strided:
            return False
        if x.requires_grad and torch.is_grad_enabled():
            return False
    return True


def gather(x: Tensor, index: Tensor, *, out: Tensor | None = None, threads: int | None = None) -> Tensor:
    """Take rows of `x` by number: `out[e] = x[index[e]]`.

    Args:
        x: [N, ...], any type.
        index: int32 or int64 [E]; every value must be in [0, N), which is not checked here.
        out: where to write, [E, ...], rows contiguous, not overlapping `x`; a new tensor if None.
        threads: how many threads to use; torch's number if None.

    Returns:
        [E, ...] of x's type.

    Raises:
        OperatorError: an argument has a wrong shape or type.
    """
    check_index("gather", "index", index)
    check_rows("gather", "x", x, None, "N")
    if torch.compiler.is_compiling():
        return keep("gather", torch.ops.pyg_fullgraph.gather(x, index), out)
    module = load().module if copies(x, index) else None
    if module is None:
        check_together("gather", x=x, index=index)
        return keep("gather", reference.gather(x, index), out)
    x, index = with_packed_rows(shown(x)), flat(index)
    result = output("gather", out, x, (index.numel(), *x.shape[1:]))
    size = x.element_size()
    module.gather(
        result.data_ptr(), result.stride(0) * size, x.data_ptr(), x.stride(0) * size, width(x) * size,
        index.data_ptr(), INDICES[index.dtype], index.numel(), threads_or_default(threads),
    )  # fmt: skip
    return result


def repeat(x: Tensor, rowptr: Tensor, *, out: Tensor | None = None, threads: int | None = None) -> Tensor:
    """Give every edge its destination's row: row i of `x`, once for each of its edges.

    Args:
        x: [B, ...], any type.
        rowptr: int64 [B + 1].
        out: where to write, [E, ...], rows contiguous, not overlapping `x`; a new tensor if None.
        threads: how many threads to use; torch's number if None.

    Returns:
        [E, ...] of x's type, E = rowptr[-1] - rowptr[0].

    Raises:
        OperatorError: an argument has a wrong shape or type.
    """
    rows = check_rowptr("repeat", rowptr)
    check_rows("repeat", "x", x, rows, "B")
    if torch.compiler.is_compiling():
        return keep("repeat", torch.ops.pyg_fullgraph.repeat(x, rowptr), out)
    module = load().module if copies(x, rowptr) else None
    if module is None:
        check_together("repeat", x=x, rowptr=rowptr)
        check_rises("repeat", rowptr)
        return keep("repeat", reference.repeat(x, rowptr), out)
    x = with_packed_rows(shown(x))
    edges = module.count_edges(rowptr.data_ptr(), rows)
    if edges < 0:
        fail("repeat", "rowptr", rowptr, RISES)
    result = output("repeat", out, x, (edges, *x.shape[1:]))
    size = x.element_size()
    module.repeat(
        result.data_ptr(), result.stride(0) * size, x.data_ptr(), x.stride(0) * size, width(x) * size,
        rowptr.data_ptr(), rows, threads_or_default(threads),
    )  # fmt: skip
    return result


def keep(operator: str, result: Tensor, out: Tensor | None) -> Tensor:
    """A reference's result, copied into the caller's `out` if there is one."""
    if out is None:
        return result
    check_out(operator, out, result, tuple(result.shape))
    return out.copy_(result)
