"""Layers that run through the engine where they can, and by PyG's own forward where they must.

A fast layer is an instance of a sub-class of its own class that replaces only `forward`: parameters, buffers, hooks
and `state_dict` are untouched, and a layer becomes fast, or ordinary again, by a change of its class.
"""

from __future__ import annotations

import copyreg
import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch_geometric.nn.conv as pyg_conv
from torch_geometric.nn import MessagePassing

from pyg_fullgraph.errors import InputError
from pyg_fullgraph.nn.running import OPTIONS, SLOT, WRITES, run, runs_own, state_of, watched

_OF, _PLAIN = "_fullgraph_of", "_fullgraph_plain"  # marks of classes: fast twin of which, and plain twin of a fast one


def wrap(layer: torch.nn.Module, **options: Any) -> torch.nn.Module:
    """Makes a layer run through the engine, in place, and returns it.

    In evaluation mode, where no gradient is wanted, on tensors that the kernels take, its output comes from the engine,
    and no message ``[E, F]`` exists. Else, and where it cannot be captured, its own forward runs; the latter is
    told once per layer, with the reason. Its class becomes a sub-class of its class; nothing else changes.

    Args:
        layer: any `MessagePassing`, or another module whose forward takes a graph.
        options: of `pyg_fullgraph.Engine`: ``threads``, ``home``, ``verify``.

    Raises:
        InputError: if it is no such module, or an option is unknown.
    """
    unknown = sorted(set(options) - set(OPTIONS))
    if unknown:
        raise InputError(f"Unknown option '{unknown[0]}'. Options of layers: {', '.join(OPTIONS)}.")
    if not isinstance(layer, torch.nn.Module) or isinstance(layer, torch.jit.ScriptModule):
        raise InputError(f"wrap needs a layer, a torch.nn.Module (got {type(layer).__name__}).")
    layer.__class__ = fast_class(type(layer))
    state = state_of(layer)
    state.options.update(options)
    state.engine = None
    return layer


def unwrap(layer: torch.nn.Module) -> torch.nn.Module:
    """Undoes `wrap`: gives a layer the class back that it was made fast from, drops its engine, and returns it.

    Args:
        layer: a layer that was wrapped, or built as ``fg.nn.X``; an ordinary one is left as it is.
    """
    own = vars(type(layer)).get(_OF)
    if own is not None:
        layer.__class__ = own
    vars(layer).pop(SLOT, None)
    return layer


def patch(model: torch.nn.Module, **options: Any) -> torch.nn.Module:
    """Wraps all message passing layers of a model in place, and returns the model.

    Args:
        model: any model, wrapped in ``torch.compile`` or ``DistributedDataParallel`` or not; or a single layer.
        options: as of `wrap`.

    Raises:
        InputError: if ``model`` is not a module, or an option is unknown.
    """
    if not isinstance(model, torch.nn.Module):
        raise InputError(f"patch needs a torch.nn.Module (got {type(model).__name__}).")
    for module in list(model.modules()):
        if isinstance(module, _layer_classes()) and not is_fast(module):
            state_of(wrap(module, **options)).patched = True
    return model


def unpatch(model: torch.nn.Module) -> torch.nn.Module:
    """Undoes `patch`: all layers that it wrapped get their own class back; returns the model.

    Args:
        model: a model, patched or not.
    """
    for module in list(model.modules()):
        if is_fast(module) and state_of(module).patched:
            unwrap(module)
    return model


@contextmanager
def patched(model: torch.nn.Module, **options: Any) -> Iterator[torch.nn.Module]:
    """`patch` for the length of a ``with`` block."""
    try:
        yield patch(model, **options)
    finally:
        unpatch(model)


def is_fast(layer: torch.nn.Module) -> bool:
    """Whether a layer is one of these: wrapped, patched, or built from ``fg.nn``."""
    return getattr(type(layer), _OF, None) is not None


# Classes -------------------------------------------------------------------------------------------


def layer_names() -> list[str]:
    """The classes that `torch_geometric.nn.conv` exports."""
    return list(pyg_conv.__all__)


def layer_class(name: str) -> type:
    """The fast twin of a class of `torch_geometric.nn.conv`.

    Raises:
        AttributeError: if PyG exports no such class.
    """
    if name not in pyg_conv.__all__:
        raise AttributeError(
            f"'pyg_fullgraph.nn' has no layer '{name}'. It has the classes of torch_geometric.nn.conv; "
            "fg.nn.wrap(layer) takes any other layer."
        )
    return fast_class(getattr(pyg_conv, name))


