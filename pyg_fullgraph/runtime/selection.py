"""`nodes=`: which rows of which outputs are asked for, told in one way for every way that a call may run."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from pyg_fullgraph.capture.returned import paths_of, unpack
from pyg_fullgraph.errors import InputError
from pyg_fullgraph.ir import Dim, Program, Ref
from pyg_fullgraph.ir.ends import numbered_by_edges
from pyg_fullgraph.ir.matrices import is_apart
from pyg_fullgraph.ir.plain_rows import plain_rows
from pyg_fullgraph.ir.program import is_symbolic

Axis = tuple[int, Any]  # a dimension that has one entry per node, and which set of nodes: its size or its space

_TAKES = (
    "nodes= takes node numbers [M] or a mask [N] (a tensor, an array or a list), or a dictionary of these by kind "
    "where the model returns several kinds of nodes"
)


class OutputRows:
    """Which outputs of a program have one row per node, and of which set of nodes.

    Args:
        program: its outputs are looked at; a set of nodes is a size in their shapes.
        whole: how many of the last leaves are returned whole all the same.
    """

    def __init__(self, program: Program, whole: int = 0) -> None:
        self.program, self.whole = program, whole

    @cached_property
    def axes(self) -> list[Axis | None]:
        """As `_all_axes`; None for those that are returned whole."""
        found = self._all_axes()
        return [*found[: len(found) - self.whole], *[None] * self.whole]

    def _all_axes(self) -> list[Axis | None]:
        """For every leaf of the outputs the dimension of its nodes; None for what has no row per node.

        Sets of nodes are those of the arguments; where no output has rows of these, what the rows of edge lists number:
        as many as a number among the arguments says, or as there are rows of a parameter.
        """
        named = {size for size, name in self.program.spaces.items() if name.startswith("N")}
        found = [
            self._axis(leaf, lambda size: is_symbolic(size) and size.free_symbols <= named) for leaf in self._leaves
        ]
        if any(found):
            return found
        numbered = numbered_by_edges(self.program)
        found = [
            self._axis(leaf, {size for size in numbered if is_symbolic(size)}.__contains__) for leaf in self._leaves
        ]
        if any(found):
            return found
        plain = {size for size in numbered if not is_symbolic(size)}
        rows = plain_rows(self.program, plain)
        found = [rows.get(leaf.name) if isinstance(leaf, Ref) else None for leaf in self._leaves]
        return found if any(found) else [self._axis(leaf, plain.__contains__) for leaf in self._leaves]

    @cached_property
    def names(self) -> dict[Any, list[str]]:
        """Set of nodes -> what it may be called in `nodes=`: its type, or an argument that has a row for each."""
        names: dict[Any, list[str]] = {axis[1]: [] for axis in self.axes if axis is not None}
        for size in names:
            space = self.program.spaces.get(size, "")
            names[size] = [space.removeprefix("N:")] if space.startswith("N:") else []
        for value in self.program:
            if value.op == "input" and value.space in names:
                names[value.space].append(str(value.args[0]))
        return names

    @cached_property
    def _leaves(self) -> list[Any]:
        return pytree.tree_leaves(self.program.outputs, is_leaf=is_apart)

    def _axis(self, leaf: Any, counts_nodes: Callable[[Any], bool]) -> Axis | None:
        for dim, size in enumerate(self._shape(leaf)):
            if counts_nodes(size) and (dim == 0 or is_symbolic(size)):
                return dim, size
        return None

    def _shape(self, leaf: Any) -> tuple[Any, ...]:
        if is_apart(leaf):
            return tuple(size.expr if isinstance(size, Dim) else size for size in leaf["size"])
        return self.program[leaf.name].shape if isinstance(leaf, Ref) else ()


@dataclass(frozen=True)
class Picked:
    """The rows asked for of one call.

    Args:
        axes: for every leaf of the result, see `OutputRows`.
        numbers: set of nodes -> int64 [M]; sets without are returned whole.
        whole: whether some outputs have all rows, and so all have to be computed.
    """

    axes: list[Axis | None]
    numbers: dict[Any, Tensor]
    whole: bool = False

    @property
    def asked(self) -> dict[Any, Tensor] | None:
        """The numbers by set of nodes; None where all rows of some set are returned."""
        sets = {axis[1] for axis in self.axes if axis is not None}
        return self.numbers if sets == self.numbers.keys() and not self.whole else None

    def by_space(self, program: Program) -> dict[str, Tensor]:
        """The numbers by the names of the sets."""
        return {program.space_name(size) if is_symbolic(size) else str(size): n for size, n in self.numbers.items()}

    def rows_of(self, result: Any, position: Mapping[Any, Tensor] | None = None) -> Any:
        """The rows asked for of a result; `position` says where they are where fewer than all were computed."""
        leaves, packing = unpack(result)
        return packing.pack([self._rows(leaf, axis, position) for leaf, axis in zip(leaves, self.axes, strict=True)])

    def _rows(self, leaf: Any, axis: Axis | None, position: Mapping[Any, Tensor] | None) -> Any:
        if axis is None or axis[1] not in self.numbers:
            return leaf
        return _selected(leaf, axis[0], (self.numbers if position is None else position)[axis[1]])


class Nodes:
    """What `nodes=` asks for, before it is known what the model returns.

    Args:
        given: node numbers or a mask, in any form, or a dictionary of these.

    Raises:
        InputError: it is something else.
    """

    def __init__(self, given: Any) -> None:
        self.by_kind = (
            {str(key): _entries(value) for key, value in given.items()} if isinstance(given, Mapping) else None
        )
        self.entries = None if self.by_kind is not None else _entries(given)

    @classmethod
    def of(cls, given: Any) -> Nodes | None:
        """None where all rows are wanted."""
        return given if given is None or isinstance(given, cls) else cls(given)

    def on(self, outputs: OutputRows, size_of: Callable[[Any], Any]) -> Picked:
        """The rows of a program's outputs; `size_of` says how many nodes a set has.

        Raises:
            InputError: a number does not exist, a mask has another length, or it is not clear which nodes are meant.
        """
        picked = self._picked(
            outputs.axes, outputs.names, lambda size: int(size_of(size)) if is_symbolic(size) else size
        )
        return replace(picked, whole=outputs.whole > 0)

    def of_forward(self, result: Any, axes: list[Axis | None], sizes: Mapping[str, int]) -> Any:
        """The rows of what the model's own forward returned.

        Args:
            result: of forward.
            axes: the dimension of nodes of each of its leaves, and their space.
            sizes: of the spaces.
        """
        names = {axis[1]: [axis[1].removeprefix("N:")] for axis in axes if axis is not None}
        return self._picked(axes, names, sizes.__getitem__).rows_of(result)

    def _picked(self, axes: list[Axis | None], names: dict[Any, list[str]], size_of: Callable[[Any], int]) -> Picked:
        if not names:
            raise InputError("nodes= selects rows of nodes, but the model returns none. Index the result instead.")
        if self.entries is not None:
            if len(names) > 1:
                kinds = _listed(_called(size, called) for size, called in names.items())
                raise InputError(
                    f"The model returns rows of {kinds}: which of them are meant? Pass nodes={{...}}, a dictionary by "
                    "kind."
                )
            size = next(iter(names))
            return Picked(axes, {size: _numbers(self.entries, size_of(size), "")})
        numbers = {}
        for kind, entries in (self.by_kind or {}).items():
            found = [size for size, called in names.items() if kind in called]
            if not found:
                kinds = _listed(_called(size, called) for size, called in names.items())
                raise InputError(f"nodes= asks for rows of '{kind}', but the model returns rows of {kinds}.")
            numbers[found[0]] = _numbers(entries, size_of(found[0]), f"['{kind}']")
        return Picked(axes, numbers)


def forward_axes(result: Any, sizes: Mapping[str, int], grown: Any = None) -> tuple[list[Axis | None], dict[str, int]]:
    """The dimension of nodes of each leaf of what a model's own forward returned.

    Args:
        result: of forward.
        sizes: of the spaces; where none counts nodes, the rows of the first tensor are taken for the nodes.
        grown: what forward returns for one more node of every kind, where sizes alone may mislead.

    Returns:
        The axes, and the sizes of the spaces of nodes.
    """
    nodes = {space: size for space, size in sizes.items() if space.startswith("N")}
    found = paths_of(result)
    if not nodes:
        rows = [leaf.size(0) for _, leaf in found if isinstance(leaf, Tensor) and leaf.dim()]
        nodes = {"N": rows[0]} if rows else {}
    others = unpack(grown)[0]
    others = others if len(others) == len(found) else [None] * len(found)
    axes: list[Axis | None] = []
    for (path, leaf), other in zip(found, others, strict=True):
        keys = [f"N:{key}" for key in path]
        spaces = [key for key in keys if key in nodes] or list(nodes)
        axes.append(_axis_of(leaf, other, {space: nodes[space] for space in spaces}))
    return axes, nodes


def _axis_of(leaf: Any, grown: Any, nodes: dict[str, int]) -> Axis | None:
    if not isinstance(leaf, Tensor) or not leaf.dim():
        return None
    dims = [0, leaf.dim() - 2] if leaf.dim() > 2 else [0]
    if isinstance(grown, Tensor):
        dims = [dim for dim in range(leaf.dim()) if grown.size(dim) == leaf.size(dim) + 1]
    return next(((dim, space) for dim in dims for space, size in nodes.items() if leaf.size(dim) == size), None)


def _selected(rows: Any, dim: int, numbers: Tensor) -> Any:
    """Some rows, also of a sparse matrix: of torch's, only those in COO can be selected."""
    if not isinstance(rows, Tensor):
        return rows.index_select(dim, numbers) if hasattr(rows, "index_select") else rows
    numbers = numbers.to(rows.device)
    if rows.layout in (torch.strided, torch.sparse_coo):
        return rows.index_select(dim, numbers)
    return rows.to_sparse_coo().index_select(dim, numbers).to_sparse(layout=rows.layout)


