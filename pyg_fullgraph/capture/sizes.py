"""Integer arguments that are sizes of the graph (`num_nodes=`, `size=(N, M)`), so that they are not baked."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from pyg_fullgraph.capture.arguments import Branch, Const, Path, SizeSlot
from pyg_fullgraph.capture.spaces import type_key

SIZE_NAMES = frozenset(
    ["size", "num_nodes", "num_edges", "dim_size", "num_src_nodes", "num_dst_nodes", "num_src", "num_dst"]
)
GRAPH_NAMES = frozenset(["batch_size", "num_graphs"])  # how many graphs there are


def size_arguments(
    spec: Branch, sizes: dict[str, int], earlier: Collection[str] = ()
) -> tuple[Branch, list[tuple[str, int]]]:
    """Turn integers that are sizes of the graph (`num_nodes=`, `size=(N, M)`, `batch_size=`) into `SizeSlot`s.

    None and one stay numbers where no tensor has that size: a trace takes every size of its own for at least two.

    Args:
        spec: the call.
        sizes: the size of every space.
        earlier: names of sizes that no tensor carried in an earlier call; those stay sizes of their own where they
            happen to equal that of a space.

    Returns:
        The new tree, and `(name, value)` of every such integer that no tensor's size carries.
    """
    extra: list[tuple[str, int]] = []
    return _with_slots(spec, sizes, extra, earlier), extra


def _with_slots(node: Any, sizes: dict[str, int], extra: list[tuple[str, int]], earlier: Collection[str]) -> Any:
    if isinstance(node, Branch):
        children = tuple(_with_slots(child, sizes, extra, earlier) for child in node.children)
        return Branch(node.kind, node.cls, node.keys, children, node.template)
    if isinstance(node, Const) and type(node.value) is int and _names_a_size(node.path):
        return _size_slot(node, sizes, extra, earlier)
    return node


def _names_a_size(path: Path) -> bool:
    in_adjs = len(path) == 4 and str(path[0]).startswith("adj") and path[2] in (2, "size")
    names = SIZE_NAMES | GRAPH_NAMES
    return in_adjs or any(isinstance(part, str) and part.removesuffix("_dict") in names for part in path)


def counts_graphs(path: Path) -> bool:
    """True for an argument that says how many graphs there are."""
    return any(isinstance(part, str) and part in GRAPH_NAMES for part in path)


def _size_slot(
    node: Const, sizes: dict[str, int], extra: list[tuple[str, int]], earlier: Collection[str]
) -> SizeSlot | Const:
    label = "_".join("__".join(part) if isinstance(part, tuple) else str(part) for part in node.path)
    key = type_key(node.path)
    wanted = "E" if any(str(part) == "num_edges" for part in node.path) else "N"
    wanted = "G" if counts_graphs(node.path) else wanted
    typed = [f"{wanted}:{key}"] if isinstance(key, str) and key not in SIZE_NAMES else []
    side = ["N:src", "N:dst"][node.path[-1] : node.path[-1] + 1] if node.path[-1] in (0, 1) else []
    for name in [*typed, *side, *(n for n in sizes if n.startswith((wanted, "G") if wanted == "N" else wanted))]:
        if sizes.get(name) == node.value and label not in earlier:
            return SizeSlot(name)
    if str(node.path[0]).startswith("adj"):
        return node  # the targets of a sampled layer: x[:size] wants a plain number
    if node.value < 2:
        return node
    extra.append((label, node.value))
    return SizeSlot(label)
