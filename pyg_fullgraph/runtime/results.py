"""What a call returns: in the caller's tensor, and nothing that is kept. `runtime.selection` picks its rows."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from pyg_fullgraph.errors import InputError
from pyg_fullgraph.runtime.structure import Structure


def copied(out: Tensor | None, result: Any) -> Any:
    """The result, in `out` where that is given."""
    if out is None:
        return result
    if not isinstance(result, Tensor) or result.shape != out.shape:
        got = list(result.shape) if isinstance(result, Tensor) else type(result).__name__
        raise InputError(f"out is a tensor {list(out.shape)}, but the model returns {got}.")
    return out.copy_(result)


def not_cached(result: Any, structure: Structure, inputs: list[Tensor]) -> Any:
    """The result with copies of what is kept with the graph: callers may write into it."""
    kept = {t.untyped_storage().data_ptr() for t in structure.values.values() if isinstance(t, Tensor)}
    kept -= {t.untyped_storage().data_ptr() for t in inputs}

    def own(leaf: Any) -> Any:
        shared = isinstance(leaf, Tensor) and leaf.untyped_storage().data_ptr() in kept
        return leaf.clone() if shared else leaf

    return own(result) if isinstance(result, Tensor) else torch.utils._pytree.tree_map(own, result)