def _called(size: Any, names: list[str]) -> str:
    return f"'{names[0]}'" if names else f"{size} nodes"


def _listed(kinds: Iterable[str]) -> str:
    return " and ".join(sorted(kinds))


def _entries(given: Any) -> Tensor:
    """Node numbers or a mask, as a tensor [M]."""
    if isinstance(given, (str, bytes, set, frozenset)) or given is None:
        raise InputError(f"{_TAKES} (got {type(given).__name__} {given!r}).")
    try:
        entries = torch.as_tensor(list(given) if isinstance(given, range) else given)
    except (TypeError, ValueError, RuntimeError, np.exceptions.DTypePromotionError) as error:
        raise InputError(f"{_TAKES} (got {type(given).__name__}).") from error
    if entries.numel() == 0 and entries.dim() == 1 and entries.dtype != torch.bool:
        return entries.long()
    if entries.dim() == 0 and entries.dtype != torch.bool:
        entries = entries.view(1)
    if entries.dim() != 1 or entries.is_floating_point() or entries.is_complex():
        raise InputError(f"{_TAKES} (got {entries.dtype} of shape {list(entries.shape)}).")
    return entries.detach()


def _numbers(entries: Tensor, count: int, key: str) -> Tensor:
    """The numbers of the nodes asked for, all of which exist."""
    if entries.dtype == torch.bool:
        if entries.numel() != count:
            raise InputError(f"nodes={key} is a mask of {entries.numel():,}, but there are {count:,} nodes.")
        return entries.nonzero().view(-1)
    numbers = entries.long()
    bad = ((numbers < 0) | (numbers >= count)).nonzero()
    if bad.numel():
        at = int(bad[0])
        valid = f"nodes are numbered 0 to {count - 1:,}" if count else "there are none"
        raise InputError(f"nodes={key} holds node {int(numbers[at])} (entry {at}), but {valid}.")
    return numbers
