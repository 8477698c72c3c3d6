"""A few of the random calls that `python -m tests.fuzz` makes by the thousand."""

from __future__ import annotations

import pytest
import torch

from tests import fuzz


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
