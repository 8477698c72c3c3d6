"""`functionalize`: remove in-place operators and writes through views from a traced graph.

Before::                                    After::

    zeros = new_zeros(x, [n, 8])                zeros = new_zeros(x, [n, 8])
    column = select(zeros, 1, 0)                select_scatter = select_scatter(zeros, v, 1, 0)
    copy_(column, v)                            scatter_add = scatter_add(select_scatter, 0, i, m)
    scatter_add_(zeros, 0, i, m)                return scatter_add
    return zeros

Every value that owns memory (a *base*) has a current version; a view is its base and the chain of view
operators that made it. A write through a view becomes a new version of the base (`select_scatter`,
`slice_scatter`, or the inverse of a reshaping view), and a view that is read after its base changed is made
again from the current version. It is a pass over the graph and no second trace, so every node keeps its
source line; torch's own functionalization fails on sizes that depend on data.
"""

from __future__ import annotations

import operator
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx

from pyg_fullgraph.capture.nodes import args_of, dtype_of, fake_of, insert, same_shape, shape_args, target_of
from pyg_fullgraph.capture.problems import Problem
from pyg_fullgraph.capture.views import INVERSES, inverse_name

aten = torch.ops.aten

_RANDOM = frozenset(
    [
        "bernoulli",
        "bernoulli_",
        "native_dropout",
        "dropout",
        "rand",
        "randn",
        "randint",
        "randperm",
        "rand_like",
        "randn_like",
        "randint_like",
        "normal",
        "normal_",
        "uniform_",
        "random_",
        "multinomial",
        "rrelu_with_noise",
        "exponential_",
        "geometric_",
        "log_normal_",
        "cauchy_",
        "_fused_dropout",
        "poisson",
    ]
)


@dataclass
class _View:
    """A view of a base: the nodes whose operators lead from the base to it, outermost first."""

    base: fx.Node
    chain: tuple[fx.Node, ...]


@dataclass(frozen=True)
class Functionalized:
    """What there is to say about a rewritten graph.

    Args:
        notes: for the user (an argument that the model overwrites is left untouched).
        problems: random operators, writes into parameters, writes through views that have no functional form;
            where there are some, the graph is not functional.
    """

    notes: list[str]
    problems: list[Problem]


def functionalize(graph: fx.Graph, frozen: set[fx.Node]) -> Functionalized:
    """Rewrite `graph` in place to functional operators.

    Args:
        graph: as recorded by make_fx, every node with `meta["val"]`; the beginning of one will do.
        frozen: placeholders of parameters and buffers, which the forward must not write.
    """
    work = _Functionalizer(graph, frozen)
    for node in list(graph.nodes):
        work.visit(node)
    return Functionalized(list(dict.fromkeys(work.notes)), work.problems)


