"""Values are computed in their table, over an operand that nothing else uses, or in scratch that is used again."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from pyg_fullgraph.ir import Value
from pyg_fullgraph.plan.tables import view_base
from pyg_fullgraph.runtime.buffers import Place, Slot, out_overload, place_values
from pyg_fullgraph.runtime.products import find_products
from tests.passes.programs import EDGE_INDEX, X, values

from .blocks import compiled, new_run, only_block, rows_only


def placed(function: Callable[[Tensor], Tensor]) -> tuple[dict[str, Place], tuple[Slot, ...]]:
    """The places of a function of rows; what it computes in them is what it computes by itself."""
    module = rows_only(function)
    made = compiled(module)
    assert torch.equal(new_run(made, module).run(), module(X, EDGE_INDEX))
    program, block = only_block(made)
    return place_values(program, block, find_products(program, block))


def test_a_chain_is_computed_in_the_table_of_its_end() -> None:
    places, slots = placed(lambda x: ((x * 2).relu() + 1).exp())
    assert {place.table for place in places.values()} == {"exp"}
    assert len(places) == 4 and not slots


def test_the_users_table_is_never_written() -> None:
    x = X.clone()
    module = rows_only(lambda x: x.relu() + 1)
    new_run(compiled(module), module, x).run()
    assert torch.equal(x, X)


def test_an_operand_that_is_used_again_is_not_overwritten() -> None:
    places, slots = placed(lambda x: (lambda y: y.relu() + y.sin())(x.exp()))
    assert places["relu"] == places["add"] == Place(table="add")
    assert places["exp"] == places["sin"] == Place(slot=0)  # `sin` uses it last
    assert slots == (Slot((16,), torch.float32),)


def test_an_operand_that_is_used_twice_by_one_operator_is_not_overwritten() -> None:
    places, _ = placed(lambda x: (lambda y: y * y)(x.exp()))
    assert places["mul"] == Place(table="mul") and places["exp"] == Place(slot=0)


def test_a_use_of_a_view_is_a_use_of_the_value() -> None:
    def function(x: Tensor) -> Tensor:
        y = x.exp()
        half = y[:, :8]
        return torch.cat([y.neg()[:, :8], half], dim=1)

    placed(function)


def test_scratch_is_used_again_once_it_is_free() -> None:
    """Sixteen values in a row, of which two are alive at a time."""

    def function(x: Tensor) -> Tensor:
        total = x.sum(1, keepdim=True)
        for power in range(2, 10):
            total = total + (x * power).sin().sum(1, keepdim=True)
        return total

    places, slots = placed(function)
    assert len([place for place in places.values() if place.slot is not None]) >= 16
    assert len(slots) <= 3


def test_scratch_is_of_one_shape_and_type() -> None:
    _, slots = placed(lambda x: (x.exp().sum(1) > 1).to(torch.int32).neg().view(-1, 1) + x.sin()[:, :4].mul(2).exp())
    assert len(set(slots)) == len(slots)
    assert {len(slot.tail) for slot in slots} <= {0, 1}


@pytest.mark.parametrize("shape", [(4, 4), (2, 8), (16,)])
def test_a_stored_view_shares_the_table(shape: tuple[int, ...]) -> None:
    module = rows_only(lambda x: (lambda y: (y, y.view(-1, *shape)))(x.exp()))
    made = compiled(module)
    got = new_run(made, module).run()
    for one, other in zip(got, module(X, EDGE_INDEX), strict=True):
        assert torch.equal(one, other)
    names = [ref.name for ref in made.program.outputs]
    if names[0] != names[1]:
        program, block = only_block(made)
        assert view_base(program, names[1], block.stored) == names[0]
        assert view_base(program, names[0], block.stored) is None
        assert got[0].untyped_storage().data_ptr() == got[1].untyped_storage().data_ptr()


@pytest.mark.parametrize(
    ("function", "word", "found"),
    [
        (lambda x: x + 1, "add", "out"),
        (lambda x: x.sum(1), "sum", "IntList_out"),
        (lambda x: x.clamp(min=0.5), "clamp", "out"),
        (lambda x: x.view(-1, 4, 4), "view", None),
    ],
    ids=["add", "sum", "clamp", "view"],
)
def test_the_overload_that_takes_the_same_arguments_and_a_place(
    function: Callable[[Tensor], Tensor], word: str, found: str | None
) -> None:
    value: Value = values(compiled(rows_only(function)).program, word)[0]
    overload = out_overload(value)
    assert (overload and overload._overloadname) == found
