"""The functions of torch_scatter, while a forward is traced.

torch_scatter's Python functions end in compiled operators (`torch.ops.torch_scatter.*`) that read the memory of
their tensors. Each operator has a stand-in of plain torch here, which gives the same values, also for empty groups:
0 for a maximum or minimum, whose argument is then the size of the scattered dimension. However a model came by a
function, it ends in one of these. Only `scatter_softmax` is replaced as a whole, where its name is bound: it is a
word of the vocabulary.

One thing differs: torch_scatter passes over NaN in a maximum or minimum, here it is the result.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from pyg_fullgraph.capture.modules import replaced
from pyg_fullgraph.capture.standins import row_numbers, size_in
from pyg_fullgraph.capture.watch import Replacement, Watch

_PACKAGE = "torch_scatter"


def spread(index: Tensor, src: Tensor, dim: int) -> Tensor:
    """An index of `src`'s shape, as torch_scatter broadcasts it: one dimension is that of `dim`."""
    if index.dim() == 1:
        index = index.view([1] * dim + [-1])
    index = index.view([*index.shape, *[1] * (src.dim() - index.dim())])
    return index.expand(src.shape)


def _sizes(src: Tensor, index: Tensor, dim: int, out: Tensor | None, dim_size: Any) -> list[Any]:
    """The shape of the result."""
    sizes = list(src.shape)
    if out is not None:
        sizes[dim] = out.size(dim)
    elif dim_size is not None:
        sizes[dim] = dim_size
    else:
        sizes[dim] = _rows(index)
    return sizes


def _rows(index: Tensor) -> Any:
    """The largest entry and one; 0 without any entry."""
    flat = index.reshape(-1)
    return size_in(torch.cat([flat, flat.new_full((1,), -1)]).max() + 1)


def _into(out: Tensor | None, result: Tensor) -> Tensor:
    """torch_scatter writes into `out` and returns it."""
    return result if out is None else out.copy_(result)


def _sum(src: Tensor, index: Tensor, dim: int, out: Tensor | None, dim_size: Any) -> Tensor:
    dim %= src.dim()
    base = src.new_zeros(_sizes(src, index, dim, out, dim_size)) if out is None else out
    return _into(out, base.scatter_add(dim, spread(index, src, dim), src))


def _mul(src: Tensor, index: Tensor, dim: int, out: Tensor | None, dim_size: Any) -> Tensor:
    dim %= src.dim()
    base = src.new_ones(_sizes(src, index, dim, out, dim_size)) if out is None else out
    product = base.scatter_reduce(dim, spread(index, src, dim), src, "prod")
    if out is not None:
        return out.copy_(product)
    some = torch.scalar_tensor(src.size(dim), dtype=src.dtype, device=src.device).clamp(max=1)
    return product * some  # without any entry torch_scatter gives 0, and 1 for an empty group among others


def _mean(src: Tensor, index: Tensor, dim: int, out: Tensor | None, dim_size: Any) -> Tensor:
    dim %= src.dim()
    total = _sum(src, index, dim, out, dim_size)
    count = _count(index, dim, total, src)
    if total.is_floating_point():
        return _into(out, total / count)
    return _into(out, total.div(count, rounding_mode="floor"))


def _count(index: Tensor, dim: int, like: Tensor, src: Tensor) -> Tensor:
    """How many entries each group has, at least 1, shaped to divide `like`."""
    at = min(dim, index.dim() - 1)
    sizes = list(index.shape)
    sizes[at] = like.size(dim)
    ones = torch.ones(index.shape, dtype=src.dtype, device=src.device)
    count = torch.zeros(sizes, dtype=src.dtype, device=src.device).scatter_add(at, index, ones).clamp(min=1)
    return spread(count, like, dim)


