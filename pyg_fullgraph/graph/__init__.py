"""Graphs: CSR by destination, conversions, checks and generators. May import `ops` only."""

from pyg_fullgraph.graph.convert import Edges, to_edges
from pyg_fullgraph.graph.graph import Graph, Neighborhood

__all__ = ["Edges", "Graph", "Neighborhood", "to_edges"]
