"""How many entries are left where duplicates are merged: at least one, where there was one.

`GATConv` removes self-loops of a sparse matrix, adds others, and asks `if index.numel() == 0`. The number of entries
after a merge depends on the data; that it is not 0 does not.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor
from torch.fx.experimental.symbolic_shapes import statically_known_true
from torch_geometric.utils import coalesce

from pyg_fullgraph.capture.modules import replaced
from pyg_fullgraph.capture.scatter import bound_to


def some_left(before: Any, after: Any) -> None:
    """Let the trace know that of `before` entries, if there are any, `after` are left, which are not none."""
    if isinstance(after, torch.SymInt) and statically_known_true(before >= 1):
        torch._check(after >= 1)


@contextlib.contextmanager
def merging_names() -> Iterator[None]:
    """While tracing: torch_geometric's `coalesce`, wherever its name is bound, tells what it leaves."""
    with contextlib.ExitStack() as stack:
        told = _told(coalesce)
        for module, key in bound_to(coalesce):
            stack.enter_context(replaced(module, key, told))
        yield


def _told(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def merge(edge_index: Any, *args: Any, **kwargs: Any) -> Any:
        made = function(edge_index, *args, **kwargs)
        left = made[0] if isinstance(made, tuple) else made
        if isinstance(edge_index, Tensor) and isinstance(left, Tensor):
            some_left(edge_index.size(1), left.size(1))
        return made

    return merge
