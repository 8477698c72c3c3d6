"""Operators that stand for what ATen cannot express: registered ones, and handles to whole modules.

`pyg_fullgraph::typed_linear` is row-wise (in `x` and `type_vec`); `OpaqueAggregation` combines the rows of
each group.
"""

from __future__ import annotations

import inspect
from typing import Any

import torch
from torch import Tensor


@torch.library.custom_op("pyg_fullgraph::typed_linear", mutates_args=())
def typed_linear(x: Tensor, weight: Tensor, bias: Tensor | None, type_vec: Tensor) -> Tensor:
    """Every row by the weight of its type: `out[r] = x[r] @ weight[type_vec[r]] + bias[type_vec[r]]`.

    Args:
        x: `[R, F_in]`, or with more dimensions in front, `[R, H, F_in]`.
        weight: `[T, F_in, F_out]`.
        bias: `[T, F_out]` or None.
        type_vec: `[R]` (`[R, H]`), integers in `[0, T)`.

    Returns:
        `[R, F_out]` (`[R, H, F_out]`). The operator is that of `torch_geometric.nn.HeteroLinear`, for types in any
        order. Rows of one type are multiplied as one matrix.
    """
    out = x.new_empty(*x.shape[:-1], weight.size(-1))
    if type_vec.numel() == 0:
        return out
    columns = type_vec.flatten(1).unbind(1) if type_vec.dim() > 1 else (type_vec,)
    rows = x.flatten(1, -2).unbind(1) if type_vec.dim() > 1 else (x,)
    into = out.view(x.size(0), -1, out.size(-1)).unbind(1)
    for part, kinds, target in zip(rows, columns, into, strict=True):
        _linear_by_type(part, weight, bias, kinds, target)
    return out


def _linear_by_type(x: Tensor, weight: Tensor, bias: Tensor | None, kinds: Tensor, out: Tensor) -> None:
    """`typed_linear` of `x` `[R, F_in]` into `out` `[R, F_out]`."""
    low, high = (int(kind) for kind in kinds.aminmax())
    if low == high:
        torch.mm(x, weight[low], out=out) if bias is None else torch.addmm(bias[low], x, weight[low], out=out)
        return
    ends = torch.bincount(kinds - low, minlength=high - low + 1).cumsum(0).tolist()
    order = None if bool((kinds[1:] >= kinds[:-1]).all()) else torch.argsort(kinds, stable=True)
    rows = x if order is None else x.index_select(0, order)
    made = out if order is None else rows.new_empty(rows.size(0), out.size(-1))
    for kind, (start, stop) in enumerate(zip([0, *ends], ends), start=low):
        if start == stop:
            continue
        part = made[start:stop]
        if bias is None:
            torch.mm(rows[start:stop], weight[kind], out=part)
        else:
            torch.addmm(bias[kind], rows[start:stop], weight[kind], out=part)
    if order is not None:
        out.index_copy_(0, order, made)


@typed_linear.register_fake
def _(x: Tensor, weight: Tensor, bias: Tensor | None, type_vec: Tensor) -> Tensor:
    return x.new_empty(*x.shape[:-1], weight.size(-1))


def linear_by_type(x: Tensor, weight: Tensor, bias: Tensor | None, type_vec: Tensor) -> Tensor:
    """`typed_linear` as a forward calls it: under autocast in the type that products have there, as they have it."""
    kind = x.device.type
    if torch.is_autocast_enabled(kind):
        low = torch.get_autocast_dtype(kind)
        x, weight = x.to(low), weight.to(low)
        bias = None if bias is None else bias.to(low)
    return torch.ops.pyg_fullgraph.typed_linear(x, weight, bias, type_vec)


#: Aggregations of which each group can be computed by itself.
_BY_GROUP = (
    "QuantileAggregation",
    "LSTMAggregation",
    "GRUAggregation",
    "SortAggregation",
    "MLPAggregation",
    "LCMAggregation",
    "SetTransformerAggregation",
    "PatchTransformerAggregation",
    "GraphMultisetTransformer",
)


class OpaqueAggregation:
    """A torch_geometric `Aggregation` that is called as it is: the target of one fx `call_function` node.

    `handle(x, index, dim_size, dim, max_num_elements) -> [.., dim_size, ..]` runs the module's own forward;
    its parameters are read at the call, so they are live. Whole groups must be passed: the rows of one group
    in one call.

    Args:
        module: the aggregation.
        name: its qualified name in the model.
    """

    def __init__(self, module: torch.nn.Module, name: str) -> None:
        self.module = module
        self.name = name
        self.__name__ = f"aggregate_{type(module).__name__}"

    @property
    def padding(self) -> int | None:
        """How many elements beyond the largest group of the whole graph the module pads every group to, if it does.

        The result may then depend on the size of the *largest* group, so calls on parts of a graph must pass it. None
        for a module that does not pad.
        """
        if "max_num_elements" not in inspect.signature(self.module.forward).parameters:
            return None
        return 1 if type(self.module).__name__ == "PatchTransformerAggregation" else 0

    @property
    def is_by_group(self) -> bool:
        """True where the rows of a group (and the largest group's size) determine its result."""
        return any(cls.__name__ in _BY_GROUP for cls in type(self.module).__mro__)

    @property
    def needs_sorted_index(self) -> bool:
        """True where the module refuses an `index` that is not in ascending order."""
        return type(self.module).__name__ not in ("MedianAggregation", "QuantileAggregation", "Set2Set")

    def __call__(
        self, x: Tensor, index: Tensor, dim_size: int, dim: int = -2, max_num_elements: int | None = None
    ) -> Tensor:
        extra: dict[str, Any] = {} if max_num_elements is None else {"max_num_elements": max_num_elements}
        return self.module(x, index=index, dim_size=dim_size, dim=dim, **extra)

    def __repr__(self) -> str:
        return f"OpaqueAggregation({self.name}: {self.module})"
