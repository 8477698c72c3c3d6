"""Which values of a block are computed by one call of `ops.linear`: products with what can go into their store.

::

    addmm(%bias, %x, %W), relu                    linear(x, W, bias, relu=True)
    message, addmm, relu, reduce of one layout    edge_linear(...): no edge value is stored
    typed_linear(%x, %W, None, %types)            typed(x, W, ranges): one product per range of equal types
"""

from __future__ import annotations

import bisect
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from pyg_fullgraph.ir import BlockProgram, Program, Stage, Value, is_aten, packet_of
from pyg_fullgraph.ir.fetches import Instance
from pyg_fullgraph.ops.linear import Matrices, linear_of_heads

aten = torch.ops.aten

_DTYPES = (torch.float32, torch.float64)
_REDUCES = ("sum", "mean", "max", "min")


@dataclass(frozen=True)
class Product:
    """`x @ matrix + bias + add`, then ReLU, by the names of values; of `message`'s messages where that is given."""

    x: str
    matrix: str
    bias: str | None = None
    add: str | None = None
    relu: bool = False
    message: str | None = None


@dataclass
class Products:
    """The products of a block.

    Attributes:
        of: the instance that a product makes -> the product.
        inside: instances that are computed inside of a product, and never by themselves.
        typed: values that are products by type.
    """

    of: dict[Instance, Product] = field(default_factory=dict)
    inside: set[Instance] = field(default_factory=set)
    typed: set[str] = field(default_factory=set)


def find_products(program: Program, block: BlockProgram) -> Products:
    """The products of a block; a value that is stored, or used elsewhere too, is not taken into another's store."""
    found = Products()
    single = _single_uses(program, block)
    for name, context in block.order:
        value = program[name]
        product = _product(program, value)
        if product is not None:
            found.of[name, context] = product
        elif context is None and _is_typed(program, block, value):
            found.typed.add(name)
        elif (biased := _with_bias(program, value, found.of.get((_first(value), context)))) is not None:
            if (_first(value), context) in single:
                found.inside.add((_first(value), context))
                del found.of[_first(value), context]
                found.of[name, context] = biased
        elif is_aten(value, aten.relu) and (value.args[0].name, context) in found.of:
            below = value.args[0].name, context
            if below in single and found.of[below].message is None:
                found.inside.add(below)
                found.of[name, context] = replace(found.of.pop(below), relu=True)
        elif value.op == "reduce":
            _take_in_edges(program, value, found, single)
    return found


def _single_uses(program: Program, block: BlockProgram) -> set[Instance]:
    """Instances that are not stored and that exactly one other value reads."""
    users = program.users()
    outputs = set(program.output_names())
    return {
        (name, context)
        for name, context in block.order
        if name not in block.stored and name not in outputs and len(users[name]) == 1
    }


def _product(program: Program, value: Value) -> Product | None:
    """The product that an `mm` or `addmm` of rows by a matrix of parameters is."""
    plain = is_aten(value, aten.mm) or is_aten(value, aten.addmm)
    if not plain or value.kwargs or value.row_dim != 0 or value.dtype not in _DTYPES:
        return None
    x, matrix = (program[arg.name] for arg in value.args[-2:])
    if matrix.stage > Stage.PARAM or matrix.space is not None or x.row_dim != 0 or x.space != value.space:
        return None
    if x.dtype != value.dtype or matrix.dtype != value.dtype:
        return None
    made = Product(x.name, matrix.name)
    if is_aten(value, aten.mm):
        return made
    added = program[value.args[0].name]
    if added.dtype != value.dtype:
        return None
    if added.row_dim is None and added.space is None and tuple(added.shape) == tuple(value.shape[1:]):
        return replace(made, bias=added.name)
    if is_aten(added, aten.full) and added.args[1] == 0 and added.shape == value.shape:
        return made  # a sum that starts with zeros
    return replace(made, add=added.name) if added.row_dim == 0 and added.shape == value.shape else None


def _first(value: Value) -> str:
    """The name of the first operand; "" where that is no value."""
    return str(getattr(value.args[0], "name", "")) if value.op == "aten" and value.args else ""


def _with_bias(program: Program, value: Value, product: Product | None) -> Product | None:
    """The product with the bias that an `add` gives to it."""
    if product is None or product.bias is not None or product.relu or product.message is not None:
        return None
    if value.target is not aten.add.Tensor or value.kwargs or not hasattr(value.args[1], "name"):
        return None
    bias = program[value.args[1].name]
    plain = bias.row_dim is None and bias.space is None and tuple(bias.shape) == tuple(value.shape[1:])
    return replace(product, bias=bias.name) if plain and bias.dtype == value.dtype else None


