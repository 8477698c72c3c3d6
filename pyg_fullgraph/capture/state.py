"""Whether a model is still the one that was traced, asked at every call: first cheaply, by identity.

Everything that a trace read is part of it (`capture.walk`): attributes of modules and of the objects in them, classes,
code, global names, variables of enclosing functions, settings of torch. Of the attributes of modules only those count
that some trace asked for (`capture.reads`): a counter of training steps does not make a trace stale.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor

from pyg_fullgraph.capture.modules import check_ready
from pyg_fullgraph.capture.reads import Found
from pyg_fullgraph.capture.unchanged import ambient
from pyg_fullgraph.capture.walk import Walk

_REMEMBERED = 8  # states whose traces are kept


class ModelState:
    """Numbers the states of a model, and walks over it only where something was changed since the last time.

    Args:
        lock: held while somebody traces the model, which puts other tensors into it.
    """

    def __init__(self, lock: AbstractContextManager[Any] | None = None) -> None:
        self._lock = threading.RLock() if lock is None else lock
        self._reads: dict[str, frozenset[str]] | None = None
        self._valued: frozenset[str] = frozenset()
        self._looking: dict[int, Any] = {}
        self._numbers: OrderedDict[tuple[Any, ...], int] = OrderedDict()
        self._count = 0
        self._number = 0
        self._walk: Walk | None = None
        self._moves: list[str] = []
        self.notes: list[str] = []

    def number(self, model: torch.nn.Module) -> int:
        """The same number where a trace would do the same; before the first trace, another one each time.

        Raises:
            InputError: the model is not ready (`check_ready`).
        """
        if not self._holds():
            with self._lock:
                if not self._holds():
                    self._walk = None
                    check_ready(model)
                    if self._reads is None:
                        self._number = self._next()
                    else:
                        self._look(model)
        return self._number

    def _holds(self) -> bool:
        walk = self._walk
        return walk is not None and not self._moves and not walk.opaque and walk.checks.holds()

    def learn(self, model: torch.nn.Module, found: Found) -> int:
        """The number of the present state, counting what one more trace has read.

        Args:
            model: as it was traced.
            found: what the trace read.
        """
        before = self._reads, self._valued, set(self._looking)
        known = dict(self._reads or {})
        for name, names in found.reads.items():
            known[name] = known.get(name, frozenset()) | names
        self._reads, self._valued, self._moves = known, self._valued | found.valued, found.moves
        for text in found.moves:
            self._note(f"a new trace is made at each call, as forward itself changes {text}")
        self._looking |= {id(hook): hook for hook in found.looking}
        if before != (self._reads, self._valued, set(self._looking)):
            self._numbers.clear()  # these were told apart by less
            self._look(model)
        return self._number

    def kept(self, traces: dict[tuple[Any, ...], Any], before: int) -> dict[tuple[Any, ...], Any]:
        """Of what is filed by (call, state, settings): what belongs to states that may come again.

        Args:
            traces: filed things.
            before: the number that the present state had until now.
        """
        alive = {self._number, *self._numbers.values()}
        moved = {before: self._number}
        now = {(call, moved.get(number, number), rest): item for (call, number, rest), item in traces.items()}
        return {key: item for key, item in now.items() if key[1] in alive}

    def tensor(self, name: str) -> Tensor:
        """A tensor of the model as it was at the last look, by the name of its place."""
        assert self._walk is not None
        return self._walk.tensors[name]

    def _look(self, model: torch.nn.Module) -> None:
        self._walk = walk = Walk(model, self._reads, valued=self._valued, looking=self._looking.values())
        for text in walk.opaque:
            self._note(f"a new trace is made at each call, as it cannot be seen whether {text} was changed")
        state = (ambient(), *walk.tokens)
        if walk.opaque or self._moves or state not in self._numbers:
            self._number = self._next()
            if not walk.opaque and not self._moves:
                self._numbers[state] = self._number
                while len(self._numbers) > _REMEMBERED:
                    self._numbers.popitem(last=False)
        else:
            self._number = self._numbers[state]
            self._numbers.move_to_end(state)

    def _next(self) -> int:
        self._count += 1
        return self._count

    def _note(self, text: str) -> None:
        if text not in self.notes:
            self.notes.append(text)


def module_fingerprint(model: torch.nn.Module) -> tuple[Any, ...]:
    """All that a trace of the model may depend on besides the call; equal where a trace would do the same."""
    return (ambient(), *Walk(model).tokens)


def autocast_state() -> tuple[Any, ...]:
    """Under autocast a forward casts other values, and so does its trace."""
    kinds = [kind for kind in ("cpu", "cuda") if torch.is_autocast_enabled(kind)]
    return tuple((kind, torch.get_autocast_dtype(kind)) for kind in kinds)
