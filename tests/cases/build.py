"""Short ways to write cases."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import torch

from tests.cases.case import Case
from tests.cases.inputs import Maker, plain


def mlp(*widths: int) -> torch.nn.Sequential:
    """Linear layers with a ReLU between them."""
    layers: list[torch.nn.Module] = []
    for left, right in itertools.pairwise(widths):
        layers += [torch.nn.Linear(left, right), torch.nn.ReLU()]
    return torch.nn.Sequential(*layers[:-1])


def conv(
    case_id: str,
    build: Callable[[], torch.nn.Module],
    inputs: Maker | None = None,
    **more: Any,
) -> Case:
    """A case of torch_geometric.nn.conv, `forward(x, edge_index)` if nothing else is said."""
    return Case(case_id, build, inputs or plain(), "conv", **more)


DEGREES = torch.tensor([1, 3, 6, 4, 2, 1])
PNA_ARGS: dict[str, Any] = {
    "aggregators": ["sum", "mean", "min", "max", "var", "std"],
    "scalers": ["identity", "amplification", "attenuation", "linear", "inverse_linear"],
    "deg": DEGREES,
}
