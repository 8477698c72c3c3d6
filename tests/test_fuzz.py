"""A few of the random calls that `python -m tests.fuzz` makes by the thousand."""

from __future__ import annotations

import pytest
import torch

from tests import fuzz

pytestmark = pytest.mark.full


@pytest.mark.parametrize("seed", [20_000, 30_000, 40_000])
def test_random_calls_equal_eager(seed: int) -> None:
    tally = fuzz.run(30, seed)
    assert not tally.wrong
    assert tally.counts["equal"] >= 30


def test_a_difference_is_found() -> None:
    """Of a value, of a type, and where only one is finite; not between infinities, nor in what float64 excuses."""

    module, inputs = torch.nn.Identity(), ((torch.ones(3),), {})
    assert fuzz.difference(module, inputs, torch.ones(3), torch.ones(3)) == ""
    assert fuzz.difference(module, inputs, torch.ones(3), torch.tensor([1.0, 1.0, 1.001]))
    assert fuzz.difference(module, inputs, torch.ones(3), torch.ones(3).double())
    assert fuzz.difference(module, inputs, torch.ones(3), torch.tensor([1.0, 1.0, float("nan")]))
    infinite = torch.tensor([1.0, float("-inf"), float("nan")])
    assert fuzz.difference(module, inputs, infinite, infinite.clone()) == ""


class _Spread(torch.nn.Module):
    """The mean and the standard deviation of the rows; the latter is rounding alone where they are nearly equal."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        mean = torch.stack(x.unbind(0)).sum(0) / len(x)
        squares = torch.stack((x * x).unbind(0)).sum(0) / len(x)
        return torch.cat([mean, (squares - mean * mean).relu().sqrt()])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_where_the_own_result_is_right_by_luck(dtype: torch.dtype) -> None:
    """Equal rows of few digits give 0; rows a unit apart show how far the model's own operators are off there.

    In half types alone: in float32 a result has to be as close as the model's own on these very inputs.
    """
    module, x = _Spread(), torch.ones(5, 4, dtype=dtype)
    own, got = module(x), module(x)
    got[5] = 0.02
    wrong = own.clone()
    wrong[5] = 0.5
    assert (fuzz.difference(module, ((x,), {}), own, got) == "") is (dtype != torch.float32)
    assert fuzz.difference(module, ((x,), {}), own, wrong)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_neighbours_are_a_unit_in_the_last_place_away(dtype: torch.dtype) -> None:
    x = torch.tensor([1.5, -2.25, 100.0, -1e-2]).to(dtype)
    inputs = ((x, torch.tensor([3, 4])), {"scale": torch.ones(2)})
    seen = [fuzz.next_to(inputs, torch.Generator().manual_seed(seed)) for seed in range(20)]
    away = torch.stack([near[0][0].double() - x.double() for near in seen])
    unit = torch.finfo(dtype).eps * x.double().abs()
    assert (away.abs() <= unit).all() and (away.abs().amax(0) > 0).all()
    assert all(torch.equal(near[0][1], inputs[0][1]) and near[1]["scale"].eq(1).all() for near in seen)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_no_half_type_excuses_a_wrong_value(dtype: torch.dtype) -> None:
    module = torch.nn.Linear(4, 3).to(dtype)
    x = torch.randn(6, 4, generator=torch.Generator().manual_seed(0)).to(dtype)
    own = module(x).detach()
    wrong = own.clone()
    wrong[2, 1] += 0.2 * own.abs().max()
    assert fuzz.difference(module, ((x,), {}), own, own.clone()) == ""
    assert fuzz.difference(module, ((x,), {}), own, wrong)