def _extremum(largest: bool) -> Callable[..., tuple[Tensor, Tensor]]:
    """`scatter_max` or `scatter_min`: the values, and where they are."""
    reduce = "amax" if largest else "amin"

    def stand_in(src: Tensor, index: Tensor, dim: int, out: Tensor | None, dim_size: Any) -> tuple[Tensor, Tensor]:
        dim %= src.dim()
        index = spread(index, src, dim)
        sizes = _sizes(src, index, dim, out, dim_size)
        if out is None:
            groups = src.new_zeros(sizes).scatter_reduce(dim, index, src, reduce, include_self=False)
            values = _without_unset(groups, largest)
            beats = torch.ones_like(src, dtype=torch.bool)
        else:
            groups = values = out.scatter_reduce(dim, index, src, reduce, include_self=True)
            before = out.gather(dim, index)
            beats = src > before if largest else src < before
        place = _first(src, index, dim, groups, beats & _settable(src, largest))
        return _into(out, values), place

    return stand_in


def _bound(dtype: torch.dtype, largest: bool) -> Any:
    """What torch_scatter starts from; it takes a group that never beats it for empty."""
    info = torch.finfo(dtype) if dtype.is_floating_point else torch.iinfo(dtype)
    return info.min if largest else info.max


def _settable(src: Tensor, largest: bool) -> Tensor:
    bound = _bound(src.dtype, largest)
    return src > bound if largest else src < bound


def _without_unset(groups: Tensor, largest: bool) -> Tensor:
    bound = _bound(groups.dtype, largest)
    return groups.masked_fill(groups <= bound if largest else groups >= bound, 0)


def _first(src: Tensor, index: Tensor, dim: int, groups: Tensor, allowed: Tensor) -> Tensor:
    """The position of the first entry of each group that has its value; the number of entries where none has."""
    entries = src.size(dim)
    # The first entry has most to its right. As real numbers: integers kept with a graph may be stored narrower.
    left = entries - torch.arange(entries, dtype=torch.float64, device=src.device)
    left = left.view([-1 if i == dim else 1 for i in range(src.dim())]).expand(src.shape)
    hit = (src == groups.gather(dim, index)) & allowed
    zeros = torch.zeros(groups.shape, dtype=torch.float64, device=src.device)
    most = zeros.scatter_reduce(dim, index, torch.where(hit, left, 0.0), "amax", include_self=False)
    return entries - most.to(torch.int64)


# Segments: groups that are contiguous ---------------------------------------------------------------------------


def _segment_coo(reduce: str) -> Callable[..., Any]:
    def stand_in(src: Tensor, index: Tensor, out: Tensor | None = None, dim_size: Any = None) -> Any:
        if out is not None:  # on a CPU it starts the first segment from row 0 of `out`, whichever row that is
            raise NotImplementedError("segment_coo(out=...)")
        dim = index.dim() - 1
        return _BY_NAME[reduce](src, index.expand(src.shape[: index.dim()]), dim, None, dim_size)

    return stand_in


def _segment_csr(reduce: str) -> Callable[..., Any]:
    def stand_in(src: Tensor, indptr: Tensor, out: Tensor | None = None) -> Any:
        dim = indptr.dim() - 1
        rows = _bounds(indptr, "segment_csr")
        result = _segments(src.movedim(dim, 0), rows, reduce)
        values = (result[0] if isinstance(result, tuple) else result).movedim(0, dim)
        if out is not None:  # without any entry it is left as it was
            some = torch.scalar_tensor(src.size(dim), device=src.device) > 0
            values = out.copy_(torch.where(some, values, out))
        return (values, result[1].movedim(0, dim)) if isinstance(result, tuple) else values

    return stand_in


def _bounds(indptr: Tensor, function: str) -> Tensor:
    if any(size != 1 for size in indptr.shape[:-1]):
        raise NotImplementedError(f"{function} with different segments along leading dimensions")
    return indptr.reshape(-1)


def _segments(src: Tensor, bounds: Tensor, reduce: str) -> Any:
    """Contiguous rows of `src` combined; those before the first and after the last bound belong to none."""
    rows = bounds.size(0) - 1
    index = row_numbers(bounds, src.size(0)).clamp(max=rows - 1)
    positions = torch.arange(src.size(0), device=src.device)
    inside = ((positions >= bounds[0]) & (positions < bounds[-1])).view([-1] + [1] * (src.dim() - 1))
    neutral = 0 if reduce in ("sum", "mean") else _bound(src.dtype, reduce == "max")
    kept = torch.where(inside, src, torch.full((), neutral, dtype=src.dtype, device=src.device))
    if reduce != "mean":
        return _BY_NAME[reduce](kept, index, 0, None, rows)
    count = bounds.diff().clamp(min=1).to(src.dtype)
    total = _sum(kept, index, 0, None, rows)
    count = spread(count, total, 0)
    return total / count if total.is_floating_point() else total.div(count, rounding_mode="trunc")


