"""Operators that stand for what ATen cannot express: registered ones, and handles to whole modules.

`pyg_fullgraph::typed_linear` is row-wise (in `x` and `type_vec`); `OpaqueAggregation` combines the rows of
each group.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


@torch.library.custom_op("pyg_fullgraph::typed_linear", mutates_args=())
def typed_linear(x: Tensor, weight: Tensor, bias: Tensor | None, type_vec: Tensor) -> Tensor:
    """Every row by the weight of its type: `out[r] = x[r] @ weight[type_vec[r]] + bias[type_vec[r]]`.

    Args:
        x: `[R, F_in]`.
        weight: `[T, F_in, F_out]`.
        bias: `[T, F_out]` or None.
        type_vec: `[R]`, integers in `[0, T)`.

    Returns:
        `[R, F_out]`. The operator is that of `torch_geometric.nn.HeteroLinear`, for types in any order.
    """
    out = x.new_empty(x.size(0), weight.size(-1))
    for kind in range(weight.size(0)):
        rows = (type_vec == kind).nonzero().view(-1)
        if rows.numel() > 0:
            part = x.index_select(0, rows) @ weight[kind]
            out.index_copy_(0, rows, part if bias is None else part + bias[kind])
    return out


@typed_linear.register_fake
def _(x: Tensor, weight: Tensor, bias: Tensor | None, type_vec: Tensor) -> Tensor:
    return x.new_empty(x.size(0), weight.size(-1))


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
    def needs_max_num_elements(self) -> bool:
        """True where the result of a group depends on the size of the *largest* group of the call.

        The module pads to it: calls on parts of a graph must pass the largest group of the whole graph.
        """
        return "LSTM" in type(self.module).__name__

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
