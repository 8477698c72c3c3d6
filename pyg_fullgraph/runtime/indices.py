"""Every index is in range before any work is done: the kernels believe what they are given."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from pyg_fullgraph.capture.signature import Signature
from pyg_fullgraph.errors import GraphError
from pyg_fullgraph.graph.validate import check_endpoints, in_range
from pyg_fullgraph.ir import Program, Stage
from pyg_fullgraph.ir.fused import FUSED
from pyg_fullgraph.runtime.structure import Structure


def check_indices(signature: Signature, tensors: list[Tensor]) -> None:
    """Every edge index must name existing nodes; checked before any work."""
    sizes = signature.sizes(tensors)
    for leaf, tensor in zip(signature.leaves, tensors, strict=True):
        if (
            leaf.value_class != "int"
            or len(leaf.dims) != 2
            or leaf.dims[0] != 2
            or not str(leaf.dims[1]).startswith("E")
        ):
            continue
        num_src, num_dst = _endpoints(str(leaf.dims[1]), sizes)
        if num_src is not None and num_dst is not None:
            check_endpoints(tensor[0], tensor[1], num_src, num_dst, name=leaf.name)


def check_gathers(program: Program, structure: Structure) -> None:
    """The kernels believe their indices, so every index must be in range, also those that no edge list holds."""
    seen: set[tuple[str, Any]] = set()
    for value in program:
        if value.op != "gather" and value.op not in FUSED:
            continue
        table, index = value.args[:2]
        if index is None or program[index.name].stage is not Stage.STRUCT:
            continue
        space = program[table.name].space
        if space is None or (index.name, space) in seen or not _is_structure(program, structure, space):
            continue
        seen.add((index.name, space))
        rows, numbers = int(structure.size_of(space)), structure.value(index.name)
        if not in_range(numbers, rows):
            edge = int(((numbers < 0) | (numbers >= rows)).nonzero()[0])
            raise GraphError(
                f"Index {int(numbers[edge])} (entry {edge}) is read at {value.where or value.name}, but there are "
                f"{rows:,} rows, numbered from 0."
            )


def _is_structure(program: Program, structure: Structure, space: Any) -> bool:
    """Whether a size is known before the values of the data are."""
    unknown = [symbol for symbol in space.free_symbols if symbol not in structure.sizes]
    return all(program[program.definers[symbol]].stage is Stage.STRUCT for symbol in unknown)


def _endpoints(space: str, sizes: dict[str, int]) -> tuple[int | None, int | None]:
    parts = space.removeprefix("E:").split("__")
    if space.startswith("E:") and len(parts) == 3:
        return sizes.get(f"N:{parts[0]}"), sizes.get(f"N:{parts[2]}")
    if "N" in sizes:
        return sizes["N"], sizes["N"]
    return sizes.get("N:src"), sizes.get("N:dst")
