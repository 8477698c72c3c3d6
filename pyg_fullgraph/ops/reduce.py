"""Edge to node: `segment_reduce` (of edge values) and `gather_reduce` (of weighted source rows, never stored)."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from pyg_fullgraph.ops import reference
from pyg_fullgraph.ops.backend import DTYPES, INDICES, kernel, threads_or_default
from pyg_fullgraph.ops.check import (
    check_edges,
    check_index,
    check_reduce,
    check_rowptr,
    check_rows,
    fail,
    flat,
    output,
    width,
    with_packed_rows,
)
from pyg_fullgraph.ops.gather import keep

IDENTITY = 2  # the kernels' index type for "edge e reads row e"


def segment_reduce(
    value: Tensor, rowptr: Tensor, reduce: str, *, out: Tensor | None = None, threads: int | None = None
) -> Tensor:
    """Reduce the values of each row's edges: `out[i] = reduce over e in row i of value[e]`.

    A row without edges gives 0 (1 for `mul`). NaN propagates through every reduction, as in `torch.amax`.

    Args:
        value: [E, ...]; float32, float64, or float16 and bfloat16 (accumulated in float32) are served by kernels.
        rowptr: int64 [B + 1].
        reduce: "sum", "mean", "max", "min" or "mul".
        out: where to write, [B, ...], rows contiguous, not overlapping `value`; a new tensor if None.
        threads: how many threads to use; torch's number if None.

    Returns:
        [B, ...] of value's type.

    Raises:
        OperatorError: an argument has a wrong shape, type or name.
    """
    rows = check_rowptr("segment_reduce", rowptr)
    code = check_reduce("segment_reduce", reduce)
    check_rows("segment_reduce", "value", value, None, "E")
    if torch.compiler.is_compiling():
        return keep("segment_reduce", torch.ops.pyg_fullgraph.segment_reduce(value, rowptr, reduce), out)
    module = kernel(value, at=(rowptr,))
    check_edges("segment_reduce", "value", value, rowptr, module)
    if module is None:
        return keep("segment_reduce", reference.segment_reduce(value, rowptr, reduce), out)
    value = with_packed_rows(value)
    result = output("segment_reduce", out, value, (rows, *value.shape[1:]))
    module.gather_reduce(
        result.data_ptr(), result.stride(0), value.data_ptr(), value.stride(0), DTYPES[value.dtype],
        0, IDENTITY, rowptr.data_ptr(), rows, 0, 1, width(value), code, threads_or_default(threads),
    )  # fmt: skip
    return result


def gather_reduce(
    x: Tensor,
    src: Tensor,
    rowptr: Tensor,
    weight: Tensor | None = None,
    reduce: str = "sum",
    *,
    out: Tensor | None = None,
    threads: int | None = None,
) -> Tensor:
    """Reduce weighted source rows: `out[i, h] = reduce over e in row i of weight[e, h] * x[src[e], h]`.

    The messages are never stored; one pass over the edges keeps a block of columns in registers and prefetches the
    rows of later edges, as GE-SpMM (Huang et al., SC'20) and DGL's LibxSMM kernels do.

    Args:
        x: [N, ...], or [N, H, ...] with a weight per head; rows may be strided.
        src: int32 or int64 [E]; every value must be in [0, N), which is not checked here.
        rowptr: int64 [B + 1].
        weight: None, [E], or [E, H]; of x's type, else torch's type promotion decides and the reference serves.
        reduce: "sum", "mean" (the sum over the number of edges), "max", "min" or "mul"; rows without edges as in
            `segment_reduce`.
        out: where to write, [B, ...], rows contiguous, not overlapping `x`; a new tensor if None.
        threads: how many threads to use; torch's number if None.

    Returns:
        [B, ...] of x's type.

    Raises:
        OperatorError: an argument has a wrong shape, type or name.
    """
    rows = check_rowptr("gather_reduce", rowptr)
    code = check_reduce("gather_reduce", reduce)
    check_index("gather_reduce", "src", src)
    check_rows("gather_reduce", "x", x, None, "N")
    heads = check_weight(x, src, weight)
    if torch.compiler.is_compiling():
        result = torch.ops.pyg_fullgraph.gather_reduce(x, src, rowptr, weight, reduce)
        return keep("gather_reduce", result, out)
    module = kernel(x, at=(src, rowptr)) if weight is None else kernel(x, weight, at=(src, rowptr))
    check_edges("gather_reduce", "src", src, rowptr, module, x=x, weight=weight)
    if module is None or (weight is not None and weight.dtype != x.dtype):
        return keep("gather_reduce", reference.gather_reduce(x, src, rowptr, weight, reduce), out)
    x, src = with_packed_rows(x), flat(src)
    weight = None if weight is None else flat(weight)
    result = output("gather_reduce", out, x, (rows, *x.shape[1:]))
    channels = width(x) if heads == 1 else math.prod(x.shape[2:])
    module.gather_reduce(
        result.data_ptr(), result.stride(0), x.data_ptr(), x.stride(0), DTYPES[x.dtype],
        src.data_ptr(), INDICES[src.dtype], rowptr.data_ptr(), rows,
        0 if weight is None else weight.data_ptr(), heads, channels, code, threads_or_default(threads),
    )  # fmt: skip
    return result


def check_weight(x: Tensor, src: Tensor, weight: Tensor | None) -> int:
    """Check the weight's shape and return the number of heads it tells apart."""
    if weight is None:
        return 1
    if tuple(weight.shape) == (src.shape[0],):
        return 1
    if x.dim() >= 2 and tuple(weight.shape) == (src.shape[0], x.shape[1]):
        return x.shape[1]
    shapes = f"[E] = [{src.shape[0]}]" + (f" or [E, H] = [{src.shape[0]}, {x.shape[1]}]" if x.dim() >= 2 else "")
    fail("gather_reduce", "weight", weight, f"None, {shapes}")
