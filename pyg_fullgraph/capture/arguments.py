"""The tree of a call's arguments: what is a tensor, what is a size of the graph, what is a constant.

`flatten` takes a call apart, `rebuild` puts it together again around other tensors (fake ones while tracing).
"""

from __future__ import annotations

import copy
import enum
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch_geometric import EdgeIndex
from torch_geometric.data import Data, HeteroData

from pyg_fullgraph.capture.guards import Guards
from pyg_fullgraph.capture.matrices import Make, is_matrix, parts_of, whole
from pyg_fullgraph.errors import CaptureError
from pyg_fullgraph.graph import Graph

Path = tuple[Any, ...]


class Attribute(str):
    """An attribute's name within a path, as opposed to a dictionary key."""


_PLAIN = (
    bool,
    int,
    float,
    complex,
    str,
    bytes,
    type(None),
    torch.dtype,
    torch.device,
    enum.Enum,
    slice,
    type(...),
)


@dataclass(frozen=True)
class Slot:
    """A tensor argument, by leaf number; `scalar` marks an integer argument that travels as a tensor."""

    index: int
    scalar: bool = False


@dataclass(frozen=True)
class SizeSlot:
    """An integer argument that is the size of a space."""

    space: str


@dataclass(frozen=True)
class CountSlot:
    """A number of graphs that is the size of a tensor argument without memory, by leaf number."""

    index: int


class Const:
    """A value that is baked into the trace; compared by value where plain, else by identity."""

    def __init__(self, value: Any, path: Path = ()) -> None:
        self.value = value
        self.path = path
        plain = isinstance(value, _PLAIN) and not isinstance(value, slice)
        self._key = (type(value), repr(value) if isinstance(value, float) else value) if plain else (id(value),)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Const) and self._key == other._key

    def __hash__(self) -> int:
        return hash(self._key)

    def __repr__(self) -> str:
        return f"Const({self.value!r})"


@dataclass(frozen=True)
class Branch:
    """A container: `kind` is tuple, list, dict, named, data, graph or matrix; `template` is a tensor-free copy of a
    data object.
    """

    kind: str
    cls: type | None
    keys: tuple[Any, ...]
    children: tuple[Any, ...]
    template: Any = field(default=None, compare=False, repr=False)


@dataclass(frozen=True)
class FoundMatrix:
    """The leaves of a sparse matrix, see `capture.matrices`; `compressed` where the first index is pointers."""

    path: Path
    indices: tuple[int, ...]
    value: int | None
    counters: tuple[int, ...]
    compressed: bool


class Found:
    """The tensors met by `flatten`, each once, with the path of its first appearance."""

    def __init__(self) -> None:
        self.tensors: list[Tensor] = []
        self.paths: list[Path] = []
        self.keep: list[Any] = []  # the objects as passed: keeps their ids unique while we compare them
        self._numbers: dict[int, int] = {}
        self.constants: list[Const] = []
        self.counters: list[int] = []  # leaves that only count the graphs of a batch
        self.graphs: list[tuple[Path, tuple[int, int, int]]] = []  # leaves of every Graph: edges, sources, nodes
        self.matrices: list[FoundMatrix] = []
        self.known: dict[int, Branch] = {}  # by identity, the matrices taken apart

    def add(self, original: Tensor, tensor: Tensor, path: Path) -> Slot:
        if id(original) not in self._numbers:
            self._numbers[id(original)] = len(self.tensors)
            self.tensors.append(tensor)
            self.paths.append(path)
            self.keep.append(original)
        return Slot(self._numbers[id(original)])

    def names(self) -> list[str]:
        """A readable, unique identifier per tensor."""
        names: list[str] = []
        for path in self.paths:
            stem = "_".join("__".join(part) if isinstance(part, tuple) else str(part) for part in path)
            stem = re.sub(r"\W", "_", stem)
            stem = f"arg_{stem}" if not stem or stem[0].isdigit() else stem
            name, count = stem, 2
            while name in names:
                name, count = f"{stem}_{count}", count + 1
            names.append(name)
        return names


