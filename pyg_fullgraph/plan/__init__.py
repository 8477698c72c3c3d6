"""How a program runs on a given graph: row blocks now, bytes and peak memory predicted."""

from pyg_fullgraph.plan.blocks import Blocks, cut_blocks, edge_limit
from pyg_fullgraph.plan.costs import BlockCost, StepCost, predict

__all__ = ["BlockCost", "Blocks", "StepCost", "cut_blocks", "edge_limit", "predict"]
