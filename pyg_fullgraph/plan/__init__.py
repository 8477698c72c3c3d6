"""How a program runs on a given graph: row blocks now; bytes, seconds and peak memory predicted."""

from pyg_fullgraph.plan.blocks import Blocks, cut_blocks, edge_limit
from pyg_fullgraph.plan.costs import BlockCost, StepCost, predict
from pyg_fullgraph.plan.machine import Machine, measure_machine

__all__ = [
    "BlockCost",
    "Blocks",
    "Machine",
    "StepCost",
    "cut_blocks",
    "edge_limit",
    "measure_machine",
    "predict",
]
