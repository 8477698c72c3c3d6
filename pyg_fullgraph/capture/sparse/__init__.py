"""Sparse matrices inside of a traced forward: of torch, of torch_sparse, and `EdgeIndex`."""

from pyg_fullgraph.capture.sparse.functions import SPARSE, sparse_names
from pyg_fullgraph.capture.sparse.returned import assembled, returns_matrix, taken_apart

__all__ = ["SPARSE", "assembled", "returns_matrix", "sparse_names", "taken_apart"]
