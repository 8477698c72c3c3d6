"""Cut a program into supersteps: only where a value is needed at other rows, or from all rows.

::

    SAGE, 2 layers                                 as a schedule
    s  = gather_reduce(%x, ...)                    superstep 0, rows N:  s, h        stores h
    h  = relu(addmm(%s, ...))                      superstep 1, rows N:  s2, out     stores out
    s2 = gather_reduce(%h, ...)
    out = addmm(%s2, ...)

A value is computed as late as its first use allows, where that stores no more bytes: `lin_r(x)` of a layer runs in
the layer's own superstep, from rows of `x` that are read there anyway. Edge values are computed in the in-edges of
the aggregation that consumes them and never stored, unless they leave the model.
The bulk-synchronous step is Pregel's (Malewicz et al., SIGMOD 2010).
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field

import sympy
import torch

from pyg_fullgraph.ir import BlockProgram, Program, Schedule, Stage, Superstep, Value, is_aten
from pyg_fullgraph.ir.fetches import Instance, fetches_of
from pyg_fullgraph.ir.fused import TO_EDGES, TO_ROWS, At, index_of
from pyg_fullgraph.ir.fused import operands as fused_operands


def cut(program: Program) -> Schedule:
    """The supersteps of a program, in order.

    Args:
        program: with all fusions done.
    """
    return _Cut(program).run()


@dataclass
class _Cut:
    program: Program
    row_space: dict[str, sympy.Expr] = field(default_factory=dict)  # destination index -> the rows it aggregates into
    step: dict[Instance, int] = field(default_factory=dict)
    stored: set[Instance] = field(default_factory=set)

    def run(self) -> Schedule:
        self.order = {name: i for i, name in enumerate(self.program.values)}
        self._layouts()
        demanded = self._demand()
        rows = [name for name, index in demanded if index is None]
        for instance in sorted(demanded, key=lambda item: self.order[item[0]]):
            self.step[instance] = self._earliest(instance)
        self._sink(rows)
        self._mark_stored(demanded)
        return self._schedule(demanded)

    # -- contexts ---------------------------------------------------------------------------------------------

    def _layouts(self) -> None:
        """Which index aggregates into which rows; aggregations over a space that is itself a row space run whole."""
        for value in self.program:
            index = index_of(value)
            if index is not None and value.op in (*TO_ROWS, "reduce") and value.space is not None:
                self.row_space[index] = value.space

    def is_whole(self, value: Value) -> bool:
        """True where the operator needs its inputs complete and its output is made whole."""
        if self.is_free_view(value):
            return True
        if value.op == "aten":
            return not value.local
        if value.op == "gather" or value.is_pool:
            return False
        if value.op in TO_EDGES:
            return False
        index = index_of(value)
        assert index is not None
        if index not in self.row_space or value.is_pairwise:
            return True
        if self.program[index].space in set(self.row_space.values()):
            return True
        return value.row_dim != 0 and value.op != "reduce"

    def is_free_view(self, value: Value) -> bool:
        """True for a reshape of an argument or of a whole value: no block has to copy it."""
        if not is_aten(value, torch.ops.aten.view) or value.row_dim != 0 or value.stage is not Stage.DATA:
            return False
        below = self.program[value.args[0].name]
        same = below.row_dim == 0 and below.space == value.space
        return same and (below.op == "input" or (below.op != "const" and self.is_whole(below)))

    def operands(self, instance: Instance) -> list[tuple[Instance, str]]:
        """What an instance uses: (operand, how), how one of `same` (in the block), `stored` (complete, at any row)."""
        name, context = instance
        value = self.program[name]
        data = [ref for ref in dict.fromkeys(value.refs()) if self.program[ref].stage is Stage.DATA]
        if self.is_whole(value):
            return [((ref, None), "stored") for ref in data]
        if value.op == "aten" or value.is_pool:
            return [self._operand(ref, context if self.program[ref].space == value.space else None) for ref in data]
        if value.op == "gather":
            x, index = value.args[0].name, value.args[1].name
            if context is not None and index == context and self.program[x].space == self.row_space[index]:
                return [self._operand(x, None)]
            return [((x, None), "stored")]
        if value.op in ("reduce", "softmax"):
            return [self._operand(ref, index_of(value)) for ref in data]
        found: list[tuple[Instance, str]] = []
        for _role, ref, where in fused_operands(value):
            if self.program[ref].stage is Stage.DATA:
                at_edge = index_of(value) if where is At.EDGE else None
                found.append(((ref, None), "stored") if where is At.SOURCE else self._operand(ref, at_edge))
        return found

    def _operand(self, ref: str, context: str | None) -> tuple[Instance, str]:
        value = self.program[ref]
        if value.op == "input" or self.is_whole(value) or value.space is None:
            return (ref, None), "same"
        if value.op == "softmax" and context != index_of(value):
            return (ref, index_of(value)), "stored"
        return (ref, context), "same"

    def _demand(self) -> set[Instance]:
        demanded: set[Instance] = set()
        stack = [self._output(name) for name in self.program.output_names()]
        while stack:
            instance = stack.pop()
            value = self.program[instance[0]]
            if instance in demanded or value.stage is not Stage.DATA or value.op == "input":
                continue
            demanded.add(instance)
            stack += [operand for operand, _ in self.operands(instance)]
        return demanded

    def _output(self, name: str) -> Instance:
        value = self.program[name]
        return (name, index_of(value)) if value.op == "softmax" and not self.is_whole(value) else (name, None)

    # -- steps ------------------------------------------------------------------------------------------------

    def _ready(self, operand: Instance, how: str) -> int:
        """The first step in which a use of `operand` can run."""
        value = self.program[operand[0]]
        if value.op == "input":
            return 0
        made = self.step[operand] if operand in self.step else self._earliest(operand)
        return made + 1 if value.is_pool or (how == "stored" and not self.is_whole(value)) else made

    def _earliest(self, instance: Instance) -> int:
        if instance not in self.step:
            uses = [self._ready(operand, how) for operand, how in self.operands(instance)]
            self.step[instance] = max(uses, default=0)
        return self.step[instance]

    def _sink(self, rows: list[str]) -> None:
        """Move row-wise values to their first use, where this stores no more bytes than it saves.

        Backwards, so that every use has its final step when the value it uses is decided.
        """
        latest: dict[Instance, int] = {}  # edge values run where they are used, whenever that is
        complete = {op[0] for instance in self.step for op, how in self.operands(instance) if how == "stored"}
        staying = self._staying(complete)
        for instance in sorted(self.step, key=lambda item: -self.order[item[0]]):
            name, context = instance
            if context is None and instance in latest:
                self._decide(name, latest[instance], complete, staying)
            at = self.step[instance] if context is None else latest.get(instance, self.step[instance])
            for operand, how in self.operands(instance):
                if operand in self.step:
                    before = at - 1 if how == "stored" and not self.is_whole(self.program[operand[0]]) else at
                    latest[operand] = min(latest.get(operand, before), before)
        for name in rows:
            value = self.program[name]
            if value.op == "aten" and value.target is None:  # one output of an operator with several stays with it
                self.step[name, None] = self.step[value.args[0].name, None]

    def _staying(self, complete: set[str]) -> dict[str, int]:
        """The last step in which a row value can be computed, where what is written whole needs it."""
        bound: dict[str, int] = {}
        for name, context in sorted(self.step, key=lambda item: -self.order[item[0]]):
            if name in complete or name in self.program.output_names():
                bound[name] = min(bound.get(name, self.step[name, context]), self.step[name, context])
            if context is None and name in bound:
                for (ref, at), how in self.operands((name, None)):
                    if at is None and how == "same":
                        bound[ref] = min(bound.get(ref, bound[name]), bound[name])
        return bound

    def _decide(self, name: str, sunk: int, complete: set[str], staying: dict[str, int]) -> None:
        value = self.program[name]
        if value.op not in ("aten", "gather") or self.is_whole(value) or sunk <= self.step[name, None]:
            return
        if name in self.program.output_names() or name in complete:
            return  # written whole anyway: as soon as it is known
        carried = 0
        for (ref, _), _how in self.operands((name, None)):
            operand = self.program[ref]
            moves = operand.op == "aten" and not self.is_whole(operand) and staying.get(ref, sunk) >= sunk
            follows = operand.op == "input" or moves
            carried += 0 if follows or ref in complete else operand.row_bytes
        if carried == 0 or carried < value.row_bytes:
            self.step[name, None] = sunk

    # -- the schedule -----------------------------------------------------------------------------------------

    def _mark_stored(self, demanded: set[Instance]) -> None:
        self.members: dict[tuple[int, sympy.Expr], set[Instance]] = defaultdict(set)
        self.whole: dict[int, list[str]] = defaultdict(list)
        self.last_use: dict[str, int] = {}
        for name in self.program.output_names():
            instance = self._output(name)
            if instance in demanded:
                self.stored.add(instance)
        for name, context in demanded:
            value = self.program[name]
            if context is None and self.is_whole(value):
                self.whole[self.step[name, None]].append(name)
                self._use(name, None, self.step[name, None])
            elif context is None:
                if value.is_pool:
                    self.stored.add((name, None))
                self._pull((name, None), self.step[name, None], self._rows_of(value))
        for name, context in list(self.stored):
            if context is not None:
                self._pull((name, context), self.step[name, context], self.row_space[context])

    def _rows_of(self, value: Value) -> sympy.Expr:
        """The rows over which a row value runs: its own, or for a pool those that it reduces."""
        spaces = [self.program[ref].space for ref in value.refs()] if value.is_pool else [value.space]
        space = next(space for space in spaces if space is not None)
        assert space is not None
        return space

    def _pull(self, instance: Instance, step: int, space: sympy.Expr) -> None:
        """Put an instance into a step's block program, with all edge values it needs."""
        members = self.members[step, space]
        if instance in members:
            return
        members.add(instance)
        self._use(instance[0], instance[1], step)
        for operand, how in self.operands(instance):
            if operand[1] is not None and how == "same":
                self._pull(operand, step, space)

    def _use(self, name: str, context: str | None, step: int) -> None:
        for operand, how in self.operands((name, context)):
            self.last_use[operand[0]] = max(self.last_use.get(operand[0], 0), step)
            value = self.program[operand[0]]
            if value.op == "input" or self.is_whole(value):
                continue
            if how == "stored" or (operand[1] is None and self.step[operand] < step):
                self.stored.add(operand)

    def _is_view_of_input(self, name: str) -> bool:
        """True for a reshape of an argument: it is complete before any superstep, and does not ask for all rows."""
        value = self.program[name]
        if not self.is_free_view(value):
            return False
        below = self.program[value.args[0].name]
        return below.op == "input" or self._is_view_of_input(below.name)

    def _schedule(self, demanded: set[Instance]) -> Schedule:
        outputs = set(self.program.output_names())
        steps: list[Superstep] = []
        last = max([step for step, _ in self.members] + list(self.whole), default=-1)
        made: dict[str, int] = {}
        for number in range(last + 1):
            blocks = []
            for (step, space), members in sorted(self.members.items(), key=lambda item: str(item[0][1])):
                if step != number:
                    continue
                order = tuple(sorted(members, key=lambda item: self.order[item[0]]))
                stored = tuple(name for name, context in order if (name, context) in self.stored)
                made.update(dict.fromkeys(stored, number))
                blocks.append(BlockProgram(space, order, stored, fetches_of(self.program, order, space)))
            complete = sorted(self.whole.get(number, []), key=lambda item: self.order[item])
            views = tuple(name for name in complete if self._is_view_of_input(name))
            whole = tuple(name for name in complete if name not in views)
            made.update(dict.fromkeys(complete, number))
            frees = tuple(n for n in made if self.last_use.get(n, made[n]) == number and n not in outputs)
            steps.append(Superstep(whole, tuple(blocks), frees, views))
            for name in frees:
                del made[name]
        return Schedule(steps)
