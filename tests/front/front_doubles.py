"""A stand-in for the engine: it runs the model itself, and remembers how it was built and called."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.utils import _pytree as pytree
from torch_geometric.data import Data

from pyg_fullgraph.capture.signature import bind
from pyg_fullgraph.errors import CaptureError
from pyg_fullgraph.front.attempts import Verification
from pyg_fullgraph.front.calls import holds_matrix
from pyg_fullgraph.front.verify import Inputs, verify

NUM_NODES, NUM_EDGES, COLUMNS = 40, 150, 6


def make_data(*, seed: int = 0, weights: bool = False) -> Data:
    """A random graph with duplicates and self-loops, and features."""
    generator = torch.Generator().manual_seed(seed)
    data = Data(
        x=torch.randn(NUM_NODES, COLUMNS, generator=generator),
        edge_index=torch.randint(0, NUM_NODES, (2, NUM_EDGES), generator=generator),
    )
    if weights:
        data.edge_weight = torch.rand(NUM_EDGES, generator=generator) + 0.5
    return data


class EagerEngine:
    """Runs the model's forward under no_grad; `wrong` adds an error to one element of every result."""

    built: ClassVar[list[EagerEngine]] = []
    wrong: ClassVar[float] = 0.0
    has_global_reduction: ClassVar[bool] = False

    def __init__(self, model: torch.nn.Module, **options: Any) -> None:
        self.model = model
        self.options = options
        self.calls: list[tuple[tuple[Any, ...], dict[str, Any]]] = []
        self.verify = "auto"
        self.verification: Verification | None = None
        self.notes: list[str] = []
        type(self).built.append(self)

    def __call__(self, *args: Any, nodes: Any = None, progress: bool = False, **kwargs: Any) -> Any:
        self.calls.append((args, {"nodes": nodes, "progress": progress, **kwargs}))
        result = self.run(*args, **kwargs)
        if nodes is not None:
            entries = nodes.entries
            result = pytree.tree_map_only(Tensor, lambda tensor: tensor[entries], result)
            nodes = entries.nonzero().view(-1) if entries.dtype == torch.bool else entries
        if self.verify == "always" or (self.verify == "auto" and self.verification is None):
            signature, tensors = bind(self.model, args, kwargs)
            self.verification = verify(
                Inputs(tensors, [leaf.dims for leaf in signature.leaves], signature.call),
                result,
                forward=self.model,
                engine=self.run,
                hops=None,
                global_reduction=self.has_global_reduction,
                nodes=nodes,
                name=type(self.model).__name__,
            )
        return result

    def run(self, *args: Any, **kwargs: Any) -> Any:
        """The model's forward, right or wrong."""
        with torch.no_grad():
            result = self.model(*args, **kwargs)
        if self.wrong:
            result = result.clone()
            result[:, 0] += self.wrong
        return result


class NoMatrices(EagerEngine):
    """An engine that captures no forward on a sparse matrix."""

    def run(self, *args: Any, **kwargs: Any) -> Any:
        if holds_matrix([*args, *kwargs.values()]):
            raise CaptureError("no matrices here")
        return super().run(*args, **kwargs)
