"""Layers of torch written without decisions on sizes give what torch's own give, to rounding."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch_geometric.utils import to_dense_batch

from pyg_fullgraph.capture.layers import dense_batch, instance_norm_forward, multihead_forward

B, N, F, HEADS = 3, 7, 12, 4


def close(got: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-6, equal_nan=True)


@pytest.mark.parametrize("batch_first", [True, False])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("need_weights", [True, False])
@pytest.mark.parametrize("masks", ["none", "keys", "additive keys", "pairs", "both"])
@torch.no_grad()
def test_multihead_attention(batch_first: bool, bias: bool, need_weights: bool, masks: str) -> None:
    layer = torch.nn.MultiheadAttention(F, HEADS, bias=bias, batch_first=batch_first).eval()
    for parameter in layer.parameters():
        parameter.add_(0.1 * torch.randn(parameter.shape))
    query, key, value = (torch.randn(B, n, F) for n in (5, N, N))
    given = [x if batch_first else x.transpose(0, 1) for x in (query, key, value)]
    hidden = torch.zeros(B, N, dtype=torch.bool)
    hidden[0, 4:] = hidden[2, 0] = True
    options = {
        "none": {},
        "keys": {"key_padding_mask": hidden},
        "additive keys": {"key_padding_mask": torch.zeros(B, N).masked_fill(hidden, float("-inf"))},
        "pairs": {"attn_mask": torch.randn(5, N)},
        "both": {"key_padding_mask": hidden, "attn_mask": torch.rand(5, N) < 0.3},
    }[masks]
    expected, weights = layer(*given, need_weights=need_weights, **options)
    got, own = multihead_forward(layer, *given, need_weights=need_weights, **options)
    close(got, expected)
    assert (own is None) == (weights is None)
    if own is not None:
        close(own, weights)
        each = multihead_forward(layer, *given, average_attn_weights=False, **options)[1]
        close(each, layer(*given, average_attn_weights=False, **options)[1])


@torch.no_grad()
def test_graphs_without_nodes_do_not_disturb_others() -> None:
    """A padded graph with no key gives NaN in its own rows only, as in torch."""
    layer = torch.nn.MultiheadAttention(F, HEADS, batch_first=True).eval()
    x, hidden = torch.randn(B, N, F), torch.zeros(B, N, dtype=torch.bool)
    hidden[1] = True
    got = multihead_forward(layer, x, x, x, key_padding_mask=hidden, need_weights=False)[0]
    expected = layer(x, x, x, key_padding_mask=hidden, need_weights=False)[0]
    close(got[[0, 2]], expected[[0, 2]])


@pytest.mark.parametrize("options", [{"kdim": 5}, {"add_bias_kv": True}, {"add_zero_attn": True}], ids=str)
def test_unusual_attention_is_refused(options: dict[str, object]) -> None:
    x = torch.randn(B, N, F)
    with pytest.raises(NotImplementedError, match="MultiheadAttention"):
        multihead_forward(torch.nn.MultiheadAttention(F, HEADS, batch_first=True, **options), x, x, x)


def test_instance_norm_of_rows_without_a_batch_axis() -> None:
    x = torch.randn(N, F)
    norm = torch.nn.InstanceNorm1d(N)  # as many channels as rows: torch does not warn
    close(instance_norm_forward(norm.eval(), x), norm(x))
    batched = torch.randn(B, N, F)
    close(instance_norm_forward(torch.nn.InstanceNorm1d(N, affine=True), batched), torch.nn.InstanceNorm1d(N)(batched))


def test_dense_batch_is_the_original_on_real_tensors() -> None:
    x, batch = torch.randn(6, F), torch.tensor([0, 0, 1, 3, 3, 3])
    for got, expected in zip(dense_batch(to_dense_batch)(x, batch), to_dense_batch(x, batch), strict=True):
        assert torch.equal(got, expected)
