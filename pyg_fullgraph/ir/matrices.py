"""Sparse matrices among the outputs of a program: dictionaries of their parts, with an entry that says so.

{MATRIX: layout, "indices": [one per sparse dimension, or the uncompressed one], "value": ..., "size": [...], ...}
"""

from __future__ import annotations

from typing import Any

MATRIX = "a sparse matrix of the forward"  # -> "coo", "csr", "csc" or "SparseTensor"


def is_apart(item: Any) -> bool:
    """Whether this dictionary stands for a matrix."""
    return isinstance(item, dict) and MATRIX in item


def matrices_in(outputs: Any) -> list[dict[str, Any]]:
    """All matrices in a tree of outputs."""
    if is_apart(outputs):
        return [outputs]
    if isinstance(outputs, dict):
        outputs = list(outputs.values())
    return [found for item in outputs for found in matrices_in(item)] if isinstance(outputs, (list, tuple)) else []


def numbered_by(matrix: dict[str, Any]) -> list[tuple[Any, Any]]:
    """Every index of a matrix, with the size that its entries must be below."""
    sizes = {"csr": matrix["size"][1:], "csc": matrix["size"]}.get(matrix[MATRIX], matrix["size"])
    return list(zip(matrix["indices"], sizes, strict=False))


__all__ = ["MATRIX", "is_apart", "matrices_in", "numbered_by"]
