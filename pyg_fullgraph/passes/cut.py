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

from pyg_fullgraph.ir import BlockProgram, Program, Schedule, Stage, Superstep, Value, refs_of

Instance = tuple[str, str | None]  # a value, and the destination index on whose in-edges it runs (None: its rows)


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
            if value.op in ("reduce", "gather_reduce", "attention") and value.space is not None:
                self.row_space[self._index(value)] = value.space

    @staticmethod
    def _index(value: Value) -> str:
        return str(value.args[1 if value.op in ("reduce", "softmax") else 2].name)

    def is_whole(self, value: Value) -> bool:
        """True where the operator needs its inputs complete and its output is made whole."""
        if value.op == "aten":
            return not value.local
        if value.op == "gather":
            return False
        index = self._index(value)
        if index not in self.row_space or value.is_pairwise:
            return True
        return self.program[index].space in set(self.row_space.values()) or value.row_dim != 0

    def operands(self, instance: Instance) -> list[tuple[Instance, str]]:
        """What an instance uses: (operand, how), how one of `same` (in the block), `stored` (complete, at any row)."""
        name, context = instance
        value = self.program[name]
        data = [ref for ref in dict.fromkeys(value.refs()) if self.program[ref].stage is Stage.DATA]
        if self.is_whole(value):
            return [((ref, None), "stored") for ref in data]
        if value.op == "aten":
            return [self._operand(ref, context if self.program[ref].space == value.space else None) for ref in data]
        if value.op == "gather":
            x, index = value.args[0].name, value.args[1].name
            if context is not None and index == context and self.program[x].space == self.row_space[index]:
                return [self._operand(x, None)]
            return [((x, None), "stored")]
        index = self._index(value)
        if value.op in ("reduce", "softmax"):
            return [self._operand(ref, index) for ref in data]
        at_edges = {"weight", "score", "score_edge", "key_edge"}
        parts = dict(zip(("value", "src", "index", "weight"), value.args, strict=False)) | value.kwargs
        found: list[tuple[Instance, str]] = []
        for role, arg in parts.items():
            for ref in refs_of(arg):
                if self.program[ref].stage is not Stage.DATA:
                    continue
                if role in ("value", "key", "score_src"):
                    found.append(((ref, None), "stored"))
                else:
                    found.append(self._operand(ref, index if role in at_edges else None))
        return found

    def _operand(self, ref: str, context: str | None) -> tuple[Instance, str]:
        value = self.program[ref]
        if value.op == "input" or self.is_whole(value) or value.space is None:
            return (ref, None), "same"
        if value.op == "softmax" and context != self._index(value):
            return (ref, self._index(value)), "stored"
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
        return (name, self._index(value)) if value.op == "softmax" and not self.is_whole(value) else (name, None)

    # -- steps ------------------------------------------------------------------------------------------------

    def _ready(self, operand: Instance, how: str) -> int:
        """The first step in which a use of `operand` can run."""
        value = self.program[operand[0]]
        if value.op == "input":
            return 0
        made = self.step[operand] if operand in self.step else self._earliest(operand)
        return made + 1 if how == "stored" and not self.is_whole(value) else made

    def _earliest(self, instance: Instance) -> int:
        if instance not in self.step:
            uses = [self._ready(operand, how) for operand, how in self.operands(instance)]
            self.step[instance] = max(uses, default=0)
        return self.step[instance]

    def _sink(self, rows: list[str]) -> None:
        """Move row-wise values to their first use, where this stores no more bytes than it saves.

        Backwards, so that every use has its final step when the value it uses is decided.
        """
        latest: dict[str, int] = {}
        complete = {op[0] for instance in self.step for op, how in self.operands(instance) if how == "stored"}
        for instance in sorted(self.step, key=lambda item: -self.order[item[0]]):
            name, context = instance
            if context is None and name in latest:
                self._decide(name, latest[name], complete)
            at = self.step[instance]
            for (ref, ref_context), how in self.operands(instance):
                if ref_context is None and (ref, None) in self.step:
                    before = at - 1 if how == "stored" and not self.is_whole(self.program[ref]) else at
                    latest[ref] = min(latest.get(ref, before), before)
        for name in rows:
            value = self.program[name]
            if value.op == "aten" and value.target is None:  # one output of an operator with several stays with it
                self.step[name, None] = self.step[value.args[0].name, None]

    def _decide(self, name: str, sunk: int, complete: set[str]) -> None:
        value = self.program[name]
        if value.op != "aten" or self.is_whole(value) or sunk <= self.step[name, None]:
            return
        if name in self.program.output_names() or name in complete:
            return  # written whole anyway: as soon as it is known
        carried = 0
        for (ref, _), _how in self.operands((name, None)):
            operand = self.program[ref]
            follows = operand.op == "input" or (operand.op == "aten" and not self.is_whole(operand))
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
                assert value.space is not None
                self._pull((name, None), self.step[name, None], value.space)
        for name, context in list(self.stored):
            if context is not None:
                self._pull((name, context), self.step[name, context], self.row_space[context])

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
                blocks.append(BlockProgram(space, order, stored))
            whole = tuple(sorted(self.whole.get(number, []), key=lambda item: self.order[item]))
            made.update(dict.fromkeys(whole, number))
            frees = tuple(n for n in made if self.last_use.get(n, made[n]) == number and n not in outputs)
            steps.append(Superstep(whole, tuple(blocks), frees))
            for name in frees:
                del made[name]
        return Schedule(steps)
