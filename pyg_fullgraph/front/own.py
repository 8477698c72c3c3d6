"""The model's own forward, on other graphs and in another type, without a trace of it on the model."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from pyg_fullgraph.capture.hooks import Hidden
from pyg_fullgraph.capture.modules import preserved
from pyg_fullgraph.capture.written import Writes
from pyg_fullgraph.errors import FullGraphMismatch
from pyg_fullgraph.front.compare import Again, Incomparable, differ, tensors_of

Forward = Callable[..., Any]
Call = tuple[tuple[Any, ...], dict[str, Any]]
Make = Callable[[], Call]  # the arguments, anew each time: a forward may write into them


class OwnFailed(Incomparable):
    """The model's own forward raised `__cause__`: the code of the user may raise anything."""


class Unsteady(FullGraphMismatch):
    """The model's own forward gives another result at every call, so that there is nothing to be equal to."""


class Own:
    """The model's own forward, which is what a result has to equal.

    Args:
        forward: a module (of one with a method ``oracle``, a rewritten model, that is run), or any callable. A
            module's caches (``cached=True``) are neither used nor filled, and what it writes is put back.
        name: what the model is called in messages.
        writes: whether a trace saw it change something that outlives the call (a counter, say). It is then run twice,
            the second time with what the first has left.
        hidden: what else is asked for of it, and which hooks are silent meanwhile.
    """

    def __init__(
        self, forward: Forward, name: str = "model", writes: bool = False, hidden: Hidden | None = None
    ) -> None:
        self.forward, self.name, self.writes, self.hidden = forward, name, writes, hidden or Hidden()
        self.module = forward if isinstance(forward, torch.nn.Module) else None

    def __call__(self, call: Make) -> Any:
        """The result for some arguments.

        Raises:
            OwnFailed: the forward raised something.
            Unsteady: it was run twice, and the results differ.
        """
        first, *second = self._results(call, 2 if self.writes else 1)
        if second and differ(first, second[0]):
            raise self._unsteady()
        return first

    def again(self, call: Make) -> Again:
        """What tells, where a result differs from forward's, whether that is forward's doing.

        Its `steady` runs the forward twice in its own type and raises `Unsteady` where the two differ; its `wide` gives
        the tensors of a module in float64, none where it does not run in that type.
        """

        def steady() -> None:
            if differ(*self._results(call, 2)):
                raise self._unsteady()

        return Again(steady, lambda: self._in_float64(call))

    def _results(self, call: Make, times: int) -> list[Any]:
        trusted, results = getattr(self.forward, "oracle", self.forward), []
        try:
            with pristine(self.module), torch.no_grad():
                for _ in range(times):
                    args, kwargs = call()
                    with self.hidden.own(self.module) as finished:
                        results.append(finished(trusted(*args, **kwargs)))
                return results
        except Exception as error:  # the user's code may raise anything; it is reported, not hidden
            raise OwnFailed from error

    def _in_float64(self, call: Make) -> list[Tensor]:
        if self.module is None:
            return []
        try:
            double = copy.deepcopy(self.module).double()
        except Exception:  # what a model holds may refuse to be copied (a lock, a compiled function) in any way
            return []
        wide = Own(double, self.name, hidden=self.hidden)
        try:
            return tensors_of(wide(lambda: pytree.tree_map(_widened, call())))
        except OwnFailed:  # then its own type alone decides
            return []

    def _unsteady(self) -> Unsteady:
        return Unsteady(
            f"{self.name}.forward gives another result at every call, with the very same arguments: it draws random "
            "numbers, counts its calls, or reads something that moves. A captured program gives one result, so it must "
            "not be used. Make forward a function of its arguments and parameters (a random tensor can be an argument, "
            "or a buffer), or call model(...) itself; verify='off' switches this check off."
        )


@contextmanager
def pristine(model: torch.nn.Module | None) -> Iterator[None]:
    """Lets a model run on another graph and forget it: caches of ``cached=True`` layers are not used or filled, and
    nothing of that graph stays where forward or a hook has written it."""
    if model is None:
        yield
        return
    with preserved(model), Writes(model, everything=True):
        for module in model.modules():
            attributes = vars(module)
            if attributes.get("cached") is True:
                attributes["cached"] = False
            for name in [name for name in attributes if name.startswith("_cached")]:
                attributes[name] = None
        yield


def flows(forward: Forward) -> set[int]:
    """The rows of the edge list from which the layers of a module send messages."""
    if not isinstance(forward, torch.nn.Module):
        return set()
    flows = {str(getattr(module, "flow", "")) for module in forward.modules()}
    return {row for row, flow in enumerate(("source_to_target", "target_to_source")) if flow in flows}


def _widened(leaf: Any) -> Any:
    return leaf.double() if isinstance(leaf, Tensor) and leaf.is_floating_point() else leaf
