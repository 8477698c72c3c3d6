"""`clean`: make a functional graph say only what it computes.

* assertions go; `alias`, `detach`, `lift` and plain `clone` are their argument;
* `zeros_like(x)`, `new_zeros(x, ...)`, `empty(...)` and the like become `full(sizes, value)`: they read no
  data, and left as they are would tie edge tensors to places that only need their size;
* every symbolic size is read once, from the first value that has it, inputs first; arithmetic on sizes is
  rebuilt from those reads; sizes that turn out fixed become numbers;
* reductions by an index take one form (`capture.reductions`);
* equal nodes are merged, and sizes found twice in the data (`edge_index[:, mask]` in each layer) become one
  symbol;
* dead code goes.
"""

from __future__ import annotations

import operator
from typing import Any

import sympy
import torch
from torch import Tensor, fx
from torch.fx.experimental.symbolic_shapes import ShapeEnv

from pyg_fullgraph.capture.nodes import (
    args_of,
    expression,
    expressions,
    fake_of,
    insert,
    shape_args,
    target_of,
)
from pyg_fullgraph.capture.reductions import lower_reductions

aten = torch.ops.aten

_ASSERTIONS = frozenset(
    [
        "_assert_scalar",
        "_assert_async",
        "_functional_assert_async",
        "_assert_tensor_metadata",
        "sym_constrain_range",
        "sym_constrain_range_for_size",
    ]
)
_IDENTITIES = frozenset(["alias", "detach", "lift", "lift_fresh", "detach_copy", "alias_copy"])
_FILLED = {
    "zeros": 0,
    "ones": 1,
    "empty": 0,
    "zeros_like": 0,
    "ones_like": 1,
    "empty_like": 0,
    "new_zeros": 0,
}
_FILLED |= {"new_ones": 1, "new_empty": 0, "new_empty_strided": 0, "empty_strided": 0, "empty_permuted": 0}
_SIZES_AT = {
    "zeros": 0,
    "ones": 0,
    "empty": 0,
    "full": 0,
    "new_zeros": 1,
    "new_ones": 1,
    "new_empty": 1,
    "new_full": 1,
}
_SIZES_AT |= {"new_empty_strided": 1, "empty_strided": 0, "empty_permuted": 0}


def clean(graph: fx.Graph, env: ShapeEnv, constants: dict[str, Tensor], parameters: set[fx.Node]) -> None:
    """Apply the rewrites of this module to `graph`, in place.

    Args:
        graph: functional, every node with `meta["val"]`.
        env: owner of the symbolic sizes; learns which of them are equal.
        constants: tensors of `get_attr` nodes.
        parameters: placeholders of parameters, buffers and tensor attributes.
    """
    unify_asserted(env)
    _rewrite_constants(graph, constants)
    drop_dead(graph)
    lower_reductions(graph, parameters)
    _Merger(graph, env).run()
    drop_dead(graph)
    graph.lint()


def drop_dead(graph: fx.Graph) -> None:
    """Remove every node without users, whatever it would do (the graph is functional, so that is nothing)."""
    for node in reversed(list(graph.nodes)):
        if not node.users and node.op not in ("placeholder", "output"):
            graph.erase_node(node)


def _name(node: fx.Node) -> str:
    return target_of(node)._schema.name.split("::")[-1] if isinstance(node.target, torch._ops.OpOverload) else ""


def _rewrite_constants(graph: fx.Graph, constants: dict[str, Tensor]) -> None:
    """Drop assertions and identities; make every constant tensor a `full`."""
    for node in list(graph.nodes):
        name = _name(node)
        if name in _ASSERTIONS:
            graph.erase_node(node)
        elif (
            name in _IDENTITIES
            or _is_plain_clone(node, name)
            or (name == "lift_fresh_copy" and args_of(node)[0].op == "get_attr")
        ):
            node.replace_all_uses_with(args_of(node)[0])
        elif name in _FILLED or name in ("full_like", "new_full", "full", "scalar_tensor"):
            _as_full(graph, node, name)
        elif node.op == "get_attr" and node.target in constants and constants[node.target].numel() == 1:
            _scalar_as_full(graph, node, constants[node.target])


