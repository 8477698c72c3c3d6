"""One trace for several tests: most of a first call is the trace, and few tests are about it.

A test that compares results on one more graph, in another order or without a pass may take the trace that another test
made of an equal model. What follows the trace (passes, schedule, code) is made anew for every engine. Where several
processes run the tests, those that share traces must meet in one: `pytest.mark.xdist_group`, or a parameter `case`,
which `tests/conftest.py` marks so.
"""

from __future__ import annotations

import functools
from collections import OrderedDict
from collections.abc import Hashable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

import torch

from pyg_fullgraph import engine
from pyg_fullgraph.capture import Signature, Traced, trace

#: Traces kept, newest last. Tests that share one follow each other closely.
MOST = 8
_TRACES: OrderedDict[tuple[Hashable, ...], Traced] = OrderedDict()


def file(owner: Hashable, signature: Signature, traced: Traced) -> None:
    """Keep a trace for the tests of the same owner."""
    _TRACES[owner, signature.key] = traced
    while len(_TRACES) > MOST:
        _TRACES.popitem(last=False)


def traced_once(owner: Hashable, model: torch.nn.Module, signature: Signature, *rest: Any) -> Traced:
    """The trace of an earlier call of the same signature by the same owner, or one made now.

    Args:
        owner: names what was traced: models of one owner must be built alike. Their parameters may differ, since they
            are read at each call; what a forward reads beside them must not.
        model, signature, rest: as for `trace`; nothing beside the result may be asked for (`outputs`).
    """
    key = (owner, signature.key)
    if key not in _TRACES:
        file(owner, signature, trace(model, signature, *rest))
    return _TRACES[key]


@contextmanager
def shared(owner: Hashable) -> Iterator[None]:
    """Engines that are first called inside use `traced_once`."""
    with mock.patch.object(engine, "trace", functools.partial(traced_once, owner)):
        yield
