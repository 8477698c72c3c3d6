"""Graphs: the vocabulary, CSR by destination, conversions, checks and generators. May import `ops` only."""

from pyg_fullgraph.graph.convert import Edges, to_edges
from pyg_fullgraph.graph.csr import CSR, Neighborhood
from pyg_fullgraph.graph.graph import Graph

__all__ = ["CSR", "Edges", "Graph", "Neighborhood", "to_edges"]
