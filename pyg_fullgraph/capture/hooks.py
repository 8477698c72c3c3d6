"""Forward hooks of the user's, and the outputs of named submodules: hidden values of a forward, for all nodes.

A hook that changes what a layer takes or returns is part of the program: it is traced like the forward. One that only
looks (it returns None and writes into nothing that it is given) is called once while the model is traced, to tell, and
then at every call, with what it would have been given by the model's own forward: these values are outputs of the
program. Where the own forward runs on a part of the graph, such hooks are silent.
"""

from __future__ import annotations

import contextlib
import difflib
import threading
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from pyg_fullgraph.capture.failures import only_in_a_trace
from pyg_fullgraph.capture.problems import Problem, Problems
from pyg_fullgraph.capture.returned import mapped, paths_of, unpack
from pyg_fullgraph.errors import CaptureError, InputError

_ON_ALL = torch.nn.modules.module
_PLAIN = (bool, int, float, complex, str, bytes, torch.dtype, torch.device, torch.SymInt, torch.SymFloat)


@dataclass(frozen=True)
class Site:
    """Where a hook is registered.

    Args:
        layer: qualified name of the module; None for a hook on all modules.
        before: whether it runs before the layer's forward.
        key: its number there.
        hook: what is called.
        with_kwargs: whether it takes the keyword arguments of the layer as well.
    """

    layer: str | None
    before: bool
    key: int
    hook: Callable[..., Any] = field(compare=False)
    with_kwargs: bool

    def __str__(self) -> str:
        name = getattr(self.hook, "__qualname__", type(self.hook).__name__).replace(".<locals>", "")
        where = "all modules" if self.layer is None else f"layer '{self.layer}'" if self.layer else "the model"
        return f"forward {'pre-' if self.before else ''}hook '{name}' of {where}"


@dataclass(frozen=True)
class Seen:
    """One call of a hook that only looks: by which layer, and why it could not be run in the trace, if so."""

    site: Site
    layer: str
    failed: str = ""


class Hidden:
    """What a program computes beside the result, as `joined` and `parts` agree on.

    Args:
        outputs: names of the submodules whose outputs are asked for.
        seen: the calls of hooks that only look, in their order.
    """

    def __init__(self, outputs: Collection[str] = (), seen: Collection[Seen] = ()) -> None:
        self.outputs, self.seen = tuple(outputs), list(seen)
        self.leaves = 0  # how many of the program's outputs, the last ones, are for hooks

    def of(self, full: Any) -> Any:
        """What the user is given of everything that the program computes."""
        if not self.outputs and not self.seen:
            return full
        return (full[0], full[1]) if self.outputs else full[0]

    def tell(self, model: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], full: Any) -> None:
        """Call the hooks with what a forward for these arguments has computed.

        Raises:
            CaptureError: one of them changes something after all.
        """
        for seen, (taken, named, returned) in zip(self.seen, full[2] if self.seen else (), strict=True):
            layer = model.get_submodule(seen.layer)
            if not seen.layer:
                taken, named = args, kwargs
            given = (taken, *((named,) if seen.site.with_kwargs else ()), *(() if seen.site.before else (returned,)))
            before = _marks(given)
            if seen.site.hook(layer, *given) is not None or _marks(given) != before:
                raise CaptureError(
                    f"The {seen.site} changes what the layer takes or returns, which it did not do while the model was "
                    f"traced{f' ({seen.failed})' if seen.failed else ''}. Remove it (handle.remove()), or make it part "
                    "of forward."
                )

    @contextlib.contextmanager
    def own(self, model: torch.nn.Module | None) -> Iterator[Callable[[Any], Any]]:
        """While the model's own forward runs on a part of a graph: hooks that only look are silent.

        Yields what makes of its result the one to compare with.
        """
        if model is None:
            yield lambda result: result
            return
        model = getattr(model, "holds", model)
        silent = {(seen.site.layer, seen.site.before, seen.site.key) for seen in self.seen}

        def quiet(site: Site) -> Callable[..., Any] | None:
            return _Silent(site.hook) if (site.layer, site.before, site.key) in silent else None

        with _replaced(model, quiet), tapped(model, self.outputs) as values:
            yield lambda result: (result, values()) if self.outputs else result


def hidden_notes(hidden: Hidden, writes: list[str]) -> list[str]:
    """What a user should know of hooks, and of what forward writes, by name."""
    notes = [
        f"the {site} was called once while the model was traced, with tensors that have no values; it is called after "
        "each run, with the values of all nodes"
        for site in dict.fromkeys(seen.site for seen in hidden.seen)
    ]
    if writes:
        names = ", ".join(f"'{name}'" for name in writes)
        notes.append(
            f"forward (or a hook) writes into {names}: a captured program writes nothing, so no call changes what they "
            "hold. Return such values from forward, or ask for what submodules compute: outputs=['name']"
        )
    return notes


