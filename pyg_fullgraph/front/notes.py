"""What users are told once: where a whole-graph run and PyG's own ``inference()`` differ.

Notes go to the logger ``pyg_fullgraph`` at WARNING level, which Python prints to stderr unless told
otherwise. They are no Python warnings: a run under ``-W error`` is not stopped by good news.
"""

from __future__ import annotations

import logging
import weakref
from collections.abc import Sequence

import torch

from pyg_fullgraph.front.uses import edge_layers_want, graph_wide_layers, sampled_degree_layers

LOGGER = logging.getLogger("pyg_fullgraph")


class OncePerClass:
    """Remembers, as long as a class lives, which topics its users were told."""

    def __init__(self) -> None:
        self._told: weakref.WeakKeyDictionary[type, set[str]] = weakref.WeakKeyDictionary()

    def first(self, owner: type, topic: str) -> bool:
        """Tells whether this is the first time for this class and topic, and remembers it."""
        topics = self._told.setdefault(owner, set())
        if topic in topics:
            return False
        topics.add(topic)
        return True

    def forget(self) -> None:
        """Starts anew: every note may be given again."""
        self._told.clear()


ONCE = OncePerClass()


def tell(owner: type, topic: str, text: str) -> None:
    """Logs a note, once per process, class and topic."""
    if ONCE.first(owner, topic):
        LOGGER.warning("%s: %s", owner.__name__, text)


def differences(model: torch.nn.Module, passed: Sequence[str]) -> list[str]:
    """Returns in which ways PyG's layer-wise ``inference()`` of this model differs from its forward.

    Args:
        model: the model, without wrappers.
        passed: the edge arguments that forward is given.
    """
    found = []
    degrees = sampled_degree_layers(model)
    if degrees:
        found.append(f"{degrees[0]} would normalise by the degrees inside each sampled batch")
    wide = graph_wide_layers(model)
    if wide:
        found.append(f"{wide[0]} would take its statistics over a batch, not over the graph")
    dropped = [name for name in ("edge_weight", "edge_attr") if name in passed]
    if dropped or edge_layers_want(model):
        found.append(f"{' and '.join(dropped) or 'edge features'} would be dropped")
    own = type(model).__dict__.get("inference")
    if own is not None:
        found.append("the class's own inference() repeats the model by hand; here forward itself is run")
    return found


def tell_differences(model: torch.nn.Module, passed: Sequence[str]) -> None:
    """Tells once per class where the numbers differ from PyG's ``inference()``; silent where they do not."""
    found = differences(model, passed)
    if found:
        tell(
            type(model),
            "differences",
            "results equal model.forward over the whole graph. PyG's inference(loader) differs: "
            + "; ".join(found)
            + ".",
        )


def tell_passed(model: torch.nn.Module, passed: Sequence[str]) -> None:
    """Tells once per class which optional arguments of forward were taken from the data."""
    if passed:
        names = ", ".join(f"data.{name}" for name in passed)
        without = ", ".join(f"{name}=None" for name in passed)
        tell(
            type(model),
            "passed " + names,
            f"{names} passed to forward, because it takes {'them' if len(passed) > 1 else 'it'}. "
            f"To run without: inference(..., {without}).",
        )
