"""Where each row value of a block is computed: in its table's rows, in place of an operand, or in reused scratch.

A block's values are a few hundred KiB each; asking the allocator for every one of them costs a page fault per 4 KiB,
more than the arithmetic on it. So values that are stored are computed in the table, element-wise operators overwrite
an operand that nothing else uses, and the rest share scratch rows that each thread keeps for the whole superstep.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from pyg_fullgraph.ir import BlockProgram, Program, Value, by_column, is_aten
from pyg_fullgraph.ir.program import is_symbolic
from pyg_fullgraph.runtime.products import Products

aten = torch.ops.aten

_RESHAPES = (aten.view, aten._unsafe_view, aten.reshape)
_ALIASES = (
    *_RESHAPES,
    aten.unsqueeze,
    aten.squeeze,
    aten.expand,
    aten.select,
    aten.slice,
    aten.permute,
    aten.transpose,
    aten.t,
    aten.split,
    aten.split_with_sizes,
    aten.unbind,
    aten.narrow,
)


@dataclass(frozen=True)
class Place:
    """Where a value is computed: rows of the table of `table`, or the scratch rows number `slot`."""

    table: str | None = None
    slot: int | None = None


@dataclass(frozen=True)
class Slot:
    """Scratch rows of one thread: columns and element type."""

    tail: tuple[int, ...]
    dtype: torch.dtype


def out_overload(value: Value) -> Any:
    """The overload that writes to a given tensor and takes the same arguments otherwise; None if there is none."""
    packet, schema = value.target.overloadpacket, value.target._schema
    if packet is aten.relu:
        return relu_out
    wanted = [(argument.name, str(argument.type)) for argument in schema.arguments]
    for overload in packet.overloads():
        candidate = getattr(packet, overload)
        arguments = candidate._schema.arguments
        if not arguments or arguments[-1].name != "out" or not arguments[-1].is_out:
            continue
        if [(argument.name, str(argument.type)) for argument in arguments[:-1]] == wanted:
            return candidate
    return None


def relu_out(x: Tensor, *, out: Tensor) -> Tensor:
    """`aten.relu` written to a tensor, which torch's own overload does by way of one more tensor of that size."""
    result: Tensor = aten.clamp_min.out(x, 0, out=out)
    return result


def outputs_of(program: Program, value: Value) -> list[Value]:
    """The single outputs of a `message_reduce`, in order; of other values none."""
    if value.op != "message_reduce":
        return []
    found = [program[name] for name in program.users_of(value.name)]
    return sorted((item for item in found if item.target is None), key=lambda item: int(item.args[1]))


def place_values(
    program: Program, block: BlockProgram, products: Products
) -> tuple[dict[str, Place], tuple[Slot, ...]]:
    """The place of every row value that can be computed in a given one, and the scratch that takes.

    Args:
        program, block: what a block computes.
        products: values that are computed inside of others' products, and products by type.
    """
    return _Places(program, block, products).run()


class _Places:
    def __init__(self, program: Program, block: BlockProgram, products: Products) -> None:
        self.program, self.block, self.products = program, block, products
        self.order = [name for name, _ in block.order]
        self.rows = {name for name, context in block.order if context is None}
        self.last = self._last_uses()
        self.places: dict[str, Place] = {}
        self.slots: list[Slot] = []

    def run(self) -> tuple[dict[str, Place], tuple[Slot, ...]]:
        for name in self.block.stored:
            if name in self.rows:
                self._into_table(name)
        free: list[int] = []
        held: dict[str, int] = {}
        for position, name in enumerate(self.order):
            for made in [item.name for item in outputs_of(self.program, self.program[name])] or [name]:
                if made in self.rows and self._wants_slot(made):
                    slot = self._slot(made, position, free, held)
                    self.places[made], held[made] = Place(slot=slot), slot
            for dead in [item for item in held if self.last[item] <= position]:
                slot = held.pop(dead)
                if slot not in held.values():
                    free.append(slot)
        return self.places, tuple(self.slots)

    def _wants_slot(self, name: str) -> bool:
        virtual = name in self.places or (name, None) in self.products.inside
        return not virtual and name not in self.block.stored and self._writes(name)

    def _last_uses(self) -> dict[str, int]:
        """Position of the last use of every row value, uses of its views included."""
        last = {name: position for position, name in enumerate(self.order)}
        for position, (name, context) in reversed(list(enumerate(self.block.order))):
            value = self.program[name]
            later = self._is_alias(value) or (name, context) in self.products.inside
            reach = last[name] if later else position
            for ref in value.refs():
                if ref in last:
                    last[ref] = max(last[ref], reach)
        return last

    def _is_alias(self, value: Value) -> bool:
        if value.op == "aten" and value.target is None:
            return self.program[value.args[0].name].op != "message_reduce"
        return any(is_aten(value, packet) for packet in _ALIASES)

    def _writes(self, name: str) -> bool:
        """True where the value's kernel can write to a given tensor of rows."""
        value = self.program[name]
        if name not in self.rows or value.row_dim != 0 or value.multi or value.dtype is None:
            return False
        if value.op in ("gather_reduce", "attention", "softmax_reduce") or by_column(value):
            return True
        if value.op == "aten" and value.target is None:  # one output of a kernel that has several
            return self.program[value.args[0].name].op == "message_reduce"
        if name in self.products.typed:
            return True
        return value.op == "aten" and value.target is not None and not self._is_alias(value) and self._has_out(value)

    @staticmethod
    def _has_out(value: Value) -> bool:
        return bool(value.refs()) and out_overload(value) is not None

    def _into_table(self, stored: str) -> None:
        """Compute a stored value, and the chain that leads to it in place, in its table's rows."""
        name, place = stored, Place(table=stored)
        while any(is_aten(self.program[name], packet) for packet in _RESHAPES):
            below = self.program[name].args[0].name
            if below not in self.rows or below in self.block.stored or below in self.places:
                return
            if self.program[below].row_dim != 0 or self.program[name].row_dim != 0:
                return
            name = below
        while self._writes(name) and name not in self.places:
            self.places[name] = place
            below = self._overwritten(name, self.order.index(name))
            if below is None or below in self.block.stored:
                return
            name = below

    def _overwritten(self, name: str, position: int) -> str | None:
        """The operand that an element-wise operator or an accumulating product may overwrite."""
        value = self.program[name]
        if value.op != "aten" or value.target is None or not value.args:
            return None
        if torch.Tag.pointwise not in value.target.tags and not is_aten(value, aten.addmm):
            return None
        below = getattr(value.args[0], "name", None)
        if below not in self.rows or not self._writes(below) or self.last[below] != position:
            return None
        operand = self.program[below]
        twice = value.refs().count(below) > 1
        return below if operand.shape == value.shape and operand.dtype == value.dtype and not twice else None

    def _slot(self, name: str, position: int, free: list[int], held: dict[str, int]) -> int:
        below = self._overwritten(name, position)
        if below is not None and below in held:
            return held[below]
        value = self.program[name]
        assert value.dtype is not None
        wanted = Slot(tuple(int(size) for size in value.shape if not is_symbolic(size)), value.dtype)
        for slot in free:
            if self.slots[slot] == wanted:
                free.remove(slot)
                return slot
        self.slots.append(wanted)
        return len(self.slots) - 1
