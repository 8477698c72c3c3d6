"""The operators that `ir.renumber` knows: what each makes of rows that moved and of node numbers.

A rule gives a form, None where the general rule is to decide, or raises `NotRenumberable`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from pyg_fullgraph.ir.forms import ALIKE, FIXED, Form, NotRenumberable, merged, unmoved
from pyg_fullgraph.ir.program import Program, Ref, Value, is_symbolic, packet_of, refs_of

aten = torch.ops.aten

# -- by index ---------------------------------------------------------------------------------------------------


def taken(program: Program, value: Value, x: Any, index: Any, forms: dict[str, Form]) -> Form:
    """Rows of `x` by number."""
    table, numbers = forms[x.name], forms[index.name]
    if table.alike:
        return Form(numbers.rows, table.numbers)
    if table.moved:
        ((_, space), *more) = table.rows
        if more or numbers.numbers != space:
            raise NotRenumberable("reads rows of nodes by what is not shown to be their numbers")
        return Form(numbers.rows, table.numbers)
    if numbers.numbers is not None:
        raise NotRenumberable("looks the numbers of nodes up in a table that is not of those nodes")
    return Form(numbers.rows, table.numbers)


def reduced(value: Value, x: Form, index: Form) -> Form:
    """Rows combined by destination: in the order of the edges, so nothing changes but where the sum goes."""
    rows = merged([x.rows, index.rows])
    if x.numbers is not None or isinstance(index.numbers, tuple):
        raise NotRenumberable("combines the numbers of nodes")
    if value.op == "softmax":
        return Form(rows)
    if not isinstance(value.kwargs["reduce"], str) and Form(rows).moved:
        raise NotRenumberable("may depend on the order of the nodes in a group")
    return _at(value, index.numbers)


def _at(value: Value, space: Any) -> Form:
    """The result of combining rows by node number of `space`."""
    if space is None:
        return unmoved(value)
    if value.space != space:
        raise NotRenumberable("combines rows by numbers of other nodes than it has rows")
    return Form(((space, space),))


def _lookup(program: Program, value: Value, forms: dict[str, Form], _spaces: set[Any]) -> Form | None:
    """index_select and index, by one index along one dimension."""
    dim, index = _dim_and_index(value)
    if index is None:
        return None
    x, by = program[value.args[0].name], program[index.name]
    form, numbers = forms[x.name], forms[by.name]
    across = x.row_dim is None or dim % len(x.shape) != x.row_dim
    if isinstance(form.numbers, tuple) and dim % len(x.shape) == 0:
        return None
    if by.dtype is torch.bool:
        if form.moved or numbers.moved:
            raise NotRenumberable("picks nodes in their order")
        return unmoved(value, form.numbers)
    if across and (x.row_dim is not None or numbers.numbers is not None):
        plain = form.numbers is None or numbers.rows or numbers.numbers is not None
        return None if plain else Form(form.rows, form.numbers)
    return taken(program, value, value.args[0], index, forms)


def _dim_and_index(value: Value) -> tuple[int, Ref | None]:
    if packet_of(value) is aten.index_select:
        return value.args[1], value.args[2]
    found = [(dim, item) for dim, item in enumerate(value.args[1]) if item is not None]
    return found[0] if len(found) == 1 and isinstance(found[0][1], Ref) else (0, None)


def _scattered(program: Program, value: Value, forms: dict[str, Form], _spaces: set[Any]) -> Form | None:
    """Rows added to, or written into, the rows of a base by number."""
    packet = packet_of(value)
    if packet is aten.index_put:
        dim, index = _dim_and_index(value)
        source, adds = value.args[2], len(value.args) > 3 and bool(value.args[3])
    else:
        dim, index, source = value.args[1:4]
        adds = packet in (aten.scatter_add, aten.index_add, aten.scatter_reduce)
    base = program[value.args[0].name]
    grouped = adds and value.row_dim is None and not value.is_pairwise  # groups whose number the model fixes
    if index is None or not (grouped or (base.row_dim is not None and dim % len(base.shape) == base.row_dim)):
        return None
    into, by = forms[base.name], forms[index.name]
    given = forms[source.name] if isinstance(source, Ref) else Form()
    if into.numbers is not None or given.numbers is not None or isinstance(by.numbers, tuple):
        raise NotRenumberable("stores or combines the numbers of nodes")
    if program[index.name].dtype is torch.bool:
        return None
    rows = merged([by.rows, given.rows])
    if not adds and Form(rows).moved:
        raise NotRenumberable("writes rows in the order of the nodes")
    result = _at(value, by.numbers) if value.row_dim is not None or by.numbers is not None else Form()
    if result.moved:
        merged([into.rows, result.rows])
    elif into.moved:
        raise NotRenumberable("writes to rows of nodes by what is not shown to be their numbers")
    return result


# -- made of sizes ----------------------------------------------------------------------------------------------


def _alike(_program: Program, value: Value, _forms: dict[str, Form], _spaces: set[Any]) -> Form:
    return Form(() if value.row_dim is None else ((value.space, ALIKE),))


def _arange(_program: Program, value: Value, _forms: dict[str, Form], spaces: set[Any]) -> Form:
    """All numbers of a space are its nodes, in the new order as in the old."""
    if value.space not in spaces:
        return unmoved(value)
    start = value.args[0] if len(value.args) > 1 else 0
    step = value.args[2] if len(value.args) > 2 else 1
    if start != 0 or step != 1:
        return unmoved(value)
    return Form(((value.space, value.space),), value.space)


# -- moved, not computed with -----------------------------------------------------------------------------------


def _carried(program: Program, value: Value, forms: dict[str, Form], _spaces: set[Any]) -> Form | None:
    """Views and copies: numbers stay numbers."""
    form = forms[value.args[0].name]
    if form.numbers is None:
        return None
    if value.dtype is not None and value.dtype.is_floating_point:
        raise NotRenumberable("uses the numbers of nodes as values")
    if isinstance(form.numbers, tuple):
        return _of_pair(program, value, form)
    if not (value.local and value.row_dim is not None):
        raise NotRenumberable("uses the numbers of nodes as values")
    return Form(form.rows, form.numbers)


def _of_pair(program: Program, value: Value, form: Form) -> Form:
    """An edge list between two spaces: one of its rows, both exchanged, or a copy."""
    packet = packet_of(value)
    if packet in (aten.clone, aten._to_copy, aten.contiguous):
        return form
    if packet is aten.select and value.args[1] == 0:
        return Form(form.rows, form.numbers[value.args[2]])
    if packet is aten.unbind and (len(value.args) < 2 or value.args[1] == 0):
        return form
    if packet is aten.flip and list(value.args[1]) == [0]:
        return Form(form.rows, form.numbers[::-1])
    raise NotRenumberable("takes edge lists apart in a way that is not known")


def _joined(program: Program, value: Value, forms: dict[str, Form], _spaces: set[Any]) -> Form:
    """cat and stack: one after the other along the rows, else side by side."""
    dim = value.args[1] if len(value.args) > 1 else value.kwargs.get("dim", 0)
    dim %= max(len(value.shape), 1)
    names = [item.name for item in value.args[0]]
    parts, stack = [forms[name] for name in names], packet_of(value) is aten.stack
    numbers = [form.numbers for form in parts]
    same = all(item == numbers[0] for item in numbers)
    pair = dim == 0 and len(parts) == 2 and (stack or all(program[name].shape[0] == 1 for name in names))
    if any(isinstance(item, tuple) for item in numbers) and (not same or stack or dim != 1):
        raise NotRenumberable("joins edge lists other than one after the other")
    if not same and not (pair and value.row_dim == 1):
        raise NotRenumberable("joins the numbers of nodes with other numbers")
    if value.local:
        return Form(merged([form.rows for form in parts]), numbers[0] if same else tuple(numbers))
    if stack or dim != value.row_dim:
        if any(form.moved for form in parts) or any(item is not None for item in numbers):
            raise NotRenumberable("depends on the order of the nodes")
        return unmoved(value)
    rows = [form.rows or ((program[name].shape[dim], FIXED),) for name, form in zip(names, parts, strict=True)]
    return Form(tuple(segment for part in rows for segment in part), numbers[0])


def _compared(_program: Program, value: Value, forms: dict[str, Form], _spaces: set[Any]) -> Form | None:
    """Whether two numbers are those of one node does not depend on how nodes are numbered."""
    operands = [forms[name] for name in value.refs()]
    if len(operands) != 2 or operands[0].numbers is None or isinstance(operands[0].numbers, tuple):
        return None
    if operands[0].numbers != operands[1].numbers or not value.local:
        return None
    return Form(merged([form.rows for form in operands]))


# -- over all rows ----------------------------------------------------------------------------------------------


def _totalled(program: Program, value: Value, forms: dict[str, Form], _spaces: set[Any]) -> Form | None:
    """Reductions over all rows, in any order; the rounding of a sum alone can differ."""
    form = forms[value.args[0].name]
    gone = value.row_dim is None and not any(is_symbolic(size) for size in value.shape)
    plain = form.moved and form.numbers is None and not value.multi  # with a dimension, max gives positions too
    return Form() if plain and gone and len(value.refs()) == 1 else None


def _product(program: Program, value: Value, forms: dict[str, Form], _spaces: set[Any]) -> Form | None:
    """Matrix products that sum over the rows of both operands."""
    operands = [forms[name] for name in value.refs()]
    if any(is_symbolic(size) for size in value.shape) or any(form.numbers is not None for form in operands):
        return None
    if len(operands) != 2 or not all(form.moved for form in operands):
        return None
    merged([form.rows for form in operands])
    left, right = (program[name] for name in value.refs())
    if left.row_dim != len(left.shape) - 1 or right.row_dim != len(right.shape) - 2:
        return None
    return Form()


def _normalised(program: Program, value: Value, forms: dict[str, Form], _spaces: set[Any]) -> Form | None:
    """Softmax over the rows, norms with statistics of all rows: each row again in its place."""
    form, first = forms[value.args[0].name], program[value.args[0].name]
    others = [forms[name] for name in refs_of(value.args[1:])]
    if not form.moved or form.numbers is not None or any(other.rows or other.numbers for other in others):
        return None
    return Form(form.rows) if first.row_dim == value.row_dim else None


_Rule = Callable[[Program, Value, dict[str, Form], set[Any]], Form | None]
_VIEWS = "clone _to_copy contiguous view _unsafe_view reshape _reshape_copy unsqueeze squeeze expand repeat"
_VIEWS += " permute transpose t select unbind flip detach alias"
_TOTALS = "sum mean amax amin max min prod any all var std logsumexp linalg_vector_norm norm"
_NORMS = "_softmax _log_softmax native_batch_norm _native_batch_norm_legit _native_batch_norm_legit_no_training"
_ALIKE = "full zeros ones full_like zeros_like ones_like new_zeros new_ones new_full"
_WRITES = "scatter_add index_add scatter_reduce scatter index_put index_copy"


def _named(names: str, rule: _Rule) -> dict[Any, _Rule]:
    return {getattr(aten, name): rule for name in names.split()}


RULES: dict[Any, _Rule] = {
    **_named(_VIEWS, _carried),
    **_named(_TOTALS, _totalled),
    **_named(_NORMS, _normalised),
    **_named(_ALIKE, _alike),
    **_named(_WRITES, _scattered),
    **_named("index_select index", _lookup),
    **_named("cat stack", _joined),
    **_named("mm bmm matmul", _product),
    **_named("eq ne", _compared),
    **_named("arange", _arange),
}
