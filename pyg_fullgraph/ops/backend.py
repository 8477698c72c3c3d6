"""Which implementation serves an operator: the C++ kernels where they are built and fit, else the reference.

The extension is loaded at the first use of a kernel, not at import; where there is none that is told once, with
the reason and the remedy. `PYG_FULLGRAPH_BACKEND` overrides the choice: `python` (reference only) or `cpp` (an error
where the extension is missing); `PYG_FULLGRAPH_ISA` names the instruction set to use (`baseline`, `avx2`, `avx512`).
"""

from __future__ import annotations

import functools
import importlib
import os
import platform
import warnings
from types import ModuleType
from typing import Any, NamedTuple

import torch
from torch import Tensor

from pyg_fullgraph.errors import KernelError, OperatorError
from pyg_fullgraph.ops.forked import is_forked

DTYPES = {torch.float32: 0, torch.float64: 1, torch.bfloat16: 2, torch.float16: 3}
INDICES = {torch.int32: 0, torch.int64: 1}
PLAIN = (Tensor, torch.nn.Parameter)
MOST_THREADS = 1 << 16
REMEDY = (
    "install a C++17 compiler (g++ or clang++) and install pyg_fullgraph again with PYG_FULLGRAPH_BUILD=cpp, "
    "which shows why the build fails"
)


class Extension(NamedTuple):
    """The loaded extension, or why there is none."""

    module: ModuleType | None
    reason: str


@functools.cache
def load() -> Extension:
    """Load the extension once; warn once where there is none and nobody asked for that.

    Raises:
        KernelError: `PYG_FULLGRAPH_BACKEND=cpp` and the extension cannot be loaded, or one of the variables holds an
            unknown value.
    """
    asked = os.environ.get("PYG_FULLGRAPH_BACKEND", "")
    if asked not in ("", "python", "cpp"):
        raise KernelError(f"PYG_FULLGRAPH_BACKEND={asked!r}: valid values are python, cpp, or unset")
    if asked == "python":
        return Extension(None, "PYG_FULLGRAPH_BACKEND=python asks for the reference operators")
    try:
        module = importlib.import_module("pyg_fullgraph._C")
    except ImportError as error:
        reason = f"the C++ kernels of pyg_fullgraph cannot be loaded ({error})"
        if asked == "cpp":
            raise KernelError(f"PYG_FULLGRAPH_BACKEND=cpp, but {reason}: {REMEDY}") from error
        warnings.warn(
            f"{reason}: the much slower reference operators in plain torch serve. To change that, {REMEDY}; "
            "PYG_FULLGRAPH_BACKEND=python silences this warning.",
            RuntimeWarning,
            stacklevel=4,
        )
        return Extension(None, reason)
    if isa := os.environ.get("PYG_FULLGRAPH_ISA"):
        try:
            module.set_isa(isa)
        except ValueError as error:
            raise KernelError(f"PYG_FULLGRAPH_ISA={isa!r}: {error}") from error
    if is_forked():
        module.set_own_workers(True)
    return Extension(module, "")


def _in_child() -> None:
    """After a fork of a process that has used kernels: OpenMP's threads are gone, and would be waited for.

    The kernels make threads of their own anew. Torch gets one, as in the workers of its loaders: its next shared
    operator, the user's own too, would hang (see `forked`).
    """
    if load.cache_info().currsize:
        module: Any = load().module
        if module is not None:
            module.set_own_workers(True)
        if torch.get_num_threads() > 1:
            torch.set_num_threads(1)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_in_child)


def kernel(*tensors: Tensor, at: tuple[Tensor | None, ...] = ()) -> Any:
    """The extension if its kernels can take these tensors, else None.

    They can where the tensors are plain and in CPU memory, of a type in `DTYPES`, and no gradient is wanted; those in
    `at`, the row numbers, are plain and in CPU memory. (The result is `Any`: the extension's functions are typed in
    `_C.pyi`.)
    """
    module = load().module
    if module is None:
        return None
    for index in at:
        if index is not None and (type(index) not in PLAIN or not index.is_cpu or index.layout is not torch.strided):
            return None
    wants_grad = torch.is_grad_enabled()
    for tensor in tensors:
        if type(tensor) not in PLAIN or not tensor.is_cpu or tensor.dtype not in DTYPES:
            return None
        if tensor.layout is not torch.strided:
            return None
        if wants_grad and tensor.requires_grad:
            return None
    return module


def threads_or_default(threads: int | None) -> int:
    """The number of threads to use: torch's where the caller names none.

    Raises:
        OperatorError: no whole number of at least 1.
    """
    if threads is None:
        return torch.get_num_threads()
    if type(threads) is not int or not 1 <= threads <= MOST_THREADS:
        raise OperatorError(f"`threads` is {threads!r}; valid: a whole number from 1 to {MOST_THREADS:,}, or None")
    return threads


def kernels() -> dict[str, Any]:
    """Describe which kernels serve on this machine, and why.

    Returns:
        A dictionary with `backend` ("cpp" or "python"), `reason` (why not "cpp", else empty), `isa` (the
        instruction set in use), `isas` (all that this processor can run), `threads`, `thread_pool` ("openmp" shared
        with torch, or "workers" of our own), `dtypes`, `devices`, `machine` and `compiler`.
    """
    extension = load()
    module: Any = extension.module
    return {
        "backend": "python" if module is None else "cpp",
        "reason": extension.reason,
        "isa": None if module is None else module.isa(),
        "isas": [] if module is None else module.isas(),
        "threads": torch.get_num_threads(),
        "thread_pool": None if module is None else module.thread_pool(),
        "compiler": None if module is None else module.compiler(),
        "dtypes": [] if module is None else [str(dtype).removeprefix("torch.") for dtype in DTYPES],
        "devices": [] if module is None else ["cpu"],
        "machine": platform.machine(),
    }
