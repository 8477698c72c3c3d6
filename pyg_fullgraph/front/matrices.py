"""Sparse matrices of a call as edge lists, so that verification can take some of their entries and nodes.

An entry at (row, column) is an edge from the column's node to the row's, as in `adj_t`. The edge list `[2, nnz]` stands
in the place of the matrix's first index; what verification leaves of it becomes a matrix of the same kind again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from pyg_fullgraph.capture.arguments import Branch
from pyg_fullgraph.capture.batches import plain_dims
from pyg_fullgraph.capture.matrices import Kind
from pyg_fullgraph.capture.signature import Signature
from pyg_fullgraph.capture.sparse import in_place
from pyg_fullgraph.front.verify import Inputs
from pyg_fullgraph.ir import Program
from pyg_fullgraph.ir.ends import pairs_of_ends

#: The argument that matrices of the model's attributes travel by.
HELD = "matrices held by the model"


@dataclass(frozen=True)
class _Leaves:
    """A matrix with two sparse dimensions: the numbers of its leaves."""

    kind: Kind
    indices: tuple[int, int]
    counters: tuple[int, int]


def inputs_of(signature: Signature, tensors: list[Tensor], program: Program) -> Inputs:
    """A call for verification, its matrices as edge lists; those in attributes are in the keyword argument `HELD`."""
    numbered = pairs_of_ends(program)
    ends: list[Any] = [numbered.get(name, ()) for name in signature.names]
    matrices = list(_matrices(signature.spec))
    if not matrices:
        dims = [plain_dims(leaf, tensor) for leaf, tensor in zip(signature.leaves, tensors, strict=True)]
        return Inputs(tensors, dims, signature.call, ends=ends)
    shown, dims = list(tensors), _dims(signature, program)
    for matrix in matrices:
        first, last = matrix.indices
        shown[first] = _edges(matrix, tensors)
        dims[first] = (2, *dims[last])
        ends[first] = tuple(d if isinstance(d, str) else None for d in (dims[n][0] for n in matrix.counters[::-1]))

    def rebuild(parts: list[Tensor]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        made = list(parts)
        for matrix in matrices:
            for leaf, index in zip(matrix.indices, _indices(matrix, parts, tensors), strict=True):
                made[leaf] = index
        args, kwargs = signature.call(made)
        held = signature.held(made)
        return args, {**kwargs, HELD: held} if held else kwargs

    return Inputs(shown, dims, rebuild, ends=ends)


def rows_of_leaves(signature: Signature) -> dict[str, int]:
    """Leaf name -> the row of the edge list that this index of a matrix, or what is computed from it, is."""
    found = {}
    for matrix in _matrices(signature.spec):
        first, last = (signature.leaves[n].name for n in matrix.indices)
        by_column = matrix.kind.layout == "csc"
        found.update({first: 0 if by_column else 1, last: 1 if by_column else 0})
    return found


class Holding(torch.nn.Module):
    """A model that takes the matrices of its attributes as the argument `HELD`."""

    def __init__(self, model: torch.nn.Module) -> None:
        super().__init__()
        self.model, self.training = model, model.training

    @property
    def holds(self) -> torch.nn.Module:
        """The model: hooks are named by their layers in it."""
        return self.model

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        held = kwargs.pop(HELD, {})
        with in_place(self.model, held):
            return getattr(self.model, "oracle", self.model)(*args, **kwargs)


def holding(model: torch.nn.Module, engine: Callable[..., Any]) -> Callable[..., Any]:
    """An engine of the model that takes them as well."""

    def run(*args: Any, **kwargs: Any) -> Any:
        with in_place(model, kwargs.pop(HELD, {})):
            return engine(*args, **kwargs)

    return run


def _matrices(node: Any, seen: set[tuple[int, int]] | None = None) -> Iterator[_Leaves]:
    """Every matrix in a tree once; sparse vectors and tensors of more dimensions are no graphs."""
    seen = set() if seen is None else seen
    if not isinstance(node, Branch):
        return
    if node.kind == "matrix" and node.keys[0].dims == 2:
        numbers = [slot.index for slot in node.children]
        found = _Leaves(node.keys[0], (numbers[0], numbers[1]), (numbers[-2], numbers[-1]))
        if found.indices not in seen:
            seen.add(found.indices)
            yield found
    for child in node.children:
        yield from _matrices(child, seen)


def _dims(signature: Signature, program: Program) -> list[tuple[int | str, ...]]:
    """Dimensions of the leaves: spaces that the program found to be equal are one, fixed sizes are none."""
    known = {value.args[0]: value.shape for value in program if value.op == "input"}
    same = {}
    for leaf in signature.leaves:
        for dim, size in zip(leaf.dims, known.get(leaf.name, ()), strict=False):
            if isinstance(dim, str):
                same[dim] = int(size) if getattr(size, "is_Integer", isinstance(size, int)) else program.spaces[size]
    return [tuple(same.get(d, d) if isinstance(d, str) else d for d in leaf.dims) for leaf in signature.leaves]


def _edges(matrix: _Leaves, tensors: list[Tensor]) -> Tensor:
    """`[2, nnz]`: columns (where messages come from), then rows."""
    first, last = (tensors[n] for n in matrix.indices)
    if matrix.kind.layout not in ("csr", "csc"):
        return torch.stack([last, first])
    own = torch.arange(first.numel() - 1, dtype=last.dtype, device=last.device)
    own = own.repeat_interleave(first.diff(), output_size=last.numel())
    return torch.stack([last, own] if matrix.kind.layout == "csr" else [own, last])


def _indices(matrix: _Leaves, parts: list[Tensor], tensors: list[Tensor]) -> tuple[Tensor, Tensor]:
    """The indices of a matrix with these edges, which are in the order of the whole matrix."""
    column, row = parts[matrix.indices[0]].unbind(0)
    if matrix.kind.layout not in ("csr", "csc"):
        return row, column
    own, other = (row, column) if matrix.kind.layout == "csr" else (column, row)
    count = parts[matrix.counters[0 if matrix.kind.layout == "csr" else 1]].size(0)
    bounds = torch.zeros(count + 1, dtype=torch.int64, device=own.device)
    bounds[1:] = torch.bincount(own, minlength=count).cumsum(0)
    return bounds.to(tensors[matrix.indices[0]].dtype), other
