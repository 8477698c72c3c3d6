"""From a model to a graph of functional operators over symbolic sizes."""

from pyg_fullgraph.capture.operators import OpaqueAggregation
from pyg_fullgraph.capture.signature import Leaf, Signature, bind
from pyg_fullgraph.capture.state import module_fingerprint
from pyg_fullgraph.capture.trace import Traced, trace

__all__ = [
    "Leaf",
    "OpaqueAggregation",
    "Signature",
    "Traced",
    "bind",
    "module_fingerprint",
    "trace",
]