def _take_in_edges(program: Program, value: Value, found: Products, single: set[Instance]) -> None:
    """The reduction of products of messages, where nothing else reads these."""
    index = value.args[1].name
    below = value.args[0].name, index
    product = found.of.get(below)
    if value.kwargs["reduce"] not in _REDUCES or value.row_dim != 0 or product is None or product.add is not None:
        return
    message = product.x, index
    if below not in single or message not in single or program[product.x].op != "message":
        return
    if program[product.x].args[2].name != index or len(program[product.x].shape) != 2 or value.dtype not in _DTYPES:
        return
    del found.of[below]
    found.inside |= {below, message}
    found.of[value.name, None] = replace(product, message=product.x)


def _is_typed(program: Program, block: BlockProgram, value: Value) -> bool:
    """Whether a product by type has rows of the block, and types that the graph alone decides."""
    if packet_of(value) is not torch.ops.pyg_fullgraph.typed_linear or value.row_dim != 0 or value.kwargs:
        return False
    x, weight, bias, types = (None if arg is None else program[arg.name] for arg in value.args)
    assert x is not None and weight is not None and types is not None
    rows = types.stage is Stage.STRUCT and types.row_dim == 0 and types.space == block.space
    return (
        bias is None
        and rows
        and weight.stage <= Stage.PARAM
        and len(weight.shape) == 3
        and x.row_dim == 0
        and len(x.shape) in (2, 3)
        and x.shape[:-1] == types.shape
        and x.dtype == weight.dtype
    )


class TypeRanges:
    """The types of rows as ranges in which no row's differ; made once per graph.

    Args:
        types: integers `[N]` or `[N, H]`.
    """

    #: Ranges of fewer rows on average are multiplied in the order of their types, after a sort.
    FEWEST_ROWS = 64

    def __init__(self, types: Tensor) -> None:
        rows = types.reshape(types.shape[0], -1)
        changes = (rows[1:] != rows[:-1]).any(1).nonzero().view(-1) + 1
        few = changes.numel() * self.FEWEST_ROWS <= rows.shape[0]
        starts = torch.cat([changes.new_zeros(1), changes])[: rows.shape[0]] if few else changes[:0]
        self.ends: list[int] = [*starts.tolist()[1:], rows.shape[0]] if few else []
        self.kinds = list(rows.index_select(0, starts).long().contiguous().unbind(0))  # [H] each
        self.types = None if few else types.clone()

    def parts(self, r0: int, r1: int) -> list[tuple[int, int, Tensor]]:
        """Of rows [r0, r1): (first row, one past the last, types `[H]`) of each range."""
        from_range = bisect.bisect_right(self.ends, r0)
        found, start = [], r0
        while start < r1:
            stop = min(self.ends[from_range], r1)
            found.append((start, stop, self.kinds[from_range]))
            start, from_range = stop, from_range + 1
        return found


def typed(x: Tensor, matrices: Matrices, ranges: TypeRanges, r0: int, r1: int, out: Tensor | None = None) -> Tensor:
    """`out[r] = x[r] @ matrices[type of row r0 + r]`, for every head where there are some.

    Args:
        x: `[B, K]` or `[B, H, K]`, rows [r0, r1).
        matrices: `[T, K, N]`.
        ranges: of the types of all rows.
        r0, r1: which rows.
        out: where to write if there are ranges, `[B, N]` or `[B, H, N]`; a new tensor if None.

    Returns:
        The product: in `out`, or where each row has a type of its own in a new tensor.
    """
    at = bisect.bisect_right(ranges.ends, r0)
    if x.dim() == 3 and at < len(ranges.ends) and r1 <= ranges.ends[at]:  # nearly every block
        return linear_of_heads(x, matrices, ranges.kinds[at], out=out, threads=1)
    if ranges.types is not None:
        return torch.ops.pyg_fullgraph.typed_linear(x, matrices.given, None, ranges.types[r0:r1])
    made: Any = x.new_empty(*x.shape[:-1], matrices.columns) if out is None else out
    rows, target = (x, made) if x.dim() == 3 else (x.unsqueeze(1), made.unsqueeze(1))
    for start, stop, kinds in ranges.parts(r0, r1):
        linear_of_heads(rows[start - r0 : stop - r0], matrices, kinds, out=target[start - r0 : stop - r0], threads=1)
    return made
