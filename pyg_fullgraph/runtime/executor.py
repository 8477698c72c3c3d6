"""The block executor: runs a schedule superstep by superstep, each over row blocks, with all threads."""

from __future__ import annotations

import functools
import itertools
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from pyg_fullgraph.ir import BlockProgram, Program, Ref, Schedule, Stage, map_args
from pyg_fullgraph.ir.program import is_symbolic, symbols_of
from pyg_fullgraph.ops.linear import Matrices, pack
from pyg_fullgraph.plan import (
    Blocks,
    Launch,
    Limits,
    Plan,
    Residence,
    StepPlan,
    edge_limit,
    make_plan,
    placed_parts,
    row_blocks,
)
from pyg_fullgraph.runtime.code import Binding, BlockCode, layouts_of
from pyg_fullgraph.runtime.emit import emit
from pyg_fullgraph.runtime.evaluate import evaluate
from pyg_fullgraph.runtime.home import Table
from pyg_fullgraph.runtime.pools import GroupPool, RowPool
from pyg_fullgraph.runtime.progress import Progress
from pyg_fullgraph.runtime.split import split
from pyg_fullgraph.runtime.store import TableStore
from pyg_fullgraph.runtime.structure import Structure
from pyg_fullgraph.runtime.unions import Unions
from pyg_fullgraph.runtime.workers import Workers, as_on_any_thread


class Compiled:
    """A schedule with the text of each of its block programs; made once per program."""

    def __init__(self, program: Program, schedule: Schedule) -> None:
        self.program, self.schedule = program, schedule
        self.code: dict[tuple[int, int], BlockCode] = {}
        for number, step in enumerate(schedule.steps):
            for position, block in enumerate(step.blocks):
                self.code[number, position] = _code(program, block)
        self.edges = self._sorted()
        self.parts = placed_parts(program, schedule)
        self.joined = {union for union, _ in self.parts.values()}
        self.restrictable: dict[frozenset[Any], bool] = {}  # sets of spaces -> `receptive_field.can_restrict`

    def prepare(self, structure: Structure) -> None:
        """Compute the structure that the block programs read, so that no thread has to."""
        keep: set[str] = set()
        for value in self.program:
            if value.stage is Stage.DATA:
                for size in symbols_of(value):
                    structure.size_of_if_known(size)
        for number, step in enumerate(self.schedule.steps):
            for name in (*step.views, *step.whole):
                for ref in self.program[name].refs():
                    if self.program[ref].stage is Stage.STRUCT:
                        structure.value(ref)
                        keep.add(ref)
            for position in range(len(step.blocks)):
                for binding in self.code[number, position].everything():
                    if binding.kind in ("rows", "ranges", "global", "table") and self._is_struct(binding.value):
                        structure.value(binding.value)
                        keep.add(binding.value)
        for index, (space, values, permuted) in self.edges.items():
            structure.sort_edges(index, space, sorted(values), permuted)
        for name in self.program.output_names():
            if self.program[name].stage is Stage.STRUCT:
                structure.value(name)
                keep.add(name)
        structure.seal(keep)

    def _sorted(self) -> dict[str, tuple[Any, set[str], bool]]:
        """For each aggregation what it counts rows of, the edge values read in its order, and whether that is."""
        found: dict[str, tuple[Any, set[str], bool]] = {}
        for block, code in self._blocks():
            for index in code.layouts:
                edges = [binding for binding in code.everything() if binding.layout == index]
                _, values, permuted = found.get(index, (None, set(), False))
                values = values | {binding.value for binding in edges if binding.kind == "edges"}
                permuted = permuted or any(binding.kind == "perm" for binding in edges)
                found[index] = block.space, values, permuted
        return found

    def _is_struct(self, name: str) -> bool:
        return self.program[name].stage is Stage.STRUCT

    def plan(self, structure: Structure, limits: Limits | None = None) -> Plan:
        """What a run on a graph does.

        Args:
            structure: of the graph, prepared.
            limits: where not all rows that are here are computed.
        """
        layouts = {id(block): code.layouts for block, code in self._blocks()}
        return make_plan(
            self.program,
            self.schedule,
            self.parts,
            structure.extent,
            lambda block: [structure.in_edges[index].rowptr for index in layouts[id(block)]],
            limits,
        )

    def _blocks(self) -> Iterator[tuple[BlockProgram, BlockCode]]:
        for (number, position), code in self.code.items():
            yield self.schedule.steps[number].blocks[position], code


