"""Whether a traced call was compared with the model's own forward, and when it is compared again."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from pyg_fullgraph.capture.hooks import Hidden
from pyg_fullgraph.capture.signature import Signature
from pyg_fullgraph.capture.trace import Traced
from pyg_fullgraph.errors import FullGraphMismatch
from pyg_fullgraph.front.attempts import NO_ROWS, Verification
from pyg_fullgraph.front.counts import counts_edges
from pyg_fullgraph.front.matrices import Holding, holding, inputs_of, rows_of_leaves
from pyg_fullgraph.front.senders import senders
from pyg_fullgraph.front.typed import verify
from pyg_fullgraph.ir import needs_all_rows
from pyg_fullgraph.runtime import Compiled


class Check:
    """The verification of one traced call. Nothing is set before the comparison has succeeded.

    What was refused is compared again at every call, until a comparison passes; so is a call whose check was
    interrupted. Where nothing could be compared, which may take as long as a comparison, it is tried again at the next
    call, then at every second, fourth, eighth.
    """

    def __init__(self) -> None:
        self.passed = False
        self._unable = 0
        self._wait = 0

    def due(self, mode: str) -> bool:
        """Whether this call has to be compared: `mode` is "auto", "always" or "off"."""
        if mode == "auto" and not self.passed:
            self._wait = max(self._wait - 1, 0)
            return self._wait == 0
        return mode == "always"

    def run(self, compare: Callable[[], Verification]) -> Verification:
        """What `compare` found; raises what it raises, and then nothing counts as compared."""
        self.passed, self._wait = False, 0
        found = compare()
        if found.how != "none":
            self.passed, self._unable = True, 0
        elif found.reason != NO_ROWS:
            self._wait, self._unable = 2**self._unable, self._unable + 1
        return found

    @staticmethod
    def note(found: Verification) -> str:
        """What users are told of it: that nothing was compared; empty where something was."""
        return f"{found}; its results are not checked" if found.how == "none" and found.reason != NO_ROWS else ""


def compared(
    model: torch.nn.Module,
    signature: Signature,
    compiled: Compiled,
    tensors: list[Tensor],
    result: Any,
    engine: Callable[..., Any],
    nodes: dict[str, Tensor] | None,
    traced: Traced,
) -> Verification:
    """Compares a result with the model's own forward.

    Args:
        model: the model.
        signature, tensors: the call.
        compiled: what was run for it.
        result: what that gave.
        engine: runs the same program for other arguments of forward.
        nodes: space of nodes -> which of them the result has rows of; all where it is not there, and where it is None.

        traced: tells what forward writes, which hooks only look, and which submodules' outputs are in the result.

    Raises:
        FullGraphMismatch: they differ.
    """
    program = compiled.program
    held = bool(signature.places)
    compare = functools.partial(
        verify,
        inputs_of(signature, tensors, program),
        result,
        forward=Holding(model) if held else model,
        engine=holding(model, engine) if held else engine,
        hops=compiled.schedule.hops,
        global_reduction=needs_all_rows(program, compiled.schedule),
        nodes=nodes,
        name=type(model).__name__,
        senders=senders(program, rows_of_leaves(signature)),
        writes=bool(traced.writes),
        counted=counts_edges(program),
    )
    try:
        found = compare(hidden=traced.hidden)
    except FullGraphMismatch:
        if not traced.hidden.seen:
            raise
        found = None
    if traced.hidden.seen and (found is None or found.how == "none"):  # another hook may read what a silent one writes
        found = compare(hidden=Hidden(traced.hidden.outputs))
    assert found is not None
    return found
