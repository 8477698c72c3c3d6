"""The program between capture and runtime: values, levels, supersteps and their printer."""

from pyg_fullgraph.ir.program import Dim, Program, Ref, Stage, Value, is_aten, map_args, refs_of
from pyg_fullgraph.ir.superstep import BlockProgram, Schedule, Superstep

__all__ = [
    "BlockProgram",
    "Dim",
    "Program",
    "Ref",
    "Schedule",
    "Stage",
    "Superstep",
    "Value",
    "is_aten",
    "map_args",
    "refs_of",
]