def _code(program: Program, block: BlockProgram) -> BlockCode:
    """A block program's text, and that for a row with too many edges where it holds edge values."""
    layouts, tile = layouts_of(program, block), edge_limit(program, block)
    code, hub = emit(program, block, layouts), split(program, block, layouts, tile)
    if hub is not None:
        text = hub.text()
        code.split, code.tile = BlockCode(text, hub.bindings, layouts), tile
    return code


class Run:
    """One execution of a compiled program.

    Args:
        compiled: the program.
        structure: of the graph at hand, prepared.
        plan: of this graph.
        inputs: every tensor argument by name.
        parameters: parameters and buffers by qualified name, read now.
        store: of the tables.
        threads: how many blocks run at a time.
        progress: told of rows done.
        workers: threads that may still be there from the last run.
    """

    def __init__(
        self,
        compiled: Compiled,
        structure: Structure,
        plan: Plan,
        inputs: dict[str, Tensor],
        parameters: Callable[[str], Tensor],
        store: TableStore,
        threads: int,
        progress: Progress,
        workers: Workers | None = None,
    ) -> None:
        self.workers = workers or Workers()
        self.compiled, self.structure, self.plan, self.store = compiled, structure, plan, store
        self.device = next((tensor.device for tensor in inputs.values()), torch.device("cpu"))
        self.program = compiled.program
        self.threads, self.progress = threads, progress
        self.tables: dict[str, Table] = {}
        self.globals: dict[str, Any] = {}
        self.matrices: dict[str, Matrices] = {}
        self.pools: dict[str, RowPool | GroupPool] = {}
        self.seconds: list[float] = []
        self.unions = Unions(self.program, compiled.parts, structure.size_of, plan.tables, store)
        store.reserve(plan)
        for value in self.program:
            if value.op == "param":
                self.globals[value.name] = parameters(value.args[0])
            elif value.op == "const":
                self.globals[value.name] = value.args[0]
            elif value.op == "input" and value.stage is Stage.DATA:
                self._keep(value.name, inputs[value.args[0]])
        self._parameter_stage()

    def _parameter_stage(self) -> None:
        for value in self.program:
            if value.stage <= Stage.PARAM and value.op == "aten":
                self.globals[value.name] = evaluate(value, self.globals.__getitem__, self.structure.size_of)

    def _keep(self, name: str, result: Any) -> None:
        """File a whole result: a table where it has rows, a global otherwise."""
        value = self.program[name]
        if value.row_dim is not None and isinstance(result, Tensor):
            self.tables[name] = self.store.adopt(name, result.movedim(value.row_dim, 0))
            return
        self.globals[name] = result
        if isinstance(result, Tensor):
            self.store.adopt(name, result)

    def whole(self, name: str) -> Any:
        """Any value, whole and in its own layout."""
        value = self.program[name]
        if value.stage is Stage.STRUCT:
            return self.structure.value(name)
        if name in self.globals:
            return self.globals[name]
        assert value.row_dim is not None
        return self.tables[name].whole().movedim(0, value.row_dim)

    def run(self) -> Any:
        """Execute all supersteps and return the model's outputs; `seconds` then has the time of each.

        All else that it made is let go of, also where it fails.
        """
        try:
            return self._run()
        finally:
            for made in (self.tables, self.globals, self.matrices, self.pools):
                made.clear()
            self.unions.close()

    def _run(self) -> Any:
        for number, step in enumerate(self.plan.steps):
            start = time.perf_counter()
            for name in step.whole:
                self._whole_operator(name)
            for position, launch in enumerate(step.launches):
                self._launch(number, launch, self.compiled.code[number, position])
            self._free(step)
            self.seconds.append(time.perf_counter() - start)
        return map_args(
            self.program.outputs,
            lambda leaf: (
                self.whole(leaf.name)
                if isinstance(leaf, Ref)
                else (self.structure.size_of(leaf.expr) if hasattr(leaf, "expr") else leaf)
            ),
        )

    def _free(self, step: StepPlan) -> None:
        for name in step.frees:
            self.tables.pop(name, None)
            self.globals.pop(name, None)
            self.store.free(name)

    def _whole_operator(self, name: str) -> None:
        value = self.program[name]
        joined = self.unions.joined(name, self.whole)
        if joined is not None:
            self.tables[name] = self.store.adopt(name, joined.whole())
            return
        result = evaluate(value, self.whole, self.structure.size_of, self.structure.rows_of)
        self.structure.learn(name, result)
        self._keep(name, result)

    # -- one block program ------------------------------------------------------------------------------------

    def _launch(self, number: int, launch: Launch, code: BlockCode) -> None:
        block, edges = launch.block, [self.structure.in_edges[index].rowptr for index in code.layouts]
        pools = [name for name in block.stored if self.program[name].is_pool]
        for name in pools:
            self.pools[name] = self._pool(name)
        for name in block.stored:
            if not self.program[name].is_pool:
                self.tables[name] = self._new_table(name)
        rows, blocks = launch.rows, launch.blocks
        if rows is None or blocks is None:  # an operator before has told it
            rows = self.structure.rows_of(block.space)
            blocks = row_blocks(self.program, block, rows, lambda _: edges)
        if not blocks:
            return
        with code.bound(self._resolve) as function, self.progress.superstep(number, rows):
            most = max(r1 - r0 for r0, r1, _ in blocks)
            scratch = functools.partial(code.scratch, most, self.store.home)
            _in_threads(function, scratch, blocks, self.threads, self.progress, self.workers)
        for name in pools:
            self._keep(name, self.pools.pop(name).result())

    def _new_table(self, name: str) -> Table:
        """Where a value's rows go: a table of its own, rows of a joined one, or the table that it is a view of."""
        if name in self.tables:
            return self.tables[name]
        spec, value = self.plan.tables[name], self.program[name]
        assert value.space is not None
        rows = self.structure.rows_of(value.space)
        if spec.residence is Residence.VIEW and spec.alias_of is not None:
            base = self.tables[spec.alias_of] = self._new_table(spec.alias_of)
            return self.store.view(name, base.whole().view(rows, *spec.tail))
        return self.unions.part(name) or self.store.allocate(spec, rows, spec.tail)

    def _pool(self, name: str) -> RowPool | GroupPool:
        value = self.program[name]
        if value.op == "pool":
            return RowPool(value.kwargs["combine"])
        assert value.dtype is not None
        groups, *tail = (int(self.structure.size_of(s)) if is_symbolic(s) else int(s) for s in value.shape)
        return GroupPool(groups, tuple(tail), value.dtype, self.device, value.kwargs["reduce"])

    def _resolve(self, binding: Binding) -> Any:
        if binding.kind == "object":
            return binding.value
        if binding.kind == "size":
            return self.structure.size_of(binding.value)
        if binding.kind == "rows_of":
            return self.structure.rows_of(binding.value)
        if binding.kind == "table":
            return self._table(binding.value)
        if binding.kind == "packed":
            return self._packed(binding.value)
        if binding.kind == "ranges":
            return self.structure.type_ranges(binding.value)
        if binding.kind == "pool":
            return self.pools[binding.value]
        if binding.kind == "global":
            return self.whole(binding.value)
        if binding.kind == "rows":
            return self.structure.value(binding.value)
        assert binding.layout is not None
        edges = self.structure.in_edges[binding.layout]
        if binding.kind == "edges":
            return self.structure.edge_value(binding.value, binding.layout)
        if binding.kind == "largest":
            return edges.largest
        return edges.rowptr if binding.kind == "rowptr" else edges.perm

    def _packed(self, name: str) -> Matrices:
        """A matrix of parameters as products read it."""
        if name not in self.matrices:
            self.matrices[name] = pack(self.whole(name))
        return self.matrices[name]

    def _table(self, name: str) -> Table:
        if name not in self.tables:  # a structural value that a block gathers from
            value = self.program[name]
            self.tables[name] = self.store.adopt(name, self.structure.value(name).movedim(value.row_dim or 0, 0))
        return self.tables[name]


def _in_threads(
    function: Callable[..., None],
    scratch: Callable[[], list[Tensor]],
    blocks: Blocks,
    threads: int,
    progress: Progress,
    workers: Workers,
) -> None:
    """Run blocks on `threads` threads, each with torch's own parallelism off; the first error stops all."""
    work, lock, failed = iter(blocks), threading.Lock(), threading.Event()

    def worker() -> None:
        with as_on_any_thread():
            own = scratch()
            for r0, r1, bounds in _shared(work, lock):
                if failed.is_set():
                    return
                function(r0, r1, bounds, own)
                progress.rows(r1 - r0)

    before = torch.get_num_threads()
    try:
        workers.run(worker, min(threads, len(blocks)), failed.set)
    finally:
        torch.set_num_threads(before)  # the number that torch hands to threads started from now on


def _shared(work: Iterator[Any], lock: threading.Lock) -> Iterator[Any]:
    """The items of one iterator, each to whichever thread asks first."""
    for _ in itertools.count():
        with lock:
            item = next(work, None)
        if item is None:
            return
        yield item
