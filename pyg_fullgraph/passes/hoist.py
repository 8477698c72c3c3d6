"""Move work from edges to nodes: what depends on one endpoint only is computed once per node.

::

    EdgeConv                                           after
    x_i = gather(%x, %dst); x_j = gather(%x, %src)     a = addmm(%b, %x, %W1 - %W2)     # on nodes
    c   = cat([%x_i, %x_j - %x_i], -1)  # [E, 2F]      s = mm(%x, %W2)                  # on nodes
    h   = addmm(%b, %c, %W)             # on edges     h = gather(%a, %dst) + gather(%s, %src)

    CGConv, with an edge attribute
    c   = cat([%x_i, %x_j, %e], -1)                    h = gather(mm(%x, %W1), %dst) + gather(mm(%x, %W2), %src)
    h   = addmm(%b, %c, %W)                                + addmm(%b, %e, %W3)

    SuperGAT, RGAT: one number per endpoint and head
    s   = sum(gather(%x, %src) * %att, -1)             s = gather(sum(%x * %att, -1), %src)

1. A product with a `cat` is split into one product per part, and a part that is a difference of endpoints into two.
2. A value whose rows come from gathers by one index only is computed on the nodes and gathered, where that saves a
   product on the edges or gathers no more columns than before.

A difference is split only where one of its ends also enters by itself, as in EdgeConv: there `x_i W1` bounds what
the rounding of `x_j W2 - x_i W2` amounts to in the result, unless a variance is taken of it: such a product stays
whole. A bare difference, of positions say, may be far smaller than the positions are; it is taken first, as the layer
does, and its narrow product stays on the edges.
The idea is that of node-linear fusion in Hector (Wu et al., ASPLOS'24) and of "reorder" in Zhang et al. (MLSys'22).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch

from pyg_fullgraph.ir import Program, Ref, Stage, Value, is_aten, packet_of
from pyg_fullgraph.ir.build import Builder
from pyg_fullgraph.ir.extents import on_other_rows
from pyg_fullgraph.passes.contexts import edge_contexts
from pyg_fullgraph.passes.cse import merge_equal
from pyg_fullgraph.passes.joins import joined
from pyg_fullgraph.passes.rewrite import Rule, rewrite
from pyg_fullgraph.passes.views import VIEW_RULES

aten = torch.ops.aten

_PRODUCTS = (aten.mm, aten.addmm, aten.matmul)


def hoist(program: Program) -> None:
    """Move node-wise work off the edges until nothing moves, in place."""
    edges = _Edges()
    rewrite(program, (edges.rule(_split_product), edges.rule(_onto_nodes), *(edges.rule(rule) for rule in VIEW_RULES)))
    merge_equal(program)


class _Edges:
    """Which values are edge values; looked up anew after each rewrite.

    Rows picked from the nodes (those of one degree, say) are gathered as well, but there are fewer of them than nodes:
    what is done to them is better left to them. Edges are told by ending in a reduction, or by being an argument's.
    """

    def __init__(self) -> None:
        self._contexts: dict[str, set[str | None]] | None = None

    def rule(self, rule: Rule) -> Rule:
        """A rule that is asked about edge values only, if it is one of this module."""

        def asked(program: Program, value: Value) -> bool:
            own = rule in (_split_product, _onto_nodes)
            if own and not self._are_edges(program, value):
                return False
            changed = rule(program, value)
            if changed:
                self._contexts = None
            return changed

        return asked

    def _are_edges(self, program: Program, value: Value) -> bool:
        if value.space is None or not value.refs():
            return False
        if self._contexts is None:
            self._contexts = edge_contexts(program)
        found = self._contexts[value.name]
        return bool(found - {None}) or not any(symbol in program.definers for symbol in value.space.free_symbols)


# Products of joined columns --------------------------------------------------------------------------


def _split_product(program: Program, value: Value) -> bool:
    """`cat([a, b - c]) @ W` -> `a @ W1 + b @ W2 - c @ W2`, where a term depends on one endpoint."""
    if not (is_aten(value, aten.mm) or is_aten(value, aten.addmm)) or value.kwargs or value.row_dim != 0:
        return False
    operand, matrix = value.args[-2:]
    bias = value.args[0] if is_aten(value, aten.addmm) else None
    if program[matrix.name].row_dim is not None or program[matrix.name].stage > Stage.PARAM:
        return False
    if bias is not None and program[bias.name].row_dim is not None:
        return False
    found = joined(program, operand)
    if found is None or not is_aten(found[0], aten.cat) or found[2] != 1:
        return False
    if any(_difference(program, program[part.name]) for part in found[1]) and _is_squared(program, value):
        return False
    terms = _terms(program, found[1])
    if sum(_is_gather(program[name]) for name in terms) == 0:
        return False
    build = Builder(program, value.name)
    weights = _weights(build, terms, matrix)
    build.replace_anchor(_sum_of_products(build, weights, bias, value))
    return True


Columns = tuple[int, int, int]  # sign, first column, one past the last


def _terms(program: Program, parts: list[Ref]) -> dict[str, list[Columns]]:
    """Operand -> the rows of the matrix it is multiplied with, and their signs; differences taken apart."""
    whole = [program[part.name] for part in parts]
    terms: dict[str, list[Columns]] = {}
    at = 0
    for part in whole:
        columns = at, at + part.width
        ends = _difference(program, part)
        if ends is not None and any(end in [other.name for other in whole] for end in ends):
            for end, sign in zip(ends, (1, -1), strict=True):
                terms.setdefault(end, []).append((sign, *columns))
        else:
            terms.setdefault(part.name, []).append((1, *columns))
        at += part.width
    return terms


def _is_squared(program: Program, value: Value) -> bool:
    """True where a variance is taken of the value: it amplifies what is rounded off the parts of a difference."""
    users = program.users()
    names = [value.name]
    for name in names:
        for user in users[name]:
            item = program[user]
            if is_aten(item, aten.pow) or (is_aten(item, aten.mul) and set(item.refs()) == {name}):
                return True
            if is_aten(item, aten.view):
                names.append(user)
    return False


def _difference(program: Program, part: Value) -> tuple[str, str] | None:
    """The two endpoint values that `part` is the difference of."""
    if not is_aten(part, aten.sub) or len(part.refs()) != 2 or part.kwargs.get("alpha", 1) != 1:
        return None
    left, right = (program[name] for name in part.refs())
    same = left.shape == right.shape == part.shape
    return (left.name, right.name) if same and _is_gather(left) and _is_gather(right) else None


def _is_gather(value: Value) -> bool:
    return value.op == "gather" and value.row_dim == 0


def _weights(build: Builder, terms: dict[str, list[Columns]], matrix: Ref) -> dict[str, Ref]:
    """The matrix of every operand: rows of `matrix`, added up where an operand enters more than once."""
    weights: dict[str, Ref] = {}
    for name, entries in terms.items():
        total: Ref | None = None
        for sign, start, stop in sorted(entries, reverse=True):  # an added one first
            part = build.aten(aten.slice.Tensor, matrix, 0, start, stop)
            if total is None:
                total = part if sign > 0 else build.aten(aten.neg.default, part)
            else:
                total = build.aten(aten.add.Tensor if sign > 0 else aten.sub.Tensor, total, part)
        assert total is not None
        weights[name] = total
    return weights


def _sum_of_products(build: Builder, weights: dict[str, Ref], bias: Ref | None, value: Value) -> Ref:
    """Edge terms first, then sources, then destinations: the bias goes to the last, which is cheapest."""
    order = sorted(weights, key=lambda name: _is_gather(build.program[name]))
    total: Ref | None = None
    for name in order:
        last = name == order[-1]
        if bias is not None and last:
            term = build.aten(aten.addmm.default, bias, Ref(name), weights[name], like=value)
        else:
            term = build.aten(aten.mm.default, Ref(name), weights[name], like=value)
        total = term if total is None else build.aten(aten.add.Tensor, total, term, like=value)
    assert total is not None
    return total


# Values of one endpoint --------------------------------------------------------------------------------


def _onto_nodes(program: Program, value: Value) -> bool:
    """`f(gather(x, i), g(gather(y, i)))` -> `gather(f(x, g(y)), i)`, where that saves work on the edges."""
    if packet_of(value) is None or value.multi or value.row_dim != 0:
        return False
    found = _of_one_endpoint(program, value)
    if found is None or not _returns(program, value, found):
        return False
    build = Builder(program, value.name)
    try:
        node = _on_nodes(build, value, found, {})
    except _CannotMove:
        for made in build.made:
            del program.values[made.name]
        return False
    like = replace(program[next(iter(found.gathers))], where=value.where)
    build.replace_anchor(build.gather(node, Ref(found.index), like))
    return True


class _CannotMove(Exception):
    """On nodes, an operator would not be row-wise any more."""


@dataclass
class _Endpoint:
    """A value that depends on one endpoint: the index, the gathers below it, and the operators between."""

    index: str
    gathers: dict[str, None]
    between: dict[str, None]


def _of_one_endpoint(program: Program, value: Value) -> _Endpoint | None:
    """All that `value` is made of, if its rows come from gathers by one index only."""
    found = _Endpoint("", {}, {})
    stack = [value]
    while stack:
        item = stack.pop()
        if item.name in found.between or item.name in found.gathers:
            continue
        if _is_gather(item):
            if found.index not in ("", item.args[1].name) or program[item.args[0].name].row_dim != 0:
                return None
            found.index, found.gathers[item.name] = item.args[1].name, None
            continue
        if packet_of(item) is None or item.multi or item.row_dim != 0 or not item.local or item.space != value.space:
            return None
        found.between[item.name] = None
        rows = [program[name] for name in item.refs() if program[name].row_dim is not None or program[name].is_pairwise]
        if not rows:
            return None
        stack += rows
    tables = {program[program[name].args[0].name].space for name in found.gathers}
    return found if len(tables) == 1 else None


def _returns(program: Program, value: Value, found: _Endpoint) -> bool:
    """True where the edges are better off: a product less, or no more columns gathered than now.

    Only the outermost value of one endpoint is asked; what is below it moves with it.
    """
    users = program.users()
    ends = {name: _of_one_endpoint(program, program[name]) for name in users[value.name]}
    if ends and all(end is not None and end.index == found.index for end in ends.values()):
        return False
    if any(packet_of(program[name]) in _PRODUCTS for name in found.between):
        return True
    if all(_in_kernels(program[name]) for name in found.between):
        return False
    inside = {value.name, *found.between}
    closed = all(set(users[name]) <= inside for name in found.between if name != value.name)
    freed = [name for name in found.gathers if closed and set(users[name]) <= inside]
    return value.width <= sum(program[name].width for name in freed) or value.width < max(
        program[name].width for name in found.gathers
    )


def _in_kernels(value: Value) -> bool:
    """True for what the kernels do to a message in passing: an activation, a number added."""
    shifted = is_aten(value, aten.add) and len(value.args) == 2 and isinstance(value.args[1], (int, float))
    return shifted or is_aten(value, aten.relu) or is_aten(value, aten.leaky_relu)


def _on_nodes(build: Builder, value: Value, found: _Endpoint, done: dict[str, Ref]) -> Ref:
    """`value` computed on the nodes: each gather replaced by its table."""
    program = build.program
    if value.name in found.gathers:
        table: Ref = value.args[0]
        return table
    if value.name in done:
        return done[value.name]
    nodes = program[program[next(iter(found.gathers))].args[0].name].space

    def leaf(item: Any) -> Any:
        if isinstance(item, Ref) and (item.name in found.between or item.name in found.gathers):
            return _on_nodes(build, program[item.name], found, done)
        return item

    args, kwargs = on_other_rows(value, leaf, nodes)
    try:
        made = build.aten(value.target, *args, **kwargs)
    except RuntimeError as error:  # an argument fits the number of edges only
        raise _CannotMove from error
    if program[made.name].space != nodes or not program[made.name].local:
        raise _CannotMove
    done[value.name] = made
    return made
