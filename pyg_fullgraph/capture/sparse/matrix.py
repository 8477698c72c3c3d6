"""`Matrix`: a sparse matrix (or vector) while a forward is traced, which fake tensors cannot be.

It holds the entries as they were given: one index per sparse dimension, and their values. What is linear in the
matrix works on the entries, duplicates or not; what looks at the values of its elements merges duplicates first.
Products are a gather, a weight and a reduction, which the compiler makes one kernel of.

It is a tensor without memory of its own (`isinstance(a, Tensor)`, also for torch's C++), and refuses with the user's
line what it does not know: functions of torch by `__torch_function__`, and whatever gets past that (operators called by
their name, `torch.autograd.Function`, compiled extensions) by `__torch_dispatch__`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeAlias

import torch
from torch import Tensor

from pyg_fullgraph.capture.merged import some_left
from pyg_fullgraph.capture.standins import pointers
from pyg_fullgraph.capture.watch import Watch

ADVICE = (
    "Compute with edge_index and edge weights (propagate(), or torch_geometric.utils.scatter of x[edge_index[0]] by "
    "edge_index[1]), or build the matrix outside of the model."
)
_MULTIPLY_BEFORE = (
    "Multiply one after the other, a @ (b @ x), or pass the product of the matrices to forward; fallback='eager' runs "
    "the model's own forward."
)
_LAYOUTS = {"coo": torch.sparse_coo, "csr": torch.sparse_csr, "csc": torch.sparse_csc}
_REDUCES = {"sum": "sum", "add": "sum", "mean": "mean", "amax": "amax", "max": "amax", "amin": "amin", "min": "amin"}

if TYPE_CHECKING:
    _Base: TypeAlias = object  # its methods take less than those of a tensor, and say what they do not know
else:
    _Base = Tensor

Handler = Callable[..., Any]
FUNCTIONS: dict[Any, Handler] = {}  # function of torch -> what it does with a matrix among its arguments


class Matrix(_Base):
    """The entries of a sparse matrix.

    Args:
        watch: refuses for it.
        kind: "coo", "csr" or "csc".
        indices: one `[nnz]` per sparse dimension.
        value: `[nnz, ...]`.
        size: of the whole, sparse dimensions first.
        coalesced: whether torch knows that there are no duplicates and the entries are in order.
        exact: whether the entries are those that torch has, in its order; else only their sum is the same.
        compressed: row pointers of a csr, column pointers of a csc matrix, where they are known.
    """

    @staticmethod
    def __new__(
        cls, watch: Watch, kind: str, indices: tuple[Tensor, ...], value: Tensor, *args: Any, **kwargs: Any
    ) -> Matrix:
        make: Any = Tensor._make_wrapper_subclass
        return make(cls, (), dtype=value.dtype, device=value.device)

    def __init__(
        self,
        watch: Watch,
        kind: str,
        indices: tuple[Tensor, ...],
        value: Tensor,
        size: tuple[Any, ...],
        coalesced: bool = False,
        exact: bool = True,
        compressed: Tensor | None = None,
    ) -> None:
        super().__init__()
        self._watch, self._kind, self._entry, self._value, self._size = watch, kind, indices, value, tuple(size)
        self._coalesced, self._exact, self._compressed = coalesced, exact, compressed
        self._stacked: Tensor | None = None

    @classmethod
    def __torch_function__(
        cls, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        handler = FUNCTIONS.get(func)
        result = handler(*args, **kwargs) if handler is not None else NotImplemented
        return _among(args, kwargs).refuse(_name(func)) if result is NotImplemented else result

    @classmethod
    def __torch_dispatch__(
        cls, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        return _among(args, kwargs or {}).refuse(_name(func))

    def refuse(self, name: str, advice: str = ADVICE) -> Any:
        """Write down that an operation is not known for a sparse matrix.

        Raises:
            CaptureError: always.
        """
        self._watch.refuse(f"`{name}` of a sparse matrix", "is not captured inside of a forward", advice)

    def like(self, **changed: Any) -> Matrix:
        """The same matrix but for some of its parts."""
        given: dict[str, Any] = {
            "kind": self._kind,
            "indices": self._entry,
            "value": self._value,
            "size": self._size,
            "coalesced": self._coalesced,
            "exact": self._exact,
            "compressed": self._compressed,
        }
        return Matrix(self._watch, **{**given, **changed})

    # What it is -----------------------------------------------------------------------------------------------

    @property
    def layout(self) -> torch.layout:
        return _LAYOUTS[self._kind]

    @property
    def is_sparse(self) -> bool:
        return self._kind == "coo"

    @property
    def is_sparse_csr(self) -> bool:
        return self._kind == "csr"

    @property
    def shape(self) -> tuple[Any, ...]:
        return self._size

    @property
    def ndim(self) -> int:
        return len(self._size)

    @property
    def dtype(self) -> torch.dtype:
        return self._value.dtype

    @property
    def device(self) -> torch.device:
        return self._value.device

    requires_grad = is_cuda = is_quantized = is_nested = is_mkldnn = False

    def size(self, dim: int | None = None) -> Any:
        return self._size if dim is None else self._size[dim]

    def dim(self) -> int:
        return len(self._size)

    def sparse_dim(self) -> int:
        return len(self._entry)

    def dense_dim(self) -> int:
        return len(self._size) - len(self._entry)

    def is_floating_point(self) -> bool:
        return self._value.is_floating_point()

    def __len__(self) -> Any:
        return self._size[0]

    def __repr__(self) -> str:
        return f"<sparse_{self._kind} matrix of the captured program>"

    # Its entries ----------------------------------------------------------------------------------------------

    def merged(self) -> Matrix:
        """Without duplicates and in order, as `coalesce()` makes it."""
        if self._coalesced:
            return self
        first, *rest = self._entry
        key = first
        for index, size in zip(rest, self._size[1:], strict=False):
            key = key * size + index
        order = torch.sort(key, stable=True)
        before = torch.cat([key.new_full((1,), -1), order.values])[:-1]
        starts = order.values != before
        group = starts.cumsum(0) - 1
        indices = tuple(index[order.indices][starts] for index in self._entry)
        some_left(first.size(0), indices[0].size(0))
        zeros = self._value.new_zeros([indices[0].size(0), *self._value.shape[1:]])
        value = zeros.index_add(0, group, self._value.index_select(0, order.indices))
        return self.like(indices=indices, value=value, coalesced=True, exact=True, compressed=None)

    def coalesce(self) -> Matrix:
        return self.merged().like(kind="coo")

    def is_coalesced(self) -> bool:
        return self._coalesced if self._exact else self.refuse("is_coalesced")

    def _coalesced_(self, coalesced: bool) -> Matrix:
        return self.like(coalesced=coalesced)

    def _entries(self, name: str, of_coalesced: bool = False) -> Matrix:
        """This matrix where torch would show the same entries; `indices()` is for coalesced ones only."""
        if not self._exact or (of_coalesced and not self._coalesced):
            self.refuse(name + ("() before coalesce" if of_coalesced and not self._coalesced else ""))
        return self

    def indices(self) -> Tensor:
        return self._entries("indices", of_coalesced=True)._as_one()

    def _indices(self) -> Tensor:
        return self._entries("_indices")._as_one()

    def _as_one(self) -> Tensor:
        """The indices as one tensor, whose rows they are from now on: what is written into it is theirs."""
        if self._stacked is None:
            self._stacked = torch.stack(self._entry)
            self._entry = self._stacked.unbind(0)
        return self._stacked

    def values(self) -> Tensor:
        return self._entries("values", of_coalesced=self._kind == "coo")._value

    def _values(self) -> Tensor:
        return self._entries("_values")._value

    def _nnz(self) -> Any:
        return self._entries("_nnz")._value.size(0)

    def crow_indices(self) -> Tensor:
        return self._pointers("crow_indices", "csr", 0)

    def ccol_indices(self) -> Tensor:
        return self._pointers("ccol_indices", "csc", 1)

    def _pointers(self, name: str, kind: str, dim: int) -> Tensor:
        if self._kind != kind:
            self.refuse(name)
        made = self._entries(name)
        if made._compressed is None:
            made._compressed = pointers(made._entry[dim], made._size[dim])
        return made._compressed

    def col_indices(self) -> Tensor:
        return self._entries("col_indices")._entry[1] if self._kind == "csr" else self.refuse("col_indices")

    def row_indices(self) -> Tensor:
        return self._entries("row_indices")._entry[0] if self._kind == "csc" else self.refuse("row_indices")

    # Other forms ----------------------------------------------------------------------------------------------

    def t(self) -> Matrix:
        return self.turned().clone() if self._kind == "coo" else self.turned()

    def turned(self) -> Matrix:
        """Rows for columns, of the same memory, which `t()` of a COO matrix does not share."""
        kind = {"csr": "csc", "csc": "csr"}.get(self._kind, self._kind)
        indices, size = (self._entry[1], self._entry[0]), (self._size[1], self._size[0], *self._size[2:])
        coalesced = self._coalesced and kind != "coo"
        return self.like(kind=kind, indices=indices, size=size, coalesced=coalesced)

    T, mT = property(turned), property(t)

    def transpose(self, dim0: int, dim1: int) -> Matrix:
        return self.t() if {dim0 % 2, dim1 % 2} == {0, 1} and self.dim() == 2 else self.refuse("transpose")

    def to_sparse_csr(self, dense_dim: int | None = None) -> Matrix:
        if self._kind == "csr":
            return self
        by_row = self.like(kind="coo", coalesced=self._coalesced and self._kind == "coo").merged()
        return by_row.like(kind="csr", compressed=None)

    def to_sparse_csc(self, dense_dim: int | None = None) -> Matrix:
        return self if self._kind == "csc" else self.t().to_sparse_csr().t()

    def to_sparse_coo(self) -> Matrix:
        if self._kind == "coo":
            return self
        return self.like(kind="coo", coalesced=True) if self._kind == "csr" else self.to_sparse_csr().to_sparse_coo()

    def to_sparse(self, sparse_dim: int | None = None, *, layout: Any = None, **more: Any) -> Matrix:
        made = {None: self.to_sparse_coo, torch.sparse_coo: self.to_sparse_coo}
        made |= {torch.sparse_csr: self.to_sparse_csr, torch.sparse_csc: self.to_sparse_csc}
        return made[layout]() if layout in made and not more else self.refuse("to_sparse")

    def to_dense(self, dtype: torch.dtype | None = None, **more: Any) -> Tensor:
        zeros = torch.zeros(self._size, dtype=self._value.dtype, device=self.device)
        if len(self._entry) == 1:
            made = zeros.index_add(0, self._entry[0], self._value)
        else:
            made = zeros.index_put(self._entry, self._value, accumulate=True)
        return made if dtype is None else made.to(dtype)

    def to(self, *args: Any, **kwargs: Any) -> Matrix:
        return self.like(value=self._value.to(*args, **kwargs))

    def type(self, dtype: Any) -> Matrix:
        return self.to(dtype)

    def float(self) -> Matrix:
        return self.to(torch.float32)

    def double(self) -> Matrix:
        return self.to(torch.float64)

    def half(self) -> Matrix:
        return self.to(torch.float16)

    def long(self) -> Matrix:
        return self.to(torch.int64)

    def clone(self, *args: Any, **kwargs: Any) -> Matrix:
        """The same in memory of its own: `values().fill_(1)` of either is not seen by the other."""
        indices = tuple(entry.clone() for entry in self._entry)
        return self.like(indices=indices, value=self._value.clone())

    __deepcopy__ = clone

    def itself(self, *args: Any, **kwargs: Any) -> Matrix:
        """What changes nothing about the values."""
        return self

    detach = contiguous = cpu = requires_grad_ = itself
    data = property(itself)

    # Arithmetic -----------------------------------------------------------------------------------------------

    def product(self, x: Tensor, reduce: str = "sum") -> Tensor:
        """`self @ x`: each row the sum (mean, ...) of its entries' values times rows of x."""
        if is_matrix(x):
            return self.refuse("product with another sparse matrix", _MULTIPLY_BEFORE)
        if len(self._entry) != 2 or self.dense_dim() or reduce not in _REDUCES:
            return self.refuse("product")
        columns, rows = self._size[1], x.shape[0]
        torch._check(columns == rows, lambda: f"a matrix of {columns} columns times {rows} rows")
        return combine(self, x, _REDUCES[reduce])

    def __matmul__(self, x: Any) -> Any:
        return self.product(x)

    matmul = mm = mv = __matmul__

    def __rmatmul__(self, x: Any) -> Any:
        return self.t().product(x.t() if x.dim() == 2 else x).t()

    def scaled(self, other: Any, by: Callable[[Any, Any], Any]) -> Any:
        """The values times (or over) a number, or what a dense matrix has at the entries."""
        if is_matrix(other):
            return self.refuse("product of elements with another sparse matrix")
        if not isinstance(other, Tensor):
            return self.like(value=by(self._value, other))
        if other.dim() == 0:
            return self.like(value=by(self._value, other))
        if len(self._entry) != 2 or self.dense_dim() or other.dim() > 2:
            return self.refuse("product of elements")
        return self.like(value=by(self._value, _at_entries(self, other)))

    def __mul__(self, other: Any) -> Any:
        return self.scaled(other, torch.mul)

    mul = multiply = __rmul__ = __mul__

    def __truediv__(self, other: Any) -> Any:
        return self.scaled(other, torch.div)

    div = divide = __truediv__

    def __neg__(self) -> Matrix:
        return self.like(value=-self._value)

    neg = __neg__

    def plus(self, other: Any, alpha: Any = 1) -> Any:
        """The sum with another sparse matrix: all entries of both."""
        if not is_matrix(other) or len(other._entry) != len(self._entry):
            return self.refuse("sum with a dense matrix")
        indices = tuple(torch.cat(pair) for pair in zip(self._entry, other._entry, strict=True))
        value = torch.cat([self._value, other._value if alpha == 1 else alpha * other._value])
        return self.like(indices=indices, value=value, coalesced=False, exact=False, compressed=None)

    def __add__(self, other: Any) -> Any:
        return self.plus(other)

    add = plus

    def __sub__(self, other: Any) -> Any:
        return self.plus(other, -1)

    def sub(self, other: Any, alpha: Any = 1) -> Any:
        return self.plus(other, -alpha)

    def by_element(self, function: Callable[[Tensor], Tensor]) -> Matrix:
        """A function that keeps zeros, of every element: duplicates are merged first."""
        one = self.merged()
        return one.like(value=function(one._value))

    def sum(self, dim: Any = None, keepdim: bool = False, dtype: torch.dtype | None = None) -> Any:
        value = self._value if dtype is None else self._value.to(dtype)
        dims = tuple(range(self.dim())) if dim is None else (dim,) if isinstance(dim, int) else tuple(dim)
        dims = tuple(d % self.dim() for d in dims)
        if self.dense_dim():
            return self.refuse("sum")
        left = [i for i in range(len(self._entry)) if i not in dims]
        if not left:
            return value.sum()
        if keepdim:
            indices = tuple(e if i in left else torch.zeros_like(e) for i, e in enumerate(self._entry))
            size = tuple(s if i in left else 1 for i, s in enumerate(self._size))
        else:
            indices, size = tuple(self._entry[i] for i in left), tuple(self._size[i] for i in left)
        kind = self._kind if keepdim else "coo"
        return self.like(
            kind=kind, indices=indices, value=value, size=size, coalesced=False, exact=False, compressed=None
        )


