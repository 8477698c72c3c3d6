"""Graphs and comparisons shared by the tests of the operators."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from pyg_fullgraph.ops import backend

DTYPES = [torch.float32, torch.float64, torch.bfloat16, torch.float16]
WIDTHS = [1, 3, 16, 31, 64, 100, 128, 257, 1000]
# Of the largest magnitude of the expected result. The half types are rounded once, at the end, by both sides.
TOLERANCE = {torch.float32: 5e-6, torch.float64: 1e-13, torch.bfloat16: 1e-2, torch.float16: 2e-3}


def short(value: object) -> str | None:
    """A readable id for a dtype."""
    return str(value).removeprefix("torch.") if isinstance(value, torch.dtype) else None


class Case:
    """A graph for the operators: source rows, and the edges of each destination row."""

    def __init__(self, nodes: int, degrees: list[int], seed: int = 0) -> None:
        self.random = torch.Generator().manual_seed(seed)
        self.nodes = nodes
        self.rowptr = torch.tensor([0, *degrees]).cumsum(0)
        self.rows, self.edges = len(degrees), sum(degrees)
        self.src = torch.randint(max(nodes, 1), (self.edges,), generator=self.random)

    def normal(self, *shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
        """Normally distributed values."""
        return torch.randn(shape, generator=self.random, dtype=torch.float64).to(dtype)


def hub_case() -> Case:
    """Rows with more edges than one thread takes, among small and empty ones."""
    return Case(50, [3, 0, 9000, 1, 7, 4097, 0])


def make_cases() -> dict[str, Callable[[], Case]]:
    """The graphs every operator is tried on."""

    def self_loops() -> Case:
        case = Case(9, [1] * 9)
        case.src = torch.arange(9)
        return case

    def duplicates() -> Case:
        case = Case(5, [4, 6, 2, 0, 1])
        case.src = torch.tensor([1, 1, 1, 1, 3, 3, 0, 0, 3, 3, 2, 2, 4])
        return case

    return {
        "no_rows": lambda: Case(3, []),
        "no_edges": lambda: Case(4, [0, 0, 0, 0]),
        "empty_graph": lambda: Case(0, []),
        "one_node": lambda: Case(1, [1]),
        "self_loops": self_loops,
        "duplicates": duplicates,
        "isolated_rows": lambda: Case(30, [0, 5, 0, 0, 9, 33, 0, 2, 0]),
        "many_rows": lambda: Case(300, [i % 23 for i in range(400)]),
        "hubs": hub_case,
    }


CASES = make_cases()


@pytest.fixture(params=list(CASES))
def case(request: pytest.FixtureRequest) -> Case:
    """Each graph in turn."""
    return CASES[request.param]()


@pytest.fixture(scope="session")
def extension() -> Any:
    """The built extension; without it the tests that need it are skipped."""
    module = backend.load().module
    if module is None:
        pytest.skip(backend.load().reason)
    return module


@pytest.fixture
def each_isa(extension: Any) -> Iterator[Callable[[], Iterator[str]]]:
    """A function that goes through the instruction sets, forcing each; the choice is restored afterwards."""
    before = extension.isa()

    def isas() -> Iterator[str]:
        for isa in extension.isas():
            extension.set_isa(isa)
            yield isa

    yield isas
    extension.set_isa(before)


def assert_close(got: Tensor, expected: Tensor, scale: float = 1.0) -> None:
    """Element by element within the type's tolerance of the largest magnitude; NaN and infinity where expected."""
    assert got.shape == expected.shape
    assert got.dtype == expected.dtype
    if expected.numel() == 0:
        return
    finite = expected[expected.isfinite()]
    largest = float(finite.abs().max()) if finite.numel() else 1.0
    bound = max(largest, 1e-3) * TOLERANCE[expected.dtype] * scale
    torch.testing.assert_close(got, expected, rtol=0, atol=bound, equal_nan=True)


def indices(src: Tensor, isa: str) -> list[Tensor]:
    """Source rows in the types to try: both for the widest instruction set, one for the others, to save time."""
    return {"baseline": [src], "avx2": [src.int()]}.get(isa, [src, src.int()])


def same_bits(a: Tensor, b: Tensor) -> bool:
    """Whether two tensors are bit-identical."""
    raw = {2: torch.int16, 4: torch.int32, 8: torch.int64}[a.element_size()]
    return torch.equal(a.view(raw), b.view(raw))
