"""Which arguments of a program on `Graph`s have one row per node or per edge: those that it uses so.

Names and sizes cannot tell: in `x @ w` with as many nodes as columns, `x` and `w` have the same shape. So the program
is run once on fake tensors. Every argument that has as many rows as there are nodes or edges gets a symbol of its own
for that number, and the operators tell which of these symbols are equal: `g.src(x)` says that x has one row per
source, `h + y` that y has as many as h, `x @ w` that w has as many as x has columns, which is a number. An argument
that is tied to no graph keeps its real size. That is exact in any case; for another size it is traced anew.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import sympy
import torch
from torch._dynamo.source import ConstantSource
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx.experimental.symbolic_shapes import DimDynamic, ShapeEnv

from pyg_fullgraph.capture.arguments import Branch, Found, Path, rebuild
from pyg_fullgraph.capture.modules import lifted_tensors, plain_tensors, preserved
from pyg_fullgraph.capture.quiet import quiet
from pyg_fullgraph.capture.shims import adapted
from pyg_fullgraph.capture.spaces import Dims, type_key
from pyg_fullgraph.capture.written import Writes
from pyg_fullgraph.errors import GraphError

LOGGER = logging.getLogger("pyg_fullgraph")
_UNLIKE_ANY = 1_000_003  # stands for the sizes 0 and 1, of which operators make special cases


def dims_by_use(
    model: torch.nn.Module, spec: Branch, found: Found, given: Mapping[str, Dims]
) -> tuple[dict[str, Dims], bool]:
    """Dimensions of the leaves of graphs, and of all arguments that share a size with one.

    Args:
        model: the program; its forward is run on fake tensors.
        spec: the tree of its (args, kwargs).
        found: the tensors of the call; at least one `Graph` among them.
        given: dimensions by leaf name that are known already.

    Returns:
        Dimensions by leaf name; and False where the graph is too small to tell (sizes 0 and 1 broadcast).
    """
    names = found.names()
    dims = graph_dims(found)
    dims.update({i: given[name] for i, name in enumerate(names) if name in given})
    sizes = {
        dim: int(size)
        for i in dims
        for dim, size in zip(dims[i], found.tensors[i].shape, strict=False)
        if isinstance(dim, str)
    }
    unsure = [
        i
        for i, tensor in enumerate(found.tensors)
        if i not in dims and tensor.dim() and int(tensor.shape[0]) in sizes.values()
    ]
    if any(found.tensors[i].shape[0] < 2 for i in unsure):
        return {names[i]: item for i, item in dims.items()}, False
    dims = _Probe(model, spec, found, dims, sizes).run(unsure)
    return {names[i]: item for i, item in dims.items()}, True


def graph_dims(found: Found) -> dict[int, Dims]:
    """Dimensions of the leaves of every graph: `N` and `E` for one graph, with its name where there are several."""
    dims: dict[int, Dims] = {}
    for path, (edges, sources, nodes) in found.graphs:
        space, left, right = _space_names(path, len(found.graphs) == 1, sources != nodes)
        dims.setdefault(edges, (2, space))
        dims.setdefault(sources, (left,))
        dims.setdefault(nodes, (right,))
    return dims


def _space_names(path: Path, only: bool, bipartite: bool) -> tuple[str, str, str]:
    """Names of the spaces of edges, sources and destinations."""
    key = type_key(path)
    if isinstance(key, tuple):
        return "E:" + "__".join(key), f"N:{key[0]}", f"N:{key[2]}"
    label = "" if only else ":" + "_".join(str(part) for part in path)
    if bipartite:
        return f"E{label}", f"N{label}:src", f"N{label}:dst"
    return f"E{label}", f"N{label}", f"N{label}"


class _Probe:
    """One run on fake tensors whose sizes are symbols that know their real value."""

    def __init__(
        self, model: torch.nn.Module, spec: Branch, found: Found, dims: dict[int, Dims], sizes: dict[str, int]
    ) -> None:
        self.model, self.spec, self.found, self.dims, self.sizes = model, spec, found, dims, sizes
        self.env = ShapeEnv(duck_shape=False, specialize_zero_one=False)
        self.fake = FakeTensorMode(shape_env=self.env, allow_non_fake_inputs=True)
        self.symbols: dict[str, sympy.Symbol] = {}

    def run(self, unsure: list[int]) -> dict[int, Dims]:
        """The dimensions known, and those of the arguments `unsure`."""
        spaces = {
            space: self._size(space, size if size > 1 else _UNLIKE_ANY + k)
            for k, (space, size) in enumerate(self.sizes.items())
        }
        rows = {i: self._size(f"rows of {i}", int(self.found.tensors[i].shape[0])) for i in unsure}
        try:
            with quiet():
                self._forward([self._fake_leaf(i, spaces, rows) for i in range(len(self.found.tensors))])
        except GraphError:  # the user's mistake, with the real sizes in its text
            raise
        except Exception as error:  # the trace that follows meets it again, and explains it
            LOGGER.debug("which arguments have rows is decided by their names: %s", error)
            return self.dims
        return self._read(unsure)

    def _size(self, name: str, value: int) -> Any:
        source = ConstantSource(name)
        symbol = self.env.create_symbol(value, source, DimDynamic.DYNAMIC, None)
        self.symbols[name] = symbol
        return self.env.create_symintnode(symbol, hint=value, source=source)

    def _fake_leaf(self, i: int, spaces: dict[str, Any], rows: dict[int, Any]) -> Any:
        tensor = self.found.tensors[i]
        shape = list(tensor.shape)
        if i in rows:
            shape[0] = rows[i]
        elif i in self.dims:
            shape = [spaces[dim] if isinstance(dim, str) else dim for dim in self.dims[i]]
        with self.fake:
            return torch.empty(shape, dtype=tensor.dtype, device=tensor.device)

    def _forward(self, leaves: list[Any]) -> None:
        args, kwargs = rebuild(self.spec, leaves, lambda space: leaves)
        with (
            preserved(self.model),
            Writes(self.model, everything=True),
            adapted(self.model),
            torch.no_grad(),
            self.fake,
        ):
            lifted = {
                name: torch.empty_strided(tuple(t.shape), t.stride(), dtype=t.dtype, device=t.device)
                for name, t in lifted_tensors(self.model).items()
            }
            for name in plain_tensors(self.model):
                owner, _, attribute = name.rpartition(".")
                vars(self.model.get_submodule(owner) if owner else self.model)[attribute] = lifted.pop(name)
            torch.func.functional_call(self.model, lifted, args, kwargs, tie_weights=True)

    def _read(self, unsure: list[int]) -> dict[int, Dims]:
        """What the operators made of the symbols."""
        names: dict[Any, str] = {}  # size -> the first space that has it
        for space in self.sizes:
            names.setdefault(self.env.replace(self.symbols[space]), space)
        same = {space: names[self.env.replace(self.symbols[space])] for space in self.sizes}
        dims = {i: tuple(same[d] if isinstance(d, str) else d for d in item) for i, item in self.dims.items()}
        for i in unsure:
            rows = self.env.replace(self.symbols[f"rows of {i}"])
            shape: tuple[int | str, ...] = tuple(int(size) for size in self.found.tensors[i].shape)
            fixed = rows.is_Integer or rows not in names
            dims[i] = shape if fixed else (names[rows], *shape[1:])
        return dims
