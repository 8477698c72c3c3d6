"""Sparse matrices inside of a traced forward: of torch, of torch_sparse, and `EdgeIndex`."""

from pyg_fullgraph.capture.sparse.functions import SPARSE, sparse_names

__all__ = ["SPARSE", "sparse_names"]
