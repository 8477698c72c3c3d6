"""Sparse matrices that a forward returns: plain tensors while they are computed, matrices again at the end of a call.

`taken_apart` puts a dictionary of its entries in the place of every matrix, so that a program has tensors and sizes as
its outputs; `assembled` makes the matrices, of the layout and class that forward returned.
"""

from __future__ import annotations

import sys
from typing import Any

import torch
from torch.utils import _pytree as pytree

from pyg_fullgraph.capture.sparse.matrix import Matrix, is_matrix
from pyg_fullgraph.capture.sparse.sparse_tensor import SparseMatrix

_MARK = "a sparse matrix of the forward"
_COMPRESSED = {"csr": torch.sparse_csr_tensor, "csc": torch.sparse_csc_tensor}


def taken_apart(result: Any) -> Any:
    """What forward returned, with the entries of every matrix in its place."""
    return pytree.tree_map(_apart, result)


def assembled(result: Any) -> Any:
    """What forward returns, from the outputs of its program."""
    return pytree.tree_map(lambda leaf: _whole(leaf) if _is_apart(leaf) else leaf, result, is_leaf=_is_apart)


def returns_matrix(outputs: Any) -> bool:
    """Whether the outputs of a program hold the entries of a matrix."""
    return any(_is_apart(leaf) for leaf in pytree.tree_leaves(outputs, is_leaf=_is_apart))


def _is_apart(item: Any) -> bool:
    return isinstance(item, dict) and _MARK in item


def _apart(leaf: Any) -> Any:
    if is_matrix(leaf):
        return _entries(leaf)
    if issubclass(type(leaf), SparseMatrix):
        row, col, value = leaf.coo()
        return {_MARK: "SparseTensor", "row": row, "col": col, "value": value, "size": list(leaf.sparse_sizes())}
    return leaf


def _entries(matrix: Matrix) -> dict[str, Any]:
    """The parts of a matrix as torch has them; where only their sum is known, of the matrix without duplicates."""
    if not matrix._exact:
        by_column = matrix._kind == "csc"
        merged = (matrix.like(kind="coo").t() if by_column else matrix.like(kind="coo")).merged()
        matrix = (merged.t() if by_column else merged).like(kind=matrix._kind, coalesced=True)
    parts: dict[str, Any] = {_MARK: matrix._kind, "coalesced": matrix._coalesced}
    if matrix._kind == "coo":
        parts["indices"] = matrix._indices()
    elif matrix._kind == "csr":
        parts |= {"bounds": matrix.crow_indices(), "indices": matrix.col_indices()}
    else:
        parts |= {"bounds": matrix.ccol_indices(), "indices": matrix.row_indices()}
    return {**parts, "value": matrix._value, "size": list(matrix._size)}


def _whole(parts: dict[str, Any]) -> Any:
    """The matrix of these entries."""
    kind, value, size = parts[_MARK], parts["value"], tuple(int(n) for n in parts["size"])
    if kind == "SparseTensor":
        cls = sys.modules["torch_sparse"].SparseTensor
        return cls(row=parts["row"], col=parts["col"], value=value, sparse_sizes=size, is_sorted=True)
    if kind == "coo":
        return torch.sparse_coo_tensor(parts["indices"], value, size, is_coalesced=parts["coalesced"] or None)
    indices = parts["indices"]
    return _COMPRESSED[kind](parts["bounds"].to(indices.dtype), indices, value, size)
