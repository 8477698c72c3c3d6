"""The definition of every operator, in plain torch: the oracle of the tests, and what serves where no kernel does.

Letters: N nodes, E edges, B rows, H heads, C channels. `rowptr` [B + 1] may be a slice of a larger one: the edge
arrays cover exactly the edges `rowptr[0] .. rowptr[-1]`. float16 and bfloat16 are computed in float32.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

EPSILON = 1e-16  # what torch_geometric.utils.softmax adds to a row's sum
SCATTER = {"sum": "sum", "mean": "sum", "max": "amax", "min": "amin", "mul": "prod"}


def rows_of_edges(rowptr: Tensor) -> Tensor:
    """The row (destination) of each edge. [E]"""
    rows = torch.arange(rowptr.numel() - 1, device=rowptr.device)
    return torch.repeat_interleave(rows, rowptr.diff())


def wide_type(dtype: torch.dtype) -> torch.dtype:
    """The type that values of this type are computed in: float32 for the half types, else their own."""
    return torch.float32 if dtype in (torch.float16, torch.bfloat16) else dtype


def widen(x: Tensor) -> Tensor:
    """The tensor in the type it is computed in."""
    return x.to(wide_type(x.dtype))


def gather(x: Tensor, index: Tensor) -> Tensor:
    """`x[index]`. [E, ...]"""
    return x.index_select(0, index)


def repeat(x: Tensor, rowptr: Tensor) -> Tensor:
    """Row i of `x` once for each of row i's edges. [E, ...]"""
    return x.index_select(0, rows_of_edges(rowptr))


def segment_reduce(value: Tensor, rowptr: Tensor, reduce: str) -> Tensor:
    """Reduce the edges of each row; a row without edges gives 0 (1 for `mul`). [B, ...]"""
    wide, rows, count = widen(value), rows_of_edges(rowptr), rowptr.numel() - 1
    out = wide.new_full((count, *value.shape[1:]), 1 if reduce == "mul" else 0)
    index = rows.view(-1, *[1] * (value.dim() - 1)).expand_as(wide)
    out = out.scatter_reduce(0, index, wide, SCATTER[reduce], include_self=reduce in ("sum", "mean", "mul"))
    if reduce == "mean":
        degree = rowptr.diff().clamp(min=1).view(-1, *[1] * (value.dim() - 1))
        out = out / degree if out.is_floating_point() else out.div(degree, rounding_mode="floor")
    return out.to(value.dtype)


def segment_softmax(score: Tensor, rowptr: Tensor) -> Tensor:
    """Softmax over the edges of each row, column by column: exp(s - max) / (sum + 1e-16). [E, ...]"""
    wide, rows = widen(score), rows_of_edges(rowptr)
    power = (wide - segment_reduce(wide.detach(), rowptr, "max").index_select(0, rows)).exp()
    total = segment_reduce(power, rowptr, "sum") + EPSILON
    return (power / total.index_select(0, rows)).to(score.dtype)


def gather_reduce(x: Tensor, src: Tensor, rowptr: Tensor, weight: Tensor | None, reduce: str) -> Tensor:
    """Reduce `weight[e] * x[src[e]]` over the edges of each row. [B, ...]"""
    message = x.index_select(0, src)
    if weight is None:
        return segment_reduce(message, rowptr, reduce)
    message, weight = widen(message), widen(weight)
    message = message * weight.reshape(*weight.shape, *[1] * (message.dim() - weight.dim()))
    half = x.dtype in (torch.float16, torch.bfloat16)
    return segment_reduce(message, rowptr, reduce).to(x.dtype if half else message.dtype)


def attention(value: Tensor, src: Tensor, rowptr: Tensor, score: Tensor) -> Tensor:
    """Sum `softmax(score)[e, h] * value[src[e], h]` over the edges of each row. [B, H, ...]"""
    alpha = segment_softmax(widen(score), rowptr)
    return gather_reduce(widen(value), src, rowptr, alpha, "sum").to(value.dtype)


def attention_additive(
    value: Tensor,
    src: Tensor,
    rowptr: Tensor,
    score_src: Tensor,
    score_dst: Tensor,
    score_edge: Tensor | None,
    negative_slope: float,
) -> Tensor:
    """`attention` with score = leaky_relu(score_src[j] + score_dst[i] + score_edge[e]): GAT. [B, H, ...]"""
    score = gather(widen(score_src), src) + repeat(widen(score_dst), rowptr)
    if score_edge is not None:
        score = score + widen(score_edge)
    return attention(value, src, rowptr, F.leaky_relu(score, negative_slope))


