"""The program between capture and runtime: values, levels, supersteps and their printer."""

from pyg_fullgraph.ir.program import Dim, Program, Ref, Stage, Value, by_column, is_aten, map_args, packet_of, refs_of
from pyg_fullgraph.ir.superstep import BlockProgram, Schedule, Superstep, needs_all_rows

__all__ = [
    "BlockProgram",
    "Dim",
    "Program",
    "Ref",
    "Schedule",
    "Stage",
    "Superstep",
    "Value",
    "by_column",
    "is_aten",
    "map_args",
    "needs_all_rows",
    "packet_of",
    "refs_of",
]