def _is_plain_clone(node: fx.Node, name: str) -> bool:
    """A copy that keeps the memory format (dropout in eval mode): the same values, and nothing writes into
    them.
    """
    return name == "clone" and node.kwargs.get("memory_format") in (None, torch.preserve_format)


def _as_full(graph: fx.Graph, node: fx.Node, name: str) -> None:
    fake = fake_of(node)
    if name in _SIZES_AT:
        sizes = list(args_of(node)[_SIZES_AT[name]])
    else:
        sizes = [] if name == "scalar_tensor" else shape_args(graph, node, args_of(node)[0])
    fill: Any = _FILLED.get(name)
    if fill is None:
        position = 0 if name == "scalar_tensor" else 2 if name == "new_full" else 1
        fill = args_of(node)[position]
    if isinstance(fill, fx.Node) and isinstance(fake_of(fill), Tensor):
        return
    if fake.dtype == torch.bool and not isinstance(fill, fx.Node):
        fill = bool(fill)
    kwargs = {"dtype": fake.dtype, "device": fake.device, "pin_memory": False}
    node.replace_all_uses_with(insert(graph, node, aten.full.default, (sizes, fill), kwargs, like=node))


def _scalar_as_full(graph: fx.Graph, node: fx.Node, constant: Tensor) -> None:
    kwargs = {"dtype": constant.dtype, "device": constant.device, "pin_memory": False}
    args = (list(constant.shape), constant.item())
    node.meta.setdefault("val", constant)
    node.replace_all_uses_with(insert(graph, node, aten.full.default, args, kwargs, like=node))


# Sizes --------------------------------------------------------------------------------------------


def unify_asserted(env: ShapeEnv) -> None:
    """Make two sizes that the forward requires to be equal one symbol."""
    for assertion in [item for items in env.deferred_runtime_asserts.values() for item in items]:
        if isinstance(assertion.expr, sympy.Eq):
            unify(env, assertion.expr.lhs, assertion.expr.rhs)


def unify(env: ShapeEnv, left: Any, right: Any) -> None:
    """Record that two sizes are equal: the later symbol stands for the other side from now on."""
    left, right = env.replace(sympy.sympify(left)), env.replace(sympy.sympify(right))
    if left == right:
        return
    pairs = [(left, right), (right, left)]
    if left.is_Symbol and right.is_Symbol and _age(left) < _age(right):
        pairs.reverse()
    for symbol, other in pairs:
        if symbol.is_Symbol and symbol not in other.free_symbols:
            env._set_replacement(symbol, other, "equal by construction")
            return


def _age(symbol: sympy.Symbol) -> int:
    digits = "".join(c for c in symbol.name if c.isdigit())
    return int(digits) if digits else 0


