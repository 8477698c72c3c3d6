"""Which axis of which argument counts nodes, and which edges.

Dictionary keys and argument names decide before sizes do: spaces that merely share a size stay apart.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from pyg_fullgraph.capture.arguments import Attribute, Found, Path

Dims = tuple[int | str, ...]

NODE_NAMES = frozenset(
    [
        "x",
        "pos",
        "z",
        "h",
        "h0",
        "x0",
        "x_0",
        "hidden",
        "state",
        "feat",
        "feats",
        "features",
        "node_feat",
        "node_feats",
        "node_attr",
        "node_attrs",
        "node_type",
        "node_types",
        "node_id",
        "n_id",
        "batch",
        "batch_idx",
        "inputs",
        "nodes",
        "pe",
        "pos_enc",
        "pos_encoding",
        "lap_pe",
        "rw_pe",
        "normal",
        "normals",
        "norm",
        "y",
        "train_mask",
        "val_mask",
        "test_mask",
        "batch_x",
        "x_src",
        "x_dst",
        "x_s",
        "x_t",
        "species",
        "atomic_numbers",
        "degree",
        "deg",
    ]
)
_EDGE_INDEX_NAME = re.compile(r"(edge.*index|edges?$|^adj|^adjs|_adj|index$|^ei$|adj_t)")
_EDGE_NAME = re.compile(r"^(edge|adj|e_id|e_attr|edges|hyperedge|rel_type|etype|pseudo|ea$|ew$)|(^|_)edge(_|$)")


@dataclass
class _Argument:
    """A tensor leaf as the rules see it."""

    index: int
    path: Path
    tensor: Tensor
    name: str
    key: Any  # the dictionary or store key that types it: a node type, an edge type triple, or None
    dims: Dims | None = None

    @property
    def first(self) -> int | None:
        return int(self.tensor.shape[0]) if self.tensor.dim() else None

    @property
    def integer(self) -> bool:
        return not (self.tensor.is_floating_point() or self.tensor.is_complex() or self.tensor.dtype == torch.bool)

    @property
    def is_edge_named(self) -> bool:
        return bool(_EDGE_NAME.search(self.name)) or (isinstance(self.key, tuple))

    @property
    def is_node_named(self) -> bool:
        return self.name in NODE_NAMES or self.name.removesuffix("_dict") in NODE_NAMES

    @property
    def is_edge_index(self) -> bool:
        """An integer [2, E] whose name does not say that it holds node rows."""
        if self.tensor.dim() != 2 or self.first != 2 or not self.integer:
            return False
        return bool(_EDGE_INDEX_NAME.search(self.name)) or self.key_is_edge or not self.is_node_named

    @property
    def key_is_edge(self) -> bool:
        return isinstance(self.key, tuple)

    def at(self, axis: int, space: str) -> Dims:
        """Fixed sizes everywhere but `space` on `axis`."""
        shape: list[int | str] = [int(size) for size in self.tensor.shape]
        shape[axis] = space
        return tuple(shape)

    def fixed(self) -> Dims:
        return tuple(int(size) for size in self.tensor.shape)


@dataclass
class _Spaces:
    """The spaces found so far: name -> size, and which argument named each edge space."""

    sizes: dict[str, int] = field(default_factory=dict)
    named_by: dict[str, str] = field(default_factory=dict)
    opened: set[str] = field(default_factory=set)  # edge spaces that an edge index counts

    def edges(self) -> list[str]:
        return [name for name in self.sizes if name.startswith("E")]

    def nodes(self) -> list[str]:
        return [name for name in self.sizes if name.startswith("N")]


def infer_dims(found: Found, *, overrides: dict[str, Dims], hints: dict[str, Dims]) -> list[Dims]:
    """Dimensions of every tensor in `found`.

    Args:
        found: tensors and their paths.
        overrides: dimensions by leaf name that the user gave.
        hints: dimensions by leaf name of an earlier call; kept where they still fit.
    """
    names = found.names()
    arguments = [
        _Argument(i, path, tensor, _base_name(path), type_key(path))
        for i, (path, tensor) in enumerate(zip(found.paths, found.tensors, strict=True))
    ]
    spaces = _Spaces()
    for argument, name in zip(arguments, names, strict=True):
        given = overrides.get(name)
        if given is not None and len(given) == argument.tensor.dim():
            _assign(argument, tuple(given), spaces)
    _edge_indices(arguments, spaces)
    _node_arguments(arguments, spaces, {i: hints[name] for i, name in enumerate(names) if name in hints})
    _keep_hints(arguments, names, hints, spaces)
    for argument in arguments:
        if argument.dims is None:
            argument.dims = _by_size(argument, spaces)
    return [argument.dims if argument.dims is not None else argument.fixed() for argument in arguments]


def _base_name(path: Path) -> str:
    """The innermost path element that is an argument or attribute name."""
    name = str(path[0])
    for part in path[1:]:
        if isinstance(part, Attribute) or (isinstance(part, str) and (part in NODE_NAMES or _EDGE_NAME.search(part))):
            name = part
    for suffix in ("_dict", "_list"):
        name = name.removesuffix(suffix)
    return name


def type_key(path: Path) -> Any:
    """The node type or edge type triple among the keys of a path, None if there is none."""
    for part in path[1:]:
        if isinstance(part, tuple) and len(part) == 3 and all(isinstance(p, str) for p in part):
            return part
    keys = [part for part in path[1:] if isinstance(part, str) and not isinstance(part, Attribute)]
    if not keys:
        return None
    key = keys[-1]
    parts = key.split("__")
    if len(parts) >= 3 and (_EDGE_NAME.search(str(path[0])) or len([p for p in parts if p]) == 3):
        return (parts[0], "__".join(parts[1:-1]), parts[-1])
    return None if key in NODE_NAMES or _EDGE_NAME.search(key) else key


def _assign(argument: _Argument, dims: Dims, spaces: _Spaces) -> None:
    argument.dims = dims
    for dim, size in zip(dims, argument.tensor.shape, strict=True):
        if isinstance(dim, str):
            spaces.sizes.setdefault(dim, int(size))
            spaces.named_by.setdefault(dim, argument.name)


def _edge_indices(arguments: list[_Argument], spaces: _Spaces) -> None:
    """Integer [2, E] arguments open one edge space each."""
    for argument in arguments:
        if argument.dims is not None or not argument.is_edge_index:
            continue
        name = _edge_space_name(argument, spaces)
        spaces.opened.add(name)
        _assign(argument, (2, name), spaces)


def _edge_space_name(argument: _Argument, spaces: _Spaces) -> str:
    usual = argument.name in ("edge_index", "adj", "adjs") or argument.name.startswith("args")
    label = [] if usual else [argument.name]
    if argument.key_is_edge:
        label = ["__".join(argument.key), *label]
    elif argument.key is not None:
        label = [str(argument.key), *label]
    numbers = [str(part) for part in argument.path[1:] if isinstance(part, int)]
    if numbers and not argument.key_is_edge:
        label += numbers[:1] if argument.name in ("adj", "adjs", "edge_index") else numbers
    name = ":".join(["E", "_".join(label)]) if label else "E"
    if not numbers and argument.key is None and not spaces.opened:
        name = "E"
    stem, count = name, 2
    while name in spaces.opened or spaces.sizes.get(name, argument.tensor.shape[1]) != argument.tensor.shape[1]:
        name, count = f"{stem}#{count}", count + 1
    return name


def _node_arguments(arguments: list[_Argument], spaces: _Spaces, hints: dict[int, Dims]) -> None:
    """Arguments that hold node rows by their key or their name, else the first tensor that has no edge
    rows. `hints` are the dimensions that arguments had in an earlier call.
    """
    open_ones = [a for a in arguments if a.dims is None and a.tensor.dim() and not a.key_is_edge]
    for argument in open_ones:
        if argument.key is not None and not argument.is_edge_named:
            axis = _node_axis(argument, arguments, hints.get(argument.index))
            _node_rows(argument, f"N:{argument.key}", spaces, axis)
    untyped = [a for a in open_ones if a.dims is None and a.key is None and not a.is_edge_named]
    named = [a for a in untyped if a.is_node_named]
    if not named and "N" not in spaces.sizes and not spaces.nodes():
        edge_sizes = {spaces.sizes[name] for name in spaces.edges()}
        rest = [a for a in untyped if a.tensor.dim() and a.tensor.dtype != torch.bool]
        named = [a for a in rest if a.first not in edge_sizes][:1] or rest[:1]
    pairs = _pairs(named)
    for argument in named:
        side = pairs.get(argument.index)
        if side is not None:
            axis = _node_axis(argument, arguments, hints.get(argument.index), {"src": 0, "dst": 1}[side])
            _node_rows(argument, f"N:{side}", spaces, axis)
        elif pairs and argument.name.endswith(("_src", "_s")):
            _node_rows(argument, "N:src", spaces)
        elif not any(spaces.sizes[name] == argument.first for name in spaces.nodes()):
            if "N" not in spaces.sizes:
                _node_rows(argument, "N", spaces, _node_axis(argument, arguments, hints.get(argument.index)))
        else:
            match = next(name for name in spaces.nodes() if spaces.sizes[name] == argument.first)
            _node_rows(argument, match, spaces)


def _pairs(named: list[_Argument]) -> dict[int, str]:
    """Arguments `(src, dst)` of two different tensors: the sides of a bipartite graph."""
    sides: dict[int, str] = {}
    by_stem: dict[Path, dict[Any, _Argument]] = {}
    for argument in named:
        if len(argument.path) == 2 and isinstance(argument.path[1], int):
            by_stem.setdefault(argument.path[:1], {})[argument.path[1]] = argument
    for group in by_stem.values():
        if set(group) == {0, 1}:
            sides[group[0].index], sides[group[1].index] = "src", "dst"
    for suffix, side in (("_src", "src"), ("_dst", "dst"), ("_s", "src"), ("_t", "dst")):
        for argument in named:
            if argument.name.endswith(suffix) and argument.index not in sides:
                sides[argument.index] = side
    return sides if len(set(sides.values())) == 2 else {}


def _node_rows(argument: _Argument, space: str, spaces: _Spaces, axis: int = 0) -> None:
    """Give `argument` the rows of `space` on `axis`, if their number fits."""
    size = int(argument.tensor.shape[axis])
    if spaces.sizes.setdefault(space, size) != size:
        return
    argument.dims = argument.at(axis, space)


def _node_axis(argument: _Argument, arguments: list[_Argument], hint: Dims | None, row: int | None = None) -> int:
    """The axis that counts nodes: the first; for PyG's static graphs `[*, N, F]` the second to last.

    Where the edges leave both open, an earlier call decides. `row` is the row of the edges that numbers these nodes.
    """
    shape = argument.tensor.shape
    if len(shape) < 3:
        return 0
    needed, last = _needed(argument, arguments, row), len(shape) - 2
    if shape[0] < needed <= shape[last]:
        return last
    fits = hint is not None and len(hint) == len(shape) and needed <= shape[last]
    return last if fits and hint is not None and argument.at(last, str(hint[last])) == hint else 0


def _needed(argument: _Argument, arguments: list[_Argument], row: int | None) -> int:
    """Nodes that the edge indices need of the kind of an argument: their largest entry plus one."""
    tops = [0]
    for edges in arguments:
        if not edges.dims or not edges.is_edge_index or not edges.tensor.numel():
            continue
        rows = [0, 1] if row is None else [row]
        if argument.key is not None and edges.key_is_edge:
            rows = [i for i, end in ((0, edges.key[0]), (1, edges.key[2])) if end == argument.key]
        tops += [int(edges.tensor[i].max()) + 1 for i in rows]
    return max(tops)


def _keep_hints(arguments: list[_Argument], names: list[str], hints: dict[str, Dims], spaces: _Spaces) -> None:
    """Reuse an earlier call's dimensions for arguments that only their size would decide, where they still
    fit.
    """
    for argument, name in zip(arguments, names, strict=True):
        hint = hints.get(name)
        if argument.dims is None and hint is not None and _still_fits(argument, hint, spaces):
            _assign(argument, hint, spaces)


def _still_fits(argument: _Argument, hint: Dims, spaces: _Spaces) -> bool:
    """True where sizes are as before; an edge space that only this argument has may have any size."""
    if len(hint) != argument.tensor.dim():
        return False
    own = [d for d in hint if isinstance(d, str) and d.startswith("E:") and d not in spaces.sizes]
    sizes = zip(hint, argument.tensor.shape, strict=True)
    return all(spaces.sizes.get(d) == s if isinstance(d, str) else d == s for d, s in sizes if d not in own)


def _by_size(argument: _Argument, spaces: _Spaces) -> Dims:
    """Decide by size: the edges for edge-like names, the nodes otherwise; fixed where nothing matches."""
    if argument.tensor.dim() == 0 or (argument.name == "ptr" and argument.integer):
        return argument.fixed()
    if argument.key_is_edge:
        return _edge_rows(argument, [n for n in spaces.edges() if n.startswith("E:" + "__".join(argument.key))], spaces)
    if argument.is_edge_named and not _is_dense_adjacency(argument, spaces):
        return _edge_rows(argument, spaces.edges(), spaces)
    if _is_dense_adjacency(argument, spaces):
        return _dense_adjacency(argument, spaces)
    matching = [name for name in spaces.nodes() + spaces.edges() if spaces.sizes[name] == argument.first]
    return argument.at(0, matching[0]) if matching else argument.fixed()


def _edge_rows(argument: _Argument, candidates: list[str], spaces: _Spaces) -> Dims:
    """Rows of the edge space of the same size whose name is closest; a space of its own where none has that
    size.
    """
    matching = [name for name in candidates if spaces.sizes[name] == argument.first]
    if matching:
        best = max(matching, key=lambda name: _affinity(argument, name, spaces))
        return argument.at(0, best)
    if argument.tensor.dim() == 2 and argument.first == 2 and argument.integer:
        return argument.fixed()
    if argument.first == 1 and argument.tensor.dim() == 1:
        return argument.fixed()
    label = "__".join(argument.key) + "_" + argument.name if argument.key_is_edge else argument.name
    dims = argument.at(0, f"E:{label}")
    _assign(argument, dims, spaces)
    return dims


def _affinity(argument: _Argument, space: str, spaces: _Spaces) -> int:
    """Length of the common prefix of the argument's name and the name of the index that opened the space."""
    other = spaces.named_by.get(space, "")
    length = 0
    for left, right in zip(argument.name, other, strict=False):
        if left != right:
            break
        length += 1
    return length


def _is_dense_adjacency(argument: _Argument, spaces: _Spaces) -> bool:
    shape = argument.tensor.shape
    return (
        argument.name.startswith("adj")
        and not argument.integer
        and len(shape) >= 2
        and shape[-1] == shape[-2]
        and int(shape[-1]) in [spaces.sizes[name] for name in spaces.nodes()]
    )


def _dense_adjacency(argument: _Argument, spaces: _Spaces) -> Dims:
    space = next(name for name in spaces.nodes() if spaces.sizes[name] == int(argument.tensor.shape[-1]))
    return (*(int(s) for s in argument.tensor.shape[:-2]), space, space)
