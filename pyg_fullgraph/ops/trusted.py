"""The operators as compiled programs and graphs call them: row numbers, checked once per graph, are believed.

A number out of range reads foreign memory. For a call of your own there is `pyg_fullgraph.ops`, which checks them.
"""

from pyg_fullgraph.ops.attention import (
    attention,
    attention_additive,
    attention_dot,
    attention_gatv2,
    edge_dot,
    segment_softmax,
)
from pyg_fullgraph.ops.gather import gather, repeat
from pyg_fullgraph.ops.message import message, message_reduce, softmax_reduce
from pyg_fullgraph.ops.reduce import gather_reduce, segment_reduce
from pyg_fullgraph.ops.sort import csr

__all__ = [
    "attention",
    "attention_additive",
    "attention_dot",
    "attention_gatv2",
    "csr",
    "edge_dot",
    "gather",
    "gather_reduce",
    "message",
    "message_reduce",
    "repeat",
    "segment_reduce",
    "segment_softmax",
    "softmax_reduce",
]
