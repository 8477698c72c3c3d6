"""Recurrent layers written out in plain operators.

Their C++ kernels check sizes that a symbolic trace does not have. A recurrent layer is row-wise in its
batch, so it is unrolled over its (fixed, short) sequence: jumping knowledge over L layers takes L steps.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

MAX_STEPS = 256


def _gates(x: Tensor, h: Tensor, weights: tuple[Tensor | None, ...]) -> tuple[Tensor, Tensor]:
    w_ih, w_hh, b_ih, b_hh = weights
    return F.linear(x, w_ih, b_ih), F.linear(h, w_hh, b_hh)  # type: ignore[arg-type]


def lstm_step(x: Tensor, h: Tensor, c: Tensor, weights: tuple[Tensor | None, ...]) -> tuple[Tensor, Tensor]:
    """One step of `torch.nn.LSTMCell`: x `[N, F]`, h and c `[N, H]`."""
    left, right = _gates(x, h, weights)
    i, f, g, o = (left + right).chunk(4, -1)
    c = f.sigmoid() * c + i.sigmoid() * g.tanh()
    return o.sigmoid() * c.tanh(), c


def gru_step(x: Tensor, h: Tensor, weights: tuple[Tensor | None, ...]) -> Tensor:
    """One step of `torch.nn.GRUCell`."""
    left, right = _gates(x, h, weights)
    r_x, z_x, n_x = left.chunk(3, -1)
    r_h, z_h, n_h = right.chunk(3, -1)
    r, z = (r_x + r_h).sigmoid(), (z_x + z_h).sigmoid()
    n = (n_x + r * n_h).tanh()
    return (h - n) * z + n


def rnn_step(x: Tensor, h: Tensor, weights: tuple[Tensor | None, ...], nonlinearity: str) -> Tensor:
    """One step of `torch.nn.RNNCell`."""
    left, right = _gates(x, h, weights)
    return torch.tanh(left + right) if nonlinearity == "tanh" else torch.relu(left + right)


def _cell_weights(cell: Any) -> tuple[Tensor | None, ...]:
    return cell.weight_ih, cell.weight_hh, cell.bias_ih, cell.bias_hh


def gru_cell_forward(cell: Any, x: Tensor, hx: Tensor | None = None) -> Tensor:
    """`torch.nn.GRUCell.forward` in plain operators."""
    hx = x.new_zeros(*x.shape[:-1], cell.hidden_size) if hx is None else hx
    return gru_step(x, hx, _cell_weights(cell))


def rnn_cell_forward(cell: Any, x: Tensor, hx: Tensor | None = None) -> Tensor:
    """`torch.nn.RNNCell.forward` in plain operators."""
    hx = x.new_zeros(*x.shape[:-1], cell.hidden_size) if hx is None else hx
    return rnn_step(x, hx, _cell_weights(cell), cell.nonlinearity)


def lstm_cell_forward(cell: Any, x: Tensor, hx: tuple[Tensor, Tensor] | None = None) -> tuple[Tensor, Tensor]:
    """`torch.nn.LSTMCell.forward` in plain operators."""
    if hx is None:
        zeros = x.new_zeros(*x.shape[:-1], cell.hidden_size)
        hx = (zeros, zeros)
    return lstm_step(x, hx[0], hx[1], _cell_weights(cell))


def recurrent_forward(module: Any, x: Tensor, hx: Any = None) -> tuple[Tensor, Any]:
    """`forward` of `torch.nn.LSTM`, `GRU` and `RNN` in eval mode, unrolled over the sequence axis.

    Args:
        module: any number of layers, one or two directions, with or without projection.
        x: `[L, N, F]`, `[N, L, F]` (batch_first) or `[L, F]`, with a fixed L.
        hx: the initial state, as the module takes it.
    """
    if not isinstance(x, Tensor):
        raise NotImplementedError("packed sequences hold data-dependent lengths")
    batched = x.dim() == 3
    time_dim = 1 if module.batch_first and batched else 0
    steps = x.shape[time_dim]
    if not isinstance(steps, int) or steps > MAX_STEPS:
        raise NotImplementedError(
            f"a recurrent layer over {steps} steps: only a fixed, short sequence (at most {MAX_STEPS}) can be unrolled"
        )
    inputs = list(x.unbind(time_dim))
    directions = 2 if module.bidirectional else 1
    finals: list[Any] = []
    for layer in range(module.num_layers):
        outputs = []
        for direction in range(directions):
            states, final = _one_direction(module, inputs, hx, layer, direction, directions)
            outputs.append(states)
            finals.append(final)
        inputs = outputs[0] if directions == 1 else [torch.cat(pair, -1) for pair in zip(*outputs, strict=True)]
    out = torch.stack(inputs, time_dim)
    if module.mode == "LSTM":
        return out, (torch.stack([h for h, _ in finals]), torch.stack([c for _, c in finals]))
    return out, torch.stack([h for h, _ in finals])


def _one_direction(
    module: Any, inputs: list[Tensor], hx: Any, layer: int, direction: int, directions: int
) -> tuple[list[Tensor], tuple[Tensor, Tensor]]:
    """All steps of one layer in one direction: the outputs in sequence order, and the last state."""
    suffix = f"_l{layer}" + ("_reverse" if direction else "")
    bias = (getattr(module, f"bias_ih{suffix}"), getattr(module, f"bias_hh{suffix}")) if module.bias else (None, None)
    weights = (getattr(module, f"weight_ih{suffix}"), getattr(module, f"weight_hh{suffix}"), *bias)
    h, c = _initial_state(module, inputs[0], hx, layer * directions + direction)
    step = _step(module, weights, suffix)
    outputs: list[Tensor] = []
    for x in reversed(inputs) if direction else inputs:
        h, c = step(x, h, c)
        outputs.append(h)
    return (outputs[::-1] if direction else outputs), (h, c)


def _initial_state(module: Any, first: Tensor, hx: Any, number: int) -> tuple[Tensor, Tensor]:
    if hx is not None:
        return (hx[0][number], hx[1][number]) if module.mode == "LSTM" else (hx[number], hx[number])
    width = getattr(module, "proj_size", 0) or module.hidden_size
    h = first.new_zeros(*first.shape[:-1], width)
    return h, first.new_zeros(*first.shape[:-1], module.hidden_size)


def _step(
    module: Any, weights: tuple[Tensor | None, ...], suffix: str
) -> Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]:
    def lstm(x: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
        h, c = lstm_step(x, h, c, weights)
        return (F.linear(h, getattr(module, f"weight_hr{suffix}")) if module.proj_size else h), c

    def gru(x: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
        return gru_step(x, h, weights), c

    def rnn(x: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
        return rnn_step(x, h, weights, "tanh" if module.mode == "RNN_TANH" else "relu"), c

    return {"LSTM": lstm, "GRU": gru}.get(module.mode, rnn)
