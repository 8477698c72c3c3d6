"""Products of rows by a matrix: bias, addend and ReLU go into the store; matrices are packed once per run.

The kernel reads the rows where they lie. A row's result depends neither on the rows beside it nor on the number of
threads. It serves float32 and float64 on processors with AVX2 or AVX-512, where it was measured (docs/log.md); else
torch's products do. The choice depends on the processor and the types alone, so that two runs have the same bits.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from pyg_fullgraph.ops import reference
from pyg_fullgraph.ops.attention import place
from pyg_fullgraph.ops.backend import DTYPES, kernel, threads_or_default
from pyg_fullgraph.ops.check import REDUCTIONS, check_like, check_out, check_rows, fail, flat, output, with_packed_rows
from pyg_fullgraph.ops.message import Message

_ISAS = ("avx2", "avx512")
_TYPES = (torch.float32, torch.float64)


@dataclass(frozen=True)
class Matrices:
    """One matrix or several of one shape, as products read them.

    Attributes:
        given: [K, N] or [T, K, N], what was packed.
        packed: the panels, None where torch's products serve.
        panel: columns of a panel.
        inner, columns: K and N.
    """

    given: Tensor
    packed: Tensor | None
    panel: int
    inner: int
    columns: int


def pack(matrix: Tensor) -> Matrices:
    """A matrix [K, N], or several [T, K, N], packed for `linear` and its like; of any strides.

    Raises:
        OperatorError: a tensor of other dimensions.
    """
    if matrix.dim() not in (2, 3):
        fail("linear", "matrix", matrix, "[K, N] or [T, K, N]")
    module = kernel(matrix) if matrix.dtype in _TYPES else None
    if module is None or module.isa() not in _ISAS:
        return Matrices(matrix, None, 0, *matrix.shape[-2:])
    matrix = matrix.resolve_neg() if matrix.is_neg() else matrix
    several = matrix if matrix.dim() == 3 else matrix.unsqueeze(0)
    count, inner, columns = several.shape
    code = DTYPES[matrix.dtype]
    panel = module.linear_panel(code)
    packed = torch.empty(count * inner * -(-columns // panel) * panel, dtype=matrix.dtype)
    module.linear_pack(packed.data_ptr(), several.data_ptr(), *several.stride(), count, inner, columns, code)
    return Matrices(matrix, packed, panel, inner, columns)


def linear(
    x: Tensor,
    matrix: Matrices,
    bias: Tensor | None = None,
    add: Tensor | None = None,
    *,
    relu: bool = False,
    out: Tensor | None = None,
    threads: int | None = None,
) -> Tensor:
    """`out[r] = x[r] @ matrix + bias + add[r]`, then ReLU where asked for.

    Args:
        x: [R, K].
        matrix: of one matrix [K, N].
        bias: [N] or None.
        add: [R, N] or None; may be `out`.
        relu: whether to apply ReLU.
        out: where to write, [R, N], rows contiguous, not overlapping `x`; a new tensor if None.
        threads: how many threads to use; torch's number if None.

    Raises:
        OperatorError: an argument has a wrong shape or type.
    """
    check_rows("linear", "x", x, None, "R")
    rows, columns = x.shape[0], matrix.columns
    check_like("linear", "x", x, (rows, matrix.inner), "[R, K]")
    given = [x]
    if bias is not None:
        check_like("linear", "bias", bias, (columns,), "[N]")
        given.append(bias)
    if add is not None:
        check_like("linear", "add", add, (rows, columns), "[R, N]")
        given.append(add)
    module = _kernel(matrix, given)
    if module is None:
        return _by_torch(x, matrix.given, bias, add, relu, out)
    assert matrix.packed is not None
    x = with_packed_rows(x)
    result = output("linear", out, x, (rows, columns))
    bias = None if bias is None else flat(bias)
    add = None if add is None else with_packed_rows(add)
    module.linear(
        place(result), place(x), matrix.packed.data_ptr(), matrix.panel, 0, 0 if bias is None else bias.data_ptr(),
        place(add), rows, 1, matrix.inner, columns, DTYPES[x.dtype], int(relu), threads_or_default(threads),
    )  # fmt: skip
    return result


def linear_of_heads(
    x: Tensor, matrices: Matrices, which: Tensor, *, out: Tensor | None = None, threads: int | None = None
) -> Tensor:
    """`out[r, h] = x[r, h] @ matrices[which[h]]`.

    Args:
        x: [R, H, K].
        matrices: [T, K, N].
        which: int64 [H], contiguous, each in [0, T), which is not checked here.
        out: where to write, [R, H, N], rows contiguous, not overlapping `x`; a new tensor if None.
        threads: how many threads to use; torch's number if None.

    Raises:
        OperatorError: an argument has a wrong shape or type.
    """
    check_rows("linear_of_heads", "x", x, None, "R")
    heads = which.shape[0]
    check_like("linear_of_heads", "x", x, (x.shape[0], heads, matrices.inner), "[R, H, K]")
    shape = (x.shape[0], heads, matrices.columns)
    module = _kernel(matrices, [x])
    if module is None:
        target = x.new_empty(shape) if out is None else out
        for head, number in enumerate(which.tolist()):
            target[:, head] = x[:, head] @ matrices.given[number]
        return target
    assert matrices.packed is not None
    x = with_packed_rows(x)
    result = output("linear_of_heads", out, x, shape)
    module.linear(
        place(result), place(x), matrices.packed.data_ptr(), matrices.panel, which.data_ptr(), 0, (0, 0),
        shape[0], heads, matrices.inner, matrices.columns, DTYPES[x.dtype], 0, threads_or_default(threads),
    )  # fmt: skip
    return result


def edge_linear(
    x: Tensor,
    src: Tensor | None,
    rowptr: Tensor,
    matrix: Matrices,
    reduce: str,
    *,
    bias: Tensor | None = None,
    relu: bool = False,
    dst: Tensor | None = None,
    edge: Tensor | None = None,
    activation: str = "none",
    negative_slope: float = 0.0,
    shift: float = 0.0,
    out: Tensor | None = None,
    threads: int | None = None,
) -> Tensor:
    """`out[i] = reduce over e in row i of (m[e] @ matrix + bias)`, ReLU before the reduction where asked for.

    Neither the messages `m` nor their products are stored: a few edges at a time pass through the caches.

    Args:
        x, src, rowptr, dst, edge, activation, negative_slope, shift: the message, as in `ops.message`, [E, K].
        matrix: [K, N].
        reduce: "sum", "mean", "max" or "min"; a row without edges is 0.
        bias: [N] or None.
        relu: whether to apply ReLU.
        out: where to write, [B, N], rows contiguous, not overlapping an input; a new tensor if None.
        threads: how many threads to use; torch's number if None.

    Raises:
        OperatorError: an argument has a wrong shape, type or name.
    """
    given = Message("edge_linear", x, src, rowptr, dst, edge, None, activation, negative_slope, shift)
    check_like("edge_linear", "x", x, (x.shape[0], matrix.inner), "[N, K]")
    if bias is not None:
        check_like("edge_linear", "bias", bias, (matrix.columns,), "[N]")
    if reduce not in ("sum", "mean", "max", "min"):
        fail("edge_linear", "reduce", repr(reduce), "sum, mean, max, min")
    module = given.kernel()
    if module is None or _kernel(matrix, [x] if bias is None else [x, bias]) is None:
        formed = reference.message(*given.arguments(), **given.options())
        made = reference.segment_reduce(_by_torch(formed, matrix.given, bias, None, relu, None), rowptr, reduce)
        return made if out is None else out.copy_(made)
    assert matrix.packed is not None
    given = given.packed()
    result = output("edge_linear", out, x, (given.rows, matrix.columns))
    bias = None if bias is None else flat(bias)
    module.edge_linear(
        place(result), given.described(module), matrix.packed.data_ptr(), matrix.panel,
        0 if bias is None else bias.data_ptr(), matrix.columns, int(relu), REDUCTIONS[reduce],
        threads_or_default(threads),
    )  # fmt: skip
    return result


def _kernel(matrix: Matrices, tensors: Sequence[Tensor]) -> Any:
    """The extension where its kernel takes these, packed and all of one type; else None."""
    if matrix.packed is None:
        return None
    for tensor in tensors:
        if tensor.dtype is not matrix.packed.dtype:
            return None
    return kernel(*tensors)


def _by_torch(
    x: Tensor, matrix: Tensor, bias: Tensor | None, add: Tensor | None, relu: bool, out: Tensor | None
) -> Tensor:
    """The definition, in plain torch."""
    if out is not None:
        check_out("linear", out, x, (x.shape[0], matrix.shape[1]))
    if add is not None:
        made = torch.addmm(add, x, matrix) if out is None else torch.addmm(add, x, matrix, out=out)
        made = made if bias is None else made.add_(bias)
    elif bias is not None:
        made = torch.addmm(bias, x, matrix) if out is None else torch.addmm(bias, x, matrix, out=out)
    else:
        made = torch.mm(x, matrix) if out is None else torch.mm(x, matrix, out=out)
    return made.relu_() if relu else made
