"""`SparseMatrix`: what `torch_sparse.SparseTensor(...)` gives while a forward is traced.

Its methods are those of that class (`size(0)`, `device()`, `coo()` are calls), its entries are in the order of their
rows, and duplicates stay until `coalesce()`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from pyg_fullgraph.capture.modules import replaced
from pyg_fullgraph.capture.scatter import bound_to
from pyg_fullgraph.capture.sparse.matrix import ADVICE, Matrix, combine
from pyg_fullgraph.capture.standins import pointers, row_numbers, size_in
from pyg_fullgraph.capture.watch import Watch

_REDUCES = {"sum": "sum", "add": "sum", "mean": "mean", "max": "amax", "min": "amin"}


class SparseMatrix:
    """The entries of a `torch_sparse.SparseTensor`.

    Args:
        watch: refuses for it.
        row, col: `[nnz]`, in any order.
        value: `[nnz, ...]` or None: all are 1.
        size: rows and columns.
        ordered: whether the entries are in the order of their rows.
    """

    _pretends: type = object  # torch_sparse.SparseTensor, while that is replaced

    def __init__(
        self,
        watch: Watch,
        row: Tensor,
        col: Tensor,
        value: Tensor | None,
        size: tuple[Any, Any],
        ordered: bool = False,
    ) -> None:
        self._watch, self._row, self._col, self._value, self._size = watch, row, col, value, size
        self._ordered = ordered

    @property  # type: ignore[misc]
    def __class__(self) -> type:
        return SparseMatrix._pretends

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or not hasattr(SparseMatrix._pretends, name):
            raise AttributeError(name)
        self._watch.refuse(f"`SparseTensor.{name}`", "is not captured inside of a forward", ADVICE)

    def like(self, **changed: Any) -> SparseMatrix:
        """The same matrix but for some of its parts."""
        given = {"row": self._row, "col": self._col, "value": self._value, "size": self._size}
        return SparseMatrix(self._watch, **{**given, "ordered": self._ordered, **changed})

    def sorted(self) -> SparseMatrix:
        """The same with its entries in the order of their rows."""
        if self._ordered:
            return self
        order = (self._row * self._size[1] + self._col).argsort(stable=True)
        value = None if self._value is None else self._value.index_select(0, order)
        made = self.like(row=self._row[order], col=self._col[order], value=value, ordered=True)
        if value is not None:  # from now on these are the values: what is written into them is the matrix's
            vars(self).update(vars(made))
            return self
        return made

    # What it is -----------------------------------------------------------------------------------------------

    def size(self, dim: int) -> Any:
        return self.sizes()[dim]

    def sizes(self) -> list[Any]:
        return [*self._size, *(() if self._value is None else self._value.shape[1:])]

    def sparse_sizes(self) -> tuple[Any, Any]:
        return self._size

    def sparse_size(self, dim: int) -> Any:
        return self._size[dim]

    def dim(self) -> int:
        return len(self.sizes())

    def nnz(self) -> Any:
        return self._row.size(0)

    def has_value(self) -> bool:
        return self._value is not None

    def device(self) -> torch.device:
        return self._row.device

    def dtype(self) -> torch.dtype:
        return torch.float32 if self._value is None else self._value.dtype

    def is_cuda(self) -> bool:
        return self._row.is_cuda

    def requires_grad(self) -> bool:
        return False

    # Its entries ----------------------------------------------------------------------------------------------

    def coo(self) -> tuple[Tensor, Tensor, Tensor | None]:
        made = self.sorted()
        return made._row, made._col, made._value

    def csr(self) -> tuple[Tensor, Tensor, Tensor | None]:
        row, col, value = self.coo()
        return pointers(row, self._size[0]), col, value

    @property
    def storage(self) -> SparseMatrix:
        return self.sorted()

    def row(self) -> Tensor:
        return self.sorted()._row

    def col(self) -> Tensor:
        return self.sorted()._col

    def value(self) -> Tensor | None:
        return self.sorted()._value

    def rowptr(self) -> Tensor:
        return self.csr()[0]

    def set_value(self, value: Tensor | None, layout: str | None = None) -> SparseMatrix:
        """Other values, in the order of the rows."""
        if layout not in (None, "coo", "csr"):
            self._watch.refuse("`SparseTensor.set_value(layout='csc')`", "is not captured", ADVICE)
        return self.sorted().like(value=value)

    def fill_value(self, fill_value: float, dtype: torch.dtype | None = None) -> SparseMatrix:
        value = torch.full((self.nnz(),), fill_value, dtype=dtype or torch.float32, device=self._row.device)
        return self.like(value=value)

    def _ones(self, dtype: torch.dtype) -> Tensor:
        return torch.ones(self.nnz(), dtype=dtype, device=self._row.device)

    def as_matrix(self, dtype: torch.dtype | None = None) -> Matrix:
        """The same as a matrix of torch."""
        value = self._ones(dtype or torch.float32) if self._value is None else self._value
        value = value if dtype is None else value.to(dtype)
        size = (*self._size, *value.shape[1:])
        return Matrix(self._watch, "coo", (self._row, self._col), value, size)

    def coalesce(self, reduce: str = "sum") -> SparseMatrix:
        if self._value is not None and reduce not in ("sum", "add"):
            self._watch.refuse(f"`SparseTensor.coalesce('{reduce}')`", "is not captured", ADVICE)
        one = self.as_matrix().merged()
        row, col = one._entry
        return self.like(row=row, col=col, value=None if self._value is None else one._value, ordered=True)

    # Other forms ----------------------------------------------------------------------------------------------

    def t(self) -> SparseMatrix:
        return self.like(row=self._col, col=self._row, size=self._size[::-1], ordered=False)

    def to_dense(self, dtype: torch.dtype | None = None) -> Tensor:
        return self.as_matrix(dtype).to_dense()

    def to_torch_sparse_coo_tensor(self, dtype: torch.dtype | None = None) -> Matrix:
        return self.sorted().as_matrix(dtype)

    def to_torch_sparse_csr_tensor(self, dtype: torch.dtype | None = None) -> Matrix:
        return self.sorted().as_matrix(dtype).like(kind="csr", coalesced=True)

    def to(self, *args: Any, **kwargs: Any) -> SparseMatrix:
        return self if self._value is None else self.like(value=self._value.to(*args, **kwargs))

    def type(self, dtype: torch.dtype, non_blocking: bool = False) -> SparseMatrix:
        return self.to(dtype)

    def itself(self, *args: Any, **kwargs: Any) -> SparseMatrix:
        """What changes nothing about the values."""
        return self

    def clone(self) -> SparseMatrix:
        """The same in memory of its own."""
        value = None if self._value is None else self._value.clone()
        return self.like(row=self._row.clone(), col=self._col.clone(), value=value)

    detach = copy = cpu = fill_cache_ = clear_cache_ = device_as = itself

    # Arithmetic -----------------------------------------------------------------------------------------------

    def matmul(self, other: Any, reduce: str = "sum") -> Tensor:
        if not isinstance(other, Tensor) or reduce not in _REDUCES or other.dim() > 2:
            self._watch.refuse("a product of two `SparseTensor`s", "is not captured inside of a forward", ADVICE)
        x = other if other.dim() == 2 else other.unsqueeze(-1)
        return combine(self.as_matrix(other.dtype), x, _REDUCES[reduce])

    def __matmul__(self, other: Any) -> Tensor:
        return self.matmul(other)

    spmm = matmul

    def mul(self, other: Tensor) -> SparseMatrix:
        """Each row, or each column, times a number."""
        value = self.as_matrix() * other
        return self.like(value=value._value)

    __mul__ = __rmul__ = mul

    def mul_nnz(self, other: Any, layout: str | None = None) -> SparseMatrix:
        made = self.sorted()
        value = made._ones(torch.float32) if made._value is None else made._value
        return made.like(value=value * other)

    def sum(self, dim: int | None = None) -> Tensor:
        """The sum of all values, or of each row (`dim=1`) or column."""
        value = self._ones(torch.float32) if self._value is None else self._value
        if dim is None:
            return value.sum()
        kept = (dim + 1) % 2
        zeros = value.new_zeros([self._size[kept], *value.shape[1:]])
        return zeros.index_add(0, (self._row, self._col)[kept], value)

    # In place of the class ------------------------------------------------------------------------------------

    @classmethod
    def made(cls, watch: Watch, **given: Any) -> SparseMatrix:
        """What the constructor is called with, as a matrix."""
        row, rowptr, col = given.get("row"), given.get("rowptr"), given["col"]
        if row is None:
            assert rowptr is not None
            row = row_numbers(rowptr, col.size(0))
        sizes = given.get("sparse_sizes") or (None, None)
        rows = sizes[0] if sizes[0] is not None else (rowptr.size(0) - 1 if rowptr is not None else _count(row))
        size = (rows, _count(col) if sizes[1] is None else sizes[1])
        ordered = bool(given.get("is_sorted")) or rowptr is not None
        return cls(watch, row, col, given.get("value"), size, ordered)

    @classmethod
    @contextlib.contextmanager
    def in_place_of(cls, package: Any, watch: Watch) -> Iterator[None]:
        """While tracing: `SparseTensor(...)` of torch_sparse, and its `matmul`."""
        names = ("row", "rowptr", "col", "value", "sparse_sizes", "is_sorted", "trust_data")

        def new(_: Any, *args: Any, **kwargs: Any) -> SparseMatrix:
            return cls.made(watch, **dict(zip(names, args, strict=False)), **kwargs)

        def matmul(src: Any, other: Any, reduce: str = "sum") -> Any:
            return src.matmul(other, reduce)

        kind = package.SparseTensor
        before, cls._pretends = cls._pretends, kind
        with contextlib.ExitStack() as stack:
            stack.callback(setattr, cls, "_pretends", before)
            if "__new__" not in vars(kind):  # Python does not make a class whose `__new__` was deleted as before
                kind.__new__ = staticmethod(_plain_new)
            stack.enter_context(replaced(kind, "__new__", staticmethod(new)))
            for module, key in bound_to(package.matmul):
                stack.enter_context(replaced(module, key, matmul))
            yield


def _plain_new(cls: type, *args: Any, **kwargs: Any) -> Any:
    """What makes an object of a class without a `__new__` of its own."""
    return object.__new__(cls)


def _count(index: Tensor) -> Any:
    return size_in(index.max()) + 1
