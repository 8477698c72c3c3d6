"""`bind`: the arguments of a model's forward as named tensor leaves with symbolic sizes.

A call is flattened into a tree (`Slot`, `SizeSlot`, `Const`, `Branch`) and a list of tensors. Every tensor
gets one
dimension per axis: a fixed integer or the name of a *space*, a size that belongs to the graph and not to the
    model::

    N                         nodes                 N:src, N:dst        the two sides of x=(x_src, x_dst)
    G                         graphs of a batch     G+1                 its row pointers
    E                         edges                 E:neg_edge_index    a second edge_index argument
    N:paper                   nodes of one type     E:author__writes__paper

Two calls with equal `Signature.key` run the same traced program, whatever their graphs' sizes.
"""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from pyg_fullgraph.capture.arguments import Attribute, Branch, Const, Found, SizeSlot, Slot, flatten, rebuild
from pyg_fullgraph.capture.matrices import Make, whole
from pyg_fullgraph.capture.matrix_spaces import matrix_dims
from pyg_fullgraph.capture.sizes import size_arguments
from pyg_fullgraph.capture.spaces import Dims, infer_dims
from pyg_fullgraph.capture.sparse.held import Place, held_at, name_of
from pyg_fullgraph.capture.use import dims_by_use
from pyg_fullgraph.errors import InputError


@dataclass(frozen=True)
class Leaf:
    """One tensor argument.

    Args:
        name: unique, made of the argument's name and its path (`x`, `x_dict_paper`, `adjs_0_1`).
        dims: per axis the name of a space, or a fixed size.
        dtype, device: of the tensor.
        value_class: "float" for data, "int" for structure (integers and booleans).
        counts: whether it is a number among the arguments that is a size (`num_nodes=`), and no tensor of the user's.
    """

    name: str
    dims: tuple[int | str, ...]
    dtype: torch.dtype
    device: torch.device
    value_class: str
    counts: bool = False


@dataclass
class _Memo:
    """What the next call like this one need not find out again.

    Args:
        forward: the function last bound, and its parameters.
        call: what a signature was inferred from.
        result: that signature, and the numbers that travel as tensors.
    """

    forward: tuple[Any, inspect.Signature] | None = None
    call: Any = None
    result: tuple[Signature, list[int]] | None = None


@dataclass(frozen=True)
class Signature:
    """What a call of forward looks like, up to the sizes of its graph.

    Args:
        leaves: the tensor arguments, in the order `bind` returns the tensors.
        spec: the tree of (args, kwargs): tensors by leaf number, sizes by space, all other values as
            constants.
        decided: False where a graph of one node or edge leaves open which arguments belong to it: such a call must
            not be traced.
    """

    leaves: tuple[Leaf, ...]
    spec: Branch
    _sources: dict[str, tuple[int, int]] = field(default_factory=dict, compare=False, repr=False)
    decided: bool = field(default=True, compare=False, repr=False)
    _memo: _Memo = field(default_factory=lambda: _Memo(), compare=False, repr=False)

    @property
    def names(self) -> list[str]:
        """The names of the leaves, in their order."""
        return [leaf.name for leaf in self.leaves]

    @property
    def key(self) -> tuple[Any, ...]:
        """Hashable; a different key forces a new trace (None-ness, fixed sizes, dtypes, devices,
        constants).
        """
        return (self.leaves, self.spec)

    @property
    def places(self) -> tuple[Place, ...]:
        """Where the model's attributes held sparse matrices."""
        return self.spec.children[2].keys if len(self.spec.children) > 2 else ()

    @property
    def spaces(self) -> dict[str, tuple[int, int]]:
        """Space name -> (leaf number, axis) where its size is read."""
        return dict(self._sources)

    def sizes(self, tensors: list[Tensor]) -> dict[str, int]:
        """The real size of every space, checked to be the same in all tensors that have it; and of numbers by leaf.

        Raises:
            InputError: where two arguments disagree, or an axis does not have its fixed size.
        """
        found: dict[str, tuple[int, str]] = {}
        for leaf, tensor in zip(self.leaves, tensors, strict=True):
            if tensor.dim() != len(leaf.dims):
                raise InputError(f"Argument '{leaf.name}' has {tensor.dim()} axes, expected {len(leaf.dims)}.")
            for axis, (dim, size) in enumerate(zip(leaf.dims, tensor.shape, strict=True)):
                expected, first = found.setdefault(dim, (size, leaf.name)) if isinstance(dim, str) else (dim, "")
                if size != expected:
                    because = f"the size of '{first}'" if first else "the size it was traced with"
                    raise InputError(
                        f"Argument '{leaf.name}' has size {size} on axis {axis}, but {expected} "
                        f"({because}) is expected."
                    )
        counted = {of_number(leaf): int(t) for leaf, t in zip(self.leaves, tensors, strict=True) if leaf.counts}
        return {name: size for name, (size, _) in found.items()} | counted

    def call(self, tensors: list[Any], make: Make = whole) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """`(args, kwargs)` of forward with `tensors` in place of the tensors of the bound call.

        Args:
            tensors: one for each leaf.
            make: makes sparse matrices of their parts; real ones unless another is given.
        """
        args, kwargs = (self._part(i, tensors, make) for i in (0, 1))
        return tuple(args), dict(kwargs)

    def held(self, tensors: list[Any], make: Make = whole) -> dict[Place, Any]:
        """The sparse matrices in the model's attributes, by their places, of `tensors` as in `call`."""
        return dict(self._part(2, tensors, make)) if len(self.spec.children) > 2 else {}

    def _part(self, number: int, tensors: list[Any], make: Make) -> Any:
        def size_of(space: str) -> Any:
            leaf, axis = self._sources[space]
            return tensors[leaf].size(axis)

        return rebuild(self.spec.children[number], tensors, size_of, make)

    def __str__(self) -> str:
        return ", ".join(
            f"{leaf.name}: {str(leaf.dtype).removeprefix('torch.')}[{', '.join(map(str, leaf.dims))}]"
            for leaf in self.leaves
        )


