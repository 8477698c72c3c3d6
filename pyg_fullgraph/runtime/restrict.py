"""Restrict a run to the nodes asked for and the in-neighbourhood they need.

The nodes are renumbered by distance from the nodes asked for, so that every superstep computes a prefix of the rows:
all of them within `h` hops, where `h` gathers still follow. Structural values (degrees, weights) are those of the
whole graph, sliced: nothing is recomputed on the smaller one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import sympy
import torch
from torch import Tensor

from pyg_fullgraph.graph import CSR
from pyg_fullgraph.ir import Program, needs_all_rows
from pyg_fullgraph.runtime.executor import Compiled
from pyg_fullgraph.runtime.structure import InEdges, Structure


@dataclass
class Cone:
    """A restricted run: its structure and inputs, rows to compute per superstep, and where the asked nodes are."""

    structure: Structure
    inputs: dict[str, Tensor]
    limits: dict[Any, tuple[int, ...]]
    position: Tensor


def restrict(
    program: Program, compiled: Compiled, structure: Structure, inputs: dict[str, Tensor], nodes: Tensor
) -> Cone | None:
    """The cone of `nodes`, or None where the model needs all rows (global reductions, several node types).

    Args:
        program, compiled: what runs.
        structure: of the whole graph, prepared.
        inputs: all tensor arguments by name.
        nodes: int64 [M].
    """
    space = _single_space(program, compiled)
    if space is None:
        return None
    found = _single_layout(compiled)
    if found is None:
        return None
    layout, source = found
    count = int(structure.size_of(space))
    edges = structure.in_edges[layout] if layout is not None else None
    crossing, hops = gathering_steps(compiled), _gathers_after(compiled)
    if edges is None or source is None or layout is None:
        empty = torch.zeros(0, dtype=torch.int32)
        graph = CSR(torch.zeros(count + 1, dtype=torch.int64), empty, empty, count, count)
    else:
        graph = CSR(edges.rowptr, structure.edge_value(source, layout), edges.perm, count, count)
    reach = graph.k_hop(nodes, crossing)
    cone_nodes = reach.nodes
    small = structure.restricted(space, int(cone_nodes.numel()))
    if edges is not None and source is not None and layout is not None:
        rows = cone_nodes[: reach.counts[max(crossing - 1, 0)]]
        small.in_edges[layout] = _edges(structure, graph, edges, rows, cone_nodes, source)
    for name, item in structure.values.items():
        row_dim = program[name].row_dim
        on_rows = isinstance(item, Tensor) and program[name].space == space and row_dim is not None
        small.values[name] = item.index_select(row_dim, cone_nodes) if on_rows else item
    picked = dict(inputs)
    for value in program:
        if value.op == "input" and value.space == space and value.row_dim is not None:
            picked[value.args[0]] = inputs[value.args[0]].index_select(value.row_dim, cone_nodes)
    limits = {space: tuple(reach.counts[h] for h in hops)}
    return Cone(small, picked, limits, reach.position)


def _edges(structure: Structure, graph: CSR, edges: InEdges, rows: Tensor, nodes: Tensor, source: str) -> InEdges:
    """The in-edges of `rows`; the remaining nodes of the cone have none."""
    kept = CSR(graph.rowptr, graph.src, torch.arange(graph.num_edges), graph.num_src, graph.num_dst)
    part = kept.subgraph_rows(rows, nodes)
    order = part.perm.long()  # positions in CSR order of the whole graph
    tail = part.rowptr[-1:].expand(int(nodes.numel() - rows.numel()))
    values = {name: tensor.index_select(0, order) for name, tensor in edges.values.items() if name != source}
    values[source] = part.src
    return InEdges(torch.cat([part.rowptr, tail]), edges.perm.index_select(0, order), values, edges)


def _single_space(program: Program, compiled: Compiled) -> sympy.Expr | None:
    """The one space of all rows, where every superstep is made of block programs over it."""
    steps = compiled.schedule.steps
    if needs_all_rows(program, compiled.schedule):
        return None
    spaces = {block.space for step in steps for block in step.blocks}
    spaces |= {program[name].space for name in program.output_names()}
    space = next(iter(spaces)) if len(spaces) == 1 else None
    for code in compiled.code.values():
        for binding in code.bindings.values():
            if binding.kind == "table" and (program[binding.value].space != space):
                return None
    return space if space is not None and space.is_Symbol else None


def _single_layout(compiled: Compiled) -> tuple[str | None, str | None] | None:
    """The one aggregation and its one source index; (None, None) without any, None where there are several."""
    pairs = {
        (binding.layout, binding.value)
        for code in compiled.code.values()
        for name, binding in code.bindings.items()
        if name.startswith("I_")
    }
    layouts = {layout for code in compiled.code.values() for layout in code.layouts}
    if len(pairs) == 1 and len(layouts) == 1:
        return next(iter(pairs))
    return None if pairs or layouts else (None, None)


def gathering_steps(compiled: Compiled) -> int:
    """How many supersteps gather rows of other nodes: the model's reach in hops."""
    return sum(_gathers(compiled))


def _gathers(compiled: Compiled) -> list[bool]:
    found = []
    for number, step in enumerate(compiled.schedule.steps):
        names = [name for position in range(len(step.blocks)) for name in compiled.code[number, position].bindings]
        found.append(any(name.startswith("I_") for name in names))
    return found


def _gathers_after(compiled: Compiled) -> tuple[int, ...]:
    found = _gathers(compiled)
    return tuple(sum(found[number + 1 :]) for number in range(len(found)))