class _Functionalizer:
    def __init__(self, graph: fx.Graph, frozen: set[fx.Node]) -> None:
        self.graph = graph
        self.frozen = frozen
        self.views: dict[fx.Node, _View] = {}
        self.current: dict[fx.Node, fx.Node] = {}  # base -> the node that holds its current version
        self.remade: dict[tuple[fx.Node, tuple[fx.Node, ...]], fx.Node] = {}
        self.problems: list[Problem] = []
        self.notes: list[str] = []

    # Reading --------------------------------------------------------------------------------------

    def base_of(self, node: fx.Node) -> fx.Node:
        return self.views[node].base if node in self.views else node

    def read(self, node: fx.Node, before: fx.Node) -> fx.Node:
        """The node that holds the value of `node` now; a stale view is made again in front of `before`."""
        view = self.views.get(node)
        if view is None:
            return self.current.get(node, node)
        base = self.current.get(view.base, view.base)
        return node if base is view.base else self.remake(base, view.chain, before)

    def remake(self, base: fx.Node, chain: tuple[fx.Node, ...], before: fx.Node) -> fx.Node:
        """Apply a chain of view operators to a version of the base."""
        value = base
        for i, link in enumerate(chain):
            key = (base, chain[: i + 1])
            if key not in self.remade:
                args = tuple(value if j == 0 else arg for j, arg in enumerate(link.args))
                self.remade[key] = insert(self.graph, before, link.target, args, dict(link.kwargs), like=link)
            value = self.remade[key]
        return value

    # Rewriting ------------------------------------------------------------------------------------

    def visit(self, node: fx.Node) -> None:
        if node.op == "placeholder" or node.op == "get_attr":
            return
        if node.op == "output" or not isinstance(node.target, torch._ops.OpOverload):
            if node.target is operator.getitem and args_of(node)[0] in self.views:
                parent = self.views[args_of(node)[0]]
                self.views[node] = _View(parent.base, (*parent.chain, node))
                return
            self._refresh(node)
            return
        name = target_of(node)._schema.name.split("::")[-1]
        if name in _RANDOM and not self._is_identity_dropout(node):
            self._problem(node, "is random", "Remove it from inference, or run it outside of the model.")
        elif _writes(node.target):
            self._write(node, name)
        elif _is_view(node.target):
            source = args_of(node)[0]
            parent = self.views.get(source, _View(source, ()))
            self.views[node] = _View(parent.base, (*parent.chain, node))
        else:
            self._refresh(node)

    def _is_identity_dropout(self, node: fx.Node) -> bool:
        return node.target is aten.native_dropout.default and args_of(node)[2] is False

    def _refresh(self, node: fx.Node) -> None:
        """Replace every argument by the node that holds its value now."""
        node.args = fx.map_arg(node.args, lambda arg: self.read(arg, node))
        node.kwargs = fx.map_arg(node.kwargs, lambda arg: self.read(arg, node))

    def _write(self, node: fx.Node, name: str) -> None:
        target = _written_node(node)
        if target is None:
            self._problem(node, "writes into more than its first argument", "Use the operator that returns its result.")
            return
        base = self.base_of(target)
        if base in self.frozen:
            self._problem(
                node,
                f"writes into the parameter or buffer '{base.name.removeprefix('p_')}'",
                "A captured program cannot change the model: keep such state outside of inference.",
            )
            return
        if base.op == "placeholder":
            self.notes.append(
                f"forward overwrites its argument '{base.name}' in place; the caller's tensor is left untouched"
            )
        if target in self.views and not self._writable(node, self.views[target]):
            return
        value = self._out_value(node, target) if "out" in node.kwargs else self._functional_value(node, name)
        if value is None:
            return
        self._store(target, value, node)
        self.views[node] = self.views.get(target, _View(base, ()))

    def _functional_value(self, node: fx.Node, name: str) -> fx.Node | None:
        """The value that the written argument has afterwards."""
        target = args_of(node)[0]
        now = self.read(target, node)
        rest = fx.map_arg(args_of(node)[1:], lambda arg: self.read(arg, node))
        kwargs = fx.map_arg(node.kwargs, lambda arg: self.read(arg, node))
        if name in ("fill_", "zero_"):
            return self._filled(node, target, rest[0] if name == "fill_" else 0)
        if name == "copy_":
            return self._copied(node, target, rest[0])
        overload = _functional_overload(node.target)
        if overload is None:
            self._problem(node, "has no functional form", "Use the operator that returns its result.")
            return None
        value = insert(self.graph, node, overload, (now, *rest), dict(kwargs), like=node)
        return self._as_dtype(value, overload, node, target)

    def _out_value(self, node: fx.Node, target: fx.Node) -> fx.Node | None:
        """The result of an `out=` operator, as its plain overload gives it."""
        overload = _functional_overload(node.target)
        if overload is None:
            self._problem(node, "has no functional form", "Use the operator that returns its result.")
            return None
        args = fx.map_arg(node.args, lambda arg: self.read(arg, node))
        kwargs = {k: fx.map_arg(v, lambda arg: self.read(arg, node)) for k, v in node.kwargs.items() if k != "out"}
        value = insert(self.graph, node, overload, args, kwargs, like=node)
        return self._as_dtype(value, overload, node, target)

    def _as_dtype(self, value: fx.Node, overload: Any, node: fx.Node, target: fx.Node) -> fx.Node:
        """In-place operators keep the element type of what they write; functional ones promote."""
        others = [arg for arg in value.all_input_nodes if dtype_of(arg) is not None]
        wanted = dtype_of(target)
        if all(dtype_of(arg) == wanted or not _promotes(dtype_of(arg), wanted) for arg in others):
            return value
        return insert(self.graph, node, aten._to_copy.default, (value,), {"dtype": wanted}, like=node)

    def _filled(self, node: fx.Node, target: fx.Node, fill: Any) -> fx.Node | None:
        """`zero_` and `fill_` as `full`, which reads no data."""
        if isinstance(fill, fx.Node) and isinstance(fake_of(fill), torch.Tensor):
            return self._copied(node, target, fill)
        fake = fake_of(target)
        sizes = shape_args(self.graph, node, self.read(target, node))
        kwargs = {"dtype": fake.dtype, "device": fake.device, "pin_memory": False}
        return insert(self.graph, node, aten.full.default, (sizes, fill), kwargs, like=node)

    def _copied(self, node: fx.Node, target: fx.Node, source: fx.Node) -> fx.Node:
        """The source of a `copy_`, expanded to the target's shape and cast to its element type."""
        value = source
        if not same_shape(fake_of(source), fake_of(target)):
            sizes = shape_args(self.graph, node, self.read(target, node))
            value = insert(self.graph, node, aten.expand.default, (value, sizes), {}, like=node)
            value.meta["val"] = fake_of(target).to(fake_of(source).dtype)
        if fake_of(source).dtype != fake_of(target).dtype or fake_of(source).device != fake_of(target).device:
            kwargs = {"dtype": fake_of(target).dtype, "device": fake_of(target).device}
            value = insert(self.graph, node, aten._to_copy.default, (value,), kwargs, like=node)
        return value

    def _store(self, target: fx.Node, value: fx.Node, node: fx.Node) -> None:
        """Make `value` the content of `target`: a new version of its base."""
        view = self.views.get(target)
        if view is None:
            self.current[target] = value
            return
        base = self.current.get(view.base, view.base)
        if value is self.remade.get((base, view.chain)) or (value is target and base is view.base):
            return  # `out[i] += v` ends by copying the view onto itself
        if not view.chain:
            self.current[view.base] = value
            return
        levels = [base if i == 0 else self.remake_prefix(base, view, i, node) for i in range(len(view.chain))]
        whole = value
        for link, source in zip(reversed(view.chain), reversed(levels), strict=True):
            whole = INVERSES[inverse_name(link)](self.graph, link, source, whole, node)
        self.current[view.base] = whole
        self.remade[(whole, view.chain)] = value

    def remake_prefix(self, base: fx.Node, view: _View, length: int, before: fx.Node) -> fx.Node:
        """The `length`-th view of the chain; the node of the trace itself while the base is unchanged."""
        if base is view.base:
            return view.chain[length - 1]
        return self.remake(base, view.chain[:length], before)

    def _writable(self, node: fx.Node, view: _View) -> bool:
        bad = [link for link in view.chain if inverse_name(link) not in INVERSES]
        if bad:
            self._problem(
                node,
                f"writes through '{bad[0].target}', a view that has no functional form",
                "Write into a tensor of its own (clone() first), or compute the result without writing.",
            )
        return not bad

    def _problem(self, node: fx.Node, why: str, advice: str) -> None:
        what = f"the operator '{node.target}'"
        self.problems.append(Problem(what, why, advice, node.meta.get("place"), node.meta.get("number", 0)))


