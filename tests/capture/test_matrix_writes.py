"""What a forward writes into a sparse matrix: seen by whatever shares its memory in torch, and by nothing else."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch_geometric.nn import EGConv

import pyg_fullgraph as fg
from tests.capture.test_matrices import LAYOUTS, close, coo

N = 30


def filled(matrix: Tensor) -> Tensor:
    """All values 1, in place, however the matrix stores them."""
    (matrix._values() if matrix.layout == torch.sparse_coo else matrix.values()).fill_(1.0)
    return matrix


def both(a: Tensor, other: Tensor, x: Tensor) -> Tensor:
    """A matrix and one made of it, after the latter was filled with ones."""
    filled(other)
    return a @ x + 3 * (other @ x)


def moved_rows(a: Tensor, x: Tensor) -> Tensor:
    own = a.clone()
    own._indices()[0].copy_(own._indices()[1])
    return own @ x + a @ x


def halved_entries(a: Tensor, x: Tensor) -> Tensor:
    a = a.coalesce().clone()
    a.values()[::2] *= 0.5
    return a @ x


OF_ANY: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "clone": lambda a, x: both(a, a.clone(), x),
    "torch.clone": lambda a, x: both(a, torch.clone(a), x),
    "of a clone": lambda a, x: both(a.clone().detach(), a, x),
    "detach": lambda a, x: both(a.clone(), a.detach(), x),
    "same": lambda a, x: both(a, a, x),
    "transposed": lambda a, x: both(a, a.t(), x),
    "transposed by hand": lambda a, x: both(a, a.transpose(0, 1), x),
    "mT": lambda a, x: both(a, a.mT, x),
    "double and back": lambda a, x: both(a, a.double().float(), x),
    "no other type": lambda a, x: both(a, a.to(torch.float32), x),
}
OF_COO: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "deepcopy": lambda a, x: both(a, copy.deepcopy(a), x),
    "T": lambda a, x: both(a, a.T, x),
    "indices": moved_rows,
    "some values": halved_entries,
}


class Written(nn.Module):
    def __init__(self, function: Callable[[Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self.lin, self.function = nn.Linear(4, 4), function

    def forward(self, x: Tensor, adj: Tensor) -> Tensor:
        return self.function(adj, torch.relu(self.lin(x)))


@pytest.mark.parametrize("layout", ["coo", "csr", "csc", "duplicates"])
@pytest.mark.parametrize("name", [*OF_ANY, *OF_COO])
def test_memory_is_shared_as_in_torch(name: str, layout: str) -> None:
    if name in OF_COO and layout in ("csr", "csc"):
        pytest.skip("torch does not do it")
    model = Written((OF_ANY | OF_COO)[name]).eval()
    adj, x = LAYOUTS[layout](coo()), torch.randn(N, 4)
    given = adj.clone()
    want = model(x, given)
    close(fg.compile(model, verify="off")(x, adj), want)


@pytest.mark.parametrize("loops", [True, False])
@pytest.mark.parametrize("aggregators", [["sum", "symnorm", "std"], ["symnorm"], ["mean", "var", "symnorm"]])
def test_a_layer_that_fills_a_clone(aggregators: list[str], loops: bool) -> None:
    model = EGConv(4, 16, aggregators=aggregators, add_self_loops=loops, num_heads=4).eval()
    adj, x = LAYOUTS["csr"](coo()), torch.randn(N, 4)
    close(fg.compile(model, verify="off")(x, adj), model(x, adj))
