"""Which attributes of which modules a traced forward reads, however it names them."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from pyg_fullgraph.capture.walk import Walk


@dataclass
class Found:
    """What a trace has read, by names that mean the same in the next call.

    Args:
        reads: module name -> attributes.
        valued: names of tensors whose values became numbers of Python.
        moves: what the forward changes itself and has read, in words.
        looking: hooks that only look (`capture.hooks`).
    """

    reads: dict[str, frozenset[str]] = field(default_factory=dict)
    valued: frozenset[str] = frozenset()
    moves: list[str] = field(default_factory=list)
    looking: tuple[Any, ...] = ()


_MODULES = torch.nn.Module.__call__.__code__.co_filename


class Reads:
    """Names of attributes by module, as a forward reads them.

    Attributes:
        by_module: id of a module -> names, `__dict__` for all of them; the modules outlive this record.
        values: tensors outside of the trace whose values became numbers of Python.
        found: the same by names, when the trace is done.
    """

    def __init__(self) -> None:
        self.by_module: dict[int, set[str]] = {}
        self.values: list[torch.Tensor] = []
        self.found = Found()
        self.walk: Walk | None = None

    def finish(self, model: torch.nn.Module, before: Walk, looking: Sequence[Any] = ()) -> None:
        """Give names to what was read, and see what the forward has changed outside of the model's attributes.

        Args:
            model: as it was before the trace.
            before: a walk over it from before the trace.
            looking: hooks that only look.
        """
        changed = before.checks.changed()
        self.walk = walk = Walk(model, by_id=self.by_module, looking=looking)
        reads = {name: frozenset(self.by_module.get(id(module), ())) for name, module in walk.modules.items()}
        valued = frozenset(name for tensor in self.values for name in walk.places.get(id(tensor), ()))
        self.found = Found(reads, valued, [name for name, value in changed.items() if walk.met(value)], tuple(looking))


@contextlib.contextmanager
def recorded(reads: Reads) -> Iterator[None]:
    """Write down each attribute of a module that is asked for, found or not, for the time of the context.

    `torch.nn.Module` has no `__getattribute__` of its own, so that one can be put there and taken away.
    """
    names = reads.by_module

    def read(self: Any, name: str) -> Any:
        if name == "__dict__" and sys._getframe(1).f_code.co_filename == _MODULES:
            return super(torch.nn.Module, self).__getattribute__(name)  # torch looks for a parameter or a buffer
        try:
            names[id(self)].add(name)
        except KeyError:
            names[id(self)] = {name}
        return super(torch.nn.Module, self).__getattribute__(name)

    base: Any = torch.nn.Module
    if "__getattribute__" in vars(base):  # a trace inside a trace, or somebody else's
        yield
        return
    base.__getattribute__ = read
    try:
        yield
    finally:
        del base.__getattribute__
