"""The operators under torch.library as `torch.ops.pyg_fullgraph.*`, with fake kernels.

For tracing and `torch.compile`, which then see opaque operators; the plain functions are about ten times cheaper to
call.
"""

from __future__ import annotations

from typing import List  # noqa: UP035  torch 2.6 makes no schema of list[Tensor]

import torch
from torch import Tensor

from pyg_fullgraph.ops import checked, trusted, vocabulary
from pyg_fullgraph.ops.reference import wide_type


@torch.library.custom_op("pyg_fullgraph::gather", mutates_args=())
def gather(x: Tensor, index: Tensor) -> Tensor:
    """`ops.gather`."""
    return checked.gather(x, index)


@gather.register_fake
def _(x: Tensor, index: Tensor) -> Tensor:
    return x.new_empty((index.shape[0], *x.shape[1:]))


@torch.library.custom_op("pyg_fullgraph::repeat", mutates_args=())
def repeat(x: Tensor, rowptr: Tensor) -> Tensor:
    """`ops.repeat`."""
    return trusted.repeat(x, rowptr)


@repeat.register_fake
def _(x: Tensor, rowptr: Tensor) -> Tensor:
    edges = torch.library.get_ctx().new_dynamic_size()
    return x.new_empty((edges, *x.shape[1:]))


@torch.library.custom_op("pyg_fullgraph::segment_reduce", mutates_args=())
def segment_reduce(value: Tensor, rowptr: Tensor, reduce: str) -> Tensor:
    """`ops.segment_reduce`."""
    return trusted.segment_reduce(value, rowptr, reduce)


@segment_reduce.register_fake
def _(value: Tensor, rowptr: Tensor, reduce: str) -> Tensor:
    return value.new_empty((rowptr.shape[0] - 1, *value.shape[1:]))


@torch.library.custom_op("pyg_fullgraph::segment_softmax", mutates_args=())
def segment_softmax(score: Tensor, rowptr: Tensor) -> Tensor:
    """`ops.segment_softmax`."""
    return trusted.segment_softmax(score, rowptr)


@segment_softmax.register_fake
def _(score: Tensor, rowptr: Tensor) -> Tensor:
    return score.new_empty(score.shape)


@torch.library.custom_op("pyg_fullgraph::gather_reduce", mutates_args=())
def gather_reduce(x: Tensor, src: Tensor, rowptr: Tensor, weight: Tensor | None = None, reduce: str = "sum") -> Tensor:
    """`ops.gather_reduce`."""
    return checked.gather_reduce(x, src, rowptr, weight, reduce)


@gather_reduce.register_fake
def _(x: Tensor, src: Tensor, rowptr: Tensor, weight: Tensor | None = None, reduce: str = "sum") -> Tensor:
    dtype = x.dtype if weight is None or weight.dtype == x.dtype else promoted(x, weight)
    return x.new_empty((rowptr.shape[0] - 1, *x.shape[1:]), dtype=dtype)


def promoted(x: Tensor, weight: Tensor) -> torch.dtype:
    """The result's type where x and weight differ, as the reference gives it."""
    half = (torch.float16, torch.bfloat16)
    return x.dtype if x.dtype in half else torch.promote_types(x.dtype, wide_type(weight.dtype))


@torch.library.custom_op("pyg_fullgraph::attention", mutates_args=())
def attention(value: Tensor, src: Tensor, rowptr: Tensor, score: Tensor) -> Tensor:
    """`ops.attention`."""
    return checked.attention(value, src, rowptr, score)


@torch.library.custom_op("pyg_fullgraph::attention_additive", mutates_args=())
def attention_additive(
    value: Tensor,
    src: Tensor,
    rowptr: Tensor,
    score_src: Tensor,
    score_dst: Tensor,
    score_edge: Tensor | None = None,
    negative_slope: float = 0.2,
) -> Tensor:
    """`ops.attention_additive`."""
    return checked.attention_additive(value, src, rowptr, score_src, score_dst, score_edge, negative_slope)


@torch.library.custom_op("pyg_fullgraph::attention_gatv2", mutates_args=())
def attention_gatv2(
    value: Tensor,
    src: Tensor,
    rowptr: Tensor,
    key: Tensor,
    query: Tensor,
    att: Tensor,
    key_edge: Tensor | None = None,
    negative_slope: float = 0.2,
) -> Tensor:
    """`ops.attention_gatv2`."""
    return checked.attention_gatv2(value, src, rowptr, key, query, att, key_edge, negative_slope)


@torch.library.custom_op("pyg_fullgraph::attention_dot", mutates_args=())
def attention_dot(value: Tensor, src: Tensor, rowptr: Tensor, key: Tensor, query: Tensor, scale: float) -> Tensor:
    """`ops.attention_dot`."""
    return checked.attention_dot(value, src, rowptr, key, query, scale)


@attention.register_fake
@attention_additive.register_fake
@attention_gatv2.register_fake
@attention_dot.register_fake
def _(value: Tensor, src: Tensor, rowptr: Tensor, scored: Tensor, *rest: object, **more: object) -> Tensor:
    heads = scored.shape[1] if value.dim() == 3 and value.shape[1] == 1 else value.shape[1]
    return value.new_empty((rowptr.shape[0] - 1, heads, *value.shape[2:]))


