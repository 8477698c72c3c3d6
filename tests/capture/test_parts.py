"""Parts whose sizes are counted in the data, written in place; and what torch raises within a trace."""

from __future__ import annotations

import sys
from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.fx.experimental.symbolic_shapes import GuardOnDataDependentSymNode
from torch_geometric.nn import SAGEConv

import pyg_fullgraph as fg

Body = Callable[[Tensor, list[int]], Tensor]


def _each(x: Tensor, sizes: list[int]) -> Tensor:
    parts = x.clone().split(sizes)
    for number, part in enumerate(parts):
        part += number + 1.5
    return torch.cat(parts)


def _columns(x: Tensor, sizes: list[int]) -> Tensor:
    parts = x.clone().split(sizes)
    parts[0][:, 1] = 5.0
    parts[1][:, 2:4].mul_(3)
    parts[0].t()[3].add_(1)
    return torch.cat(parts)


def _base(x: Tensor, sizes: list[int]) -> Tensor:
    base = x.clone()
    parts = base.split(sizes)
    parts[1].zero_()
    parts[0].mul_(parts[0])
    base.add_(1)
    parts[0].sub_(3)
    return base


def _across(x: Tensor, sizes: list[int]) -> Tensor:
    base = x.clone()
    base.t().split(sizes, dim=1)[1].mul_(2)
    return base


def _within(x: Tensor, sizes: list[int]) -> Tensor:
    base = x.clone()
    parts = base.split(sizes)
    parts[0].split([3, 5], dim=1)[1].mul_(0)
    parts[1].view(-1, 2, 4)[:, 1].zero_()
    for column in parts[2].unbind(1):
        column.add_(1)
    torch.add(parts[0], 1, out=parts[0])
    return base


def _narrowed(x: Tensor, sizes: list[int]) -> Tensor:
    base = x.clone()
    base.narrow(0, 0, sizes[0]).mul_(2)
    base.narrow(0, sizes[0], sizes[1]).add_(1)
    return base


def _masked(x: Tensor, sizes: list[int]) -> Tensor:
    parts = x.clone().split(sizes)
    parts[1][parts[1] > 0] = 0.0
    return torch.cat(parts)


def _plain_sizes(x: Tensor, sizes: list[int]) -> Tensor:
    base = x.clone()
    parts = base.split([3, 5], dim=1)
    parts[1].add_(1)
    parts[0].mul_(2)
    return base


BODIES = [_each, _columns, _base, _across, _within, _narrowed, _masked, _plain_sizes]
X, EDGES = torch.randn(12, 8), torch.randint(0, 12, (2, 30))


class Typed(torch.nn.Module):
    """Nodes sorted by type, each type's rows written by themselves."""

    def __init__(self, body: Body) -> None:
        super().__init__()
        self.body, self.conv = body, SAGEConv(8, 4)

    def forward(self, x: Tensor, edge_index: Tensor, kind: Tensor) -> Tensor:
        sizes = torch.zeros(3, dtype=torch.long).scatter_add(0, kind, torch.ones_like(kind)).tolist()
        return self.conv(self.body(x, sizes), edge_index)


@pytest.mark.parametrize("body", BODIES, ids=lambda body: body.__name__.strip("_"))
def test_written_parts_are_those_of_eager(body: Body) -> None:
    model = Typed(body).eval()
    engine = fg.compile(model)
    with torch.no_grad():
        for bounds in ([4, 9], [1, 2], [0, 12], [6, 6]):
            kind = (torch.arange(12).view(-1, 1) >= torch.tensor(bounds)).sum(1)
            torch.testing.assert_close(engine(X, EDGES, kind), model(X, EDGES, kind), rtol=1e-5, atol=1e-5)


class Refused(Typed):
    """Slices between counted bounds have no capture; the model's own forward serves."""

    def forward(self, x: Tensor, edge_index: Tensor, kind: Tensor) -> Tensor:
        first, second = torch.bincount(kind, minlength=3)[:2].tolist()
        out = x.clone()
        out[first:] *= 2
        out[first : first + second] += 1
        return self.conv(out, edge_index)


def test_refused_slices_have_a_working_fallback() -> None:
    model, kind = Refused(_each).eval(), torch.arange(12) // 5
    with pytest.raises(fg.CaptureError):
        fg.compile(model)(X, EDGES, kind)
    with torch.no_grad():
        expected = model(X, EDGES, kind)
    assert torch.equal(fg.compile(model, fallback="eager")(X, EDGES, kind), expected)


@pytest.mark.parametrize(
    ("module", "step"),
    [("capture.trace", "functionalize"), ("capture.trace", "clean"), ("engine", "optimise"), ("engine", "cut")],
)
def test_no_error_of_a_trace_leaves_unwrapped(module: str, step: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Wherever a symbolic size is taken for a number, it is a `CaptureError`, and the fallback works."""

    def fails(*args: object, **kwargs: object) -> None:
        raise GuardOnDataDependentSymNode(torch.sym_not(True), "Could not extract specialized integer from u2")

    model, kind = Typed(_each).eval(), torch.arange(12) // 5
    with torch.no_grad():
        expected = model(X, EDGES, kind)
    monkeypatch.setattr(sys.modules[f"pyg_fullgraph.{module}"], step, fails)
    with pytest.raises(fg.CaptureError, match="decision of torch"):
        fg.compile(model)(X, EDGES, kind)
    assert torch.equal(fg.compile(model, fallback="eager")(X, EDGES, kind), expected)
