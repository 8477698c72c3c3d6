"""Sparse matrices that a forward returns: plain tensors while they are computed, matrices again at the end of a call.

`taken_apart` puts a dictionary of its parts (`ir.matrices`) in the place of every matrix, so that a program has tensors
and sizes as its outputs; `assembled` makes the matrices, of the layout and class that forward returned.
"""

from __future__ import annotations

import sys
from typing import Any

import torch
from torch.utils import _pytree as pytree

from pyg_fullgraph.capture.sparse.matrix import Matrix, is_matrix
from pyg_fullgraph.capture.sparse.sparse_tensor import SparseMatrix
from pyg_fullgraph.ir.matrices import MATRIX, is_apart

_COMPRESSED = {"csr": torch.sparse_csr_tensor, "csc": torch.sparse_csc_tensor}


def taken_apart(result: Any) -> Any:
    """What forward returned, with the parts of every matrix in its place."""
    return pytree.tree_map(_apart, result)


def assembled(result: Any) -> Any:
    """What forward returns, from the outputs of its program."""
    return pytree.tree_map(lambda leaf: _whole(leaf) if is_apart(leaf) else leaf, result, is_leaf=is_apart)


def _apart(leaf: Any) -> Any:
    if is_matrix(leaf):
        return _parts(leaf)
    if issubclass(type(leaf), SparseMatrix):
        row, col, value = leaf.coo()
        return {MATRIX: "SparseTensor", "indices": [row, col], "value": value, "size": list(leaf.sparse_sizes())}
    return leaf


def _parts(matrix: Matrix) -> dict[str, Any]:
    """The parts of a matrix as torch has them; where only their sum is known, of the matrix without duplicates."""
    if not matrix._exact:
        by_column = matrix._kind == "csc"
        merged = (matrix.like(kind="coo").t() if by_column else matrix.like(kind="coo")).merged()
        matrix = (merged.t() if by_column else merged).like(kind=matrix._kind, coalesced=True)
    parts: dict[str, Any] = {MATRIX: matrix._kind, "value": matrix._value, "size": list(matrix._size)}
    if matrix._kind == "coo":
        return {**parts, "indices": list(matrix._entry), "coalesced": matrix._coalesced}
    if matrix._kind == "csr":
        return {**parts, "indices": [matrix.col_indices()], "bounds": matrix.crow_indices()}
    return {**parts, "indices": [matrix.row_indices()], "bounds": matrix.ccol_indices()}


def _whole(parts: dict[str, Any]) -> Any:
    """The matrix of these parts."""
    kind, indices, value, size = parts[MATRIX], parts["indices"], parts["value"], tuple(map(int, parts["size"]))
    if kind == "SparseTensor":
        cls = sys.modules["torch_sparse"].SparseTensor
        return cls(row=indices[0], col=indices[1], value=value, sparse_sizes=size, is_sorted=True)
    if kind == "coo":
        return torch.sparse_coo_tensor(torch.stack(indices), value, size, is_coalesced=parts["coalesced"] or None)
    return _COMPRESSED[kind](parts["bounds"].to(indices[0].dtype), indices[0], value, size)
