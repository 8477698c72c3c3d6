"""Sparse matrices inside of a traced forward: of torch, of torch_sparse, and `EdgeIndex`."""

from pyg_fullgraph.capture.sparse.functions import SPARSE, sparse_names
from pyg_fullgraph.capture.sparse.given import stand_ins
from pyg_fullgraph.capture.sparse.held import Held, in_place
from pyg_fullgraph.capture.sparse.returned import assembled, taken_apart

__all__ = ["SPARSE", "Held", "assembled", "in_place", "sparse_names", "stand_ins", "taken_apart"]
