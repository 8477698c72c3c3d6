"""Real numbers that a forward reads from tensors: `x * self.scale.item()`, `x / x.norm().item()`.

A traced graph has them as symbolic numbers, which would be read once per graph. They become tensors without
dimensions::

    item = _local_scalar_dense(norm)            item = _to_copy(norm, dtype=float64)
    half = item * 0.5                           half = mul(item, 0.5)
    div(x, half)                                div(x, _to_copy(half, dtype=float32))

A tensor without dimensions takes part in type promotion as a number does, so the results are the same. Where an
operator takes only plain numbers the capture is refused.
"""

from __future__ import annotations

import math
import operator
from typing import Any

import torch
from torch import Tensor, fx

from pyg_fullgraph.capture.nodes import args_of, fake_of, insert, shape_args, target_of
from pyg_fullgraph.capture.problems import Problem

aten = torch.ops.aten

_OPERATORS: dict[Any, Any] = {
    operator.add: aten.add.Tensor,
    operator.sub: aten.sub.Tensor,
    operator.mul: aten.mul.Tensor,
    operator.truediv: aten.div.Tensor,
    operator.pow: aten.pow.Tensor_Tensor,
    operator.neg: aten.neg.default,
    operator.abs: aten.abs.default,
    torch.sym_max: aten.maximum.default,
    torch.sym_min: aten.minimum.default,
    math.sqrt: aten.sqrt.default,
    math.exp: aten.exp.default,
    math.log: aten.log.default,
}
_OPERATORS |= {
    getattr(torch, f"_sym_{name}"): getattr(aten, name).default
    for name in ("sqrt", "exp", "log", "sin", "cos", "tanh")
    if hasattr(torch, f"_sym_{name}") and hasattr(aten, name)
}
_FILLS = (aten.full.default, aten.full_like.default, aten.new_full.default, aten.scalar_tensor.default)
_HALF = (torch.float16, torch.bfloat16)
ADVICE = "Keep it a tensor (leave out .item()), or pass the number as an argument or an attribute of the model."


def numbers_to_tensors(graph: fx.Graph, fake: Any) -> list[Problem]:
    """Rewrite `graph` in place.

    Args:
        graph: functional, every node with `meta["val"]`.
        fake: the fake tensor mode of the trace.

    Returns:
        The operators that would need such a number as a plain one.
    """
    work = _Rewriter(graph, fake)
    for node in list(graph.nodes):
        if node.op in ("call_function", "output"):
            work.visit(node)
    return work.problems