def is_matrix(item: Any) -> bool:
    """True for a `Matrix`, which to everybody else is a tensor."""
    return isinstance(item, Matrix)


def _among(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Matrix:
    """The first matrix among the arguments of a function."""
    return next(leaf for leaf in torch.utils._pytree.tree_leaves((args, kwargs)) if is_matrix(leaf))


def _name(func: Any) -> str:
    """What a function of torch is called; of an attribute, its own name and not `__get__`."""
    owner = getattr(func, "__self__", None)
    return str(getattr(owner if getattr(func, "__name__", "") == "__get__" else func, "__name__", func))


def combine(matrix: Matrix, x: Tensor, reduce: str) -> Tensor:
    """Rows of `x` at the entries' columns, times the values, reduced by row."""
    if reduce != "sum" and not matrix._exact:
        matrix = matrix.merged()
    row, column = matrix._entry
    messages = x.index_select(0, column)
    weight = matrix._value.view([-1] + [1] * (x.dim() - 1))
    messages = weight * messages
    zeros = messages.new_zeros([matrix._size[0], *x.shape[1:]])
    if reduce == "sum":
        return zeros.index_add(0, row, messages)
    index = row.view([-1] + [1] * (x.dim() - 1)).expand(messages.shape)
    return zeros.scatter_reduce(0, index, messages, reduce, include_self=False)


def _at_entries(matrix: Matrix, dense: Tensor) -> Tensor:
    """The elements of a dense matrix (or one that broadcasts to it) at the entries."""
    row, column = matrix._entry
    if dense.dim() == 1:
        return dense.index_select(0, column)
    if isinstance(dense.size(1), int) and dense.size(1) == 1:
        return dense.view(-1).index_select(0, row)
    if isinstance(dense.size(0), int) and dense.size(0) == 1:
        return dense.view(-1).index_select(0, column)
    return dense[row, column]