@torch.library.custom_op("pyg_fullgraph::edge_dot", mutates_args=())
def edge_dot(key: Tensor, src: Tensor | None, query: Tensor, rowptr: Tensor, scale: float = 1.0) -> Tensor:
    """`ops.edge_dot`."""
    return checked.edge_dot(key, src, query, rowptr, scale)


@edge_dot.register_fake
def _(key: Tensor, src: Tensor | None, query: Tensor, rowptr: Tensor, scale: float = 1.0) -> Tensor:
    return key.new_empty((edges_of(key, src), key.shape[1]))


def edges_of(x: Tensor, src: Tensor | None) -> int:
    """The number of edges: that of source rows, or of x's rows where edge e reads row e."""
    return x.shape[0] if src is None else src.shape[0]


@torch.library.custom_op("pyg_fullgraph::message", mutates_args=())
def message(
    x: Tensor,
    src: Tensor | None,
    rowptr: Tensor,
    dst: Tensor | None = None,
    edge: Tensor | None = None,
    activation: str = "none",
    negative_slope: float = 0.0,
    shift: float = 0.0,
) -> Tensor:
    """`ops.message`."""
    return checked.message(
        x, src, rowptr,
        dst=dst, edge=edge, activation=activation, negative_slope=negative_slope, shift=shift,
    )  # fmt: skip


@message.register_fake
def _(x: Tensor, src: Tensor | None, rowptr: Tensor, *rest: object, **more: object) -> Tensor:
    return x.new_empty((edges_of(x, src), *x.shape[1:]))


@torch.library.custom_op("pyg_fullgraph::message_reduce", mutates_args=())
def message_reduce(
    x: Tensor,
    src: Tensor | None,
    rowptr: Tensor,
    reduces: str,
    dst: Tensor | None = None,
    edge: Tensor | None = None,
    activation: str = "none",
    negative_slope: float = 0.0,
    shift: float = 0.0,
    weight: Tensor | None = None,
) -> List[Tensor]:  # noqa: UP006
    """`ops.message_reduce`, the names of the reductions with commas between them (schemas know no list of strings)."""
    return list(
        checked.message_reduce(
            x, src, rowptr, reduces.split(","),
            dst=dst, edge=edge, activation=activation, negative_slope=negative_slope, shift=shift, weight=weight,
        )
    )  # fmt: skip


@message_reduce.register_fake
def _(x: Tensor, src: Tensor | None, rowptr: Tensor, reduces: str, *rest: object, **more: object) -> list[Tensor]:
    return [x.new_empty((rowptr.shape[0] - 1, *x.shape[1:])) for _ in reduces.split(",")]


@torch.library.custom_op("pyg_fullgraph::softmax_reduce", mutates_args=())
def softmax_reduce(
    x: Tensor,
    src: Tensor | None,
    rowptr: Tensor,
    scale: Tensor,
    dst: Tensor | None = None,
    edge: Tensor | None = None,
    activation: str = "none",
    negative_slope: float = 0.0,
    shift: float = 0.0,
) -> Tensor:
    """`ops.softmax_reduce`, the scale always a tensor."""
    return checked.softmax_reduce(
        x, src, rowptr, scale,
        dst=dst, edge=edge, activation=activation, negative_slope=negative_slope, shift=shift,
    )  # fmt: skip


@softmax_reduce.register_fake
def _(x: Tensor, src: Tensor | None, rowptr: Tensor, scale: Tensor, *rest: object, **more: object) -> Tensor:
    return x.new_empty((rowptr.shape[0] - 1, *x.shape[1:]))


@torch.library.custom_op("pyg_fullgraph::csr", mutates_args=())
def csr(index: Tensor, num_rows: int) -> tuple[Tensor, Tensor]:
    """`ops.csr`."""
    return trusted.csr(index, num_rows)


@csr.register_fake
def _(index: Tensor, num_rows: int) -> tuple[Tensor, Tensor]:
    return index.new_empty(num_rows + 1, dtype=torch.int64), index.new_empty(index.shape)


@torch.library.custom_op("pyg_fullgraph::reduce_by", mutates_args=())
def reduce_by(x: Tensor, index: Tensor, rows: int, reduce: str) -> Tensor:
    """`ops.reduce_by`."""
    return vocabulary.reduce_by(x, index, rows, reduce)


@reduce_by.register_fake
def _(x: Tensor, index: Tensor, rows: int, reduce: str) -> Tensor:
    return x.new_empty((rows, *x.shape[1:]))


@torch.library.custom_op("pyg_fullgraph::softmax_by", mutates_args=())
def softmax_by(x: Tensor, index: Tensor, rows: int) -> Tensor:
    """`ops.softmax_by`."""
    return vocabulary.softmax_by(x, index, rows)


@softmax_by.register_fake
def _(x: Tensor, index: Tensor, rows: int) -> Tensor:
    return x.new_empty(x.shape)
