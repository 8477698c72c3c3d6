"""Edge softmax and attention: `softmax(score)` over each row's edges, and the weighted sum of source rows it gives.

Scores, weights and messages of one row live in a thread's cache only; nothing of the size of the edges is stored.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from pyg_fullgraph.ops import reference
from pyg_fullgraph.ops.backend import DTYPES, INDICES, kernel, threads_or_default
from pyg_fullgraph.ops.check import (
    check_edges,
    check_index,
    check_like,
    check_rowptr,
    check_rows,
    fail,
    flat,
    output,
    width,
    with_packed_rows,
)
from pyg_fullgraph.ops.gather import keep
from pyg_fullgraph.ops.reduce import IDENTITY

EXPLICIT, ADDITIVE, GATV2, DOT = range(4)
NO_ROWS = (0, 0)


def segment_softmax(score: Tensor, rowptr: Tensor, *, out: Tensor | None = None, threads: int | None = None) -> Tensor:
    """Softmax over the edges of each row, each column by itself.

    `out[e] = exp(score[e] - max) / (sum of exp(score - max) + 1e-16)`, as `torch_geometric.utils.softmax`.

    Args:
        score: [E, ...].
        rowptr: int64 [B + 1].
        out: where to write, [E, ...], rows contiguous; may be `score`; a new tensor if None.
        threads: how many threads to use; torch's number if None.

    Returns:
        [E, ...] of score's type.

    Raises:
        OperatorError: an argument has a wrong shape or type.
    """
    rows = check_rowptr("segment_softmax", rowptr)
    check_rows("segment_softmax", "score", score, None, "E")
    if torch.compiler.is_compiling():
        return keep("segment_softmax", torch.ops.pyg_fullgraph.segment_softmax(score, rowptr), out)
    module = kernel(score, at=(rowptr,))
    check_edges("segment_softmax", "score", score, rowptr, module)
    if module is None:
        return keep("segment_softmax", reference.segment_softmax(score, rowptr), out)
    score = with_packed_rows(score)
    result = output("segment_softmax", out, score, tuple(score.shape))
    module.attention(
        result.data_ptr(), result.stride(0), NO_ROWS, False, DTYPES[score.dtype], 0, IDENTITY, rowptr.data_ptr(), rows,
        width(score), 0, EXPLICIT, NO_ROWS, NO_ROWS, place(score), 0, 0, 1.0, 0.0, threads_or_default(threads),
    )  # fmt: skip
    return result


def attention(
    value: Tensor,
    src: Tensor,
    rowptr: Tensor,
    score: Tensor,
    *,
    out: Tensor | None = None,
    threads: int | None = None,
) -> Tensor:
    """Attention with given scores: `out[i, h] = sum over e in row i of softmax(score)[e, h] * value[src[e], h]`.

    Args:
        value: [N, H, ...], or [N, 1, ...] that all heads share.
        src: int32 or int64 [E]; every value must be in [0, N), which is not checked here.
        rowptr: int64 [B + 1].
        score: [E, H], of value's type.
        out: where to write, [B, H, ...], rows contiguous, not overlapping an input; a new tensor if None.
        threads: how many threads to use; torch's number if None.

    Returns:
        [B, H, ...] of value's type; rows without edges are 0.

    Raises:
        OperatorError: an argument has a wrong shape or type.
    """
    rows, heads = check_attention("attention", value, src, rowptr, score)
    check_like("attention", "score", score, (src.numel(), heads), "[E, H]")
    if torch.compiler.is_compiling():
        return keep("attention", torch.ops.pyg_fullgraph.attention(value, src, rowptr, score), out)
    module = kernel(value, score, at=(src, rowptr))
    check_edges("attention", "src", src, rowptr, module, value=value, score=score)
    if module is None or score.dtype != value.dtype:
        return keep("attention", reference.attention(value, src, rowptr, score), out)
    score = with_packed_rows(score)
    return launch(
        "attention", module, value, src, rowptr, out, threads,
        score=EXPLICIT, edge=score, rows=rows, heads=heads,
    )  # fmt: skip


def attention_additive(
    value: Tensor,
    src: Tensor,
    rowptr: Tensor,
    score_src: Tensor,
    score_dst: Tensor,
    score_edge: Tensor | None = None,
    negative_slope: float = 0.2,
    *,
    out: Tensor | None = None,
    threads: int | None = None,
) -> Tensor:
    """GAT's attention (Velickovic et al., ICLR'18).

    `score[e, h] = leaky_relu(score_src[src[e], h] + score_dst[i, h] + score_edge[e, h])`, then as `attention`.

    Args:
        value: [N, H, ...], or [N, 1, ...] that all heads share.
        src: int32 or int64 [E]; every value must be in [0, N), which is not checked here.
        rowptr: int64 [B + 1].
        score_src: [N, H], of value's type.
        score_dst: [B, H], of value's type: the scores of exactly these rows.
        score_edge: None or [E, H], of value's type.
        negative_slope: the leaky_relu's slope below zero.
        out: where to write, [B, H, ...], rows contiguous, not overlapping an input; a new tensor if None.
        threads: how many threads to use; torch's number if None.

    Returns:
        [B, H, ...] of value's type; rows without edges are 0.

    Raises:
        OperatorError: an argument has a wrong shape or type.
    """
    rows, heads = check_attention("attention_additive", value, src, rowptr, score_src)
    check_like("attention_additive", "score_src", score_src, (value.shape[0], heads), "[N, H]")
    check_like("attention_additive", "score_dst", score_dst, (rows, heads), "[B, H]")
    given = [value, score_src, score_dst]
    if score_edge is not None:
        check_like("attention_additive", "score_edge", score_edge, (src.numel(), heads), "[E, H]")
        given.append(score_edge)
    arguments = (value, src, rowptr, score_src, score_dst, score_edge, negative_slope)
    if torch.compiler.is_compiling():
        return keep("attention_additive", torch.ops.pyg_fullgraph.attention_additive(*arguments), out)
    module = kernel_of_one_type(given, at=(src, rowptr))
    check_edges(
        "attention_additive", "src", src, rowptr, module,
        value=value, score_src=score_src, score_dst=score_dst, score_edge=score_edge,
    )  # fmt: skip
    if module is None:
        return keep("attention_additive", reference.attention_additive(*arguments), out)
    return launch(
        "attention_additive", module, value, src, rowptr, out, threads,
        score=ADDITIVE, key=score_src, query=score_dst, edge=score_edge, negative_slope=negative_slope,
        rows=rows, heads=heads,
    )  # fmt: skip


def attention_gatv2(
    value: Tensor,
    src: Tensor,
    rowptr: Tensor,
    key: Tensor,
    query: Tensor,
    att: Tensor,
    key_edge: Tensor | None = None,
    negative_slope: float = 0.2,
    *,
    out: Tensor | None = None,
    threads: int | None = None,
) -> Tensor:
    """GATv2's attention (Brody et al., ICLR'22).

    `score[e, h] = sum_c att[h, c] * leaky_relu(query[i, h, c] + key[src[e], h, c] + key_edge[e, h, c])`, then as
    `attention`.

    Args:
        value: [N, H, ...], or [N, 1, ...] that all heads share.
        src: int32 or int64 [E]; every value must be in [0, N), which is not checked here.
        rowptr: int64 [B + 1].
        key: [N, H, C], of value's type; may be `value` itself.
        query: [B, H, C], of value's type: the queries of exactly these rows.
        att: [H, C], of value's type.
        key_edge: None or [E, H, C], of value's type.
        negative_slope: the leaky_relu's slope below zero.
        out: where to write, [B, H, ...], rows contiguous, not overlapping an input; a new tensor if None.
        threads: how many threads to use; torch's number if None.

    Returns:
        [B, H, ...] of value's type; rows without edges are 0.

    Raises:
        OperatorError: an argument has a wrong shape or type.
    """
    rows, heads = check_attention("attention_gatv2", value, src, rowptr, key)
    channels = check_query("attention_gatv2", value, key, query, rows)
    check_like("attention_gatv2", "att", att, (heads, channels), "[H, C]")
    given = [value, key, query, att]
    if key_edge is not None:
        check_like("attention_gatv2", "key_edge", key_edge, (src.numel(), heads, channels), "[E, H, C]")
        given.append(key_edge)
    arguments = (value, src, rowptr, key, query, att, key_edge, negative_slope)
    if torch.compiler.is_compiling():
        return keep("attention_gatv2", torch.ops.pyg_fullgraph.attention_gatv2(*arguments), out)
    module = kernel_of_one_type(given, at=(src, rowptr))
    check_edges(
        "attention_gatv2", "src", src, rowptr, module, value=value, key=key, query=query, att=att, key_edge=key_edge
    )
    if module is None:
        return keep("attention_gatv2", reference.attention_gatv2(*arguments), out)
    return launch(
        "attention_gatv2", module, value, src, rowptr, out, threads,
        score=GATV2, key=key, query=query, edge=key_edge, att=flat(att), key_channels=channels,
        negative_slope=negative_slope, rows=rows, heads=heads,
    )  # fmt: skip


def attention_dot(
    value: Tensor,
    src: Tensor,
    rowptr: Tensor,
    key: Tensor,
    query: Tensor,
    scale: float,
    *,
    out: Tensor | None = None,
    threads: int | None = None,
) -> Tensor:
    """The Transformer's attention over in-edges (Shi et al., IJCAI'21).

    `score[e, h] = scale * sum_c query[i, h, c] * key[src[e], h, c]`, then as `attention`.

    Args:
        value: [N, H, ...], or [N, 1, ...] that all heads share.
        src: int32 or int64 [E]; every value must be in [0, N), which is not checked here.
        rowptr: int64 [B + 1].
        key: [N, H, C], of value's type.
        query: [B, H, C], of value's type: the queries of exactly these rows.
        scale: usually 1 / sqrt(C).
        out: where to write, [B, H, ...], rows contiguous, not overlapping an input; a new tensor if None.
        threads: how many threads to use; torch's number if None.

    Returns:
        [B, H, ...] of value's type; rows without edges are 0.

    Raises:
        OperatorError: an argument has a wrong shape or type.
    """
    rows, heads = check_attention("attention_dot", value, src, rowptr, key)
    channels = check_query("attention_dot", value, key, query, rows)
    if torch.compiler.is_compiling():
        result = torch.ops.pyg_fullgraph.attention_dot(value, src, rowptr, key, query, scale)
        return keep("attention_dot", result, out)
    module = kernel_of_one_type([value, key, query], at=(src, rowptr))
    check_edges("attention_dot", "src", src, rowptr, module, value=value, key=key, query=query)
    if module is None:
        result = reference.attention_dot(value, src, rowptr, key, query, scale)
        return keep("attention_dot", result, out)
    return launch(
        "attention_dot", module, value, src, rowptr, out, threads,
        score=DOT, key=key, query=query, key_channels=channels, scale=scale, rows=rows, heads=heads,
    )  # fmt: skip


def edge_dot(
    key: Tensor,
    src: Tensor | None,
    query: Tensor,
    rowptr: Tensor,
    scale: float = 1.0,
    *,
    out: Tensor | None = None,
    threads: int | None = None,
) -> Tensor:
    """The products of sources with destinations: `out[e, h] = scale * sum_c query[i, h, c] * key[src[e], h, c]`.

    A dense-dense product sampled at the edges (SDDMM), as `attention_dot` has inside.

    Args:
        key: [N, H, C], or [E, H, C] where `src` is None; float16 and bfloat16 are computed in float32.
        src: int32 or int64 [E], every value in [0, N) (not checked here); None: edge e reads row e.
        query: [B, H, C], of key's type: the queries of exactly these rows.
        rowptr: int64 [B + 1].
        scale: a factor.
        out: where to write, [E, H], rows contiguous, not overlapping an input; a new tensor if None.
        threads: how many threads to use; torch's number if None.

    Returns:
        [E, H] of key's type.

    Raises:
        OperatorError: an argument has a wrong shape or type.
    """
    rows = check_rowptr("edge_dot", rowptr)
    if src is not None:
        check_index("edge_dot", "src", src)
    if key.dim() != 3:
        fail("edge_dot", "key", key, "[E, H, C]" if src is None else "[N, H, C]")
    check_like("edge_dot", "query", query, (rows, key.shape[1], key.shape[2]), "[B, H, C]")
    if torch.compiler.is_compiling():
        return keep("edge_dot", torch.ops.pyg_fullgraph.edge_dot(key, src, query, rowptr, scale), out)
    module = kernel_of_one_type([key, query], at=(src, rowptr))
    check_edges(
        "edge_dot", "key" if src is None else "src", key if src is None else src, rowptr, module, key=key, query=query
    )
    if module is None:
        return keep("edge_dot", reference.edge_dot(key, src, query, rowptr, scale), out)
    key, query = with_packed_rows(key), with_packed_rows(query)
    src = None if src is None else flat(src)
    result = output("edge_dot", out, key, (key.shape[0] if src is None else src.shape[0], key.shape[1]))
    address, index = (0, IDENTITY) if src is None else (src.data_ptr(), INDICES[src.dtype])
    module.edge_dot(
        place(result), place(key), place(query), DTYPES[key.dtype], address, index, rowptr.data_ptr(), rows,
        key.shape[1], key.shape[2], scale, threads_or_default(threads),
    )  # fmt: skip
    return result


def check_attention(operator: str, value: Tensor, src: Tensor, rowptr: Tensor, heads_of: Tensor) -> tuple[int, int]:
    """Check what all attentions share and return the rows B and the heads H.

    Args:
        heads_of: what the scores are made of, H in its second dimension.
    """
    rows = check_rowptr(operator, rowptr)
    check_index(operator, "src", src)
    if value.dim() < 2:
        fail(operator, "value", value, "[N, H, ...]")
    heads = value.shape[1]
    if heads == 1 and value.dim() == 3 and heads_of.dim() > 1:
        heads = heads_of.shape[1]
    return rows, heads


def check_query(operator: str, value: Tensor, key: Tensor, query: Tensor, rows: int) -> int:
    """Check keys against values and queries, and return the keys' channels C."""
    heads = value.shape[1]
    if key.dim() != 3 or key.shape[0] != value.shape[0] or heads not in (1, key.shape[1]):
        fail(operator, "key", key, f"[N, H, C] = [{value.shape[0]}, {heads}, C]")
    check_like(operator, "query", query, (rows, key.shape[1], key.shape[2]), "[B, H, C]")
    return key.shape[2]


