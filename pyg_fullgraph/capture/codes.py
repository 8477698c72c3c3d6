"""Which names a piece of code reads from outside: its global names, and attributes of the modules among them."""

from __future__ import annotations

import dis
import functools
import sys
from collections.abc import Iterator
from types import CodeType, FunctionType, ModuleType
from typing import Any

#: Packages whose code and whose own state (caches, registries) are taken for unchanging.
LIBRARIES = frozenset(
    [
        "torch",
        "torch_geometric",
        "numpy",
        "scipy",
        "sympy",
        "pyg_fullgraph",
        "torch_scatter",
        "torch_sparse",
        "torch_cluster",
        "torch_spline_conv",
        "pyg_lib",
        "dgl",
        "ogb",
        "einops",
        "torchmetrics",
        "pytorch_lightning",
        "lightning",
        "lightning_utilities",
        "torchvision",
        "torchaudio",
        "pandas",
        "sklearn",
        "networkx",
        "numba",
        "matplotlib",
        "tqdm",
        "loguru",
        "rich",
        "jaxtyping",
        "beartype",
        "typeguard",
        "typing_extensions",
        "pytest",
        "_pytest",
        "pluggy",
    ]
)


def is_library(module: str | None) -> bool:
    """Whether a module's code is taken for unchanging: that of well-known packages, ours, and the standard library."""
    top = (module or "builtins").partition(".")[0]
    return top in LIBRARIES or (top in sys.stdlib_module_names and top != "__main__")


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


#: Methods that fill a container and give nothing back.
_FILLING: dict[type, frozenset[str]] = {list: frozenset(["append", "extend", "insert"]), set: frozenset(["add"])}


def is_only_filled(code: CodeType, name: str, value: Any) -> bool:
    """True for a list or set, a global or enclosing variable, to which the code adds without ever reading it.

    Nothing that the code computes depends on what such a container holds: `LOG.append(x.shape)`.
    """
    return type(value) in _FILLING and name in _filled(code, _FILLING[type(value)])


@functools.lru_cache(maxsize=4096)
def _filled(code: CodeType, methods: frozenset[str]) -> frozenset[str]:
    """Names that the code uses for calls of these methods alone."""
    filled: set[str] = set()
    read: set[str] = set()
    for one in _nested(code):
        steps = list(dis.get_instructions(one))
        for step, following in zip(steps, [*steps[1:], None]):
            if step.opname in ("LOAD_GLOBAL", "LOAD_NAME", "LOAD_DEREF", "LOAD_CLASSDEREF", "LOAD_FROM_DICT_OR_DEREF"):
                is_call = following is not None and _loads_method(following) and following.argval in methods
                (filled if is_call else read).add(str(step.argval))
    return frozenset(filled - read)


def _loads_method(step: dis.Instruction) -> bool:
    """True where an attribute is loaded to be called at once."""
    if step.opname == "LOAD_ATTR" and sys.version_info >= (3, 12):
        return bool((step.arg or 0) & 1)
    return step.opname == "LOAD_METHOD"


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
