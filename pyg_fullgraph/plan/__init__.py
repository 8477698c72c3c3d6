"""How a program runs on a given graph: row blocks now; bytes, seconds and peak memory predicted."""

from pyg_fullgraph.plan.blocks import Blocks, cut_blocks, edge_limit
from pyg_fullgraph.plan.costs import BlockCost, StepCost, predict
from pyg_fullgraph.plan.machine import Machine, measure_machine
from pyg_fullgraph.plan.plan import Launch, Limits, Plan, StepPlan, make_plan, row_blocks
from pyg_fullgraph.plan.tables import Residence, TableSpec, placed_parts

__all__ = [
    "BlockCost",
    "Blocks",
    "Launch",
    "Limits",
    "Machine",
    "Plan",
    "Residence",
    "StepCost",
    "StepPlan",
    "TableSpec",
    "cut_blocks",
    "edge_limit",
    "make_plan",
    "measure_machine",
    "placed_parts",
    "predict",
    "row_blocks",
]
