"""Checks on what users pass as a graph; every failure names the first bad edge and says what to do.

A valid graph costs one pass for the smallest and the largest index. Only when that pass fails are the edges
searched for the first offender.
"""

from __future__ import annotations

import torch
from torch import Tensor

from pyg_fullgraph.errors import GraphError

INDEX_DTYPES = (torch.int64, torch.int32)


def check_edge_index(
    edge_index: Tensor,
    num_src: int,
    num_dst: int | None = None,
    *,
    name: str = "edge_index",
    num_edges: int | None = None,
) -> None:
    r"""Checks that ``edge_index`` is a valid list of edges.

    Valid means: integers of shape ``[2, E]`` with
    :math:`0 \leq \mathrm{edge\_index}_{0,e} < N_\mathrm{src}` and
    :math:`0 \leq \mathrm{edge\_index}_{1,e} < N_\mathrm{dst}` for every edge :math:`e`.

    Args:
        edge_index: ``[2, E]``, row 0 the sources, row 1 the destinations.
        num_src: the number of source nodes.
        num_dst: the number of destination nodes; ``None`` means ``num_src``.
        name: what the user calls this tensor; used in the message.
        num_edges: the number of edges that must be there, where something else fixes it (``edge_attr``).

    Raises:
        GraphError: if shape, dtype or range is wrong; it names the first bad edge.
    """
    check_shape(edge_index, name)
    if num_edges is not None and edge_index.size(1) != num_edges:
        raise GraphError(
            f"'{name}' holds {edge_index.size(1):,} edges, but {num_edges:,} were expected (the number of "
            "rows of "
            f"the edge attributes). Pass one row of attributes per edge, in the order of '{name}'."
        )
    check_endpoints(edge_index[0], edge_index[1], num_src, num_src if num_dst is None else num_dst, name=name)


def check_shape(edge_index: Tensor, name: str = "edge_index") -> None:
    """Checks type, shape and dtype of an edge list, not its values.

    Args:
        edge_index: what should be an integer tensor ``[2, E]``.
        name: what the user calls this tensor; used in the message.

    Raises:
        GraphError: if it is not a dense integer tensor of shape ``[2, E]``.
    """
    if not isinstance(edge_index, Tensor):
        raise GraphError(
            f"'{name}' must be a torch.Tensor of shape [2, E] (got {type(edge_index).__module__}."
            f"{type(edge_index).__qualname__}). For NumPy arrays: torch.from_numpy(array)."
        )
    if edge_index.dim() != 2 or edge_index.size(0) != 2:
        hint = ""
        if edge_index.dim() == 2 and edge_index.size(1) == 2:
            hint = f" It looks transposed: pass {name}.t().contiguous()."
        raise GraphError(f"'{name}' must have shape [2, E] (got {list(edge_index.shape)}).{hint}")
    check_index_dtype(edge_index, name)


def check_index_dtype(index: Tensor, name: str) -> None:
    """Checks that a tensor of node or edge numbers is int64 or int32.

    Args:
        index: the tensor, any shape.
        name: what the user calls this tensor; used in the message.

    Raises:
        GraphError: if the dtype is another one.
    """
    if index.dtype not in INDEX_DTYPES:
        raise GraphError(f"'{name}' must be int64 or int32 (got {index.dtype}). Pass {name}.long().")


def check_endpoints(src: Tensor, dst: Tensor, num_src: int, num_dst: int, *, name: str = "edge_index") -> None:
    """Checks a list of edges given as two tensors: dtype, device, equal lengths and index range.

    Args:
        src: ``[E]``, the source of every edge.
        dst: ``[E]``, the destination of every edge.
        num_src: the number of source nodes.
        num_dst: the number of destination nodes.
        name: what the user calls these edges; used in the message.

    Raises:
        GraphError: if anything is wrong; for an index out of range it names the first bad edge.
    """
    for count, side in ((num_src, "source"), (num_dst, "destination")):
        if count < 0:
            raise GraphError(f"The number of {side} nodes of '{name}' must be at least 0 (got {count}).")
    for index, side in ((src, "sources"), (dst, "destinations")):
        check_index_dtype(index, f"{name} ({side})")
    if src.device != dst.device:
        raise GraphError(
            f"The sources of '{name}' are on {src.device}, its destinations on {dst.device}. Move both to one device."
        )
    if src.dim() != 1 or src.shape != dst.shape:
        raise GraphError(
            f"Sources and destinations of '{name}' must be two vectors of one length "
            f"(got {list(src.shape)} and {list(dst.shape)})."
        )
    if not (in_range(src, num_src) and in_range(dst, num_dst)):
        raise GraphError(bad_edge(src, dst, num_src, num_dst, name))


