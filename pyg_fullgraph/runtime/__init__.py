"""The block executor, and the homes of the values at the cuts."""

from pyg_fullgraph.runtime.executor import Compiled, Run
from pyg_fullgraph.runtime.home import Home, MappedHome, MemoryHome, Table, TensorTable, make_home
from pyg_fullgraph.runtime.in_edges import InEdges
from pyg_fullgraph.runtime.progress import Progress
from pyg_fullgraph.runtime.structure import Structure

__all__ = [
    "Compiled",
    "Home",
    "InEdges",
    "MappedHome",
    "MemoryHome",
    "Progress",
    "Run",
    "Structure",
    "Table",
    "TensorTable",
    "make_home",
]