def of_number(leaf: Leaf) -> str:
    """What the size is called that a number among the arguments is; no space is called so."""
    return f"number:{leaf.name}"


def bind(
    model: torch.nn.Module,
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    *,
    dims: Mapping[str, tuple[int | str, ...]] | None = None,
    like: Signature | None = None,
    places: Sequence[Place] = (),
) -> tuple[Signature, list[Tensor]]:
    """Flatten a call `model(*args, **kwargs)` into a signature and its tensors.

    Args:
        model: its `forward` gives positional arguments their names.
        args, kwargs: the call. Tensors, sparse matrices, `EdgeIndex`, None, numbers, strings, (named) tuples, lists,
            dicts and whole `Data`, `HeteroData` or `Batch` objects are understood. A tensor that is passed twice
            is one leaf.
        dims: dimensions by leaf name, for those that `bind` cannot or should not infer.
        like: the signature of an earlier call; decides where sizes alone leave a choice (N == E, say).
            Where a `Graph` is among the arguments and there is no such call, the forward itself decides
            (`capture.use`).
        places: where the model's attributes hold sparse matrices, whose parts are leaves as well.

    Returns:
        The signature, and the tensors of its leaves in order. `EdgeIndex` is unwrapped to its plain tensor.

    Raises:
        InputError: for arguments that do not fit forward, and values that cannot be told apart from one call to the
            next.
        CaptureError: for tensors of a layout that cannot be captured.
    """
    memo = _Memo() if like is None else like._memo
    named_args, named_kwargs = _named(model, tuple(args), dict(kwargs), memo)
    found = Found()
    arg_nodes = tuple(flatten(value, (name,), found) for name, value in named_args)
    kwarg_nodes = tuple(flatten(value, (name,), found) for name, value in named_kwargs)
    names = tuple(name for name, _ in named_kwargs)
    if dims:
        _check_dims(dims, found.names(), model, memo)
    trees: tuple[Branch, ...] = (Branch("tuple", None, (), arg_nodes), Branch("dict", None, names, kwarg_nodes))
    if places:
        held = tuple(flatten(held_at(model, place), (name_of(place),), found) for place in places)
        trees = (*trees, Branch("dict", None, tuple(places), held))
    spec = Branch("tuple", None, (), trees)
    call = (spec, found.paths, [(t.shape, t.dtype, t.device) for t in found.tensors], dims)
    if memo.result is None or memo.call != call:
        signature, numbers = _infer(model, spec, found, dims, like)
        if found.graphs or any(tensor.dim() > 2 for tensor in found.tensors):  # the forward, or indices, may decide
            return signature, [*found.tensors, *map(torch.tensor, numbers)]
        same = like is not None and like.key == signature.key and like._sources == signature._sources
        memo.call, memo.result = call, (like if like is not None and same else signature, numbers)
    signature, numbers = memo.result
    return signature, [*found.tensors, *map(torch.tensor, numbers)]


def _infer(
    model: torch.nn.Module,
    spec: Branch,
    found: Found,
    dims: Mapping[str, Dims] | None,
    like: Signature | None,
) -> tuple[Signature, list[int]]:
    """The signature of a call taken apart, and the sizes among its arguments that no tensor has."""
    fixed: dict[str, Dims] = {leaf.name: leaf.dims for leaf in like.leaves} if like is not None else {}
    known, decided = {**matrix_dims(found, fixed), **(dims or {})}, True
    if found.graphs and _fits(fixed, found):
        known = fixed
    elif found.graphs:
        known, decided = dims_by_use(model, spec, found, known)
    names = found.names()
    known = {**known, **{names[i]: (space,) for i, space in _counters(found).items()}}
    inferred = _rows_of_graphs(found, infer_dims(found, overrides=known, hints=fixed))
    leaves = tuple(
        Leaf(name, inferred[i], tensor.dtype, tensor.device, _value_class(tensor))
        for i, (name, tensor) in enumerate(zip(names, found.tensors, strict=True))
    )
    sources = sources_of(leaves)
    sizes = {space: found.tensors[i].size(axis) for space, (i, axis) in sources.items()}
    earlier = {name.removesuffix("_size") for name in fixed if name.endswith("_size")}
    spec, extra = size_arguments(spec, sizes, earlier)
    scalars = tuple(Leaf(f"{name}_size", (), torch.int64, torch.device("cpu"), "int", counts=True) for name, _ in extra)
    spec = _number_scalars(spec, {name: len(leaves) + i for i, (name, _) in enumerate(extra)})
    return Signature(leaves + scalars, spec, sources, decided), [value for _, value in extra]