class _Merger:
    """One walk that canonicalises sizes and merges equal nodes."""

    def __init__(self, graph: fx.Graph, env: ShapeEnv) -> None:
        self.graph = graph
        self.env = env
        self.seen: dict[Any, fx.Node] = {}
        self.sizes: dict[Any, fx.Node] = {}  # expression -> node that holds it
        self.sources: dict[Any, tuple[fx.Node, int]] = {}  # symbol -> (tensor node, axis) where it can be read

    def run(self) -> None:
        for node in list(self.graph.nodes):
            if node.op == "output":
                break
            value = node.meta.get("val")
            if isinstance(value, torch.SymInt) and node.op != "placeholder":
                node = self._size(node, value)
            elif node.op == "call_function":
                node = self._merge(node)
            if node is not None:
                self._note_sources(node)

    def _note_sources(self, node: fx.Node) -> None:
        value = node.meta.get("val")
        if isinstance(value, Tensor):
            for axis, size in enumerate(expressions(value)):
                if isinstance(size, sympy.Symbol):
                    self.sources.setdefault(size, (node, axis))

    def _size(self, node: fx.Node, value: torch.SymInt) -> fx.Node | None:
        """Replace a size by its canonical node, or by a number where it is fixed."""
        expr = expression(value)
        if expr.is_Integer:
            for user in list(node.users):
                user.args = fx.map_arg(user.args, lambda arg: int(expr) if arg is node else arg)
                user.kwargs = fx.map_arg(user.kwargs, lambda arg: int(expr) if arg is node else arg)
            return None
        if isinstance(expr, sympy.Symbol) and expr not in self.sources and expr not in self.sizes:
            merged = self._merge(node)  # born here: `item()` of a tensor
            self.sizes[expression(fake_of(merged))] = merged
            return None
        built = self._build(expr, node)
        if built is not None and built is not node:
            node.replace_all_uses_with(built)
        else:
            self.sizes.setdefault(expr, node)
        return None

    def _build(self, expr: Any, before: fx.Node) -> Any:
        """A node (or number) for `expr`, made of canonical reads; None where it cannot be built."""
        if expr.is_Integer:
            return int(expr)
        if expr in self.sizes:
            return self.sizes[expr]
        made: Any = None
        if isinstance(expr, sympy.Symbol):
            if expr in self.sources:
                made = self._call(before, aten.sym_size.int, self.sources[expr], expr)
        elif expr.is_Add or expr.is_Mul:
            parts = [self._build(part, before) for part in sorted(expr.args, key=str)]
            if all(part is not None for part in parts):
                made = self._fold(operator.add if expr.is_Add else operator.mul, parts, expr, before)
        elif type(expr).__name__ in ("FloorDiv", "CleanDiv"):
            parts = [self._build(part, before) for part in expr.args]
            if all(part is not None for part in parts):
                made = self._call(before, operator.floordiv, tuple(parts), expr)
        if made is not None:
            self.sizes[expr] = made
        return made

    def _fold(self, combine: Any, parts: list[Any], expr: Any, before: fx.Node) -> fx.Node:
        total, so_far = parts[0], self._expr_of(parts[0])
        for part in parts[1:]:
            so_far = combine(so_far, self._expr_of(part))
            total = self._call(before, combine, (total, part), so_far)
        return total

    @staticmethod
    def _expr_of(part: Any) -> Any:
        return expression(fake_of(part)) if isinstance(part, fx.Node) else sympy.Integer(part)

    def _call(self, before: fx.Node, target: Any, args: tuple[Any, ...], expr: Any) -> fx.Node:
        with self.graph.inserting_before(before):
            node = self.graph.call_function(target, args)
        node.meta["val"] = self.env.create_symintnode(expr, hint=None)
        node.meta["where"], node.meta["layer"] = before.meta.get("where", ""), before.meta.get("layer", "")
        return node

    def _merge(self, node: fx.Node) -> fx.Node:
        """The earlier node that computes the same, if there is one."""
        key = (node.target, _freeze(node.args), _freeze(node.kwargs))
        try:
            first = self.seen.setdefault(key, node)
        except TypeError:  # an argument that cannot be hashed
            return node
        if first is not node:
            self._unify_values(first.meta.get("val"), node.meta.get("val"))
            node.replace_all_uses_with(first)
        return first

    def _unify_values(self, left: Any, right: Any) -> None:
        if isinstance(left, (list, tuple)):
            for one, other in zip(left, right, strict=True):
                self._unify_values(one, other)
        elif isinstance(left, Tensor):
            for one, other in zip(expressions(left), expressions(right), strict=True):
                unify(self.env, one, other)
        elif isinstance(left, torch.SymInt):
            unify(self.env, left.node.expr, right.node.expr)


def _freeze(value: Any) -> Any:
    if isinstance(value, (list, tuple)):
        return tuple(_freeze(item) for item in value)
    if isinstance(value, dict):
        return tuple((key, _freeze(item)) for key, item in value.items())
    if isinstance(value, slice):
        return ("slice", _freeze((value.start, value.stop, value.step)))
    return value if isinstance(value, fx.Node) else (type(value).__name__, repr(value))