def in_range(index: Tensor, size: int) -> bool:
    """Tells whether every entry of ``index`` lies in ``0 .. size - 1``, in one pass.

    Args:
        index: integers, any shape.
        size: the number of things that are numbered.
    """
    if index.numel() == 0:
        return True
    low, high = torch.aminmax(index)
    return int(low) >= 0 and int(high) < size


def check_nodes(nodes: Tensor, num_nodes: int, *, name: str = "nodes") -> None:
    """Checks a list of node numbers.

    Args:
        nodes: ``[M]``, int64 or int32.
        num_nodes: the number of nodes of the graph.
        name: what the user calls this tensor; used in the message.

    Raises:
        GraphError: if shape, dtype or range is wrong; it names the first bad entry.
    """
    if nodes.dim() != 1:
        raise GraphError(f"'{name}' must be a vector of node numbers (got shape {list(nodes.shape)}).")
    check_index_dtype(nodes, name)
    if in_range(nodes, num_nodes):
        return
    position = int(((nodes < 0) | (nodes >= num_nodes)).nonzero()[0])
    raise GraphError(
        f"'{name}' asks for node {int(nodes[position])} (entry {position}), but {_valid_range(num_nodes)}."
    )


def bad_edge(src: Tensor, dst: Tensor, num_src: int | None, num_dst: int | None, name: str) -> str:
    """The message for the first edge with an endpoint out of range. The caller knows that there is one.

    Args:
        src, dst: ``[E]``, the two ends of every edge.
        num_src, num_dst: how many nodes they are numbers of; ``None`` where one end may be any number.
        name: what the user calls these edges.
    """
    bad_src, bad_dst = _bad(src, num_src), _bad(dst, num_dst)
    bad = (bad_src | bad_dst).nonzero().view(-1)  # [number of bad edges]
    edge = int(bad[0])
    source, destination = int(src[edge]), int(dst[edge])
    problems = []
    if num_src is not None and bool(bad_src[edge]):
        problems.append(f"its source {source} does not exist: {_valid_range(num_src, 'source nodes')}")
    if num_dst is not None and bool(bad_dst[edge]):
        problems.append(f"its destination {destination} does not exist: {_valid_range(num_dst, 'destination nodes')}")
    others = f" {bad.numel() - 1:,} more of {src.numel():,} edges are out of range." if bad.numel() > 1 else ""
    remedy = _remedy(src, dst, num_src, num_dst)
    what = "; ".join(problems)
    return f"Edge {edge} of '{name}' goes from {source} to {destination}; {what}.{others} {remedy}"


def _bad(index: Tensor, count: int | None) -> Tensor:
    """Which ends do not exist."""
    return torch.zeros_like(index, dtype=torch.bool) if count is None else (index < 0) | (index >= count)


def _remedy(src: Tensor, dst: Tensor, num_src: int | None, num_dst: int | None) -> str:
    """What the user can do about indices out of range."""
    if min(int(src.min()), int(dst.min())) < 0:
        return "Negative numbers usually mark padding or removed nodes: drop those edges before the call."
    highest = max(int(src.max()), int(dst.max()))
    if num_src == num_dst and num_src is not None:
        return (
            f"Either the node features have too few rows (edges need {highest + 1:,}, there are "
            f"{num_src:,}: set "
            f"data.num_nodes or pass all rows of x), or the edges use ids that must be renumbered from 0."
        )
    return (
        "Row 0 must hold source nodes and row 1 destination nodes, each numbered from 0 within its own "
        "node type; "
        "check that the two rows are not swapped."
    )


def _valid_range(size: int, what: str = "nodes") -> str:
    """The valid numbers, in words."""
    return f"there are no {what}" if size == 0 else f"the {size:,} {what} are numbered 0 to {size - 1}"
