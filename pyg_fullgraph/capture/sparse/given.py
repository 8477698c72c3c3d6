"""Stand-ins for the sparse matrices that a traced forward is given, as arguments or in the attributes of modules."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pyg_fullgraph.capture.matrices import Kind, Make
from pyg_fullgraph.capture.sparse.matrix import Matrix
from pyg_fullgraph.capture.sparse.sparse_tensor import SparseMatrix
from pyg_fullgraph.capture.standins import row_numbers
from pyg_fullgraph.capture.watch import Watch


def stand_ins(watch: Watch) -> Make:
    """What makes the stand-in of a trace from the fake tensors of a matrix."""

    def make(kind: Kind, tensors: Sequence[Any], size: Sequence[Any]) -> Any:
        indices, value = tuple(tensors[: kind.dims]), tensors[kind.dims] if kind.valued else None
        if kind.layout == "SparseTensor":
            return SparseMatrix(watch, indices[0], indices[1], value, (size[0], size[1]), ordered=True)
        assert value is not None
        if kind.layout == "coo":
            return Matrix(watch, "coo", indices, value, (*size, *kind.tail), coalesced=kind.coalesced)
        bounds, other = indices
        own = row_numbers(bounds, other.size(0))
        entries = (own, other) if kind.layout == "csr" else (other, own)
        return Matrix(watch, kind.layout, entries, value, (*size, *kind.tail), coalesced=True, compressed=bounds)

    return make
