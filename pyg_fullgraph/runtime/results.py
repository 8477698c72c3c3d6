"""What a call returns: in the caller's tensor, and nothing that is kept. `runtime.selection` picks its rows."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from pyg_fullgraph.errors import InputError
from pyg_fullgraph.ir import Program
from pyg_fullgraph.runtime.structure import Structure


def copied(out: Tensor | None, result: Any) -> Any:
    """The result, in `out` where that is given.

    Raises:
        InputError: `out` has another shape, or a type that cannot hold the result.
    """
    if out is None:
        return result
    check_type(out, result.dtype if isinstance(result, Tensor) else None)
    if not isinstance(result, Tensor) or result.shape != out.shape:
        got = list(result.shape) if isinstance(result, Tensor) else type(result).__name__
        raise InputError(f"out= is a tensor {list(out.shape)}, but the model returns {got}.")
    return out.copy_(result)


def check_out(out: Any, program: Program) -> None:
    """Check, before any work, that `out` can take what a program returns.

    Raises:
        InputError: it cannot.
    """
    names = program.output_names()
    if out is not None:
        check_type(out, program[names[0]].dtype if len(names) == 1 else None)


def check_type(out: Any, dtype: torch.dtype | None) -> None:
    """Check that `out` is a tensor that keeps values of a type: floats may be rounded to floats, nothing else."""
    if not isinstance(out, Tensor):
        raise InputError(f"out= must be a tensor (got {type(out).__name__}).")
    if out.layout is not torch.strided or out.is_meta:
        raise InputError(f"out= must be a dense tensor that holds values (got {out.layout}, on {out.device}).")
    if dtype is None or holds(out.dtype, dtype):
        return
    given, wanted = (str(each).removeprefix("torch.") for each in (out.dtype, dtype))
    raise InputError(f"out= is {given}, which cannot hold the result, {wanted}. Pass a tensor of dtype torch.{wanted}.")


def holds(target: torch.dtype, dtype: torch.dtype) -> bool:
    """Whether values of `dtype` fit into `target`, but for the rounding of floats."""
    if dtype.is_floating_point or dtype.is_complex:
        return torch.can_cast(dtype, target)
    return torch.promote_types(dtype, target) == target


def not_cached(result: Any, structure: Structure, inputs: list[Tensor]) -> Any:
    """The result with copies of what is kept with the graph: callers may write into it."""
    kept = {t.untyped_storage().data_ptr() for t in structure.values.values() if isinstance(t, Tensor)}
    kept -= {t.untyped_storage().data_ptr() for t in inputs}

    def own(leaf: Any) -> Any:
        shared = isinstance(leaf, Tensor) and leaf.untyped_storage().data_ptr() in kept
        return leaf.clone() if shared else leaf

    return own(result) if isinstance(result, Tensor) else torch.utils._pytree.tree_map(own, result)
