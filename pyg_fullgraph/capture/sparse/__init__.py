"""Sparse matrices inside of a traced forward: of torch, of torch_sparse, and `EdgeIndex`."""

from pyg_fullgraph.capture.sparse.functions import SPARSE, sparse_names
from pyg_fullgraph.capture.sparse.returned import assembled, taken_apart

__all__ = ["SPARSE", "assembled", "sparse_names", "taken_apart"]