def kernel_of_one_type(tensors: list[Tensor], at: tuple[Tensor | None, ...]) -> Any:
    """The extension if its kernels can take these tensors and all have one type, else None; `at` as in `kernel`."""
    module = kernel(*tensors, at=at)
    return module if all(tensor.dtype == tensors[0].dtype for tensor in tensors) else None


def place(x: Tensor | None) -> tuple[int, int]:
    """Where a tensor's rows lie: address and row stride in elements."""
    return NO_ROWS if x is None else (x.data_ptr(), x.stride(0))


def launch(
    operator: str,
    module: Any,
    value: Tensor,
    src: Tensor,
    rowptr: Tensor,
    out: Tensor | None,
    threads: int | None,
    *,
    score: int,
    rows: int,
    heads: int,
    key: Tensor | None = None,
    query: Tensor | None = None,
    edge: Tensor | None = None,
    att: Tensor | None = None,
    key_channels: int = 0,
    scale: float = 1.0,
    negative_slope: float = 0.0,
) -> Tensor:
    """Call the attention kernel."""
    value, src = with_packed_rows(value), flat(src)
    key, query, edge = (None if x is None else with_packed_rows(x) for x in (key, query, edge))
    result = output(operator, out, value, (rows, heads, *value.shape[2:]))
    if value.shape[0] == 0:  # no source, so no edge: and no address, which the kernel takes for "weights are wanted"
        return result.zero_()
    module.attention(
        result.data_ptr(), result.stride(0), place(value), value.shape[1] < heads, DTYPES[value.dtype],
        src.data_ptr(), INDICES[src.dtype], rowptr.data_ptr(), rows, heads, math.prod(value.shape[2:]),
        score, place(key), place(query), place(edge), 0 if att is None else att.data_ptr(), key_channels,
        scale, negative_slope, threads_or_default(threads),
    )  # fmt: skip
    return result
