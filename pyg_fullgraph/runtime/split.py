"""Write a block program a second time, for one row with more edges than a tile holds.

The row's edges go by in tiles, and each reduction adds up its tiles' parts, so that a hub takes no more memory than any
other block. What depends on a reduction over all edges, as the weights of a softmax do, waits for a later turn of the
tiles; edge values are computed anew in each turn that needs them.

::

    for e0_0, e1_0 in tiles(bounds[0], 4096):      # turn 0: the scores' maximum and sum
        score = ...
        stats = with_scores(stats, score)
    for e0_0, e1_0 in tiles(bounds[0], 4096):      # turn 1: the weighted sum
        score = ...
        total = added(total, gather_reduce(..., weights(score, stats), "sum"))

The running maximum of a softmax is that of Milakov and Gimelshein, "Online normalizer calculation for softmax", 2018.
Aggregations that need all edges of a row at once (median, LSTM) are not split.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from pyg_fullgraph.ir import BlockProgram, Program, Value, by_column
from pyg_fullgraph.ir.fetches import Instance
from pyg_fullgraph.ir.fused import FUSED, At, index_of, operands
from pyg_fullgraph.ops import trusted
from pyg_fullgraph.runtime import hubs
from pyg_fullgraph.runtime.code import Binding
from pyg_fullgraph.runtime.emit import Emitter, _ident
from pyg_fullgraph.runtime.products import Products

#: Fused reductions that weigh their messages by a softmax over all edges: two turns.
_SOFTMAX = ("attention", "softmax_reduce")


def split(program: Program, block: BlockProgram, layouts: tuple[str, ...], tile: int) -> Splitter | None:
    """The writer of the split form; None where a block holds no edge values, so that there is nothing to split.

    Args:
        program, block, layouts: as for `emit`.
        tile: how many edges a tile holds.
    """
    writer = Splitter(program, block, layouts, tile)
    return writer if writer.sinks else None


class Splitter(Emitter):
    """As `Emitter`, with every edge value inside a loop over tiles."""

    def __init__(self, program: Program, block: BlockProgram, layouts: tuple[str, ...], tile: int) -> None:
        super().__init__(program, block, layouts)
        self.places, self.products = {}, Products()
        self.tile = tile
        self.turn: dict[Instance, int] = {}  # when an edge value can be computed, and a row value is known
        self.sinks: dict[tuple[int, str], list[tuple[str, Value]]] = defaultdict(list)
        self.rows: dict[int, list[str]] = defaultdict(list)
        for instance in block.order:
            self.turn[instance] = self._plan(*instance)

    # -- the plan -----------------------------------------------------------------------------------------------

    def _plan(self, name: str, context: str | None) -> int:
        value = self.program[name]
        ready = max((self.turn[used] for used in self._uses(name, context)), default=0)
        if context is not None and value.op != "softmax":
            return ready
        index = index_of(value)
        at_edges = [used for used in self._uses(name, context) if used[1] is not None]
        if index is None or not (at_edges or value.op == "softmax"):
            self.rows[ready].append(name)
            return ready
        if value.op == "softmax":
            self.sinks[ready, index].append(("stats", value))
            if name in self.block.stored and (name, None) not in self.computed:
                self.sinks[ready + 1, index].append(("keep", value))
            return ready + 1
        if value.op in _SOFTMAX:
            self.sinks[ready, index].append(("stats", value))
            self.sinks[ready + 1, index].append(("weigh", value))
            return ready + 2
        kind = "add" if value.op != "reduce" or by_column(value) else "whole"
        self.sinks[ready, index].append((kind, value))
        return ready + 1

    def _uses(self, name: str, context: str | None) -> list[Instance]:
        """The instances of this block that an instance reads."""
        value = self.program[name]
        index = index_of(value)
        if value.op in FUSED:
            found = [(ref, index if where is At.EDGE else None) for _, ref, where in operands(value)]
        elif value.op in ("reduce", "softmax"):
            found = [(value.args[0].name, index)]
        elif value.op == "gather":
            found = [(value.args[0].name, None)] if context is not None and value.args[1].name == context else []
        else:
            same = context is not None
            found = [
                (ref, context if same and self.program[ref].space == value.space else None) for ref in value.refs()
            ]
        return [instance for instance in found if instance in self.computed]

    def _is_stored(self, name: str, context: str | None) -> bool:
        return context is None  # a softmax is stored by a sink of its own

    def _needed(self, wanted: list[Value], index: str) -> list[str]:
        """The edge values that some sinks of one layout need, in order."""
        needed: set[str] = set()
        stack: list[Instance] = []
        for value in wanted:
            own = index if value.op == "softmax" else None
            stack += [used for used in self._uses(value.name, own) if used[1] == index]
        while stack:
            instance = stack.pop()
            if instance[0] not in needed:
                needed.add(instance[0])
                stack += [used for used in self._uses(*instance) if used[1] == index]
        return [name for name, context in self.block.order if context == index and name in needed]

    # -- the text -----------------------------------------------------------------------------------------------

    def text(self) -> str:
        """The function `split(r0, r1, bounds, scratch)`, for a block of one row."""
        self._bounds()
        last = max([*self.rows, *(turn for turn, _ in self.sinks)], default=0)
        for turn in range(last + 1):
            for name in self.rows.get(turn, []):
                self._instance(name, None)
            for index in self.layouts:
                self._turn(turn, index)
        return self._text("split")

    def _turn(self, turn: int, index: str) -> None:
        sinks = self.sinks.get((turn, index), [])
        whole = [value for kind, value in sinks if kind == "whole"]
        tiled = [(kind, value) for kind, value in sinks if kind != "whole"]
        if tiled:
            self._loop(tiled, index)
        if whole:
            self._forget(index)
            for name in self._needed(whole, index):
                self._instance(name, index)
            for value in whole:
                self._instance(value.name, None)
            self._forget(index)

    def _loop(self, sinks: list[tuple[str, Value]], index: str) -> None:
        k = self.layouts.index(index)
        for kind, value in sinks:
            if kind != "keep":
                self.lines.append(f"{self._total(kind, value)} = None")
        tiles, one_row = self._object(hubs.tiles, "tiles"), self._object(hubs.one_row, "one_row")
        outside, self.lines = self.lines, []
        self._forget(index)
        self.lines.append(f"P{k} = {one_row}(e0_{k}, e1_{k}); E{k} = e1_{k} - e0_{k}")
        for name in self._needed([value for _, value in sinks], index):
            self._instance(name, index)
        for kind, value in sinks:
            getattr(self, f"_{kind}")(value, index)
        self._forget(index)
        inside, self.lines = self.lines, outside
        self.lines.append(f"for e0_{k}, e1_{k} in {tiles}(bounds[{k}], {self.tile}):")
        self.lines += [f"    {line}" for line in inside]
        self.lines.append(f"(e0_{k}, e1_{k}) = bounds[{k}]; P{k} = rowptr{k}[r0:r1 + 1]; E{k} = e1_{k} - e0_{k}")
        for kind, value in sinks:
            if kind in ("add", "weigh"):
                self._finish(kind, value, k)

    def _forget(self, index: str) -> None:
        """No edge value outlives its tile."""
        self.locals = {key: local for key, local in self.locals.items() if key[1] != index}

    def _total(self, kind: str, value: Value) -> str:
        return f"{'stats' if kind == 'stats' else 'total'}_{self._local(value.name, None)}"

    def _call(self, function: Callable[..., Any], *args: str) -> str:
        return f"{self._object(function, function.__name__)}({', '.join(args)})"

    # -- sinks --------------------------------------------------------------------------------------------------

    def _add(self, value: Value, index: str) -> None:
        """A tile's part of a plain reduction."""
        total, made = self._total("add", value), self._made(_as_sum(value), None)
        several = value.op == "message_reduce"
        how = value.kwargs["reduces" if several else "reduce"]
        self.lines.append(f"{total} = {self._call(hubs.all_added if several else hubs.added, total, made, repr(how))}")

    def _stats(self, value: Value, index: str) -> None:
        """A tile's scores into the statistics of a softmax."""
        stats = self._total("stats", value)
        self.lines.append(f"{stats} = {self._call(hubs.with_scores, stats, self._score(value, index))}")

    def _weigh(self, value: Value, index: str) -> None:
        """A tile's part of a sum weighted by a softmax."""
        total, stats = self._total("weigh", value), self._total("stats", value)
        weight = self._call(hubs.weights, self._score(value, index), stats)
        if value.op == "attention":
            call = self._object(trusted.gather_reduce, "gather_reduce")
            made = f"{call}({self._source(value)}, P{self._layout(value)}, {weight}, 'sum', threads=1)"
        else:
            made = self._call(hubs.weighted, "formed", weight)
        self.lines.append(f"{total} = {self._call(hubs.added, total, made, repr('sum'))}")

    def _keep(self, value: Value, index: str) -> None:
        """A tile's weights, where they are stored."""
        local = self._local(value.name, index)
        self.lines.append(f"{local} = {self._emit_softmax(value, index)}")
        self._store(value, index, local)

    def _score(self, value: Value, index: str) -> str:
        """The scores of a tile: of an attention `[E, H]`, of a softmax and a softmax aggregation one per column."""
        if value.op == "softmax":
            return self._use(value.args[0].name, index, value)
        if value.op == "attention":
            return self._attention_score(value, index)
        scale = value.kwargs["scale"]
        factor = repr(scale) if not hasattr(scale, "name") else self._use(scale.name, None, value)
        named = self._named(value, without=("scale",))
        made = f"{self._source(value)}, P{self._layout(value)}{', ' + named if named else ''}, threads=1"
        self.lines.append(f"formed = {self._object(trusted.message, 'message')}({made})")
        return f"formed * {factor}"

    def _attention_score(self, value: Value, index: str) -> str:
        """The scores of a tile of an attention that has an operand per edge."""
        parts, heads = value.kwargs, self.program[value.args[0].name].shape[1]
        if parts["kind"] == "explicit":
            return f"{self._use(parts['score'].name, index, value)}.reshape(-1, {heads})"
        additive = parts["kind"] == "additive"
        source, row, edge = ("score_src", "score_dst", "score_edge") if additive else ("key", "query", "key_edge")
        table = self._bind(f"T_{_ident(parts[source].name)}", Binding("table", parts[source].name))
        src = self._edge_index(value.args[1].name, index)
        named = f"dst={self._use(parts[row].name, None, value)}, edge={self._use(parts[edge].name, index, value)}"
        leaky = f"activation='leaky_relu', negative_slope={parts['negative_slope']!r}"
        call = self._object(trusted.message, "message")
        made = f"{call}(*{table}.gather({src}), P{self._layout(value)}, {named}, {leaky}, threads=1)"
        if additive:
            return made
        channels = self.program[parts["key"].name].shape[2]
        return f"({made} * {self._use(parts['att'].name, None, value)}.reshape({heads}, {channels})).sum(-1)"

    def _emit_softmax(self, value: Value, context: str | None) -> str:
        """A tile's weights, in a turn after that of the statistics."""
        score = self._use(value.args[0].name, value.args[1].name, value)
        return self._call(hubs.weights, score, self._total("stats", value))

    def _finish(self, kind: str, value: Value, k: int) -> None:
        """A reduction of the row, known once all its tiles have gone by."""
        total, local = self._total(kind, value), self._local(value.name, None)
        dtype = self._object(value.dtype, "dtype")
        several = value.op == "message_reduce"
        how = value.kwargs["reduces" if several else "reduce"] if kind == "add" else "sum"
        made = self._call(hubs.all_finished if several else hubs.finished, total, dtype, repr(how), f"bounds[{k}]")
        self.lines.append(f"{local} = {made}")
        if value.name in self.block.stored:
            self._store(value, None, local)


def _as_sum(value: Value) -> Value:
    """A mean's tiles are added up, and divided at the end."""
    return replace(value, kwargs={**value.kwargs, "reduce": "sum"}) if value.kwargs.get("reduce") == "mean" else value
