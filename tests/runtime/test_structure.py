"""Sizes are asked once, and again where a value tells another number."""

from __future__ import annotations

import sympy
import torch

from pyg_fullgraph.ir import Program, Stage, Value
from pyg_fullgraph.runtime import Structure

N = sympy.Symbol("u0", integer=True)
K = sympy.Symbol("u1", integer=True)


def structure() -> Structure:
    x = Value("x", "input", ("x",), {}, (N, 3), torch.float32, Stage.DATA)
    target = torch.ops.aten._local_scalar_dense.default
    item = Value("item", "aten", (), {}, (), torch.int64, Stage.DATA, target)
    return Structure(Program({"x": x, "item": item}, None, definers={K: "item"}), {"x": torch.zeros(5, 3)})


def test_sizes_and_arithmetic_on_them() -> None:
    found = structure()
    for _ in range(2):
        assert found.size_of(N) == 5
        assert found.size_of(2 * N + 1) == 11
        assert found.size_of(N / 2) == 2.5


def test_a_size_read_from_data_is_not_that_of_the_last_call() -> None:
    found = structure()
    for number in (4, 9, 9, 4):
        found.learn("item", number)
        assert (found.size_of(K), found.size_of(N + K)) == (number, 5 + number)


def test_a_restricted_structure_has_its_own_rows_but_the_sizes_of_all() -> None:
    found = structure()
    found.size_of(N + 1)
    small = found.restricted({N: 2})
    assert (small.size_of(N + 1), found.size_of(N + 1)) == (6, 6)
    assert (small.rows_of(N), small.rows_of(2 * N), found.rows_of(N)) == (2, 4, 5)
