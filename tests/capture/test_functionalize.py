"""In-place operators and writes through views: the functional program computes what eager leaves behind."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from pyg_fullgraph.errors import CaptureError
from tests.capture.replay import assert_equal, capture, eager, replay
from tests.cases.case import TRACE_GRAPH, replay_graph
from tests.cases.inputs import features

Body = Callable[[Tensor, Tensor], object]


class Model(torch.nn.Module):
    """A forward of (x, edge_index) that is one function."""

    def __init__(self, body: Body) -> None:
        super().__init__()
        self.body = body
        self.register_buffer("count", torch.zeros(1))

    def forward(self, x: Tensor, edge_index: Tensor) -> object:
        return self.body(x, edge_index)


def _chain(x: Tensor, e: Tensor) -> Tensor:
    return x.clone().add_(1).mul_(2).relu_().clamp_(max=3).sub_(0.5).pow_(2).sqrt_().neg_()


def _column(x: Tensor, e: Tensor) -> Tensor:
    out = torch.zeros_like(x)
    out[:, 1] = x[:, 0]
    out[:, 2:4] = x[:, :2]
    out[:, -1] += 3.0
    return out


def _mask(x: Tensor, e: Tensor) -> Tensor:
    out = x.clone()
    out[x > 0.5] = -1.0
    out[out.sum(dim=1) < 0] = 2.0
    return out.masked_fill_(out == 2.0, 5.0)


def _stale_view(x: Tensor, e: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    out = x * 2
    first, rest = out[:, 0], out[:, 1:]
    before = first + 1
    out.mul_(10)
    rest.add_(first.unsqueeze(-1))
    return before, first, out


def _view_of_changed(x: Tensor, e: Tensor) -> tuple[Tensor, Tensor]:
    out = x + 0
    out.add_(1)
    part = out[:, :3]
    part.mul_(2)
    inner = part[:, 0]
    inner.fill_(9.0)
    return out, part


def _reshaped(x: Tensor, e: Tensor) -> Tensor:
    out = x * 1
    out.view(-1, 4, 4)[:, 2].zero_()
    out.t()[0].copy_(torch.arange(x.size(0)))
    out.unsqueeze(0).permute(2, 1, 0)[3].mul_(7)
    return out


def _parts(x: Tensor, e: Tensor) -> Tensor:
    out = x * 1
    left, right = out.split(8, dim=1)
    left.add_(right)
    out.unbind(1)[5].fill_(1.0)
    out.chunk(4, dim=1)[3].mul_(2)
    return out


def _scatters(x: Tensor, e: Tensor) -> tuple[Tensor, ...]:
    index = e[1].unsqueeze(-1).expand(-1, x.size(1))
    messages = x[e[0]]
    base = x.new_zeros(x.size(0), x.size(1))
    top = torch.full_like(x, -5.0).scatter_reduce_(0, index, messages, "amax", include_self=True)
    added = base.clone().index_add_(0, e[1], messages)
    placed = base.clone().index_put_((e[1],), messages, accumulate=True)
    product = x.new_ones(x.shape).scatter_reduce_(0, index, messages, reduce="prod")
    return base.scatter_add_(0, index, messages), top, added, placed, product


def _index_rows(x: Tensor, e: Tensor) -> Tensor:
    out = torch.empty_like(x).fill_(0.5)
    out[e[1][:1]] = 3.0
    out.index_fill_(0, e[0][:1], 2.0)
    return out


def _types(x: Tensor, e: Tensor) -> tuple[Tensor, Tensor]:
    low = x.to(torch.float16)
    low.add_(x)
    count = torch.zeros(x.size(0), dtype=torch.int32)
    count.add_(torch.ones(x.size(0), dtype=torch.int64))
    return low.float(), count


def _out_argument(x: Tensor, e: Tensor) -> Tensor:
    out = x.new_zeros(x.size(0) + 1, x.size(1))
    torch.cumsum(x, dim=0, out=out[1:])
    return out


def _argument(x: Tensor, e: Tensor) -> Tensor:
    y = x.detach()
    y.add_(1.0)
    return x * 2


BODIES = [
    _chain,
    _column,
    _mask,
    _stale_view,
    _view_of_changed,
    _reshaped,
    _parts,
    _scatters,
    _index_rows,
    _types,
    _out_argument,
    _argument,
]


@pytest.mark.parametrize("body", BODIES, ids=lambda body: body.__name__.strip("_"))
def test_functional_program_equals_eager(body: Body) -> None:
    model = Model(body).eval()
    traced = capture(model, (features(TRACE_GRAPH[0]), TRACE_GRAPH[1]))
    for node in traced.graph.nodes:
        if isinstance(node.target, torch._ops.OpOverload):
            assert not any(a.alias_info and a.alias_info.is_write for a in node.target._schema.arguments)
    for graph in (replay_graph(), TRACE_GRAPH):
        args = (features(graph[0]), graph[1])
        got = replay(model, traced, (args[0].clone(), args[1]))
        assert_equal(got, eager(model, (args[0].clone(), args[1])))


def test_overwritten_argument_is_told_and_untouched() -> None:
    model = Model(_argument).eval()
    x = features(TRACE_GRAPH[0])
    traced = capture(model, (x, TRACE_GRAPH[1]))
    assert any("overwrites its argument 'x'" in note for note in traced.model_notes)
    kept = x.clone()
    replay(model, traced, (x, TRACE_GRAPH[1]))
    assert torch.equal(x, kept)


class Counting(Model):
    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        self.count.add_(1)
        return x * self.count


REFUSED = [
    (Counting(_chain), "writes into the parameter or buffer 'count'"),
    (Model(lambda x, e: torch.nn.functional.dropout(x, 0.5, training=True)), "is random"),
    (Model(lambda x, e: x + torch.rand(x.size(0), 1)), "is random"),
]


@pytest.mark.parametrize(("model", "text"), REFUSED, ids=[text for _, text in REFUSED])
def test_refused_with_its_line(model: Model, text: str) -> None:
    with pytest.raises(CaptureError, match=text) as caught:
        capture(model.eval(), (features(TRACE_GRAPH[0]), TRACE_GRAPH[1]))
    assert "test_functionalize.py:" in str(caught.value)


def test_constants_read_no_data() -> None:
    """zeros_like of an edge tensor is a `full` of the edge count, which is read from the inputs."""

    def body(x: Tensor, e: Tensor) -> Tensor:
        messages = x[e[0]]
        return (
            torch.ones_like(messages) + torch.zeros_like(messages[:, :1]) + messages.new_full((messages.size(0), 1), 2)
        )

    traced = capture(Model(body).eval(), (features(TRACE_GRAPH[0]), TRACE_GRAPH[1]))
    targets = [node.target for node in traced.graph.nodes if node.op == "call_function"]
    assert torch.ops.aten.index.Tensor not in targets
    reads = [node for node in traced.graph.nodes if node.target is torch.ops.aten.sym_size.int]
    assert [node.args[0].name for node in reads] == ["edge_index"]