def named_submodules(model: torch.nn.Module, outputs: str | Collection[str]) -> tuple[str, ...]:
    """The names of submodules, checked.

    Raises:
        InputError: one does not exist.
    """
    names = (outputs,) if isinstance(outputs, str) else tuple(outputs)
    if not names:
        return ()
    known = [name for name, _ in _user_model(model).named_modules(remove_duplicate=False) if name]
    for name in names:
        if name not in known:
            near = difflib.get_close_matches(str(name), known, 3, 0.4)
            shown = f"Did you mean {' or '.join(map(repr, near))}?" if near else f"There are {', '.join(known[:20])}."
            raise InputError(f"outputs= asks for {name!r}, which is no submodule of the model. {shown}")
    return names


def _user_model(model: torch.nn.Module) -> torch.nn.Module:
    """The user's model, where ours only calls it (`front.sparse.ValuedModel`)."""
    inner = getattr(model, "calls_only", None)
    return inner if isinstance(inner, torch.nn.Module) else model


@contextlib.contextmanager
def silent(model: torch.nn.Module) -> Iterator[bool]:
    """While a model runs on something that is not the user's graph, only to learn its sizes: no hook is called.

    Yields whether there are any: without them forward may be another one.
    """
    with _replaced(model, lambda site: _Silent(site.hook)):
        yield any(True for _ in _sites(model))


@contextlib.contextmanager
def tapped(model: torch.nn.Module, names: Collection[str]) -> Iterator[Callable[[], dict[str, Any]]]:
    """Records the outputs of submodules while a forward runs on this thread.

    Yields what gives them by name once it has run: what the submodule returned, a list where it was called several
    times.
    """
    found: dict[str, list[Any]] = {name: [] for name in names}
    thread, root = threading.get_ident(), _user_model(model)

    def values() -> dict[str, Any]:
        for name, calls in found.items():
            if not calls:
                raise InputError(
                    f"outputs= asks for '{name}', which {type(root).__name__}.forward does not call as a module in "
                    "this call. Ask for a module around it."
                )
        return {name: calls[0] if len(calls) == 1 else calls for name, calls in found.items()}

    with contextlib.ExitStack() as stack:
        for name in names:

            def record(module: Any, args: Any, output: Any, calls: list[Any] = found[name]) -> None:
                if threading.get_ident() == thread:
                    calls.append(_copied(output))

            stack.callback(root.get_submodule(name).register_forward_hook(record).remove)
        yield values


class Recorder:
    """What a trace records of hooks and of submodules.

    Args:
        model: the traced model.
        outputs: names of submodules.
        problems: of the trace.
        guess: whether the trace only looks for problems.
    """

    def __init__(self, model: torch.nn.Module, outputs: Collection[str], problems: Problems, guess: bool) -> None:
        self.model, self.problems, self.guess = model, problems, guess
        self.hidden = Hidden(outputs)
        self.watched: list[Callable[..., Any]] = []  # hooks that only look
        self._values: list[Any] = []
        self._names = {id(module): name for name, module in model.named_modules()}
        self._thread = threading.get_ident()

    @contextlib.contextmanager
    def running(self) -> Iterator[Callable[[Any], Any]]:
        """While the forward is traced; yields what joins its result with all that was recorded."""
        with _replaced(self.model, lambda site: _Traced(self, site)), tapped(self.model, self.hidden.outputs) as values:

            def joined(result: Any) -> Any:
                outputs = values() if self.hidden.outputs else {}
                self.hidden.leaves = len(unpack(self._values)[0])
                return (result, outputs, self._values) if outputs or self.hidden.seen else result

            yield joined

    def call(self, site: Site, module: torch.nn.Module, given: tuple[Any, ...]) -> Any:
        """What a hook returns in the trace; remembers it where it only looks."""
        if threading.get_ident() != self._thread:
            return site.hook(module, *given)
        before, held, known, failed = _marks(given), _held(module), self.problems.copy(), ""
        try:
            result = site.hook(module, *given)
        except Exception as error:
            if not self.problems.beyond(known) and not only_in_a_trace(error):
                raise  # as the model itself would
            result, failed = None, "; ".join(self.problems.beyond(known)) or f"{type(error).__name__}: {error}"
        if result is not None or (not failed and (_marks(given) != before or _held(module) != held)):
            return result
        self.problems.become(known)
        self._look(site, module, given, failed)
        return None

    def _look(self, site: Site, module: torch.nn.Module, given: tuple[Any, ...], failed: str) -> None:
        layer = self._names.get(id(module), "")
        named = given[1] if site.with_kwargs else {}
        returned = None if site.before else given[-1]
        taken = given[0]
        if not layer:
            taken, named = (), {}  # those of the call
        values = (taken, named, returned)
        strange = [leaf for _, leaf in paths_of(values) if not (leaf is None or isinstance(leaf, (Tensor, *_PLAIN)))]
        if strange:
            why = f"is given a {type(strange[0]).__name__}, which a captured program does not have"
            advice = f"Remove it (handle.remove()); outputs=['{layer}'] returns what the layer computes for all nodes."
            problem = Problem(f"the {site}", why, advice)
            self.problems.add(problem)
            if self.guess:
                return
            raise CaptureError(f"The {site} {why}. {advice}")
        self.hidden.seen.append(Seen(site, layer, failed))
        self.watched.append(site.hook)
        self._values.append(_copied(values))


