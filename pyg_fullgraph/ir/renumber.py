"""What a program gives for the same graph with its nodes renumbered, shown value by value.

Renumbering permutes the rows of every input that has one row per node, and replaces the node numbers among the integer
inputs; edges keep their order. `renumber` follows this through the program::

    Form ::= rows, numbers
    rows ::= Segment*        how the rows lie now: of a space of nodes in the new order; as before; or all alike
    numbers ::= space | -    whether the values are numbers of nodes of a space

An operator whose result would have no form is a reason to refuse: it uses where a node stands, or its number as a
value. So a program that passes gives the same values at the new places, and nothing is guessed from names.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import sympy
import torch

from pyg_fullgraph.ir.forms import ALIKE, FIXED, Form, NotRenumberable, merged, unmoved
from pyg_fullgraph.ir.program import Program, Ref, Value, map_args, packet_of
from pyg_fullgraph.ir.renumber_rules import RULES, reduced, taken

aten = torch.ops.aten


@dataclass(frozen=True)
class Renumbering:
    """How to renumber a program's inputs, and what its outputs then are.

    Args:
        inputs: argument name -> its form.
        outputs: a form for every leaf of the output tree; None for leaves that are no values.
    """

    inputs: dict[str, Form]
    outputs: tuple[Form | None, ...]


def renumber(program: Program, numbers: dict[str, Any]) -> Renumbering:
    """The forms of a program's inputs and outputs when all spaces of nodes are renumbered.

    Args:
        program: as raised, before any pass.
        numbers: argument name -> `Form.numbers`, for the integer arguments that hold node numbers (`ir.ends`).

    Raises:
        NotRenumberable: some value depends on the order of the nodes.
    """
    spaces = node_spaces(program)
    forms: dict[str, Form] = {}
    inputs: dict[str, Form] = {}
    for value in program:
        try:
            if value.op == "input":
                forms[value.name] = inputs[value.args[0]] = _input(value, spaces, numbers.get(value.args[0]))
            elif value.op in ("param", "const"):
                forms[value.name] = Form()
            else:
                forms[value.name] = _checked(value, _form(program, value, forms, spaces))
        except NotRenumberable as reason:
            what = getattr(packet_of(value), "__name__", value.op)
            at = f" at {value.where}" if value.where else ""
            raise NotRenumberable(f"'{what}'{at} {reason}") from None
    outputs: list[Form | None] = []
    map_args(
        program.outputs,
        lambda leaf: outputs.append(_output(program[leaf.name], forms[leaf.name]) if isinstance(leaf, Ref) else None),
    )
    return Renumbering(inputs, tuple(outputs))


def node_spaces(program: Program) -> set[sympy.Expr]:
    """The sizes that count nodes."""
    return {space for space, name in program.spaces.items() if name.startswith("N")}


def _input(value: Value, spaces: set[Any], numbers: Any) -> Form:
    if value.row_dim is None:
        if any(size in spaces for size in value.shape):
            raise NotRenumberable("has one row and one column per node")
        return Form((), numbers)
    return Form(((value.space, value.space if value.space in spaces else FIXED),), numbers, value.row_dim)


def _output(value: Value, form: Form) -> Form:
    if form.moved and sum(mark in (FIXED, ALIKE) for _, mark in form.rows) > 1:
        raise NotRenumberable("A result joins rows of nodes with rows of several other kinds")
    return Form(form.rows, form.numbers, value.row_dim or 0)


def _checked(value: Value, form: Form) -> Form:
    """A value with rows has as many as its segments say."""
    if form.moved and (value.row_dim is None or sum(size for size, _ in form.rows) != value.space):
        raise NotRenumberable("changes which rows there are")
    return form


def _form(program: Program, value: Value, forms: dict[str, Form], spaces: set[Any]) -> Form:
    operands = [forms[name] for name in value.refs()]
    if value.op == "gather":
        return taken(program, value, value.args[0], value.args[1], forms)
    if value.op in ("reduce", "softmax"):
        return reduced(value, *operands)
    if value.target is None:  # an item of several results
        return _item(value, operands[0], program[value.args[0].name])
    rule = RULES.get(packet_of(value))
    form = rule(program, value, forms, spaces) if rule is not None else None
    return form if form is not None else _otherwise(value, operands)


def _otherwise(value: Value, operands: list[Form]) -> Form:
    """Any operator: exact on what did not change, or row by row on rows that moved together."""
    if any(form.numbers is not None for form in operands):
        raise NotRenumberable("uses the numbers of nodes as values")
    if value.local and value.row_dim is not None:
        rows = merged([form.rows for form in operands])
        alike = not any(mark != ALIKE for _, mark in rows)
        if any(form.moved for form in operands) or (rows and alike):
            return Form(rows)
    if any(form.moved for form in operands):
        raise NotRenumberable("depends on the order of the nodes")
    return unmoved(value)


def _item(value: Value, form: Form, whole: Value) -> Form:
    numbers = form.numbers
    if isinstance(numbers, tuple):
        number = value.args[1]
        if packet_of(whole) is not aten.unbind or not isinstance(number, int):
            raise NotRenumberable("takes edge lists apart in a way that is not known")
        numbers = numbers[number]
    return Form(form.rows if value.row_dim is not None else (), numbers)
