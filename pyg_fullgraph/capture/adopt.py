"""Tensors that a trace met beside its inputs: in lists and objects of the model, in global names, in closures.

A trace holds the very objects. Those that the forward made from numbers of Python stay constants; the others become
inputs like the parameters, so that they are read at each call.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor, fx
from torch._subclasses.fake_tensor import FakeTensor

from pyg_fullgraph.capture.walk import Walk

aten = torch.ops.aten
_LIFTS = (aten.lift_fresh.default, aten.lift_fresh_copy.default, aten.lift.default)  # `torch.tensor(...)` in forward


@dataclass
class Adopted:
    """Tensors that became inputs.

    Args:
        named: of the model, by the name of a place where a `Walk` finds them.
        held: of elsewhere, by a name of their own; they are read from the very object.
    """

    named: dict[str, Tensor] = field(default_factory=dict)
    held: dict[str, Tensor] = field(default_factory=dict)


def adopt(
    recorded: fx.GraphModule, real: Mapping[str, Tensor], walk: Walk, fake: Callable[[Tensor], Tensor]
) -> Adopted:
    """Turn the constants of a recorded graph that were there before into placeholders, behind those of `real`.

    Args:
        recorded: by make_fx.
        real: name -> tensor, as the first placeholders stand for.
        walk: over the model, as far as the trace has read it.
        fake: makes the fake of a tensor.

    Returns:
        What the new placeholders stand for, in their order: first `named`, then `held`.
    """
    graph, found = recorded.graph, Adopted()
    placeholders = [node for node in graph.nodes if node.op == "placeholder"]
    known = {id(tensor): node for tensor, node in zip(real.values(), placeholders, strict=False)}
    constants: dict[int, tuple[Tensor, list[fx.Node]]] = {}
    for node in graph.nodes:
        if node.op == "get_attr" and not _is_made(recorded, node, walk):
            tensor = getattr(recorded, str(node.target))
            constants.setdefault(id(tensor), (tensor, []))[1].append(node)
    for tensor, _ in constants.values():
        if id(tensor) not in known:
            place = next((name for name in walk.places.get(id(tensor), ()) if name in walk.tensors), None)
            if place is None:
                label = next(iter(walk.places.get(id(tensor), ())), "a tensor from outside")
                found.held[_unique(label, found.held)] = tensor
            else:
                found.named[place] = tensor
    before = next((node for node in graph.nodes if node not in placeholders[: len(real)]), None)
    for name, tensor in (*found.named.items(), *found.held.items()):
        with graph.inserting_before(before):
            known[id(tensor)] = graph.placeholder("adopted_" + "".join(c if c.isalnum() else "_" for c in name))
        known[id(tensor)].meta["val"] = fake(tensor)
    for key, (_, nodes) in constants.items():
        for node in nodes:
            node.replace_all_uses_with(known[key])
            graph.erase_node(node)
    return found


def _is_made(recorded: fx.GraphModule, node: fx.Node, walk: Walk) -> bool:
    """Whether the forward made a tensor itself, from numbers or from the memory of an array; a value of the trace that
    the tracer forgot is left for the refusal of such values.
    """
    tensor = getattr(recorded, str(node.target), None)
    if not isinstance(tensor, Tensor) or isinstance(tensor, FakeTensor):
        return True
    if id(tensor) in walk.places:
        return False
    return all(user.target in _LIFTS for user in node.users) or walk.has_memory_of(tensor)


def _unique(label: str, taken: Mapping[str, Tensor]) -> str:
    name, count = label, 2
    while name in taken:
        name, count = f"{label} ({count})", count + 1
    return name
