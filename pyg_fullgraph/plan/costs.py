"""What a schedule must move and hold on a given graph, predicted before the run."""

from __future__ import annotations

from dataclasses import dataclass

import sympy

from pyg_fullgraph.ir import BlockProgram, Program, Schedule, Stage, Value
from pyg_fullgraph.ir.fused import FUSED, At, index_of, operands
from pyg_fullgraph.ir.work import SizeOf, element_work, product_flops
from pyg_fullgraph.plan.blocks import EDGE_BYTES, ROW_BYTES, likely_blocks
from pyg_fullgraph.plan.machine import Machine
from pyg_fullgraph.plan.plan import Plan


@dataclass(frozen=True)
class BlockCost:
    """Bytes that one block program moves between memory and the processor, if a block's own values stay in cache.

    Args:
        space: name of its rows.
        rows: how many there are.
        gathered: rows of stored values fetched by edge index, and the indices and weights (bytes).
        read: stored values read in row order (bytes).
        written: values stored (bytes).
        flops: of matrix products.
        fetches: (bytes of a row, how many) of every value fetched by edge index; part of `gathered`.
        elements, exponentials: element-wise operations, and those among them that take an exponential.
        calls: of operators, over all blocks.
    """

    space: str
    rows: int
    gathered: int
    read: int
    written: int
    flops: int
    fetches: tuple[tuple[int, int], ...] = ()
    elements: int = 0
    exponentials: int = 0
    calls: int = 0

    @property
    def moved(self) -> int:
        return self.gathered + self.read + self.written

    def seconds(self, machine: Machine) -> float:
        """Predicted time: memory traffic, arithmetic and calls one after another, as a core does one or the other.

        What is not counted: that rows of hubs stay in cache, and that other work may share the machine.
        """
        fetched = sum(row * count for row, count in self.fetches)
        gathering = sum(row * count / machine.gather_rate(row) for row, count in self.fetches)
        moving = gathering + (self.moved - fetched) / machine.sequential
        arithmetic = self.elements / machine.elements + self.exponentials / machine.exponentials
        return moving + self.flops / machine.products + arithmetic + self.calls / machine.calls


@dataclass(frozen=True)
class StepCost:
    """Predicted cost of a superstep: its block programs, the tables alive during it, and blocks in flight (bytes)."""

    blocks: tuple[BlockCost, ...]
    tables: int
    in_flight: int

    def seconds(self, machine: Machine) -> float:
        """Predicted time of all its block programs; operators that run whole are not counted."""
        return sum(block.seconds(machine) for block in self.blocks)


def predict(
    program: Program, schedule: Schedule, size_of: SizeOf, threads: int, plan: Plan | None = None
) -> list[StepCost]:
    """Predicted bytes of every superstep.

    Args:
        program, schedule: what runs.
        size_of: symbolic size -> number; of every space of a DATA value.
        threads: blocks in flight.
        plan: of the graph, for the tables; without it they are not counted.
    """
    steps = []
    for number, step in enumerate(schedule.steps):
        costs = tuple(_block_cost(program, block, size_of) for block in step.blocks)
        in_flight = threads * (ROW_BYTES + EDGE_BYTES) if costs else 0
        steps.append(StepCost(costs, 0 if plan is None else plan.steps[number].held, in_flight))
    return steps


def _bytes(program: Program, name: str, size_of: SizeOf) -> int:
    total = program[name].dtype.itemsize if program[name].dtype is not None else 8  # type: ignore[union-attr]
    for size in program[name].shape:
        total *= int(size_of(size)) if isinstance(size, sympy.Expr) else int(size)
    return total


def _block_cost(program: Program, block: BlockProgram, size_of: SizeOf) -> BlockCost:
    rows = int(size_of(block.space))
    computed = {name for name, _ in block.order}
    gathered = flops = elements = exponentials = 0
    fetches: list[tuple[int, int]] = []
    read: set[str] = set()
    for name, _context in block.order:
        value = program[name]
        if value.op == "gather" or value.op in FUSED:
            indices, rows_of = _gathered(program, name, size_of, block)
            gathered += indices + sum(row * count for row, count in rows_of)
            fetches += rows_of
        flops += product_flops(program, value) * (_bytes(program, name, size_of) // max(value.row_bytes, 1))
        times = _times(program, value, size_of)
        made, taken = element_work(program, value)
        elements, exponentials = elements + times * made, exponentials + times * taken
        at_sources = {ref for _, ref, where in operands(value) if where is At.SOURCE} if value.op in FUSED else set()
        for ref in value.refs():
            operand = program[ref]
            same = operand.space == block.space and ref not in computed and operand.stage > Stage.PARAM
            if same and value.op != "gather" and ref not in at_sources:
                read.add(ref)
    return BlockCost(
        program.space_name(block.space),
        rows,
        gathered,
        sum(_bytes(program, name, size_of) for name in read),
        sum(_bytes(program, name, size_of) for name in block.stored),
        flops,
        tuple(fetches),
        elements,
        exponentials,
        len(block.order) * likely_blocks(program, block, rows, _most_edges(program, block, size_of)),
    )


def _times(program: Program, value: Value, size_of: SizeOf) -> int:
    """How many rows an operator goes over: its own, or the edges that it reduces."""
    index = index_of(value)
    space = value.space if index is None or value.op == "softmax" else program[index].space
    return 1 if space is None else int(size_of(space))


def _most_edges(program: Program, block: BlockProgram, size_of: SizeOf) -> int:
    """Edges of the aggregation that has the most."""
    indices = [context or index_of(program[name]) for name, context in block.order]
    spaces = {program[index].space for index in indices if index is not None}
    return max((int(size_of(space)) for space in spaces if space is not None), default=0)


def _gathered(program: Program, name: str, size_of: SizeOf, block: BlockProgram) -> tuple[int, list[tuple[int, int]]]:
    """Bytes of indices and of edge values, which are read in order, and the rows that are fetched by index."""
    value = program[name]
    computed = {item for item, _ in block.order}
    if value.op == "gather":
        operand = program[value.args[0].name]
        if operand.space == block.space and operand.name in computed:
            return 0, []
        assert value.space is not None
        edges = int(size_of(value.space))
        return edges * 4, [(operand.row_bytes, edges)]
    index = program[value.args[2].name]
    assert index.space is not None
    edges = int(size_of(index.space))
    read = {ref: where for _, ref, where in operands(value) if where in (At.SOURCE, At.EDGE)}
    by_index = value.args[1] is not None
    rows = [program[ref].row_bytes for ref, where in read.items() if where is At.SOURCE]
    in_order = sum(program[ref].row_bytes for ref, where in read.items() if where is At.EDGE and ref not in computed)
    if not by_index:
        return edges * (in_order + sum(rows)), []
    return edges * (4 + in_order), [(row, edges) for row in rows]