def describe(path: Path) -> str:
    """`x_dict['paper']`, as the user would write it."""
    head, *rest = path
    return str(head) + "".join(f"[{part!r}]" for part in rest)


def flatten(value: Any, path: Path, found: Found) -> Any:
    """Take one argument apart; tensors go to `found`, the tree of what is left is returned."""
    if isinstance(value, EdgeIndex):
        return found.add(value, value.as_tensor(), path)
    if is_matrix(value):
        return _flatten_matrix(value, path, found)
    if isinstance(value, Tensor):
        _refuse_special(value, path)
        plain = value.as_tensor() if hasattr(value, "as_tensor") else value  # torch_geometric.Index
        if plain.is_neg() or plain.is_conj():  # kernels read memory, which holds other values than torch shows
            plain = plain.resolve_neg().resolve_conj()
        return found.add(value, plain, path)
    if isinstance(value, (Data, HeteroData)):
        return _flatten_data(value, path, found)
    if isinstance(value, Graph):
        return _flatten_graph(value, path, found)
    if isinstance(value, Mapping):
        children = tuple(flatten(item, (*path, key), found) for key, item in value.items())
        return Branch("dict", type(value) if type(value) is not dict else None, tuple(value), children)
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        children = tuple(flatten(getattr(value, f), (*path, f), found) for f in value._fields)
        return Branch("named", type(value), value._fields, children)
    if isinstance(value, (tuple, list)):
        children = tuple(flatten(item, (*path, i), found) for i, item in enumerate(value))
        return Branch("tuple" if isinstance(value, tuple) else "list", None, (), children)
    constant = Const(value, path)
    found.constants.append(constant)
    return constant


def _flatten_data(data: Data | HeteroData, path: Path, found: Found) -> Branch:
    """A data object: every attribute of every store, keyed by (store, attribute)."""
    keys: list[tuple[Any, str]] = []
    children: list[Any] = []
    template = copy.copy(data)
    for store in template.stores:
        store_key = getattr(store, "_key", None)
        for name in list(store.keys()):
            value = store[name]
            where = (*path, Attribute(name)) if store_key is None else (*path, Attribute(name), store_key)
            children.append(flatten(value, where, found))
            keys.append((store_key, name))
            del store[name]
    children.append(_number_of_graphs(getattr(data, "_num_graphs", None), path, found))
    keys.append((None, "_num_graphs"))
    return Branch("data", type(data), tuple(keys), tuple(children), template)


def _number_of_graphs(count: Any, path: Path, found: Found) -> CountSlot | Const:
    """A size of the call where there are several graphs; none and one are values of their own, as layers branch."""
    if type(count) is not int or count < 2:
        return Const(count, (*path, Attribute("num_graphs")))
    counter = torch.zeros((), device=found.tensors[0].device if found.tensors else None).expand(count)
    slot = found.add(counter, counter, (*path, Attribute("num_graphs")))
    found.counters.append(slot.index)
    return CountSlot(slot.index)


def _flatten_graph(graph: Graph, path: Path, found: Found) -> Branch:
    """A graph: its edges, and for each kind of node a tensor without memory that only counts them."""
    edges = found.add(graph.edge_index, graph.edge_index, (*path, Attribute("edge_index")))
    counts = [("sources", graph.num_src), ("nodes", graph.num_dst)] if graph.bipartite else [("nodes", graph.num_dst)]
    slots = []
    for name, count in counts:
        counter = torch.zeros((), device=graph.device).expand(count)
        slots.append(found.add(counter, counter, (*path, Attribute(name))))
    found.graphs.append((path, (edges.index, slots[0].index, slots[-1].index)))
    return Branch("graph", Graph, (graph.bipartite,), (edges, slots[0], slots[-1]))


