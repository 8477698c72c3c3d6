"""`Orders`: whether a captured model may run with its nodes in another order, and which order a graph gets."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor

from pyg_fullgraph import ops
from pyg_fullgraph.graph.order import inverse
from pyg_fullgraph.graph.reuse import misses
from pyg_fullgraph.graph.validate import in_range
from pyg_fullgraph.ir import Program
from pyg_fullgraph.ir.ends import ends
from pyg_fullgraph.ir.forms import NotRenumberable
from pyg_fullgraph.ir.matrices import matrices_in
from pyg_fullgraph.ir.renumber import Renumbering, node_spaces, renumber
from pyg_fullgraph.plan import StepCost
from pyg_fullgraph.plan.locality import COPY, EXPECTED, Reuse, Work, cache_rows
from pyg_fullgraph.runtime.arrange import Arrangement, Edges, joined, joint_order

#: What an engine may be asked for. "degree" is not among them: it has never paid (docs/log.md).
CHOICES = (None, "rcm", "community", "auto")
#: How every note about an order begins.
NOTE = "order="

Predicted = Callable[[], Sequence[StepCost]]


class Orders:
    """Decides, once per graph.

    Args:
        program: of the captured model, as raised.
    """

    def __init__(self, program: Program) -> None:
        self.numbers = ends(program)
        self.spaces = node_spaces(program)
        self.sizes_from = {
            value.space: (value.args[0], value.row_dim)
            for value in program
            if value.op == "input" and value.space in self.spaces
        }
        self.output_bytes = [
            (program[name].space, program[name].row_bytes)
            for name in program.output_names()
            if program[name].space in self.spaces
        ]
        self.renumbering: Renumbering | None = None
        self.reason = ""
        if matrices_in(program.outputs):
            self.reason = "a sparse matrix is returned"
            return
        try:
            self.renumbering = renumber(program, self.numbers)
        except NotRenumberable as reason:
            self.reason = str(reason)

    def choose(
        self, name: str, calls: int, inputs: dict[str, Tensor], predicted: Predicted
    ) -> tuple[Arrangement | None, str]:
        """The graph's nodes in the order asked for, None to keep the given one; and why, for users to read.

        Args:
            name: one of `CHOICES`.
            calls: expected on this graph; "auto" weighs the cost against them.
            inputs: every tensor argument by name.
            predicted: what a call moves; asked only by "auto".
        """
        start = f"{NOTE}{name!r}: "
        if self.renumbering is None:
            return None, f"{start}kept the given order, as the result may depend on it: {self.reason}."
        if any(tensor.device.type != "cpu" for tensor in inputs.values()):
            return None, f"{start}kept the given order, as orders are computed on the CPU only."
        sizes = {space: inputs[of].shape[dim or 0] for space, (of, dim) in self.sizes_from.items()}
        edges = self._edges(inputs)
        if not edges or not self._within(inputs, sizes):
            return None, f"{start}kept the given order, as no edge list of existing nodes was recognised."
        if name == "auto":
            return self._auto(calls, inputs, sizes, edges, self._work(calls, inputs, sizes, edges, predicted()))
        began = time.perf_counter()
        orders = joint_order(name, edges, sizes)
        seconds = time.perf_counter() - began
        made = Arrangement.of(self.renumbering, orders, inputs)
        kept, copies = made.nbytes / 2**20, self._copied(inputs, sizes) / 2**20
        return made, (
            f"{start}computed in {seconds:.2f} s; {kept:.1f} MiB are kept with the graph, and a call copies "
            f"{copies:.1f} MiB of its inputs and outputs."
        )

    def _auto(
        self, calls: int, inputs: dict[str, Tensor], sizes: dict[Any, int], edges: list[Edges], work: Work
    ) -> tuple[Arrangement | None, str]:
        """Compute an order where what it can save is worth it, and use it where what it does save is."""
        assert self.renumbering is not None
        start = f"{NOTE}'auto', {calls} call{'s' if calls > 1 else ''} expected: "
        copies = f"{COPY * work.copied:.3f} s a call for copies in that order"
        costs = f"another is predicted to cost {work.cost:.2f} s once and {copies}"
        most = EXPECTED * Reuse(1.0, 1.0).seconds_more(Reuse(0.0, 0.0), work.gathered)
        if work.gain(most) <= work.cost:  # not even if every row came from memory now
            return None, f"{start}kept the given order: {costs}, and not to save as much."
        before = _reuse(edges, sizes, None, work)
        once = min(work.nodes / max(work.edges, 1), 1.0)
        expected = EXPECTED * before.seconds_more(Reuse(once, once), work.gathered)
        shares = f"{before.second:.0%} of the rows read miss the second-level cache, {before.last:.0%} the last one; "
        if work.gain(expected) <= work.cost:
            saves = f"and expected to save {max(expected, 0.0):.3f} s a call."
            return None, f"{start}kept the given order: {shares}{costs}, {saves}"
        orders = joint_order("rcm", edges, sizes)
        after = _reuse(edges, sizes, orders, work)
        saved = before.seconds_more(after, work.gathered)
        shares += f"'rcm' makes it {after.second:.0%} and {after.last:.0%}, "
        if work.gain(saved) <= work.cost:  # spent by now, but a gain as small as that may be none
            saves = f"predicted to save {saved:.3f} s a call" if saved > 0 else "which saves nothing"
            return None, f"{start}kept the given order: {shares}{saves}, against {copies}."
        made = Arrangement.of(self.renumbering, orders, inputs)
        return made, f"{start}{shares}predicted to save {saved:.3f} s a call, against {copies}."

    def _edges(self, inputs: dict[str, Tensor]) -> list[Edges]:
        """The edge lists among the arguments, with the space of each end."""
        found: list[Edges] = []
        for name, numbers in self.numbers.items():
            tensor = inputs[name]
            if tensor.dim() == 2 and tensor.shape[0] == 2:
                a, b = numbers if isinstance(numbers, tuple) else (numbers, numbers)
                if a is not None and b is not None:
                    found.append((tensor[0], tensor[1], a, b))
        return found

    def _within(self, inputs: dict[str, Tensor], sizes: dict[Any, int]) -> bool:
        """Whether every node number names a node."""
        for name, numbers in self.numbers.items():
            tensor = inputs[name]
            rows = zip(tensor, numbers, strict=True) if isinstance(numbers, tuple) else [(tensor, numbers)]
            if not all(space is None or in_range(row.reshape(-1), sizes[space]) for row, space in rows):
                return False
        return True

    def _work(
        self,
        calls: int,
        inputs: dict[str, Tensor],
        sizes: dict[Any, int],
        edges: list[Edges],
        steps: Sequence[StepCost],
    ) -> Work:
        fetches = [fetch for step in steps for block in step.blocks for fetch in block.fetches]
        row_bytes = max((row for row, _ in fetches), default=0)
        edge_count = sum(src.numel() for src, *_ in edges)
        gathered = sum(row * count for row, count in fetches)
        return Work(gathered, self._copied(inputs, sizes), row_bytes, edge_count, sum(sizes.values()), calls)

    def _copied(self, inputs: dict[str, Tensor], sizes: dict[Any, int]) -> int:
        """Bytes of the inputs and outputs that a call copies in another order."""
        assert self.renumbering is not None
        forms = self.renumbering.inputs
        moved = {name for name, form in forms.items() if form.moved}  # arguments without rows have no form
        copied = sum(t.nbytes for name, t in inputs.items() if t.is_floating_point() and name in moved)
        return copied + sum(sizes[space] * row for space, row in self.output_bytes)


def _reuse(edges: list[Edges], sizes: dict[Any, int], orders: dict[Any, Tensor] | None, work: Work) -> Reuse:
    """Misses in both caches with the nodes in these orders, the given ones if None."""
    if orders is not None:
        places = {space: inverse(order) for space, order in orders.items()}
        edges = [(places[a].index_select(0, s), places[b].index_select(0, d), a, b) for s, d, a, b in edges]
    src, dst, _, total = joined(edges, sizes)
    _, perm = ops.csr(dst, total)
    ordered = src.index_select(0, perm)
    second, last = (misses(ordered, total, rows) for rows in cache_rows(work.row_bytes))
    return Reuse(second, last)