def attention_gatv2(
    value: Tensor,
    src: Tensor,
    rowptr: Tensor,
    key: Tensor,
    query: Tensor,
    att: Tensor,
    key_edge: Tensor | None,
    negative_slope: float,
) -> Tensor:
    """`attention` with score = sum_c att[c] * leaky_relu(query[i] + key[j] + key_edge[e])[c]: GATv2. [B, H, ...]"""
    pair = repeat(widen(query), rowptr) + gather(widen(key), src)
    if key_edge is not None:
        pair = pair + widen(key_edge)
    score = (F.leaky_relu(pair, negative_slope) * widen(att)).sum(-1)
    return attention(value, src, rowptr, score)


def attention_dot(value: Tensor, src: Tensor, rowptr: Tensor, key: Tensor, query: Tensor, scale: float) -> Tensor:
    """`attention` with score = scale * sum_c query[i, h, c] * key[j, h, c]: the Transformer's. [B, H, ...]"""
    return attention(value, src, rowptr, edge_dot(widen(key), src, widen(query), rowptr, scale))


def edge_dot(key: Tensor, src: Tensor | None, query: Tensor, rowptr: Tensor, scale: float) -> Tensor:
    """scale * sum_c query[i, h, c] * key[j, h, c]: a dense product sampled at the edges. [E, H]"""
    mine, theirs = repeat(widen(query), rowptr), widen(key) if src is None else gather(widen(key), src)
    return ((mine * theirs).sum(-1) * scale).to(key.dtype)


def wide_message(
    x: Tensor,
    src: Tensor | None,
    rowptr: Tensor,
    dst: Tensor | None,
    edge: Tensor | None,
    activation: str,
    negative_slope: float,
    shift: float,
) -> Tensor:
    """activation(x[j] + dst[i] + edge[e]) + shift in the type it is computed in. [E, ...]"""
    value = widen(x) if src is None else gather(widen(x), src)
    if dst is not None:
        value = value + repeat(widen(dst), rowptr)
    if edge is not None:
        value = value + widen(edge)
    if activation == "relu":
        value = value.relu()
    elif activation == "leaky_relu":
        value = F.leaky_relu(value, negative_slope)
    return value + shift if shift else value


def message(x: Tensor, src: Tensor | None, rowptr: Tensor, **options: Any) -> Tensor:
    """`wide_message` in x's type. [E, ...]"""
    value = wide_message(x, src, rowptr, **options).to(x.dtype)
    return value.clone() if value is x else value


def message_reduce(
    x: Tensor,
    src: Tensor | None,
    rowptr: Tensor,
    reduces: Sequence[str],
    *,
    weight: Tensor | None,
    **options: Any,
) -> list[Tensor]:
    """Each reduction of `weight[e] * message[e]`, or of its square, over the edges of each row. [B, ...] each"""
    value = wide_message(x, src, rowptr, **options)
    if weight is not None:
        value = value * widen(weight).reshape(-1, *[1] * (value.dim() - 1))
    values = {name: value.square() if name.startswith("square") else value for name in reduces}
    return [segment_reduce(values[name], rowptr, name.removeprefix("square_")).to(x.dtype) for name in reduces]


def softmax_reduce(x: Tensor, src: Tensor | None, rowptr: Tensor, scale: Tensor, **options: Any) -> Tensor:
    """Sum `softmax(scale * message)[e] * message[e]` over the edges of each row. [B, ...]"""
    value = wide_message(x, src, rowptr, **options)
    alpha = segment_softmax(value * scale.to(value.dtype), rowptr)
    return segment_reduce(alpha * value, rowptr, "sum").to(x.dtype)


def csr(index: Tensor, num_rows: int) -> tuple[Tensor, Tensor]:
    """Rows' first positions [N + 1] (int64) and the stable order [E] that sorts `index`, of index's type."""
    perm = torch.sort(index, stable=True).indices
    degree = torch.bincount(index, minlength=num_rows)
    return F.pad(degree.cumsum(0), (1, 0)), perm.to(index.dtype)


def place_rows(index: Tensor, start: Tensor) -> Tensor:
    """Where the edges of a tile go, [T], when `start` [N] is each row's next place; `start` moves on."""
    order = torch.sort(index, stable=True).indices
    degree = torch.bincount(index, minlength=start.numel())
    before = degree.cumsum(0) - degree  # the tile's edges of smaller rows
    rows = index[order].long()
    places = torch.empty(index.numel(), dtype=torch.int64, device=index.device)
    places[order] = start[rows] + torch.arange(index.numel(), device=index.device) - before[rows]
    start += degree
    return places
