"""Attention of several heads: scores from narrow products; rows that heads share are gathered once."""

from __future__ import annotations

import pytest
import torch
import torch_geometric.nn as gnn
from torch import Tensor

from pyg_fullgraph.ir import Program, Value
from pyg_fullgraph.passes import cut

from .programs import EDGE_ATTR, EDGE_INDEX, X, assert_same, optimised, values


def attention_of(program: Program) -> Value:
    (value,) = values(program, "attention")
    return value


def gathered_columns(program: Program) -> int:
    """Columns that the attention gathers."""
    return program[attention_of(program).args[0].name].width


def conv(channels: int = 8, **options: object) -> torch.nn.Module:
    """A GAT layer on 16 columns."""
    torch.manual_seed(0)
    return gnn.GATConv(16, channels, heads=4, **options).eval()


def test_averaged_heads_gather_the_layers_input_once() -> None:
    layer = conv(concat=False)
    program = optimised(layer, X, EDGE_INDEX)
    attention = attention_of(program)
    assert program[attention.args[0].name].shape[1:] == (1, 16)
    assert attention.shape[1:] == (4, 16)
    assert not values(program, "mean")
    apart = optimised(layer, X, EDGE_INDEX, skip=("heads",))
    assert program[attention.args[0].name].width < apart[attention_of(apart).args[0].name].width
    assert_same(layer, X, EDGE_INDEX)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("residual", [True, False])
def test_options_of_the_layer(bias: bool, residual: bool) -> None:
    layer = conv(concat=False, bias=bias, residual=residual)
    assert gathered_columns(optimised(layer, X, EDGE_INDEX)) == 16
    assert_same(layer, X, EDGE_INDEX)


def test_heads_side_by_side_are_multiplied_first() -> None:
    layer = conv(concat=True)
    assert gathered_columns(optimised(layer, X, EDGE_INDEX)) == 32
    assert_same(layer, X, EDGE_INDEX)


def test_a_wide_input_is_multiplied_first() -> None:
    wide = torch.randn(X.shape[0], 40, generator=torch.Generator().manual_seed(0))
    layer = gnn.GATConv(40, 8, heads=4, concat=False).eval()
    assert gathered_columns(optimised(layer, wide, EDGE_INDEX)) == 32
    assert_same(layer, wide, EDGE_INDEX)


def test_edge_attributes_keep_their_scores() -> None:
    layer = conv(concat=False, edge_dim=3)
    assert gathered_columns(optimised(layer, X, EDGE_INDEX, EDGE_ATTR)) == 32
    assert_same(layer, X, EDGE_INDEX, EDGE_ATTR)


def test_the_products_other_uses_keep_it() -> None:
    class Both(torch.nn.Module):
        """A layer's output next to the rows that it gathers."""

        def __init__(self) -> None:
            super().__init__()
            self.layer = conv(concat=False)

        def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
            return torch.cat([self.layer(x, edge_index), self.layer.lin(x)], dim=-1)

    assert gathered_columns(optimised(Both().eval(), X, EDGE_INDEX)) == 32
    assert_same(Both().eval(), X, EDGE_INDEX)


def test_a_score_is_a_product_of_few_columns() -> None:
    layer = conv()
    program = optimised(layer, X, EDGE_INDEX)
    scores = [program[attention_of(program).kwargs[role].name] for role in ("score_src", "score_dst")]
    assert all(score.target is torch.ops.aten.mm.default and score.width == 4 for score in scores)
    assert not values(program, "sum", "N")
    assert values(optimised(layer, X, EDGE_INDEX, skip=("scores",)), "sum", "N")


def test_a_score_of_a_very_wide_input_is_added_up_from_its_product() -> None:
    wide = torch.randn(X.shape[0], 200, generator=torch.Generator().manual_seed(0))
    layer = gnn.GATConv(200, 4, heads=4).eval()
    assert values(optimised(layer, wide, EDGE_INDEX), "sum", "N")
    assert_same(layer, wide, EDGE_INDEX)


def test_a_product_that_only_scores_need_is_never_made() -> None:
    class Sides(torch.nn.Module):
        """Destinations with a transformation of their own, of which only scores are wanted."""

        def __init__(self) -> None:
            super().__init__()
            self.layer = gnn.GATConv((16, 200), 4, heads=4, add_self_loops=False)

        def forward(self, x: Tensor, other: Tensor, edge_index: Tensor) -> Tensor:
            return self.layer((x, other), edge_index)

    torch.manual_seed(0)
    module = Sides().eval()
    other = torch.randn(X.shape[0], 200, generator=torch.Generator().manual_seed(0))
    program = optimised(module, X, other, EDGE_INDEX)
    assert sorted(value.width for value in values(program, "mm")) == [4, 4, 16]
    assert_same(module, X, other, EDGE_INDEX)


def test_bias_of_the_product_enters_the_scores() -> None:
    class Scored(torch.nn.Module):
        """A linear map with a bias, weighted by scores of itself."""

        def __init__(self) -> None:
            super().__init__()
            self.lin, self.att = torch.nn.Linear(16, 32), torch.nn.Parameter(torch.randn(1, 4, 8))
            self.conv = gnn.SimpleConv()

        def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
            h = self.lin(x).view(-1, 4, 8)
            return self.conv((h * self.att).sum(-1), edge_index)

    torch.manual_seed(0)
    module = Scored().eval()
    program = optimised(module, X, EDGE_INDEX)
    assert [value.width for value in values(program, "addmm")] == [4]
    assert_same(module, X, EDGE_INDEX)


def test_half_precision_is_left_alone() -> None:
    layer = conv(concat=False).bfloat16()
    assert gathered_columns(optimised(layer, X.bfloat16(), EDGE_INDEX)) == 32


def test_a_score_is_stored_in_place_of_the_rows_it_is_made_of() -> None:
    torch.manual_seed(0)
    model = gnn.models.GAT(16, 32, 2, 32, heads=4).eval()
    program = optimised(model, X, EDGE_INDEX)
    stored = [program[name] for step in cut(program).steps for block in step.blocks for name in block.stored]
    assert "relu" not in {value.target.overloadpacket.__name__ for value in stored if value.target is not None}
    assert sum(value.width == 4 for value in stored) == 3  # two of the second layer, the first one's of sources
    assert_same(model, X, EDGE_INDEX)
