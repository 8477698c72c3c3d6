"""Kinds of nodes and edges in a call that a heterogeneous model does not know: misspelt, or without features."""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection, Iterator
from typing import Any

import torch

from pyg_fullgraph.capture.arguments import Branch, Const, Slot

EdgeType = tuple[str, str, str]


def unknown_kinds(model: torch.nn.Module, spec: Branch, names: Collection[str]) -> str:
    """What is wrong with the kinds of a call, for a forward that failed; nothing where nothing is seen.

    Args:
        model: whose layers tell which kinds there are.
        spec: the call.
        names: the parameters of forward, in order.
    """
    nodes, edges = known_kinds(model)
    dictionaries = list(_dictionaries(spec, names))
    if not nodes and not edges:
        return _of_one_kind(dictionaries)
    of_nodes = [(name, keys) for name, keys in dictionaries if keys and all(isinstance(key, str) for key in keys)]
    of_edges = [(name, keys) for name, keys in dictionaries if keys and all(isinstance(key, tuple) for key in keys)]
    if not dictionaries:
        kinds = ", ".join(sorted(nodes))
        return f"The model knows the node types {kinds}, but no dictionary of types was passed. Pass a HeteroData."
    for name, keys in of_nodes:
        for key in keys:
            if key not in nodes and not key.endswith("_dict"):
                return f"The model knows the node types {_listed(nodes)}; {name} has {key!r}.{_meant(key, nodes)}"
    for name, keys in of_edges:
        for key in keys:
            if edges and key not in edges:
                return f"The model knows the edge types {_listed(edges)}; {name} has {key}.{_meant(key, edges)}"
    for _, keys in of_edges:
        for source, _relation, target in keys:
            for kind in (source, target):
                if of_nodes and not any(kind in given for _, given in of_nodes):
                    return (
                        f"The node type {kind!r} has edges, but {of_nodes[0][0]} has no {kind!r} (it has "
                        f"{_listed(of_nodes[0][1])}). Set data[{kind!r}].x."
                    )
    return ""


def known_kinds(model: torch.nn.Module) -> tuple[set[str], set[EdgeType]]:
    """The node types and edge types that the layers of a model were made for."""
    nodes: set[str] = set()
    edges: set[EdgeType] = set()
    for module in model.modules():
        for name in ("node_types", "edge_types"):
            found = getattr(module, name, None)
            for each in found if isinstance(found, (list, tuple)) else ():
                _take(each, nodes, edges)
        if isinstance(module, torch.nn.ModuleDict):
            for key in module:
                parts = re.split(r"_{2,}", key.strip("<>"))
                if len(parts) == 3 and all(parts):
                    _take(tuple(parts), nodes, edges)
    return nodes | {end for edge in edges for end in (edge[0], edge[2])}, edges


def _take(kind: Any, nodes: set[str], edges: set[EdgeType]) -> None:
    if isinstance(kind, str):
        nodes.add(kind)
    elif isinstance(kind, tuple) and len(kind) == 3 and all(isinstance(part, str) for part in kind):
        edges.add(kind)


def _dictionaries(spec: Any, names: Collection[str]) -> Iterator[tuple[str, list[Any]]]:
    """(argument, its keys that hold tensors) for every argument that is a dictionary."""
    positional, named = spec.children[:2]
    given = [*zip(names, positional.children, strict=False), *zip(named.keys, named.children, strict=True)]
    for name, node in given:
        if isinstance(node, Branch) and node.kind == "dict":
            held = [key for key, child in zip(node.keys, node.children, strict=True) if _holds(child)]
            yield str(name), held


def _holds(node: Any) -> bool:
    return not (isinstance(node, Const) and node.value is None) and isinstance(node, (Slot, Branch, Const))


def _of_one_kind(dictionaries: list[tuple[str, list[Any]]]) -> str:
    for name, keys in dictionaries:
        if keys:
            return (
                f"{name} is a dictionary of types ({_listed(keys)}), but the model takes one kind of nodes. Convert "
                "the model, to_hetero(model, data.metadata()), or the data, data.to_homogeneous()."
            )
    return ""


def _listed(kinds: Collection[Any]) -> str:
    shown = [each if isinstance(each, str) else str(each) for each in sorted(kinds, key=str)]
    return ", ".join(shown[:8]) + (", ..." if len(shown) > 8 else "")


def _meant(kind: Any, known: Collection[Any]) -> str:
    names = {str(each): each for each in known}
    near = difflib.get_close_matches(str(kind), list(names), 1)
    return f" Did you mean {names[near[0]]!r}?" if near else ""