class _Traced:
    """A hook while a model is traced."""

    def __init__(self, recorder: Recorder, site: Site) -> None:
        self._recorder, self._site = recorder, site

    def __call__(self, module: torch.nn.Module, *given: Any) -> Any:
        return self._recorder.call(self._site, module, given)


class _Silent:
    """A hook that does nothing on the thread that made it."""

    def __init__(self, hook: Callable[..., Any]) -> None:
        self._hook, self._thread = hook, threading.get_ident()

    def __call__(self, *given: Any) -> Any:
        return None if threading.get_ident() == self._thread else self._hook(*given)


@contextlib.contextmanager
def _replaced(model: torch.nn.Module, stand_in: Callable[[Site], Callable[..., Any] | None]) -> Iterator[None]:
    """Other callables in the place of the user's forward hooks; None leaves a hook as it is."""
    undo: list[tuple[dict[int, Any], int, Any, Any]] = []
    try:
        for hooks, site in list(_sites(model)):
            made = stand_in(site)
            if made is not None:
                hooks[site.key] = made
                undo.append((hooks, site.key, made, site.hook))
        yield
    finally:
        for hooks, key, made, hook in undo:
            if hooks.get(key) is made:  # a hook may remove itself
                hooks[key] = hook


def _sites(model: torch.nn.Module) -> Iterator[tuple[dict[int, Any], Site]]:
    """All forward hooks that are not of torch or torch_geometric, with where they are kept."""
    kept: list[tuple[str | None, bool, dict[int, Any], Collection[int]]] = [
        (None, True, _ON_ALL._global_forward_pre_hooks, ()),
        (None, False, _ON_ALL._global_forward_hooks, getattr(_ON_ALL, "_global_forward_hooks_with_kwargs", ())),
    ]
    for name, module in model.named_modules():
        kept.append((name, True, module._forward_pre_hooks, module._forward_pre_hooks_with_kwargs))
        kept.append((name, False, module._forward_hooks, module._forward_hooks_with_kwargs))
    for layer, before, hooks, with_kwargs in kept:
        for key, hook in list(hooks.items()):
            if not _is_of_library(hook):
                yield hooks, Site(layer, before, key, hook, key in with_kwargs)


def _is_of_library(hook: Any) -> bool:
    """Weight norms, pruning: these make the weights of a layer."""
    hook = getattr(hook, "__func__", hook)
    home = getattr(hook, "__module__", None) or type(hook).__module__
    return str(home).split(".")[0] in ("torch", "torch_geometric", "pyg_fullgraph")


def _copied(value: Any) -> Any:
    """With copies of the tensors: what is written into them later was not there yet."""
    return mapped(lambda leaf: leaf.clone() if isinstance(leaf, Tensor) else leaf, value)


def _marks(given: Any) -> list[tuple[int, int]]:
    """Equal as long as nothing is written into the values and nothing put in their place."""
    return [(id(leaf), _version(leaf) if isinstance(leaf, Tensor) else 0) for leaf in unpack(given)[0]]


def _version(tensor: Tensor) -> int:
    return 0 if tensor.is_inference() else tensor._version


def _held(module: torch.nn.Module) -> list[tuple[str, int]]:
    """What a module holds, by identity: a hook may make the weights that forward uses."""
    held = vars(module)
    found = [(name, id(value)) for name, value in held.items()]
    for registered in ("_parameters", "_buffers", "_modules"):
        found += [(name, id(value)) for name, value in held[registered].items()]
    return found
