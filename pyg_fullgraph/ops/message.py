"""Messages of a source row, a destination row and an edge row: written out, or reduced without being stored.

The message of an edge e of row i is, column by column,

    m[e] = activation(x[src[e]] + dst[i] + edge[e]) + shift

which is what is left of `Linear(cat[x_i, x_j, e])` once its three parts are computed at their own nodes and edges.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from pyg_fullgraph.ops import reference
from pyg_fullgraph.ops.attention import kernel_of_one_type, place
from pyg_fullgraph.ops.backend import DTYPES, INDICES, kernel, threads_or_default
from pyg_fullgraph.ops.check import (
    check_edges,
    check_index,
    check_like,
    check_rowptr,
    check_rows,
    check_together,
    fail,
    flat,
    output,
    width,
    with_packed_rows,
)
from pyg_fullgraph.ops.gather import keep
from pyg_fullgraph.ops.reduce import IDENTITY

ACTIVATIONS = {"none": 0, "relu": 1, "leaky_relu": 2}
REDUCES = {"sum": 0, "mean": 1, "max": 2, "min": 3, "square_sum": 4, "square_mean": 5}


def message(
    x: Tensor,
    src: Tensor | None,
    rowptr: Tensor,
    *,
    dst: Tensor | None = None,
    edge: Tensor | None = None,
    activation: str = "none",
    negative_slope: float = 0.0,
    shift: float = 0.0,
    out: Tensor | None = None,
    threads: int | None = None,
) -> Tensor:
    """The messages of all edges in one pass: `out[e] = activation(x[src[e]] + dst[i] + edge[e]) + shift`.

    The sum is taken from left to right; float16 and bfloat16 are computed in float32 and rounded once.

    Args:
        x: [N, ...], or [E, ...] where `src` is None; rows may be strided.
        src: int32 or int64 [E], every value in [0, N) (not checked here); None: edge e reads row e.
        rowptr: int64 [B + 1].
        dst: None or [B, ...], of x's type and trailing shape: the rows of exactly these destinations.
        edge: None or [E, ...], of x's type and trailing shape.
        activation: "none", "relu" or "leaky_relu".
        negative_slope: the leaky_relu's slope below zero.
        shift: added after the activation.
        out: where to write, [E, ...], rows contiguous, not overlapping an input; a new tensor if None.
        threads: how many threads to use; torch's number if None.

    Returns:
        [E, ...] of x's type.

    Raises:
        OperatorError: an argument has a wrong shape, type or name.
    """
    given = Message("message", x, src, rowptr, dst, edge, None, activation, negative_slope, shift)
    if torch.compiler.is_compiling():
        return keep("message", torch.ops.pyg_fullgraph.message(*given.arguments(), **given.options()), out)
    module = given.kernel()
    if module is None:
        return keep("message", reference.message(*given.arguments(), **given.options()), out)
    given = given.packed()
    result = output("message", out, x, (given.edges, *x.shape[1:]))
    module.message(place(result), given.described(module), threads_or_default(threads))
    return result


def message_reduce(
    x: Tensor,
    src: Tensor | None,
    rowptr: Tensor,
    reduces: Sequence[str],
    *,
    dst: Tensor | None = None,
    edge: Tensor | None = None,
    activation: str = "none",
    negative_slope: float = 0.0,
    shift: float = 0.0,
    weight: Tensor | None = None,
    outs: Sequence[Tensor] | None = None,
    threads: int | None = None,
) -> tuple[Tensor, ...]:
    """Several reductions of one message in one pass: `outs[k][i] = reduces[k] over e in row i of weight[e] * m[e]`.

    `m[e] = activation(x[src[e]] + dst[i] + edge[e]) + shift` is never stored. The aggregations of PNA (Corso et al.,
    NeurIPS'20: mean, max, min and, by the mean of squares, std) read the source rows once instead of four times.

    Args:
        x, src, rowptr, dst, edge, activation, negative_slope, shift: the message, as in `message`.
        reduces: distinct names out of "sum", "mean", "max", "min", "square_sum" and "square_mean" (of the squares of
            the messages), in any order. A row without edges gives 0; NaN propagates through all of them.
        weight: None or [E], of x's type.
        outs: where to write, one [B, ...] per name, rows contiguous, overlapping neither an input nor each other;
            new tensors if None.
        threads: how many threads to use; torch's number if None.

    Returns:
        One [B, ...] of x's type per name.

    Raises:
        OperatorError: an argument has a wrong shape, type or name.
    """
    given = Message("message_reduce", x, src, rowptr, dst, edge, weight, activation, negative_slope, shift)
    names = check_reduces(reduces)
    into: Sequence[Tensor | None] = [None] * len(names) if outs is None else outs
    if len(into) != len(names):
        fail("message_reduce", "outs", f"{len(into)} tensors", f"one for each of the {len(names)} reductions")
    options = given.options() | {"weight": weight}
    if torch.compiler.is_compiling():
        results = torch.ops.pyg_fullgraph.message_reduce(*given.arguments(), ",".join(names), **options)
        return tuple(keep("message_reduce", result, out) for result, out in zip(results, into))
    module = given.kernel()
    if module is None:
        results = reference.message_reduce(*given.arguments(), names, **options)
        return tuple(keep("message_reduce", result, out) for result, out in zip(results, into))
    given = given.packed()
    kept = tuple(output("message_reduce", out, x, (given.rows, *x.shape[1:])) for out in into)
    places = [place(None)] * len(REDUCES)
    for name, result in zip(names, kept):
        places[REDUCES[name]] = place(result)
    module.aggregate(places, given.described(module), 0, threads_or_default(threads))
    return kept


def softmax_reduce(
    x: Tensor,
    src: Tensor | None,
    rowptr: Tensor,
    scale: float | Tensor,
    *,
    dst: Tensor | None = None,
    edge: Tensor | None = None,
    activation: str = "none",
    negative_slope: float = 0.0,
    shift: float = 0.0,
    out: Tensor | None = None,
    threads: int | None = None,
) -> Tensor:
    """Softmax aggregation of messages (GENConv; Li et al., "DeeperGCN", 2020), each column by itself.

    `out[i, c] = sum over e in row i of softmax(scale[c] * m[:, c])[e] * m[e, c]` with `m[e] = activation(x[src[e]] +
    dst[i] + edge[e]) + shift`, and the softmax over the edges of the row as in `segment_softmax`.

    Args:
        x, src, rowptr, dst, edge, activation, negative_slope, shift: the message, as in `message`.
        scale: the inverse temperature: a float, or a tensor that broadcasts to x's trailing shape; taken in the type
            that messages are computed in.
        out: where to write, [B, ...], rows contiguous, not overlapping an input; a new tensor if None.
        threads: how many threads to use; torch's number if None.

    Returns:
        [B, ...] of x's type; rows without edges are 0.

    Raises:
        OperatorError: an argument has a wrong shape, type or name.
    """
    given = Message("softmax_reduce", x, src, rowptr, dst, edge, None, activation, negative_slope, shift)
    columns = check_scale(x, scale)
    options = given.options()
    if torch.compiler.is_compiling():
        result = torch.ops.pyg_fullgraph.softmax_reduce(*given.arguments(), columns, **options)
        return keep("softmax_reduce", result, out)
    module = given.kernel()
    if module is None or (isinstance(scale, Tensor) and kernel(scale) is None):
        return keep("softmax_reduce", reference.softmax_reduce(*given.arguments(), columns, **options), out)
    given = given.packed()
    result = output("softmax_reduce", out, x, (given.rows, *x.shape[1:]))
    columns = flat(columns.expand(x.shape[1:]))
    places = [place(result), *[place(None)] * (len(REDUCES) - 1)]
    module.aggregate(places, given.described(module), columns.data_ptr(), threads_or_default(threads))
    return result


@dataclass(frozen=True)
class Message:
    """What the messages of one call are made of, checked."""

    operator: str
    x: Tensor
    src: Tensor | None
    rowptr: Tensor
    dst: Tensor | None
    edge: Tensor | None
    weight: Tensor | None
    activation: str
    negative_slope: float
    shift: float

    def __post_init__(self) -> None:
        """Check types and shapes."""
        check_rowptr(self.operator, self.rowptr)
        if self.src is not None:
            check_index(self.operator, "src", self.src)
        check_rows(self.operator, "x", self.x, None, "E" if self.src is None else "N")
        columns = tuple(self.x.shape[1:])
        if self.dst is not None:
            check_like(self.operator, "dst", self.dst, (self.rows, *columns), "[B, ...]")
        if self.edge is not None:
            check_like(self.operator, "edge", self.edge, (self.edges, *columns), "[E, ...]")
        if self.weight is not None:
            check_like(self.operator, "weight", self.weight, (self.edges,), "[E]")
        if self.activation not in ACTIVATIONS:
            fail(self.operator, "activation", repr(self.activation), ", ".join(ACTIVATIONS))

    @property
    def rows(self) -> int:
        """B."""
        return self.rowptr.shape[0] - 1

    @property
    def edges(self) -> int:
        """E, as the edge arrays tell it."""
        return self.x.shape[0] if self.src is None else self.src.shape[0]

    def tensors(self) -> list[Tensor]:
        """All that must be of x's type."""
        return [tensor for tensor in (self.x, self.dst, self.edge, self.weight) if tensor is not None]

    def arguments(self) -> tuple[Tensor, Tensor | None, Tensor]:
        """The positional arguments of the operators."""
        return self.x, self.src, self.rowptr

    def options(self) -> dict[str, Any]:
        """The options that all of them share."""
        return {
            "dst": self.dst,
            "edge": self.edge,
            "activation": self.activation,
            "negative_slope": self.negative_slope,
            "shift": self.shift,
        }

    def kernel(self) -> Any:
        """The extension if its kernels serve, else None, after the check that the edges are those of the rows."""
        module = kernel_of_one_type(self.tensors(), at=(self.src, self.rowptr))
        name, got = ("x", self.x) if self.src is None else ("src", self.src)
        more = {"x": self.x, "dst": self.dst, "edge": self.edge, "weight": self.weight}
        check_edges(self.operator, name, got, self.rowptr, module, **more)
        return module

    def packed(self) -> Message:
        """The same in the layout that kernels read."""
        return Message(
            self.operator,
            with_packed_rows(self.x),
            None if self.src is None else flat(self.src),
            self.rowptr,
            None if self.dst is None else with_packed_rows(self.dst),
            None if self.edge is None else with_packed_rows(self.edge),
            None if self.weight is None else flat(self.weight),
            self.activation,
            self.negative_slope,
            self.shift,
        )

    def described(self, module: Any) -> Any:
        """The extension's description, of addresses: it lives no longer than these tensors."""
        src, index = (0, IDENTITY) if self.src is None else (self.src.data_ptr(), INDICES[self.src.dtype])
        return module.Message(
            place(self.x), place(self.dst), place(self.edge), 0 if self.weight is None else self.weight.data_ptr(),
            DTYPES[self.x.dtype], src, index, self.rowptr.data_ptr(), self.rows, width(self.x),
            ACTIVATIONS[self.activation], self.negative_slope, self.shift,
        )  # fmt: skip


def check_reduces(reduces: Sequence[str]) -> tuple[str, ...]:
    """Check the names of reductions."""
    names = () if isinstance(reduces, str) else tuple(reduces)
    if not names or len(set(names)) != len(names) or not set(names) <= set(REDUCES):
        fail("message_reduce", "reduces", repr(reduces), f"a tuple of distinct names out of {', '.join(REDUCES)}")
    return names


def check_scale(x: Tensor, scale: float | Tensor) -> Tensor:
    """The scale as a tensor in the type messages are computed in, after a check that it broadcasts to x's columns."""
    wide = reference.wide_type(x.dtype)
    if not isinstance(scale, Tensor):
        return torch.full((), scale, dtype=wide, device=x.device)
    check_together("softmax_reduce", x=x, scale=scale)
    if scale.numel() == 1:
        return scale.to(wide).reshape(())
    columns = x.shape[1:]
    fits = scale.dim() <= len(columns) and all(
        size in (1, column) for size, column in zip(reversed(scale.shape), reversed(columns))
    )
    if not fits:
        fail("softmax_reduce", "scale", scale, f"a float, or what broadcasts to x's columns {list(columns)}")
    return scale.to(wide)
