"""The operators as users call them: row numbers are checked before a kernel believes them.

The functions of the same names in `ops.trusted` are those of compiled programs and of graphs, whose row numbers were
checked once.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

import torch
from torch import Tensor

from pyg_fullgraph.ops import trusted
from pyg_fullgraph.ops.backend import INDICES, PLAIN
from pyg_fullgraph.ops.check import fail

P = ParamSpec("P")
R = TypeVar("R")


def checked(operator: Callable[P, R]) -> Callable[P, R]:
    """The operator after a check that its second argument numbers rows of its first (one pass over the edges)."""
    table_name, index_name = list(inspect.signature(operator).parameters)[:2]

    @functools.wraps(operator)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        table: Any = args[0] if args else kwargs.get(table_name)
        index: Any = args[1] if len(args) > 1 else kwargs.get(index_name)
        if type(index) in PLAIN and type(table) in PLAIN and not torch.compiler.is_compiling():
            _check_range(operator.__name__, table_name, table, index_name, index)
        return operator(*args, **kwargs)

    return call


def _check_range(operator: str, table_name: str, table: Tensor, name: str, index: Tensor) -> None:
    """Check that every number is one of a row; what is no such tensor is left to the operator's own checks."""
    if index.dtype not in INDICES or index.dim() != 1 or index.layout is not torch.strided or table.dim() == 0:
        return
    if index.numel() == 0 or "meta" in (index.device.type, table.device.type):
        return
    low, high = (int(value) for value in torch.aminmax(index))
    rows = table.shape[0]
    if low < 0 or high >= rows:
        entry = int(((index < 0) | (index >= rows)).nonzero()[0])
        valid = f"row numbers of `{table_name}`, 0 to {rows - 1:,}" if rows else f"empty, as `{table_name}` has no rows"
        fail(operator, f"{name}[{entry}]", int(index[entry]), valid)


gather = checked(trusted.gather)
gather_reduce = checked(trusted.gather_reduce)
attention = checked(trusted.attention)
attention_additive = checked(trusted.attention_additive)
attention_gatv2 = checked(trusted.attention_gatv2)
attention_dot = checked(trusted.attention_dot)
edge_dot = checked(trusted.edge_dot)
message = checked(trusted.message)
message_reduce = checked(trusted.message_reduce)
softmax_reduce = checked(trusted.softmax_reduce)
