"""One edge list out of everything that PyG users pass as a graph.

Row and column of a sparse adjacency matrix follow PyG: what is passed in place of ``edge_index``, and what is
stored as ``adj_t``, is transposed, row = destination. A SciPy matrix follows
``torch_geometric.utils.from_scipy_sparse_matrix``: row = source.

Types of packages that may not be installed are recognised by their interface; nothing is imported here but
torch.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from pyg_fullgraph.errors import GraphError
from pyg_fullgraph.graph.validate import check_shape

SPARSE_LAYOUTS = (torch.sparse_coo, torch.sparse_csr, torch.sparse_csc)


class Edges(NamedTuple):
    """A list of edges.

    Attributes:
        edge_index: ``[2, E]``, row 0 the sources, row 1 the destinations.
        value: ``[E, ...]`` or ``None``, the value of every edge, where the input holds one.
        size: ``(num_src, num_dst)``, or ``None`` where the input does not say.
    """

    edge_index: Tensor
    value: Tensor | None
    size: tuple[int, int] | None


def to_edges(graph: Any, *, transposed: bool | None = None, name: str = "edge_index") -> Edges:
    """Returns the edges of a graph in any form that PyG users pass.

    Args:
        graph: ``Data`` (its ``edge_index``, else ``adj_t``; ``edge_weight``, else ``edge_attr``),
            ``edge_index`` ``[2, E]``, ``EdgeIndex``, ``torch_sparse.SparseTensor``, a ``torch.sparse`` COO,
            CSR or CSC tensor, or a SciPy sparse matrix.
        transposed: whether row means destination in a sparse matrix; ``None`` is the convention of PyG: true
            for torch tensors and ``SparseTensor``, false for SciPy.
        name: what the user calls this graph; used in error messages.

    Raises:
        GraphError: if the type is not one of these, or an edge list has a wrong shape or dtype. Index ranges
            are not checked here (:func:`pyg_fullgraph.graph.validate.check_edge_index` does).
    """
    if isinstance(graph, Tensor):
        return _from_tensor(graph, transposed is not False, name)
    if is_sparse_tensor(graph):
        return _from_sparse_tensor(graph, transposed is not False)
    if is_scipy(graph):
        return _from_scipy(graph, transposed is True)
    if hasattr(graph, "edge_types"):
        raise GraphError(
            f"'{name}' holds several edge types ({type(graph).__qualname__}); here one edge list is needed. "
            "Pass one of them: data[source, relation, destination]."
        )
    if hasattr(graph, "edge_index") or hasattr(graph, "adj_t"):
        return _from_data(graph)
    raise GraphError(
        f"'{name}' is a {type(graph).__module__}.{type(graph).__qualname__}, which is not a graph that can "
        "be read. "
        "Pass edge_index [2, E], a torch_geometric Data, EdgeIndex, SparseTensor, a torch.sparse tensor "
        "or a SciPy "
        f"sparse matrix."
    )


def is_sparse_tensor(value: Any) -> bool:
    """Tells whether ``value`` is a ``torch_sparse.SparseTensor``, by its interface."""
    return hasattr(value, "coo") and hasattr(value, "sparse_sizes")


def is_scipy(value: Any) -> bool:
    """Tells whether ``value`` is a SciPy sparse matrix or array, by its interface."""
    return hasattr(value, "tocoo") and hasattr(value, "nnz") and hasattr(value, "shape")


def is_edge_index(value: Any) -> bool:
    """Tells whether ``value`` is a ``torch_geometric.EdgeIndex``, by its interface."""
    return isinstance(value, Tensor) and hasattr(value, "sparse_size") and hasattr(value, "as_tensor")


def is_sparse_adjacency(value: Any) -> bool:
    """Tells whether ``value`` is an adjacency matrix, not an edge list: its rows mean destinations."""
    return is_sparse_tensor(value) or (isinstance(value, Tensor) and value.layout in SPARSE_LAYOUTS)


def _from_tensor(tensor: Tensor, transposed: bool, name: str) -> Edges:
    """A dense edge list, an `EdgeIndex` or a ``torch.sparse`` adjacency matrix."""
    if tensor.layout in SPARSE_LAYOUTS:
        return _from_torch_sparse(tensor, transposed, name)
    if is_edge_index(tensor):
        num_src, num_dst = tensor.sparse_size()  # type: ignore[attr-defined]
        size = None if num_src is None or num_dst is None else (int(num_src), int(num_dst))
        return Edges(tensor.as_tensor(), None, size)  # type: ignore[attr-defined]
    if tensor.layout != torch.strided:
        raise GraphError(
            f"'{name}' has the layout {tensor.layout}, which holds blocks, not edges. Pass {name}.to_sparse_csr()."
        )
    check_shape(tensor, name)
    return Edges(tensor, None, None)


def _from_torch_sparse(adj: Tensor, transposed: bool, name: str) -> Edges:
    """COO (duplicates stay, as in PyG), CSR or CSC."""
    if adj.layout == torch.sparse_coo:
        if adj.sparse_dim() != 2:
            raise GraphError(f"'{name}' must have two sparse dimensions (got {adj.sparse_dim()}): [N, N] or [N, N, F].")
        row, col = adj._indices()
        value = adj._values()
    else:
        if adj.dim() - adj.dense_dim() != 2:
            raise GraphError(f"'{name}' must be one matrix, not a batch of matrices (got shape {list(adj.shape)}).")
        compressed_rows = adj.layout == torch.sparse_csr
        pointer = adj.crow_indices() if compressed_rows else adj.ccol_indices()
        inner = adj.col_indices() if compressed_rows else adj.row_indices()
        outer = _expand(pointer, inner)
        row, col = (outer, inner) if compressed_rows else (inner, outer)
        value = adj.values()
    return _oriented(row, col, value, (adj.size(0), adj.size(1)), transposed)


def _expand(pointer: Tensor, inner: Tensor) -> Tensor:
    """The row of every entry from the row pointers ``[N + 1]``."""
    index = torch.arange(pointer.numel() - 1, dtype=inner.dtype, device=inner.device)
    return index.repeat_interleave(pointer.diff(), output_size=inner.numel())


def _from_sparse_tensor(adj: Any, transposed: bool) -> Edges:
    """``torch_sparse.SparseTensor``."""
    row, col, value = adj.coo()
    rows, cols = (int(n) for n in adj.sparse_sizes())
    return _oriented(row, col, value, (rows, cols), transposed)


def _from_scipy(adj: Any, transposed: bool) -> Edges:
    """A SciPy sparse matrix or array of any format."""
    coo = adj.tocoo()
    row, col = torch.from_numpy(coo.row), torch.from_numpy(coo.col)
    return _oriented(row, col, torch.from_numpy(coo.data), (int(adj.shape[0]), int(adj.shape[1])), transposed)


def _from_data(data: Any) -> Edges:
    """A homogeneous ``Data``, or whatever has the same attributes."""
    num_nodes = getattr(data, "num_nodes", None)
    size = None if num_nodes is None else (int(num_nodes), int(num_nodes))
    edge_index = getattr(data, "edge_index", None)
    if edge_index is not None:
        edges = to_edges(edge_index, name="data.edge_index")
        value = edges.value
        for key in ("edge_weight", "edge_attr"):
            if value is None:
                value = getattr(data, key, None)
        return Edges(edges.edge_index, value, edges.size or size)
    adj_t = getattr(data, "adj_t", None)
    if adj_t is None:
        raise GraphError(
            "The data object has neither 'edge_index' nor 'adj_t'. Set data.edge_index [2, E] "
            "(row 0 source, row 1 destination)."
        )
    edges = to_edges(adj_t, transposed=True, name="data.adj_t")
    return Edges(edges.edge_index, edges.value, edges.size or size)


def _oriented(row: Tensor, col: Tensor, value: Tensor | None, shape: tuple[int, int], transposed: bool) -> Edges:
    """Matrix entries as edges: a transposed matrix has one row per destination."""
    if transposed:
        return Edges(torch.stack([col, row]), value, (shape[1], shape[0]))
    return Edges(torch.stack([row, col]), value, shape)
