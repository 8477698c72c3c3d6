"""The options of a call are checked before any work: what there is, what was got, which were meant."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterable, Mapping
from numbers import Integral
from typing import Any

import torch

from pyg_fullgraph.errors import InputError
from pyg_fullgraph.passes import PIPELINE
from pyg_fullgraph.runtime import make_home
from pyg_fullgraph.runtime.ordered import CHOICES

VERIFY: dict[bool | str, str] = {"auto": "auto", "always": "always", "off": "off", True: "always", False: "off"}


def check_options(
    *,
    threads: Any,
    home: Any,
    verify: Any,
    fallback: Any,
    skip_passes: Any,
    order: Any,
    calls: Any,
    dims: Any,
) -> None:
    """Check the options of an engine.

    Raises:
        InputError: one has no such value; names the option, the value and the choices.
    """
    _one_of("verify", verify, tuple(VERIFY))
    _one_of("fallback", fallback, ("error", "eager"))
    _one_of("order", order, CHOICES)
    _one_of("home", home, ("memory", "mapped"))
    make_home(home, torch.device("cpu")).close()
    if threads is not None:
        _whole("threads", threads)
    _whole("calls", calls)
    _passes(skip_passes)
    if dims is not None and not isinstance(dims, Mapping):
        raise InputError(f"dims={dims!r}: it must be a dictionary, {{'x': ('N', 16)}}.")
    for name, sizes in (dims or {}).items():
        fine = isinstance(sizes, (tuple, list)) and all(isinstance(size, (int, str)) for size in sizes)
        if not fine:
            raise InputError(f"dims[{name!r}] = {sizes!r}: it must be a tuple of names and sizes, ('N', 16).")


def check_known(given: Iterable[str], known: Collection[str], of: str) -> None:
    """Check the names of options.

    Raises:
        InputError: there is no option of this name.
    """
    for name in given:
        if name not in known:
            raise InputError(
                f"Unknown option '{name}' of {of}.{did_you_mean(name, known)} Options: {', '.join(known)}."
            )


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """A question after the name that was meant, if there is one close to it."""
    near = difflib.get_close_matches(name, [str(each) for each in known], 1)
    return f" Did you mean {near[0]!r}?" if near else ""


def _one_of(option: str, value: Any, choices: tuple[Any, ...]) -> None:
    if not isinstance(value, (str, bool, type(None))) or value not in choices:
        meant = did_you_mean(value, [each for each in choices if isinstance(each, str)]) if type(value) is str else ""
        raise InputError(f"{option}={value!r}: there are {', '.join(map(repr, choices))}.{meant}")


def _whole(option: str, value: Any) -> None:
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise InputError(f"{option}={value!r}: it must be a whole number, at least 1.")
    if value < 1:
        raise InputError(f"{option}={value}: at least 1 is needed.")


def _passes(skip: Any) -> None:
    names = [name for name, _ in PIPELINE]
    if isinstance(skip, str) or not isinstance(skip, Collection):
        raise InputError(f"skip_passes={skip!r}: it must be a list of names of passes, out of {', '.join(names)}.")
    for name in skip:
        if name not in names:
            meant = did_you_mean(str(name), names)
            raise InputError(f"skip_passes holds {name!r}, but there are only {', '.join(names)}.{meant}")