def sources_of(leaves: tuple[Leaf, ...]) -> dict[str, tuple[int, int]]:
    """Space name -> (leaf number, axis) of the first axis that has its size."""
    sources: dict[str, tuple[int, int]] = {}
    for i, leaf in enumerate(leaves):
        for axis, dim in enumerate(leaf.dims):
            if isinstance(dim, str):
                sources.setdefault(dim, (i, axis))
    return sources


def _counters(found: Found) -> dict[int, str]:
    """Leaf number -> the space of graphs that it counts; batches of equally many graphs may be of different ones."""
    several = len(found.counters) > 1
    return {i: f"G:{found.paths[i][0]}" if several else "G" for i in found.counters}


def _rows_of_graphs(found: Found, dims: list[Dims]) -> list[Dims]:
    """Attributes of a batch with one row per graph, and its row pointers, where nothing else counts their rows."""
    for counter, space in _counters(found).items():
        count = int(found.tensors[counter].size(0))
        for i, path in enumerate(found.paths):
            if path[0] != found.paths[counter][0] or not dims[i] or any(isinstance(dim, str) for dim in dims[i]):
                continue
            if dims[i][0] == count:
                dims[i] = (space, *dims[i][1:])
            elif dims[i] == (count + 1,) and any(isinstance(p, Attribute) and p == "ptr" for p in path):
                dims[i] = (f"{space}+1",)
    return dims


def _check_dims(dims: Mapping[str, Dims], names: list[str], model: torch.nn.Module, memo: _Memo) -> None:
    """Every name is that of a tensor argument, or of one that may be absent from this call."""
    assert memo.forward is not None
    known = (*names, *memo.forward[1].parameters)
    for name in dims:
        if name not in known and not any(name.startswith(f"{each}_") for each in memo.forward[1].parameters):
            near = difflib.get_close_matches(name, known, 1)
            meant = f" Did you mean '{near[0]}'?" if near else ""
            raise InputError(
                f"dims= names '{name}', which is no argument of {type(model).__name__}.forward "
                f"({', '.join(dict.fromkeys(known))}).{meant}"
            )


def _fits(dims: Mapping[str, Dims], found: Found) -> bool:
    """Whether the dimensions of an earlier call are those of this one."""
    sizes: dict[int | str, int] = {}
    for name, tensor in zip(found.names(), found.tensors, strict=True):
        known = dims.get(name)
        if known is None or len(known) != tensor.dim():
            return False
        for dim, size in zip(known, tensor.shape, strict=True):
            if sizes.setdefault(dim, size if isinstance(dim, str) else dim) != size:
                return False
    return True


def _number_scalars(node: Any, numbers: Mapping[str, int]) -> Any:
    """Resolve `SizeSlot`s that no tensor's size carries to the scalar leaves made for them."""
    if isinstance(node, Branch):
        children = tuple(_number_scalars(child, numbers) for child in node.children)
        return Branch(node.kind, node.cls, node.keys, children, node.template)
    if isinstance(node, SizeSlot) and node.space in numbers:
        return Slot(numbers[node.space], scalar=True)
    return node


def _value_class(tensor: Tensor) -> str:
    return "float" if tensor.is_floating_point() or tensor.is_complex() else "int"


def _named(
    model: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], memo: _Memo
) -> tuple[list[tuple[str, Any]], list[tuple[str, Any]]]:
    """Give every positional argument of forward its parameter name."""
    function = getattr(model.forward, "__func__", model.forward)
    if memo.forward is None or memo.forward[0] is not function:
        memo.forward = function, inspect.signature(model.forward)
    signature = memo.forward[1]
    try:
        signature.bind(*args, **kwargs)
    except TypeError as error:
        raise InputError(
            f"{type(model).__name__}.forward{signature} was called with {len(args)} positional arguments and "
            f"{sorted(kwargs)}: {error}. Pass exactly what you would pass to the model."
        ) from error
    declared = getattr(getattr(model, "signature", None), "param_dict", None)  # torch_geometric.nn.Sequential
    if declared is not None:
        names = list(declared)
    else:
        names = [
            name
            for name, parameter in signature.parameters.items()
            if parameter.kind in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD)
        ]
    rest = next((n for n, p in signature.parameters.items() if p.kind == p.VAR_POSITIONAL), "args")
    labelled = [
        (names[i] if i < len(names) else f"{rest}_{i - (0 if declared else len(names))}", value)
        for i, value in enumerate(args)
    ]
    return labelled, list(kwargs.items())


__all__ = ["Branch", "Const", "Leaf", "Signature", "SizeSlot", "Slot", "bind"]
