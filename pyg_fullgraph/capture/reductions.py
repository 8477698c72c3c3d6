"""Reductions by an index, in the one form that is raised to the vocabulary.

torch has many ways to combine rows by an index; all but one start from what the result holds before. Each becomes
a reduction onto nothing, and row-wise operators::

    scatter_reduce(base, amax)                      where(has, maximum(base, reduced), base)
    scatter_reduce(base, mean)                      (base + sum) / (count + 1)
    scatter_reduce(base, any, include_self=False)   where(has, reduced, base)
    index_reduce(base, ...)                         scatter_reduce(base, ...)
    index_add(base, x, alpha=2)                     index_add(base, 2 * x)
    segment_reduce(x, lengths)                      the same, by the segment of every row
    gather(x, dim, index), an expanded index        index_select(x, dim, index)

`has` and `count` depend on the index only, so that they are kept with the graph. Everything is left as it is where
the index depends on features, or differs from column to column.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import fx

from pyg_fullgraph.capture.nodes import args_of, emit, expressions, fake_of, shape_args
from pyg_fullgraph.capture.origins import Origin, origins

aten = torch.ops.aten

_BROADCASTS = (aten.expand, aten.unsqueeze, aten.view, aten._unsafe_view, aten.reshape, aten.clone, aten.alias)
_REDUCES = {"sum": "sum", "add": "sum", "prod": "prod", "multiply": "prod", "mean": "mean"}
_REDUCES |= {"amax": "amax", "amin": "amin", "max": "amax", "min": "amin"}


def lower_reductions(graph: fx.Graph, parameters: set[fx.Node]) -> None:
    """Rewrite `graph` in place.

    Args:
        graph: functional, every node with `meta["val"]`; filled tensors are `full`.
        parameters: its placeholders of parameters.
    """
    origin = origins(graph, parameters)
    for node in list(graph.nodes):
        rewrite = (
            _REWRITES.get(getattr(node.target, "overloadpacket", node.target)) if node.op == "call_function" else None
        )
        made = rewrite(_Site(graph, node, origin)) if rewrite is not None else None
        if made is not None:
            node.replace_all_uses_with(made)
            graph.erase_node(node)


class _Site:
    """One node that is rewritten: its arguments by name, and the operators put in front of it."""

    def __init__(self, graph: fx.Graph, node: fx.Node, origin: dict[fx.Node, Origin]) -> None:
        self.graph, self.node, self.origin = graph, node, origin
        schema: Any = node.target
        names = [argument.name for argument in schema._schema.arguments]
        self.given = dict(zip(names, args_of(node), strict=False)) | dict(node.kwargs)

    def call(self, target: Any, *args: Any, **kwargs: Any) -> fx.Node:
        return emit(self.graph, self.node, target, *args, **kwargs)

    def fills(self, value: Any, number: float) -> bool:
        """True where a value is `full(sizes, number)`."""
        return isinstance(value, fx.Node) and value.target is aten.full.default and args_of(value)[1] == number

    def full(self, sizes: list[Any], number: Any, like: fx.Node, dtype: torch.dtype | None = None) -> fx.Node:
        dtype = dtype or fake_of(like).dtype
        return self.call(aten.full.default, sizes, number, dtype=dtype, device=fake_of(like).device, pin_memory=False)

    def is_structure(self, index: fx.Node) -> bool:
        return self.origin.get(index, Origin.STRUCTURE) == Origin.STRUCTURE

    def along(self, rows: fx.Node, dims: int, dim: int) -> fx.Node:
        """A value of one number per row, shaped to broadcast over all other dimensions."""
        return rows if dims == 1 else self.call(aten.view.default, rows, [-1 if i == dim else 1 for i in range(dims)])


class _Groups:
    """Rows of `x` along `dim`, each in the group that `index` (one number per row) says.

    Args:
        site: where operators are put.
        x, index: what is combined.
        dim: of `x`.
        sizes: of the result; `sizes[dim]` groups.
    """

    def __init__(self, site: _Site, x: fx.Node, index: fx.Node, dim: int, sizes: list[Any]) -> None:
        self.site, self.x, self.index, self.dim, self.sizes = site, x, index, dim, sizes
        self.dims = fake_of(x).dim()

    def reduced(self, reduce: str) -> fx.Node:
        """The groups combined; 0 for one without rows, 1 for a product."""
        zero = self.site.full(self.sizes, 1 if reduce == "prod" else 0, self.x)
        if reduce == "sum":
            return self.site.call(aten.index_add.default, zero, self.dim, self.index, self.x)
        spread = self.site.along(self.index, self.dims, self.dim)
        spread = self.site.call(aten.expand.default, spread, shape_args(self.site.graph, self.site.node, self.x))
        self_too = reduce == "prod"
        return self.site.call(aten.scatter_reduce.two, zero, self.dim, spread, self.x, reduce, include_self=self_too)

    def count(self) -> fx.Node:
        """How many rows each group has."""
        zero = self.site.full([self.sizes[self.dim]], 0, self.index)
        one = self.site.full(shape_args(self.site.graph, self.site.node, self.index), 1, self.index)
        count = self.site.call(aten.index_add.default, zero, 0, self.index, one)
        return self.site.along(count, self.dims, self.dim)

    def has(self) -> fx.Node:
        """Which groups have rows."""
        return self.site.call(aten.gt.Scalar, self.count(), 0)

    def onto(self, base: fx.Node, reduce: str, include_self: bool) -> fx.Node:
        """The groups combined with what is in `base` before, or put in its place."""
        call = self.site.call
        if not include_self:
            return call(aten.where.self, self.has(), self.reduced(reduce), base)
        if reduce == "sum":
            return call(aten.add.Tensor, base, self.reduced("sum"))
        if reduce == "prod":
            return call(aten.mul.Tensor, base, self.reduced("prod"))
        if reduce == "mean":
            total = call(aten.add.Tensor, base, self.reduced("sum"))
            return call(aten.div.Tensor, total, call(aten.add.Tensor, self.count(), 1))
        both = aten.maximum.default if reduce == "amax" else aten.minimum.default
        return call(aten.where.self, self.has(), call(both, base, self.reduced(reduce)), base)


def root_of(index: Any, dim: int) -> fx.Node | None:
    """The index of one number per row below views that only broadcast it along all dimensions but `dim`."""
    while isinstance(index, fx.Node) and fake_of(index).dim() != 1:
        if getattr(index.target, "overloadpacket", None) not in _BROADCASTS:
            return None
        below = args_of(index)[0]
        sizes, before = expressions(fake_of(index)), expressions(fake_of(below))
        if index.target is aten.unsqueeze.default:
            at = args_of(index)[1] % len(sizes)
            dim = dim - 1 if at < dim else dim
            if at == dim and len(before) != len(sizes):
                return None
        elif len(before) == 1:
            if before[0] != sizes[dim] or any(size != 1 for i, size in enumerate(sizes) if i != dim):
                return _below_expand(index, below, dim)
            return below
        elif len(before) != len(sizes) or before[dim] != sizes[dim]:
            return None
        index = below
    return index if isinstance(index, fx.Node) else None


def _below_expand(index: fx.Node, below: fx.Node, dim: int) -> fx.Node | None:
    """`index.expand(F, -1)`: only leading dimensions are new."""
    last = dim == fake_of(index).dim() - 1
    return below if index.target is aten.expand.default and last else None


# One function per operator: the replacement of a node, or None to leave it --------------------------------------


def _gather(site: _Site) -> fx.Node | None:
    x, index = site.given["self"], site.given["index"]
    dims = fake_of(x).dim()
    dim = site.given["dim"] % max(dims, 1)
    if dims < 2 or fake_of(index).dim() != dims:
        return None
    rest = [i for i in range(dims) if i != dim]
    root = root_of(index, dim)
    if root is None or any(expressions(fake_of(x))[i] != expressions(fake_of(index))[i] for i in rest):
        return None
    return site.call(aten.index_select.default, x, dim, root)


def _scatter_reduce(site: _Site, rewrite: bool = False) -> fx.Node | None:
    base, x, dim = site.given["self"], site.given["src"], site.given["dim"] % max(fake_of(site.node).dim(), 1)
    if fake_of(site.given["index"]).dim() != fake_of(x).dim():
        return None
    root = root_of(site.given["index"], dim)
    if root is None or expressions(fake_of(site.given["index"])) != expressions(fake_of(x)):
        return None
    return _onto(site, base, x, root, dim, site.given["reduce"], site.given.get("include_self", True), rewrite)


def _index_reduce(site: _Site) -> fx.Node | None:
    dim = site.given["dim"] % max(fake_of(site.node).dim(), 1)
    arguments = site.given["self"], site.given["source"], site.given["index"], dim, site.given["reduce"]
    return _onto(site, *arguments, site.given.get("include_self", True), rewrite=True)


def _onto(
    site: _Site,
    base: fx.Node,
    x: fx.Node,
    index: fx.Node,
    dim: int,
    reduce: str,
    include_self: bool,
    rewrite: bool = False,
) -> fx.Node | None:
    """The rewritten reduction; None where it is understood as it is, or cannot be rewritten."""
    reduce = _REDUCES[reduce]
    dims = fake_of(base).dim()
    rest = [i for i in range(dims) if i != dim]
    if not site.is_structure(index) or dims != fake_of(x).dim() or fake_of(index).dim() != 1:
        return None
    if any(expressions(fake_of(base))[i] != expressions(fake_of(x))[i] for i in rest):
        return None
    if fake_of(base).dtype != fake_of(x).dtype or (reduce == "mean" and not fake_of(x).is_floating_point()):
        return None
    groups = _Groups(site, x, index, dim, shape_args(site.graph, site.node, base))
    from_nothing = site.fills(base, 0) and not include_self and reduce != "prod"
    if from_nothing or (include_self and reduce == "prod" and site.fills(base, 1)):
        return groups.reduced(reduce) if rewrite else None
    if include_self and reduce == "sum":
        return groups.onto(base, reduce, True) if rewrite else None
    return groups.onto(base, reduce, include_self)


def _index_add(site: _Site) -> fx.Node | None:
    alpha = site.given.get("alpha", 1)
    if alpha == 1:
        return None
    scaled = site.call(aten.mul.Tensor, site.given["source"], alpha)
    return site.call(aten.index_add.default, site.given["self"], site.given["dim"], site.given["index"], scaled)


def _scatter(site: _Site) -> fx.Node | None:
    """`scatter(..., reduce="add")`, an older way."""
    x, reduce = site.given.get("src"), site.given.get("reduce")
    if reduce is None or not isinstance(x, fx.Node):
        return None
    if expressions(fake_of(site.given["index"])) != expressions(fake_of(x)):
        return None
    given = [site.given["self"], site.given["dim"], site.given["index"], x]
    if reduce == "add":
        return site.call(aten.scatter_add.default, *given)
    return _scatter_reduce(site, rewrite=True)


def _segment_reduce(site: _Site) -> fx.Node | None:
    """`segment_reduce(x, lengths or offsets)` along the first dimension; 'unsafe' ones may leave rows out."""
    x, lengths, offsets = site.given["data"], site.given.get("lengths"), site.given.get("offsets")
    bounds = lengths if offsets is None else offsets
    if bounds is None or fake_of(bounds).dim() != 1 or site.given.get("axis", 0) != 0 or site.given.get("unsafe"):
        return None
    if not site.is_structure(bounds) or not fake_of(x).is_floating_point():
        return None
    if offsets is None:
        ends = site.call(aten.cumsum.default, lengths, 0)
    else:
        ends = site.call(aten.slice.Tensor, offsets, 0, 1, 2**63 - 1)
    rows = shape_args(site.graph, site.node, x)[0]
    device = fake_of(x).device
    numbers = site.call(aten.arange.default, rows, dtype=torch.int64, device=device, pin_memory=False)
    index = site.call(aten.searchsorted.Tensor, ends, numbers, right=True)
    sizes = shape_args(site.graph, site.node, ends)[:1] + shape_args(site.graph, site.node, x)[1:]
    groups = _Groups(site, x, index, 0, sizes)
    return _segments(site, groups, _REDUCES[site.given["reduce"]], site.given.get("initial"))


def _segments(site: _Site, groups: _Groups, reduce: str, initial: float | None) -> fx.Node:
    """Segments start from `initial`; without one, those without rows are the reduction of nothing."""
    nothing = {"sum": 0.0, "prod": 1.0, "amax": float("-inf"), "amin": float("inf"), "mean": float("nan")}[reduce]
    if reduce in ("sum", "prod") and initial in (None, nothing):
        return groups.reduced(reduce)
    start = site.full(groups.sizes, nothing if initial is None else initial, groups.x)
    if reduce != "mean" or initial in (None, 0):
        return groups.onto(start, reduce, include_self=reduce != "mean")
    mean = site.call(aten.div.Tensor, groups.onto(start, "sum", True), groups.count())
    return site.call(aten.where.self, groups.has(), mean, start)


_REWRITES = {
    aten.gather: _gather,
    aten.scatter_reduce: _scatter_reduce,
    aten.index_reduce: _index_reduce,
    aten.index_add: _index_add,
    aten.scatter: _scatter,
    aten.segment_reduce: _segment_reduce,
}

__all__ = ["lower_reductions", "root_of"]