def _flatten_matrix(matrix: Any, path: Path, found: Found) -> Branch:
    """A sparse matrix: its indices, its values, and for each sparse dimension a tensor that only counts it."""
    known = found.known.get(id(matrix))
    if known is not None:
        return known
    parts = parts_of(matrix, describe(path))
    slots = [found.add(tensor, tensor, (*path, Attribute(name))) for name, tensor in parts.named()]
    counters = []
    for name, count in zip(("rows", "columns", *map(str, range(2, 9))), parts.size, strict=False):
        counter = torch.zeros((), device=parts.indices[0].device).expand(count)
        counters.append(found.add(counter, counter, (*path, Attribute(name))))
    leaves = [slot.index for slot in slots]
    count = len(parts.indices)
    found.matrices.append(
        FoundMatrix(
            path,
            tuple(leaves[:count]),
            leaves[count] if parts.value is not None else None,
            tuple(slot.index for slot in counters),
            parts.kind.layout in ("csr", "csc"),
        )
    )
    found.keep.append(matrix)
    found.known[id(matrix)] = Branch("matrix", None, (parts.kind,), (*slots, *counters))
    return found.known[id(matrix)]


def rebuild(node: Any, tensors: Sequence[Any], size_of: Callable[[str], Any], make: Make = whole) -> Any:
    """The argument again, with `tensors` by leaf number and `size_of(space)` for sizes; `make` makes matrices."""
    if isinstance(node, Slot):
        return _number(tensors[node.index]) if node.scalar else tensors[node.index]
    if isinstance(node, SizeSlot):
        return size_of(node.space)
    if isinstance(node, CountSlot):
        return tensors[node.index].size(0)
    if isinstance(node, Const):
        return node.value
    children = [rebuild(child, tensors, size_of, make) for child in node.children]
    if node.kind == "tuple":
        return tuple(children)
    if node.kind == "list":
        return children
    if node.kind == "named":
        return node.cls(*children)
    if node.kind == "data":
        return _rebuild_data(node, children)
    if node.kind == "matrix":
        dims = node.keys[0].dims
        return make(node.keys[0], children[:-dims], [counter.size(0) for counter in children[-dims:]])
    if node.kind == "graph":
        edge_index, sources, nodes = children
        return Graph.rebuilt(edge_index, sources.size(0), nodes.size(0), node.keys[0])
    plain = dict(zip(node.keys, children, strict=True))
    return plain if node.cls is None else _like_mapping(node.cls, plain)


def _number(tensor: Tensor) -> Any:
    """The size that a scalar leaf holds; while tracing a symbol, at least 2 as the size of every space."""
    value = tensor.item()
    if isinstance(value, torch.SymInt):
        torch._check(value >= 2)
        env = value.node.shape_env
        if isinstance(env, Guards):
            env.is_size(value)
    return value


def _like_mapping(cls: type, plain: dict[Any, Any]) -> Any:
    """A mapping of the caller's own class; a plain dict where its constructor wants something else."""
    try:
        return cls(plain)
    except TypeError:
        return plain


def _rebuild_data(node: Branch, children: list[Any]) -> Any:
    data = copy.copy(node.template)
    for (store_key, name), child in zip(node.keys, children, strict=True):
        if name == "_num_graphs" and child is not None:
            data._num_graphs = child
        if name.startswith("_"):
            continue
        store = data._global_store if store_key is None and hasattr(data, "_global_store") else data
        if store_key is not None:
            store = data[store_key]
        store[name] = child
    return data


def _refuse_special(tensor: Tensor, path: Path) -> None:
    if tensor.layout is not torch.strided or tensor.is_quantized or tensor.is_nested:
        raise CaptureError(
            f"Argument '{describe(path)}' is a quantized, nested or mkldnn tensor, which cannot be captured; pass a "
            "plain dense tensor."
        )