def _gather_coo(src: Tensor, index: Tensor, out: Tensor | None = None) -> Tensor:
    dim = index.dim() - 1
    if index.dim() == 1:
        return _into(out, src.index_select(0, index))
    sizes = [*src.shape[:dim], index.size(dim), *src.shape[dim + 1 :]]
    index = index.view([*index.shape, *[1] * (src.dim() - index.dim())]).expand(sizes)
    return _into(out, src.gather(dim, index))


def _gather_csr(src: Tensor, indptr: Tensor, out: Tensor | None = None) -> Tensor:
    dim, bounds = indptr.dim() - 1, _bounds(indptr, "gather_csr")
    entries = size_in(bounds[-1]) if out is None else out.size(dim)
    return _into(out, src.index_select(dim, row_numbers(bounds, entries).clamp(max=src.size(dim) - 1)))


_BY_NAME: dict[str, Callable[..., Any]] = {
    "sum": _sum,
    "mul": _mul,
    "mean": _mean,
    "max": _extremum(largest=True),
    "min": _extremum(largest=False),
}
_OPERATORS: dict[str, Callable[..., Any]] = {
    **{f"scatter_{name}": function for name, function in _BY_NAME.items()},
    **{f"segment_{name}_coo": _segment_coo(name) for name in ("sum", "mean", "max", "min")},
    **{f"segment_{name}_csr": _segment_csr(name) for name in ("sum", "mean", "max", "min")},
    "gather_coo": _gather_coo,
    "gather_csr": _gather_csr,
}


def _operator(watch: Watch, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Any operator of torch_scatter, by its name."""
    name = (
        func._qualified_op_name.split("::")[1].split(".")[0] if hasattr(func, "_qualified_op_name") else func.__name__
    )
    stand_in = _OPERATORS.get(name)
    if stand_in is None:
        watch.refuse(f"the operator '{_PACKAGE}::{name}'", "has no symbolic form", "Use scatter or segment_csr.")
    return stand_in(*args, **kwargs)


SCATTER: dict[Any, Replacement] = {_PACKAGE: _operator}


# Names ----------------------------------------------------------------------------------------------------------


def _softmax(original: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """`scatter_softmax` as one word; the original where every column has an index of its own."""

    def scatter_softmax(src: Tensor, index: Tensor, dim: int = -1, dim_size: Any = None) -> Tensor:
        if index.dim() != 1 or not src.is_floating_point():
            return original(src, index, dim, dim_size)
        rows = _rows(index) if dim_size is None else dim_size
        first = src.movedim(dim, 0)
        return torch.ops.pyg_fullgraph.softmax_by(first, index, rows).movedim(0, dim)

    return scatter_softmax


@contextlib.contextmanager
def scatter_names() -> Iterator[None]:
    """While tracing: symbolic `int` in torch_scatter's modules, and `scatter_softmax` as one operator wherever its
    name is bound.
    """
    package = sys.modules.get(_PACKAGE)
    original = getattr(package, "scatter_softmax", None)
    with contextlib.ExitStack() as stack:
        for name, module in list(sys.modules.items()):
            if name.startswith(f"{_PACKAGE}."):
                stack.enter_context(_builtin_int(module))
        if original is not None:
            one = _softmax(original)
            for module, key in bound_to(original):
                stack.enter_context(replaced(module, key, one))
        yield


@contextlib.contextmanager
def _builtin_int(module: ModuleType) -> Iterator[None]:
    vars(module)["int"] = size_in  # all that it is used for there
    try:
        yield
    finally:
        vars(module).pop("int", None)


def bound_to(function: Any) -> list[tuple[ModuleType, str]]:
    """The global names of loaded modules that stand for `function`."""
    found = []
    for name, module in list(sys.modules.items()):
        if module is None or name.split(".")[0] in ("torch", "numpy", "sympy") or not isinstance(module, ModuleType):
            continue
        found += [(module, key) for key, value in list(vars(module).items()) if value is function]
    return found
