"""A block program as the text of a Python function, and what must be bound to it before it runs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from types import CodeType, FunctionType
from typing import Any

from torch import Tensor

from pyg_fullgraph.ir import BlockProgram, Program
from pyg_fullgraph.ir.fused import index_of
from pyg_fullgraph.runtime.buffers import Slot
from pyg_fullgraph.runtime.home import Home

Block = Callable[..., None]


@dataclass
class Binding:
    """One name the block function needs from outside: what it is, and of which value.

    `kind` is one of table, pool, global, packed (a global matrix, as products read it), rows (structural rows), ranges
    (of structural types of rows), edges (structural edge values in CSR order), rowptr, perm, largest (how many edges
    the largest row has), object, size (a number that the model means), rows_of (how many rows are here).
    """

    kind: str
    value: Any
    layout: str | None = None


@dataclass
class BlockCode:
    """A block program as text, with what must be bound to it before it runs.

    Args:
        text: the source of a function.
        bindings: names the text uses.
        layouts: the destination indices whose in-edges it runs on.
        kernels: the kernels it calls, for reports.
        slots: scratch rows of each thread.
        split: the form for one row with more than `tile` edges, where edge values are held.
        tile: how many edges the split form holds at a time.
    """

    text: str
    bindings: dict[str, Binding]
    layouts: tuple[str, ...]
    kernels: tuple[str, ...] = field(default=())
    slots: tuple[Slot, ...] = field(default=())
    split: BlockCode | None = None
    tile: int = 0

    def everything(self) -> list[Binding]:
        """What is bound, to the split form too."""
        return [*self.bindings.values(), *(self.split.bindings.values() if self.split is not None else ())]

    def scratch(self, rows: int, home: Home) -> list[Tensor]:
        """One thread's scratch for blocks of at most `rows` rows."""
        return [home.scratch((rows, *slot.tail), slot.dtype) for slot in self.slots]

    @contextmanager
    def bound(self, resolve: Callable[[Binding], Any]) -> Iterator[Block]:
        """The function `block(r0, r1, bounds, scratch)`: `bounds` = ((e0, e1), ...) of each layout.

        What it is bound to is let go of at the end of the context, whoever keeps the function: an error does that.
        """
        scopes: list[dict[str, Any]] = []
        try:
            whole = self._function("block", resolve, scopes)
            if self.split is None:
                yield whole
                return
            split, tile = self.split._function("split", resolve, scopes), self.tile

            def block(r0: int, r1: int, bounds: tuple[tuple[int, int], ...], scratch: list[Tensor]) -> None:
                hub = r1 - r0 == 1 and any(e1 - e0 > tile for e0, e1 in bounds)
                (split if hub else whole)(r0, r1, bounds, scratch)

            yield block
        finally:
            for scope in scopes:
                scope.clear()

    def _function(self, name: str, resolve: Callable[[Binding], Any], scopes: list[dict[str, Any]]) -> Block:
        scope: dict[str, Any] = {key: resolve(binding) for key, binding in self.bindings.items()}
        scopes.append(scope)
        return FunctionType(self._compiled, scope, name)  # the scope must not hold it: such a cycle keeps every table

    @cached_property
    def _compiled(self) -> CodeType:
        """The function's code, made once: each call only binds it to other tensors."""
        whole = compile(self.text, "<pyg_fullgraph block program>", "exec")
        (code,) = (item for item in whole.co_consts if isinstance(item, CodeType))
        return code


def layouts_of(program: Program, block: BlockProgram) -> tuple[str, ...]:
    """The destination indices a block program aggregates by."""
    found: dict[str, None] = {}
    for name, context in block.order:
        if context is not None:
            found[context] = None
        index = index_of(program[name])
        if index is not None:
            found[index] = None
    return tuple(found)
