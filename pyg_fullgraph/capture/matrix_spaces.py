"""What the axes of a sparse matrix's parts count: its entries, its rows and its columns."""

from __future__ import annotations

from collections.abc import Mapping

from pyg_fullgraph.capture.arguments import Found, Path
from pyg_fullgraph.capture.spaces import Dims, type_key


def matrix_dims(found: Found, hints: Mapping[str, Dims]) -> dict[str, Dims]:
    """Dimensions by leaf name of the parts of all matrices.

    Rows and columns of equal number are one space, also those of several matrices: `N` where a matrix is square, else
    what a dictionary of other arguments calls that many rows, else a space with the matrix's name.

    Args:
        found: the tensors of a call.
        hints: dimensions by leaf name of an earlier call, kept where they still fit.
    """
    names, dims = found.names(), dict[str, Dims]()
    sizes: dict[str, int] = {}  # of the spaces of an earlier call that fit
    spaces = _typed(found)
    for matrix in found.matrices:
        for leaf in matrix.counters:
            hint, size = hints.get(names[leaf], ()), int(found.tensors[leaf].size(0))
            if len(hint) == 1 and isinstance(hint[0], str) and sizes.setdefault(hint[0], size) == size:
                dims[names[leaf]] = hint
    for matrix in sorted(found.matrices, key=lambda item: len({found.tensors[n].size(0) for n in item.counters})):
        label = _label(matrix.path)
        for leaf, side in zip(matrix.counters, ("rows", "columns", *map(str, range(2, 9))), strict=False):
            size = int(found.tensors[leaf].size(0))
            square = len({found.tensors[n].size(0) for n in matrix.counters}) == 1
            name = "N" if square and "N" not in spaces.values() else f"N:{label}:{side}"
            dims.setdefault(names[leaf], (spaces.setdefault(size, name),))
        first, *rest = matrix.indices
        bounds = matrix.compressed
        dims[names[first]] = (f"P:{label}",) if bounds else (f"E:{label}",)
        for leaf in rest:
            dims[names[leaf]] = (f"E:{label}",)
        if matrix.value is not None:
            dims[names[matrix.value]] = (f"E:{label}", *map(int, found.tensors[matrix.value].shape[1:]))
    return dims


def _typed(found: Found) -> dict[int, str]:
    """Numbers of rows that dictionaries by node type have, where they are all different."""
    spaces: dict[int, str] = {}
    for path, tensor in zip(found.paths, found.tensors, strict=True):
        key = type_key(path)
        if isinstance(key, str) and tensor.dim() and tensor.is_floating_point():
            size, name = int(tensor.size(0)), f"N:{key}"
            if spaces.setdefault(size, name) != name:
                return {}
    return spaces


def _label(path: Path) -> str:
    return "_".join("__".join(part) if isinstance(part, tuple) else str(part) for part in path).replace(".", "_")