# Schemas ------------------------------------------------------------------------------------------


def _written_arguments(target: Any) -> list[int]:
    arguments = target._schema.arguments
    return [i for i, a in enumerate(arguments) if a.alias_info is not None and a.alias_info.is_write]


def _writes(target: Any) -> bool:
    return bool(_written_arguments(target))


def _written_node(node: fx.Node) -> fx.Node | None:
    """The one value that an in-place or `out=` operator writes; None where it writes several, or a list."""
    written = _written_arguments(node.target)
    if len(written) != 1:
        return None
    target = args_of(node)[0] if written == [0] and node.args else node.kwargs.get("out")
    return target if isinstance(target, fx.Node) else None


def _functional_overload(target: Any) -> Any:
    """The overload that takes the same arguments and returns its result: `pow.Tensor_Scalar` for
    `pow_.Scalar`.
    """
    name = target._schema.name.split("::")[-1]
    wanted = [(a.name, str(a.type)) for a in target._schema.arguments if a.name != "out"]
    if name in ("resize_", "resize_as_", "set_") or len(_written_arguments(target)) != 1:
        return None
    packet = getattr(getattr(torch.ops, target.namespace), name.removesuffix("_"), None)
    for overload in packet.overloads() if packet is not None else ():
        candidate = getattr(packet, overload)
        if [(a.name, str(a.type)) for a in candidate._schema.arguments] == wanted and not _writes(candidate):
            return candidate
    return None


def _is_view(target: Any) -> bool:
    """True where the result shares the memory of the first argument without writing it."""
    arguments = target._schema.arguments
    if not arguments or _writes(target):
        return False
    shares = arguments[0].alias_info is not None and any(r.alias_info is not None for r in target._schema.returns)
    return shares and target is not aten.lift_fresh_copy.default


def _promotes(other: torch.dtype | None, wanted: torch.dtype | None) -> bool:
    if other is None or wanted is None or other == torch.bool:
        return False
    return torch.promote_types(other, wanted) != wanted
