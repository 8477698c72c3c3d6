"""How many graphs a batch has, and how many copies static features have: sizes of the call, and one trace for all.

* `G`, the number of graphs of a `Batch` object (or `batch_size=`), is a size like that of the nodes, and `G+1` that of
  its `ptr`. A forward that wants it as a number (`range(data.num_graphs)`) is traced for that number.
* `B`, the copies of static features `[B, N, F]`, is a size in the trace alone: a program is made of the trace for each
  number, in which it is a plain number, so that rows of nodes stay rows.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from pyg_fullgraph.capture.arguments import Branch, Const, CountSlot, SizeSlot, Slot
from pyg_fullgraph.capture.reads import Reads
from pyg_fullgraph.capture.signature import Leaf, Signature, sources_of
from pyg_fullgraph.capture.sizes import GRAPH_NAMES
from pyg_fullgraph.capture.trace import Traced
from pyg_fullgraph.errors import CaptureError


def with_numbers(signature: Signature, tensors: list[Tensor]) -> Signature | None:
    """The signature with plain numbers of graphs; None where there is no such size in it."""
    if not _counts(signature):
        return None
    leaves = tuple(replace(leaf, dims=plain_dims(leaf, tensor)) for leaf, tensor in zip(signature.leaves, tensors))
    spec = _plain(signature.spec, signature, tensors, signature.sizes(tensors))
    return Signature(leaves, spec, sources_of(leaves), signature.decided)


def _plain(node: Any, signature: Signature, tensors: list[Tensor], sizes: dict[str, int]) -> Any:
    """A part of a call with plain numbers of graphs."""
    if isinstance(node, Branch):
        return replace(node, children=tuple(_plain(child, signature, tensors, sizes) for child in node.children))
    if isinstance(node, SizeSlot) and node.space.startswith("G"):
        return Const(sizes[node.space])
    if isinstance(node, CountSlot):
        return Const(tensors[node.index].size(0))
    if isinstance(node, Slot) and node.scalar and _is_count(signature.leaves[node.index]):
        return Const(int(tensors[node.index]))
    return node


def plain_dims(leaf: Leaf, tensor: Tensor) -> tuple[int | str, ...]:
    """The dimensions of a leaf with plain numbers of graphs."""
    pairs = zip(leaf.dims, tensor.shape, strict=True)
    return tuple(int(size) if isinstance(dim, str) and dim.startswith("G") else dim for dim, size in pairs)


def _counts(signature: Signature) -> bool:
    return any(_is_count(leaf) or any(str(dim).startswith("G") for dim in leaf.dims) for leaf in signature.leaves)


def _is_count(leaf: Leaf) -> bool:
    """True for a number of graphs that travels as a tensor."""
    return not leaf.dims and leaf.name.removesuffix("_size").endswith(tuple(GRAPH_NAMES))


Tracer = Callable[..., Traced]  # `capture.trace.trace`, or what stands for it


class Traces:
    """The traces of one model that serve several signatures, and those forwards that want plain numbers."""

    def __init__(self) -> None:
        self.served = False  # whether an earlier trace served the last call of `of`
        #: By (call with sizes for copies, state of the model, settings); None where forward wants plain numbers.
        self.filed: dict[tuple[Any, ...], Traced | None] = {}

    def of(
        self,
        trace: Tracer,
        model: torch.nn.Module,
        signature: Signature,
        sizes: Mapping[str, int],
        outputs: tuple[str, ...],
        reads: Reads,
        state: tuple[Any, ...],
    ) -> Traced:
        """The trace for a signature; arguments without rows are parameters in it, "@" and their name.

        Args:
            trace: called as `trace(model, signature, sizes, outputs, reads, look_further)`.
            model: in the state that `state` stands for: its number, and settings of torch.
            signature: of the call.
            sizes, outputs, reads: as for `trace`; `reads` learns nothing where an earlier trace serves.
            state: see above.

        Raises:
            CaptureError: as in `trace`; where the signature has numbers of graphs, without a search for all problems,
                as plain numbers may do.
        """
        general, self.served = _with_copies(signature), False
        if general is not None:
            copies = _copies(general, signature)
            key = (general.key, *state)
            self.served = self.filed.get(key) is not None
            if key not in self.filed:
                self.filed[key] = _traced_freely(trace, model, general, {**sizes, **copies}, outputs, reads)
            traced = self.filed[key]
            if traced is not None:
                names = {leaf.name: leaf for leaf in signature.leaves}
                inputs = {placeholder: names[leaf.name] for placeholder, leaf in traced.input_names.items()}
                traced = replace(traced, copies=copies, param_names=dict(traced.param_names), input_names=inputs)
                return _with_weights(traced)
        traced = trace(model, signature, sizes, outputs, reads, not _counts(signature))
        if not _are_free(traced, "G"):
            raise CaptureError("The number of graphs is fixed by a parameter, or it is that of something else.")
        return _with_weights(traced)


def _traced_freely(
    trace: Tracer,
    model: torch.nn.Module,
    general: Signature,
    sizes: Mapping[str, int],
    outputs: tuple[str, ...],
    reads: Reads,
) -> Traced | None:
    """The trace in which the numbers of copies are sizes; None where forward wants them as numbers."""
    try:
        traced = trace(model, general, sizes, outputs, reads, False)
    except CaptureError:
        return None
    return traced if _are_free(traced, "B") else None


def _are_free(traced: Traced, letter: str) -> bool:
    """True where the forward fixes none of these sizes, and ties none to another."""
    every = list(traced.symbols.values())
    own = [size for space, size in traced.symbols.items() if space.startswith(letter) and not space.endswith("+1")]
    return all(size.is_Symbol and every.count(size) == 1 for size in own)


def _with_copies(signature: Signature) -> Signature | None:
    """The signature with the axes before those of nodes as sizes `B`, `B:1`; None where there are no such axes."""
    found: dict[tuple[int, int], str] = {}
    for leaf in signature.leaves:
        if len(leaf.dims) > 2 and str(leaf.dims[-2]).startswith("N"):
            for axis, size in enumerate(leaf.dims[:-2]):
                if isinstance(size, int) and size > 1:
                    found.setdefault((axis, size), f"B:{axis}" if axis else "B")
    if not found or len(set(found.values())) < len(found):
        return None
    leaves = tuple(replace(leaf, dims=_named_axes(leaf, found)) for leaf in signature.leaves)
    return Signature(leaves, signature.spec, sources_of(leaves))


def _named_axes(leaf: Leaf, found: dict[tuple[int, int], str]) -> tuple[int | str, ...]:
    """Also arguments without nodes have one row per copy (a time, a label) where they have as many rows."""
    if len(leaf.dims) > 2 and str(leaf.dims[-2]).startswith("N"):
        before: list[int | str] = [
            found.get((i, d), d) if isinstance(d, int) else d for i, d in enumerate(leaf.dims[:-2])
        ]
        return (*before, *leaf.dims[-2:])
    if leaf.dims and isinstance(leaf.dims[0], int) and not any(isinstance(dim, str) for dim in leaf.dims):
        return (found.get((0, leaf.dims[0]), leaf.dims[0]), *leaf.dims[1:])
    return leaf.dims


def _copies(general: Signature, signature: Signature) -> dict[str, int]:
    """The numbers of copies of a call, by their spaces."""
    found: dict[str, int] = {}
    for leaf, plain in zip(general.leaves, signature.leaves, strict=True):
        for dim, size in zip(leaf.dims, plain.dims, strict=True):
            if isinstance(dim, str) and isinstance(size, int):
                found[dim] = size
    return found


def _with_weights(traced: Traced) -> Traced:
    """Arguments without rows are read at each call like parameters."""
    traced.param_names |= {
        placeholder: f"@{leaf.name}"
        for placeholder, leaf in traced.input_names.items()
        if leaf.value_class == "float" and not any(isinstance(dim, str) for dim in leaf.dims)
    }
    return traced
