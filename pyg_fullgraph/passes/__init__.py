"""Program -> Program, one pass per file, and the cut into supersteps. The pipeline is a plain named list."""

from pyg_fullgraph.passes.cut import cut
from pyg_fullgraph.passes.pipeline import PIPELINE, Change, optimise

__all__ = ["PIPELINE", "Change", "cut", "optimise"]
