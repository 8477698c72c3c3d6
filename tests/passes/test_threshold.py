"""Small numbers that are replaced in one pass."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import pyg_fullgraph as fg


class Fill(nn.Module):
    """Fills in several forms, of which only one is a threshold."""

    def __init__(self, form: str) -> None:
        super().__init__()
        self.form = form

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        x = torch.zeros_like(x).index_add(0, edge_index[1], x[edge_index[0]])
        if self.form == "le":
            return x.masked_fill(x <= 0.25, -3.0)
        if self.form == "lt":
            return x.masked_fill(x < 0.25, -3.0)
        if self.form == "other":
            return x.masked_fill(x * 2 <= 0.25, -3.0)
        return x.masked_fill(x <= x.mean(), -3.0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
@pytest.mark.parametrize("form", ["le", "lt", "other", "tensor"])
def test_fill(form: str, dtype: torch.dtype) -> None:
    x, edge_index = torch.randn(20, 3).to(dtype), torch.randint(0, 20, (2, 60))
    x[4, 1], x[edge_index[1, 0]] = float("nan"), 0.25
    x[5] = 0.25
    engine = fg.compile(Fill(form).eval(), verify="off")
    want = Fill(form)(x, edge_index)
    torch.testing.assert_close(engine(x, edge_index), want, equal_nan=True)
    text = "\n".join(engine.explain(x, edge_index).code)
    assert ("aten_threshold" in text) == (form == "le" and dtype is not torch.bfloat16)
