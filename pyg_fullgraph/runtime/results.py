"""What a call returns: the rows of the nodes asked for, in the caller's tensor, and nothing that is kept."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from pyg_fullgraph.errors import InputError
from pyg_fullgraph.ir import Program
from pyg_fullgraph.runtime.structure import Structure


def copied(out: Tensor | None, result: Any) -> Any:
    """The result, in `out` where that is given."""
    if out is None:
        return result
    if not isinstance(result, Tensor) or result.shape != out.shape:
        got = list(result.shape) if isinstance(result, Tensor) else type(result).__name__
        raise InputError(f"out is a tensor {list(out.shape)}, but the model returns {got}.")
    return out.copy_(result)


def node_space(program: Program) -> Any:
    """The space that the outputs' rows count, if they all count the same."""
    spaces = {program[name].space for name in program.output_names()}
    return next(iter(spaces)) if len(spaces) == 1 else None


def node_numbers(nodes: Tensor, rows: int) -> Tensor:
    nodes = torch.as_tensor(nodes)
    if nodes.dtype == torch.bool:
        if nodes.numel() != rows:
            raise InputError(f"nodes is a mask of {nodes.numel()}, but the model returns {rows} rows.")
        return nodes.nonzero().view(-1)
    if nodes.dim() != 1 or nodes.dtype.is_floating_point:
        raise InputError(f"nodes must be int64 [M] or bool [N], got {nodes.dtype} {list(nodes.shape)}.")
    bad = ((nodes < 0) | (nodes >= rows)).nonzero()
    if bad.numel():
        first = int(bad[0])
        raise InputError(f"nodes[{first}] = {int(nodes[first])} does not exist: the model returns {rows} rows.")
    return nodes.long()


def rows_of(tree: Any, nodes: Tensor | None, rows: int | None) -> Any:
    """The rows `nodes` of every output tensor that has one row per node."""
    if nodes is None:
        return tree

    def pick(leaf: Any) -> Any:
        whole = isinstance(leaf, Tensor) and leaf.dim() > 0 and (rows is None or leaf.shape[0] == rows)
        return _selected(leaf, nodes.to(leaf.device)) if whole else leaf

    return torch.utils._pytree.tree_map(pick, tree)


def _selected(tensor: Tensor, rows: Tensor) -> Tensor:
    """Some rows, also of a sparse matrix: torch selects rows of COO alone."""
    if tensor.layout in (torch.strided, torch.sparse_coo):
        return tensor.index_select(0, rows)
    return tensor.to_sparse_coo().index_select(0, rows).to_sparse(layout=tensor.layout)


def not_cached(result: Any, structure: Structure, inputs: list[Tensor]) -> Any:
    """The result with copies of what is kept with the graph: callers may write into it."""
    kept = {t.untyped_storage().data_ptr() for t in structure.values.values() if isinstance(t, Tensor)}
    kept -= {t.untyped_storage().data_ptr() for t in inputs}

    def own(leaf: Any) -> Any:
        shared = isinstance(leaf, Tensor) and leaf.untyped_storage().data_ptr() in kept
        return leaf.clone() if shared else leaf

    return own(result) if isinstance(result, Tensor) else torch.utils._pytree.tree_map(own, result)