@functools.cache
def _layer_classes() -> tuple[type, ...]:
    return (MessagePassing, *(getattr(pyg_conv, name) for name in layer_names()))


def fast_class(cls: type) -> type:
    """The sub-class of a layer's class whose forward runs through the engine; of a fast class, itself.

    It bears its parent's name and module: PyG reads the source of a layer's class.
    """
    if getattr(cls, _OF, None) is not None:
        return cls
    known: list[type] = type.__subclasses__(cls)
    found = next((sub for sub in known if vars(sub).get(_OF) is cls), None)
    if found is not None:
        return found
    members: dict[str, Any] = {
        _OF: cls,
        "__init__": _initialising(cls.__init__),  # type: ignore[misc]
        "forward": _dispatching(cls.forward),  # type: ignore[attr-defined]
        "__init_subclass__": classmethod(_wrap_subclass),
        "__prepare_scriptable__": _as_own,
        "__reduce_ex__": _reduce_ex,
    }
    return _twin(cls, members)


def _twin(cls: type, members: dict[str, Any]) -> type:
    """A sub-class under the same name."""
    named = {"__module__": cls.__module__, "__qualname__": cls.__qualname__, "__doc__": cls.__doc__}
    return type(cls)(cls.__name__, (cls,), {**named, **members})


def _initialising(own: Callable[..., None]) -> Callable[..., None]:
    """The constructor of the ordinary class, run under it: PyG's layers keep their class, and pickle it."""

    @functools.wraps(own)
    def __init__(self: torch.nn.Module, *args: Any, **kwargs: Any) -> None:
        fast = type(self)
        if _OF in vars(fast):
            self.__class__ = vars(fast)[_OF]
        own(self, *args, **kwargs)
        self.__class__ = fast

    return __init__


def _dispatching(own: Callable[..., Any]) -> Callable[..., Any]:
    """A forward that chooses between the engine and `own` at every call; with the signature of `own`."""

    @functools.wraps(own)
    def forward(self: torch.nn.Module, *args: Any, **kwargs: Any) -> Any:
        if torch.compiler.is_compiling():
            return own(self, *args, **kwargs)
        if vars(type(self)).get(_PLAIN):
            return watched(own, functools.partial(_note_writes, self), self, *args, **kwargs)
        if runs_own(self, args, kwargs):
            return own(self, *args, **kwargs)
        return run(self, _as_plain(self), functools.partial(own, self), args, kwargs)

    return forward


def _note_writes(plain: torch.nn.Module) -> None:
    vars(plain)[SLOT].final = WRITES


def _wrap_subclass(cls: type, **kwargs: Any) -> None:
    """A user's sub-class of a fast class: its own forward is dispatched as well."""
    super(_fast_in(cls), cls).__init_subclass__(**kwargs)
    own = vars(cls).get("forward")
    if own is not None:
        cls.forward = _dispatching(own)  # type: ignore[attr-defined]


def _as_plain(layer: torch.nn.Module) -> torch.nn.Module:
    """The same layer under a class that always runs its own forward: what the engine captures.

    It shares the layer's `__dict__`, so that nothing is ever stale. The layer's own hooks run around its forward,
    outside.
    """
    cls = type(layer)
    plain = next((sub for sub in cls.__subclasses__() if vars(sub).get(_PLAIN)), None)
    if plain is None:
        plain = _twin(cls, {_PLAIN: True, "__call__": lambda self, *args, **kwargs: self.forward(*args, **kwargs)})
    return _sharing(layer, plain)


def _as_own(layer: torch.nn.Module) -> torch.nn.Module:
    """The same layer under PyG's class, for `torch.jit.script`."""
    return _sharing(layer, getattr(type(layer), _OF))


def _sharing(layer: torch.nn.Module, cls: Any) -> torch.nn.Module:
    twin: torch.nn.Module = cls.__new__(cls)
    object.__setattr__(twin, "__dict__", vars(layer))
    return twin


def _reduce_ex(self: torch.nn.Module, protocol: Any) -> Any:
    """Copies and pickles name the ordinary class, which can be found by name, and make it fast again."""
    own = getattr(type(self), _OF)
    reduced = super(_fast_in(type(self)), self).__reduce_ex__(protocol)
    if vars(type(self)).get(_OF) is None or reduced[0] not in (copyreg.__newobj__, copyreg._reconstructor):  # type: ignore[attr-defined]
        return reduced
    return (_made_fast, (own,), *reduced[2:])


def _fast_in(cls: type) -> Any:
    return next(base for base in cls.__mro__ if vars(base).get(_OF) is not None)


def _made_fast(own: type) -> Any:
    cls: Any = fast_class(own)
    return cls.__new__(cls)
