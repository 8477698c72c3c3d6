"""Layers of torch and torch_geometric without their decisions on sizes, which a symbolic trace cannot take.

`torch.nn.MultiheadAttention` chooses between several ways to compute the same thing by the sizes it meets;
`torch.nn.InstanceNorm1d` compares the number of nodes with its width to warn; `torch_geometric.utils.to_dense_batch`
pads every graph of a batch to the largest one, whose size it reads from the data.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor


def multihead_forward(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    key_padding_mask: Tensor | None = None,
    need_weights: bool = True,
    attn_mask: Tensor | None = None,
    average_attn_weights: bool = True,
    is_causal: bool = False,
) -> tuple[Tensor, Tensor | None]:
    """`forward` of `torch.nn.MultiheadAttention` in eval mode.

    Args:
        module: the layer; with one embedding width for queries, keys and values.
        query, key, value: `[B, N, F]` (batch_first) or `[N, B, F]`.
        key_padding_mask: `[B, N]`, true (or minus infinity) where a key must not be seen.
        need_weights: also return the attention weights `[B, N, N]` (with heads if not averaged).
        attn_mask: `[N, N]`, as in torch.
        average_attn_weights, is_causal: as in torch.
    """
    if module.in_proj_weight is None or module.bias_k is not None or module.add_zero_attn or query.dim() != 3:
        raise NotImplementedError("MultiheadAttention with kdim, vdim, bias_kv, zero attention or without a batch axis")
    if not module.batch_first:
        query, key, value = (x.transpose(0, 1) for x in (query, key, value))
    bias = (None,) * 3 if module.in_proj_bias is None else module.in_proj_bias.chunk(3)
    q, k, v = (
        F.linear(x, w, b).unflatten(-1, (module.num_heads, -1)).transpose(1, 2)  # [B, H, N, D]
        for x, w, b in zip((query, key, value), module.in_proj_weight.chunk(3), bias, strict=True)
    )
    mask = _joined(_additive(key_padding_mask, q.dtype, 1), _additive(attn_mask, q.dtype, 0))
    if need_weights:
        scores = (q * q.size(-1) ** -0.5) @ k.transpose(-2, -1)
        weights = (scores if mask is None else scores + mask).softmax(dim=-1)
        out = weights @ v
    else:
        weights = None
        out = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=is_causal and mask is None)
    out = module.out_proj(out.transpose(1, 2).flatten(-2))
    out = out if module.batch_first else out.transpose(0, 1)
    return out, weights if weights is None or not average_attn_weights else weights.mean(dim=1)


def _additive(mask: Tensor | None, dtype: torch.dtype, keys: int) -> Tensor | None:
    """A mask as numbers to add to `[B, H, N, N]`: `[B, N]` of keys where `keys`, else `[N, N]`."""
    if mask is None:
        return None
    if mask.dtype == torch.bool:
        mask = torch.zeros_like(mask, dtype=dtype).masked_fill(mask, float("-inf"))
    return mask.unsqueeze(1).unsqueeze(1) if keys else mask


def _joined(left: Tensor | None, right: Tensor | None) -> Tensor | None:
    return right if left is None else left if right is None else left + right


def instance_norm_forward(norm: Any, x: Tensor) -> Tensor:
    """`forward` of `torch.nn.InstanceNorm1d` for rows without a batch axis, as GENConv calls it.

    It takes `[N, F]` for N channels of length F: without parameters, every row is normalised over its columns.
    """
    if x.dim() == 2 and not norm.affine and not norm.track_running_stats:
        return F.layer_norm(x, x.shape[1:], eps=norm.eps)
    return _instance_norm(norm, x)


_instance_norm = torch.nn.InstanceNorm1d.forward


def dense_batch(original: Callable[..., Any]) -> Callable[..., Any]:
    """`to_dense_batch` of torch_geometric whose two new axes are sizes like any other.

    Args:
        original: torch_geometric's function.
    """

    def to_dense_batch(*args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        out, mask = original(*args, **kwargs)
        for size in out.shape[:2]:
            if isinstance(size, torch.SymInt):
                torch._check(size >= 2)  # as for every space: no special case of size one is taken
        return out, mask

    return to_dense_batch
