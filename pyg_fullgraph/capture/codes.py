"""Which names a piece of code reads from outside: its global names, and attributes of the modules among them."""

from __future__ import annotations

import dis
import functools
import sys
from collections.abc import Iterator
from types import CodeType, FunctionType, ModuleType
from typing import Any

_LIBRARIES = frozenset(["torch", "torch_geometric", "numpy", "scipy", "sympy", "pyg_fullgraph"])


def is_library(module: str | None) -> bool:
    """Whether a module's code is taken for unchanging: torch, torch_geometric, ours, and the standard library."""
    top = (module or "builtins").partition(".")[0]
    return top in _LIBRARIES or (top in sys.stdlib_module_names and top != "__main__")


def home_of(function: FunctionType) -> str:
    """The name of the module whose global names a function reads (`__module__` is what `functools.wraps` made it)."""
    return str(function.__globals__.get("__name__", ""))


@functools.lru_cache(maxsize=4096)
def global_names(code: CodeType) -> tuple[str, ...]:
    """The global names that a function, or a function inside it, reads."""
    names: dict[str, None] = {}
    for one in _nested(code):
        for instruction in dis.get_instructions(one):
            if instruction.opname in ("LOAD_GLOBAL", "LOAD_NAME"):
                names[str(instruction.argval)] = None
    return tuple(names)


@functools.lru_cache(maxsize=4096)
def attribute_names(code: CodeType) -> frozenset[str]:
    """Names that may be attributes of something that the code reads; also the texts in it, as for `getattr`."""
    names: set[str] = set()
    for one in _nested(code):
        names.update(one.co_names)
        names.update(constant for constant in one.co_consts if isinstance(constant, str))
    return frozenset(names)


def _nested(code: CodeType) -> Iterator[CodeType]:
    yield code
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _nested(constant)


def read_from(module: ModuleType, code: CodeType) -> dict[str, Any]:
    """What the code may read of a module that is no library: `config.SCALE`."""
    names = vars(module)
    return {name: names[name] for name in sorted(attribute_names(code)) if name in names}
