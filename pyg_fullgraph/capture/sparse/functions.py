"""Which functions make, and take, a sparse matrix while a forward is traced; see `capture.sparse.matrix`.

* `torch.sparse_coo_tensor` and the like give a `Matrix`, and functions of torch with one among their arguments are
  looked up in `FUNCTIONS`;
* `torch_sparse.SparseTensor(...)` gives a `SparseMatrix`, which has that class's methods;
* `EdgeIndex(...)` gives its plain tensor, which knows its matrix: `edge_index @ x`, `.matmul(x)`, `.sort_by("row")`.
"""

from __future__ import annotations

import contextlib
import functools
import math
import sys
from collections.abc import Iterator
from typing import Any

import torch
import torch_geometric
from torch import Tensor
from torch_geometric import EdgeIndex

from pyg_fullgraph.capture.modules import replaced
from pyg_fullgraph.capture.scatter import bound_to
from pyg_fullgraph.capture.sparse.matrix import FUNCTIONS, Handler, Matrix, is_matrix
from pyg_fullgraph.capture.sparse.sparse_tensor import SparseMatrix
from pyg_fullgraph.capture.standins import row_numbers, size_in
from pyg_fullgraph.capture.watch import Replacement, Watch

# Making one -----------------------------------------------------------------------------------------------------