class _Rewriter:
    def __init__(self, graph: fx.Graph, fake: Any) -> None:
        self.graph, self.fake = graph, fake
        self.tensors: dict[fx.Node, fx.Node] = {}  # symbolic number -> the tensor that has its value
        self.problems: list[Problem] = []

    def visit(self, node: fx.Node) -> None:
        read = node.target is aten._local_scalar_dense.default
        uses = any(source in self.tensors for source in node.all_input_nodes)
        if isinstance(node.meta.get("val"), torch.SymFloat) and (read or uses):
            made = self._read(node) if read else self._computed(node)
            if made is None:
                self._refuse(node)
            else:
                self.tensors[node] = made
        elif uses:
            self._use(node)

    def _refuse(self, node: fx.Node) -> None:
        name = getattr(node.target, "_schema", None)
        what = f"a number read from a tensor, as an argument of '{name.name if name is not None else node.target}',"
        if node.op == "output":
            what = "a number read from a tensor, as a result of forward,"
        why = "depends on the data"
        self.problems.append(Problem(what, why, ADVICE, node.meta.get("place"), node.meta.get("number", 0)))

    # Numbers --------------------------------------------------------------------------------------------------

    def _call(self, before: fx.Node, target: Any, args: tuple[Any, ...], kind: torch.dtype, **kwargs: Any) -> fx.Node:
        node = insert(self.graph, before, target, args, kwargs, like=before)
        with self.fake:
            device = next((fake_of(arg).device for arg in args if _is_tensor(arg)), torch.device("cpu"))
            node.meta["val"] = torch.empty((), dtype=kind, device=device)
        return node

    def _read(self, node: fx.Node) -> fx.Node:
        source = args_of(node)[0]
        flat = source
        if fake_of(source).dim() > 0:
            flat = self._call(node, aten.reshape.default, (source, []), fake_of(source).dtype)
        return self._call(node, aten._to_copy.default, (flat,), torch.float64, dtype=torch.float64)

    def _computed(self, node: fx.Node) -> fx.Node | None:
        """Arithmetic on numbers, on tensors instead."""
        if node.target in (torch.sym_float, float):
            return self._tensor(args_of(node)[0], node)
        target = _OPERATORS.get(node.target)
        if target is None:
            return None
        args = tuple(self._tensor(arg, node) for arg in args_of(node))
        return self._call(node, target, args, torch.float64)

    def _tensor(self, number: Any, before: fx.Node) -> fx.Node:
        """Any number as a float64 tensor."""
        if number in self.tensors:
            return self.tensors[number]
        device = next(fake_of(tensor).device for tensor in self.tensors.values())
        kwargs = {"dtype": torch.float64, "device": device, "pin_memory": False}
        return self._call(before, aten.full.default, ([], number), torch.float64, **kwargs)

    # Their uses -----------------------------------------------------------------------------------------------

    def _use(self, node: fx.Node) -> None:
        """Have an operator take the tensors in place of the numbers."""
        value = node.meta.get("val")
        if not isinstance(value, Tensor) or not isinstance(node.target, torch._ops.OpOverload):
            self._refuse(node)
            return
        wanted = self._type_for(node)
        names = [argument.name for argument in target_of(node)._schema.arguments]
        bound = dict(zip(names, args_of(node), strict=False)) | dict(node.kwargs)
        numbers = {name for name, arg in bound.items() if isinstance(arg, fx.Node) and arg in self.tensors}
        if node.target in _FILLS:
            self._fill(node, bound)
            return
        overload = _taking_tensors(node.target, numbers)
        if overload is None:
            self._refuse(node)
            return
        changed = {n: self._typed(arg, wanted, node) if n in numbers else arg for n, arg in bound.items()}
        keywords = {a.name for a in overload._schema.arguments if a.kwarg_only}
        args = tuple(arg for name, arg in changed.items() if name not in keywords)
        kwargs = {name: arg for name, arg in changed.items() if name in keywords}
        made = insert(self.graph, node, overload, args, kwargs, like=node)
        if value.dim() == 0 and value.dtype != wanted and value.dtype != torch.bool:
            made = insert(self.graph, node, aten._to_copy.default, (made,), {"dtype": value.dtype}, like=node)
        node.replace_all_uses_with(made)

    def _type_for(self, node: fx.Node) -> torch.dtype:
        """The element type in which the operator takes a number: that of its computation."""
        dtype = fake_of(node).dtype
        if dtype == torch.bool:  # a comparison
            dtype = next(fake_of(arg).dtype for arg in node.all_input_nodes if _is_tensor(arg))
        if dtype in _HALF:
            return torch.float32
        return dtype if dtype.is_floating_point else torch.float64

    def _typed(self, number: Any, dtype: torch.dtype, before: fx.Node) -> fx.Node:
        tensor = self.tensors[number]
        return self._call(before, aten._to_copy.default, (tensor,), dtype, dtype=dtype)

    def _fill(self, node: fx.Node, bound: dict[str, Any]) -> None:
        """`full(sizes, number)`: the tensor, expanded."""
        made = self._typed(bound.get("fill_value", bound.get("s")), fake_of(node).dtype, node)
        if fake_of(node).dim():
            sizes = list(bound["size"]) if "size" in bound else shape_args(self.graph, node, bound["self"])
            made = insert(self.graph, node, aten.expand.default, (made, sizes), {}, like=node)
        node.replace_all_uses_with(made)


def _is_tensor(arg: Any) -> bool:
    return isinstance(arg, fx.Node) and isinstance(arg.meta.get("val"), Tensor)


def _taking_tensors(target: Any, names: set[str]) -> Any:
    """The overload of the same operator that takes tensors for these arguments; the rest by the same names."""
    own = {argument.name: str(argument.type) for argument in target._schema.arguments}
    candidates = [target, *(getattr(target.overloadpacket, name) for name in target.overloadpacket.overloads())]
    for candidate in candidates:
        types = {argument.name: str(argument.type) for argument in candidate._schema.arguments}
        writes = any(a.alias_info is not None and a.alias_info.is_write for a in candidate._schema.arguments)
        if types.keys() != own.keys() or writes:
            continue
        others = own.keys() - names
        if all("Tensor" in types[name] for name in names) and all(types[name] == own[name] for name in others):
            return candidate
    return None
