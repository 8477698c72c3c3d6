"""The operators: node to edge, edge to node, and the fused forms of both.

Every operator has a definition in plain torch (`reference`), a C++ kernel of the same meaning where one is built,
and a twin under `torch.ops.pyg_fullgraph` with a fake kernel. `kernels()` tells which serves. Every argument is
checked here, row numbers too; `ops.trusted` has the same without the pass over the row numbers.
"""

from pyg_fullgraph.ops import library  # registers torch.ops.pyg_fullgraph.*
from pyg_fullgraph.ops.attention import segment_softmax
from pyg_fullgraph.ops.backend import kernels
from pyg_fullgraph.ops.checked import (
    attention,
    attention_additive,
    attention_dot,
    attention_gatv2,
    edge_dot,
    gather,
    gather_reduce,
    message,
    message_reduce,
    softmax_reduce,
)
from pyg_fullgraph.ops.gather import repeat
from pyg_fullgraph.ops.reduce import segment_reduce
from pyg_fullgraph.ops.sort import csr
from pyg_fullgraph.ops.vocabulary import reduce_by, softmax_by

__all__ = [
    "attention",
    "attention_additive",
    "attention_dot",
    "attention_gatv2",
    "csr",
    "edge_dot",
    "gather",
    "gather_reduce",
    "kernels",
    "library",
    "message",
    "message_reduce",
    "reduce_by",
    "repeat",
    "segment_reduce",
    "segment_softmax",
    "softmax_by",
    "softmax_reduce",
]