def _bound(names: tuple[str, ...], args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
    return dict(zip(names, args, strict=False)) | kwargs


def _typed(value: Any, given: dict[str, Any]) -> Tensor:
    value = value if isinstance(value, Tensor) else torch.tensor(value)
    return value if given.get("dtype") is None else value.to(given["dtype"])


def _count(index: Tensor) -> Any:
    return size_in(index.max()) + 1


def _coo(watch: Watch, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    given = _bound(("indices", "values", "size"), args, kwargs)
    indices = given.get("indices")
    if not isinstance(indices, Tensor) or "values" not in given:
        watch.refuse("an empty sparse matrix", "is not captured inside of a forward", "Use torch.zeros.")
    value = _typed(given["values"], given)
    entries = indices.unbind(0)
    size = given.get("size")
    if size is None:
        size = [*(_count(entry) for entry in entries), *value.shape[1:]]
    return Matrix(watch, "coo", entries, value, tuple(size), coalesced=bool(given.get("is_coalesced")))


def _compressed(kind: str) -> Replacement:
    pointer, plain = ("crow_indices", "col_indices") if kind == "csr" else ("ccol_indices", "row_indices")

    def replacement(watch: Watch, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        given = _bound((pointer, plain, "values", "size"), args, kwargs)
        bounds, other, value = given[pointer], given[plain], _typed(given["values"], given)
        size = given.get("size")
        if size is None:
            own, across = bounds.size(0) - 1, _count(other)
            size = (own, across) if kind == "csr" else (across, own)
        found = row_numbers(bounds, other.size(0))
        indices = (found, other) if kind == "csr" else (other, found)
        return Matrix(watch, kind, indices, value, tuple(size), coalesced=True, compressed=bounds)

    return replacement


def _any_compressed(watch: Watch, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    kinds = {torch.sparse_csr: "csr", torch.sparse_csc: "csc"}
    kind = kinds.get(kwargs.pop("layout", None))
    if kind is None:
        watch.refuse("a sparse matrix of this layout", "is not captured inside of a forward", "Use sparse_csr_tensor.")
    names = ("crow_indices", "col_indices") if kind == "csr" else ("ccol_indices", "row_indices")
    given = _bound(("compressed_indices", "plain_indices", "values", "size"), args, kwargs)
    given = {**given, names[0]: given.pop("compressed_indices"), names[1]: given.pop("plain_indices")}
    return _compressed(kind)(watch, func, (), given)


def _of_dense(watch: Watch, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """`dense.to_sparse()`: which elements are zero depends on the data."""
    advice = "Keep it dense, or pass the edges to forward."
    watch.refuse(f"`{func.__name__}()`", "finds a number of entries that depends on the data", advice)


def _edge_product(watch: Watch, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """`edge_index @ x` where `edge_index` was made by `EdgeIndex(...)`."""
    edges = getattr(args[0], "edges", None)
    if edges is not None:
        return edges.matmul(*args[1:], **kwargs)
    if func is torch.sparse.mm and len(args) == 2 and not any(is_matrix(arg) for arg in args):
        return torch.mm(*args)  # as torch does for two dense ones
    return func(*args, **kwargs)


SPARSE: dict[Any, Replacement] = {
    torch.sparse_coo_tensor: _coo,
    torch.sparse_csr_tensor: _compressed("csr"),
    torch.sparse_csc_tensor: _compressed("csc"),
    torch.sparse_compressed_tensor: _any_compressed,
    Tensor.to_sparse: _of_dense,
    Tensor.to_sparse_csr: _of_dense,
    Tensor.to_sparse_csc: _of_dense,
    Tensor.to_sparse_coo: _of_dense,
    Tensor.matmul: _edge_product,
    Tensor.__matmul__: _edge_product,
    Tensor.mm: _edge_product,
    torch.mm: _edge_product,
    torch.matmul: _edge_product,
    torch.sparse.mm: _edge_product,
}

# Taking one -----------------------------------------------------------------------------------------------------


def _product(a: Any, b: Any, reduce: str = "sum") -> Any:
    return a.product(b, reduce) if is_matrix(a) else b.__rmatmul__(a)


def _linear(x: Any, weight: Any, bias: Any = None) -> Any:
    """`nn.Linear` on features that are a sparse matrix, or with a weight that is one."""
    if is_matrix(bias) or weight.dim() != 2 or (not is_matrix(x) and x.dim() != 2):
        return NotImplemented
    product = _product(x, weight.t())
    return product if bias is None else product + bias


def _product_and_sum(base: Any, a: Any, b: Any, *, beta: Any = 1, alpha: Any = 1) -> Any:
    if is_matrix(base):
        return NotImplemented
    product = _product(a, b)
    product = product if isinstance(alpha, int) and alpha == 1 else alpha * product
    return (base if isinstance(beta, int) and beta == 1 else beta * base) + product


def _sum_of(a: Any, b: Any, *, alpha: Any = 1) -> Any:
    if is_matrix(a):
        return a.plus(b, alpha)
    if not isinstance(a, Tensor) or a.dim() != b.dim():
        return NotImplemented
    value = b._value if isinstance(alpha, int) and alpha == 1 else alpha * b._value
    return a.index_put(b._entry, value, accumulate=True)


def _difference_of(a: Any, b: Any, *, alpha: Any = 1) -> Any:
    return _sum_of(a, b, alpha=-alpha)


def _softmax(a: Any, dim: int, dtype: torch.dtype | None = None, *, log: bool = False) -> Any:
    """`torch.sparse.softmax`: over the entries of each row (or column)."""
    one = a.merged() if dtype is None else a.to(dtype).merged()
    if a.sparse_dim() != 2 or a.dense_dim():
        return NotImplemented
    along = 1 - dim % 2
    alpha = torch.ops.pyg_fullgraph.softmax_by(one._value, one._entry[along], one._size[along])
    return one.like(value=alpha.log() if log else alpha)


def _log_softmax(a: Any, dim: int, dtype: torch.dtype | None = None) -> Any:
    return NotImplemented  # the logarithm of a softmax loses what torch keeps for very small ones


def _dropout(a: Any, p: float = 0.5, training: bool = True, inplace: bool = False) -> Any:
    return NotImplemented if training else a


def _power(a: Any, exponent: Any) -> Any:
    plain = is_matrix(a) and isinstance(exponent, (int, float)) and exponent > 0
    return a.by_element(lambda value: value.pow(exponent)) if plain else NotImplemented


def _joined(matrices: Any, dim: int = 0) -> Any:
    """`torch.cat` of COO matrices: all entries, those of later ones moved."""
    if not all(is_matrix(item) and item.layout == torch.sparse_coo and not item.dense_dim() for item in matrices):
        return NotImplemented
    dim %= 2
    parts: list[list[Tensor]] = [[], []]
    start: Any = 0
    for item in matrices:
        for i, entry in enumerate(item._entry):
            parts[i].append(entry + start if i == dim else entry)
        torch._check(item._size[1 - dim] == matrices[0]._size[1 - dim])
        start = start + item._size[dim]
    size = (start, matrices[0]._size[1]) if dim == 0 else (matrices[0]._size[0], start)
    value = torch.cat([item._value for item in matrices])
    indices = tuple(torch.cat(entries) for entries in parts)
    return matrices[0].like(indices=indices, value=value, size=size, coalesced=False, exact=False, compressed=None)


def _elementwise(function: Any) -> Handler:
    def by_element(a: Any, *args: Any, **kwargs: Any) -> Any:
        return NotImplemented if args or kwargs else a.by_element(function)

    return by_element


def _method(name: str) -> Handler:
    return lambda a, *args, **kwargs: getattr(a, name)(*args, **kwargs) if is_matrix(a) else NotImplemented


def _times(a: Any, b: Any) -> Any:
    return a * b if is_matrix(a) else b * a


for _function in (torch.mm, torch.matmul, torch.mv, torch.spmm, torch.dsmm, torch.sparse.mm):
    FUNCTIONS[_function] = _product
for _name in ("mm", "matmul", "mv", "__matmul__"):
    FUNCTIONS[getattr(Tensor, _name)] = _product
FUNCTIONS[Tensor.__rmatmul__] = lambda a, b: _product(b, a)
for _function in (torch.addmm, torch.sparse.addmm, torch.addmv, Tensor.addmm, Tensor.addmv):
    FUNCTIONS[_function] = _product_and_sum
for _function in (torch.add, Tensor.add, Tensor.__add__):
    FUNCTIONS[_function] = _sum_of
for _function in (torch.mul, torch.multiply, Tensor.mul, Tensor.__mul__, Tensor.__rmul__):
    FUNCTIONS[_function] = _times
FUNCTIONS |= {
    Tensor.__radd__: lambda a, b: _sum_of(b, a),
    torch.sub: _difference_of,
    torch.div: lambda a, b: a / b if is_matrix(a) else NotImplemented,
    torch.nn.functional.linear: _linear,
    torch.t: _method("t"),
    torch.transpose: _method("transpose"),
    torch.sum: _method("sum"),
    torch._sparse_sum: _method("sum"),
    torch.sparse.softmax: _softmax,
    torch.sparse.log_softmax: _log_softmax,
    torch.is_floating_point: _method("is_floating_point"),
    torch.clone: _method("clone"),
    torch.nn.functional.dropout: _dropout,
    torch.nn.functional.relu: lambda a, inplace=False: NotImplemented if inplace else a.by_element(torch.relu),
    torch.pow: _power,
    Tensor.pow: _power,
    Tensor.__pow__: _power,
    Tensor.numel: lambda a: math.prod(a._size),
    torch.numel: lambda a: math.prod(a._size),
    torch.cat: _joined,
    torch.concat: _joined,
    Tensor.int: lambda a: a.to(torch.int32),
    Tensor.bool: lambda a: a.to(torch.bool),
}
for _name in ("abs", "sqrt", "relu", "square", "sin", "tanh", "ceil", "floor", "round", "sign", "expm1", "log1p"):
    FUNCTIONS[getattr(torch, _name)] = _elementwise(getattr(torch, _name))
    setattr(Matrix, _name, functools.partialmethod(Matrix.by_element, getattr(torch, _name)))

# Names ----------------------------------------------------------------------------------------------------------


class _Edges:
    """What an `EdgeIndex` knows beside its tensor.

    Args:
        watch: of the trace.
        data: `[2, E]`.
        size: rows and columns, None where they are not known.
        order: "row", "col" or None, as the caller says.
    """

    def __init__(self, watch: Watch, data: Tensor, size: tuple[Any, Any], order: str | None) -> None:
        self.watch, self.data, self.size, self.order = watch, data, size, order

    def matrix(self, value: Tensor | None = None, like: Tensor | None = None) -> Matrix:
        size = tuple(_count(self.data[i]) if known is None else known for i, known in enumerate(self.size))
        if value is None:
            dtype = torch.get_default_dtype() if like is None else like.dtype
            value = torch.ones(self.data.size(1), dtype=dtype, device=self.data.device)
        return Matrix(self.watch, "csr", self.data.unbind(0), value, size)

    def matmul(
        self,
        other: Any,
        input_value: Tensor | None = None,
        other_value: Tensor | None = None,
        reduce: str = "sum",
        transpose: bool = False,
    ) -> Any:
        matrix = self.matrix(input_value, other)
        return (matrix.t() if transpose else matrix).product(other, reduce)

    def tensor(self) -> Tensor:
        """The plain tensor, with the methods of an `EdgeIndex`."""
        made: Any = self.data.alias() if hasattr(self.data, "alias") else self.data.view(self.data.shape)
        made.edges = self
        made.as_tensor = lambda: self.data
        made.matmul = self.matmul
        made.validate = lambda: made
        made.sort_by = self.sort_by
        made.sparse_size = lambda dim=None: self.size if dim is None else self.size[dim]
        made.get_sparse_size = lambda dim=None: self.matrix().size(dim)
        made.num_rows, made.num_cols = self.size
        made.is_undirected = False
        made.is_sorted, made.sort_order = self.order is not None, self.order
        made.is_sorted_by_row, made.is_sorted_by_col = self.order == "row", self.order == "col"
        for name in ("to_sparse_coo", "to_sparse_csr", "to_sparse_csc", "to_dense"):
            setattr(made, name, lambda value=None, _name=name: getattr(self._as_coo(value), _name)())
        return made

    def _as_coo(self, value: Tensor | None) -> Matrix:
        return self.matrix(value).like(kind="coo")

    def sort_by(self, order: str, stable: bool = False) -> Any:
        """The edges in the order of a row, and where they came from."""
        order = getattr(order, "value", order)
        permutation = self.data[0 if order == "row" else 1].argsort(stable=True)
        edges = _Edges(self.watch, self.data[:, permutation], self.size, order).tensor()
        return torch_geometric.edge_index.SortReturnType(edges, permutation)


def _edge_index(watch: Watch) -> Any:
    original = EdgeIndex.__new__

    def new(cls: Any, data: Any, *args: Any, sparse_size: Any = None, sort_order: Any = None, **kwargs: Any) -> Any:
        if not isinstance(data, Tensor) or is_matrix(data):
            return original(cls, data, *args, sparse_size=sparse_size, sort_order=sort_order, **kwargs)
        known = getattr(data, "edges", None)
        if known is not None:
            data = known.data
            sparse_size = known.size if sparse_size is None else sparse_size
            sort_order = known.order if sort_order is None else sort_order
        return _Edges(watch, data, sparse_size or (None, None), getattr(sort_order, "value", sort_order)).tensor()

    return new


def _diagonal(watch: Watch) -> Any:
    """torch_geometric's `get_sparse_diag`, as a `Matrix`."""

    def diagonal(size: Any, fill_value: float = 1.0, layout: Any = None, dtype: Any = None, device: Any = None) -> Any:
        index = torch.arange(size, device=device)
        value = torch.full((size,), fill_value, dtype=dtype or torch.get_default_dtype(), device=device)
        made = Matrix(watch, "coo", (index, index), value, (size, size), coalesced=True)
        return made if layout is None else made.to_sparse(layout=layout)

    return diagonal


def _legacy(watch: Watch, dtype: torch.dtype) -> Any:
    """`torch.sparse.FloatTensor(indices, values, size)`, of old code."""

    def made(indices: Tensor, values: Tensor, *size: Any) -> Matrix:
        return _coo(watch, None, (indices, values, *size), {"dtype": dtype})

    return made


@contextlib.contextmanager
def sparse_names(watch: Watch) -> Iterator[None]:
    """While tracing: constructors that are classes or helpers, wherever their name is bound."""
    with contextlib.ExitStack() as stack:
        for name, dtype in (("FloatTensor", torch.float32), ("DoubleTensor", torch.float64)):
            stack.enter_context(replaced(torch.sparse, name, _legacy(watch, dtype)))
        stack.enter_context(replaced(EdgeIndex, "__new__", staticmethod(_edge_index(watch))))
        diagonal = getattr(torch_geometric.utils.sparse, "get_sparse_diag", None)
        for module, key in bound_to(diagonal) if diagonal is not None else ():
            stack.enter_context(replaced(module, key, _diagonal(watch)))
        package = sys.modules.get("torch_sparse")
        if package is not None:
            stack.enter_context(SparseMatrix.in_place_of(package, watch))
        yield


__all__ = ["SPARSE", "sparse_names"]
