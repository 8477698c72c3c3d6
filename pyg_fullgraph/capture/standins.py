"""Functions of torch that refuse symbolic numbers or sizes, in a form that takes them and gives the same.

Each is called in place of the function while a forward is traced (`capture.watch`).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from pyg_fullgraph.capture.watch import Replacement, Watch


def _row_by_number(watch: Watch, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """`x[n]` with a symbolic number, which torch does not take: the same row by a tensor of one number."""
    x, index = args
    items = index if isinstance(index, tuple) else (index,)
    numbers = [i for i, item in enumerate(items) if isinstance(item, torch.SymInt)]
    if not numbers or any(isinstance(item, (Tensor, list)) or item is ... for item in items):
        return func(*args, **kwargs)
    if numbers != list(range(numbers[0], numbers[-1] + 1)):
        return func(*args, **kwargs)
    rows = [torch.scalar_tensor(items[i], dtype=torch.long, device=x.device).view(1) for i in numbers]
    picked = func(x, (*items[: numbers[0]], *rows, *items[numbers[-1] + 1 :]))
    before = sum(not isinstance(item, int) for item in items[: numbers[0]])  # a plain number takes a dimension away
    return picked.select(before, 0)


def _tensor_of_numbers(watch: Watch, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
    """`torch.tensor(n)` and `torch.tensor([n, m])` of symbolic numbers, which torch makes of plain ones only."""
    symbolic = (torch.SymInt, torch.SymFloat, torch.SymBool)
    numbers: Any = args[0] if args else kwargs.get("data")
    listed = isinstance(numbers, (list, tuple))
    items = list(numbers) if listed else [numbers]
    if not any(isinstance(item, symbolic) for item in items) or len(args) != 1:
        return func(*args, **kwargs)
    real = any(isinstance(item, (float, torch.SymFloat)) for item in items)
    dtype = kwargs.get("dtype") or (torch.get_default_dtype() if real else torch.long)
    made = [torch.scalar_tensor(item, dtype=dtype, device=kwargs.get("device")) for item in items]
    return torch.stack(made) if listed else made[0]


def _one_hot(watch: Watch, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
    """`one_hot(index, n)`, which looks at the values to check them."""
    index, classes = args[0], args[1] if len(args) > 1 else kwargs.get("num_classes", -1)
    if isinstance(classes, int) and classes < 0:
        classes = size_in(index.max()) + 1
    zeros = torch.zeros([*index.shape, classes], dtype=index.dtype, device=index.device)
    return zeros.scatter(-1, index.unsqueeze(-1), 1)


def _take_along_dim(watch: Watch, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """`take_along_dim(x, index, dim)`, which asks whether sizes are equal before it broadcasts them."""
    bound: dict[str, Any] = dict(zip(("input", "indices", "dim"), args, strict=False)) | kwargs
    x: Any = bound.get("input", bound.get("self"))
    index, dim = bound["indices"], bound.get("dim")
    if dim is None or x.dim() != index.dim() or any(size != 1 for size in _fixed(index, dim)):
        return func(*args, **kwargs)
    dim %= x.dim()
    return x.gather(dim, index.expand([-1 if i == dim else size for i, size in enumerate(x.shape)]))


def _fixed(index: Tensor, dim: int) -> list[int]:
    """The sizes of all dimensions but one; -1 for a symbolic one."""
    sizes = [size if isinstance(size, int) else -1 for size in index.shape]
    del sizes[dim]
    return sizes


def _cdist(watch: Watch, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
    """`cdist`, whose method depends on the number of rows."""
    names = ("x1", "x2", "p", "compute_mode")
    bound: dict[str, Any] = dict(zip(names, args, strict=False)) | kwargs
    mode = bound.get("compute_mode") or "use_mm_for_euclid_dist_if_necessary"
    return torch.ops.pyg_fullgraph.cdist(bound["x1"], bound["x2"], float(bound.get("p", 2.0)), mode)


@torch.library.custom_op("pyg_fullgraph::cdist", mutates_args=())
def cdist(x1: Tensor, x2: Tensor, p: float, compute_mode: str) -> Tensor:
    """`torch.cdist` as one operator: all pairs of rows."""
    return torch.cdist(x1, x2, p, compute_mode)


@cdist.register_fake
def _(x1: Tensor, x2: Tensor, p: float, compute_mode: str) -> Tensor:
    return x1.new_empty([*x1.shape[:-1], x2.shape[-2]])


def _pointers(watch: Watch, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
    """Sorted row numbers as row pointers: where each row starts."""
    bound: dict[str, Any] = dict(zip(("input", "size"), args, strict=False)) | kwargs
    return pointers(bound["input"], bound["size"], torch.int32 if kwargs.get("out_int32") else torch.int64)


def pointers(index: Tensor, size: Any, dtype: torch.dtype = torch.int64) -> Tensor:
    """Row pointers `[size + 1]` of the row numbers `index`, in any order."""
    count = torch.zeros([size], dtype=torch.int64, device=index.device).index_add(
        0, index, torch.ones(index.shape, dtype=torch.int64, device=index.device)
    )
    return torch.cat([count.new_zeros(1), count.cumsum(0)]).to(dtype)


def _row_numbers(watch: Watch, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Row pointers as the row number of every entry."""
    bound: dict[str, Any] = dict(zip(("crow_indices", "col_indices"), args, strict=False)) | kwargs
    row = row_numbers(bound["crow_indices"], bound["col_indices"].size(0))
    stacked = [bound["col_indices"], row] if kwargs.get("transpose") else [row, bound["col_indices"]]
    return torch.stack(stacked).to(torch.int32 if kwargs.get("out_int32") else torch.int64)


def size_in(number: Any) -> Any:
    """The size that a tensor holds, or a number as it is."""
    value = number.item() if isinstance(number, Tensor) else number
    if isinstance(value, torch.SymInt):
        torch._check(value >= 0)
    return value


def row_numbers(pointers: Tensor, entries: Any) -> Tensor:
    """The row `[entries]` that each entry is in."""
    positions = torch.arange(entries, device=pointers.device)
    return torch.searchsorted(pointers[1:].long(), positions, right=True)


STAND_INS: dict[Any, Replacement] = {
    torch.tensor: _tensor_of_numbers,
    Tensor.__getitem__: _row_by_number,
    torch.nn.functional.one_hot: _one_hot,
    torch.take_along_dim: _take_along_dim,
    Tensor.take_along_dim: _take_along_dim,
    torch.cdist: _cdist,
    torch._convert_indices_from_coo_to_csr: _pointers,
    torch._convert_indices_from_csr_to_coo: _row_numbers,
}
