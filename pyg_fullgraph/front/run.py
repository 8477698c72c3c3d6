"""One inference call from the user's arguments to the result: recognise, check, run, verify, hand back."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch_geometric.data.data import BaseData

from pyg_fullgraph.capture.returned import mapped
from pyg_fullgraph.errors import CallError, CaptureError, FullGraphMismatch, GraphError, InputError
from pyg_fullgraph.front.calls import Given, as_device, sort_arguments
from pyg_fullgraph.front.checks import check_width, evaluating, warn_about_loader
from pyg_fullgraph.front.fill import Call, fill, no_features
from pyg_fullgraph.front.forward import Forward, forward_of, unwrap
from pyg_fullgraph.front.notes import LOGGER, tell_differences, tell_passed
from pyg_fullgraph.front.output import check_target, save
from pyg_fullgraph.front.sparse import VALUE, ValuedModel, carriers
from pyg_fullgraph.front.through import is_method
from pyg_fullgraph.front.uses import message_layers
from pyg_fullgraph.nn.function import as_module
from pyg_fullgraph.ops.forked import survives_fork
from pyg_fullgraph.runtime.results import copied
from pyg_fullgraph.runtime.selection import Nodes

_SLOT = "_fullgraph_engines"
_VERIFY = {"auto": "auto", "always": "always", "off": "off", True: "always", False: "off", None: "off"}

#: Builds an engine: ``build(model, threads=..., home=..., fallback=..., order=..., calls=...)``.
Build = Callable[..., Any]


@dataclass(frozen=True)
class Options:
    """How to run, as opposed to what: the options of `pyg_fullgraph.inference`, which documents them."""

    device: Any = None
    embedding_device: Any = None
    progress_bar: bool = False
    nodes: Any = None
    verify: Any = "auto"
    fallback: str = "error"
    threads: int | None = None
    home: str = "memory"
    out: Any = None
    force_eval: bool = False
    order: str | None = None
    calls: int = 1
    outputs: Any = ()


class Engines:
    """The engines of one model, kept on the model; copies and pickles of the model start without any."""

    def __init__(self) -> None:
        self._built: dict[Any, Any] = {}

    def get(self, key: Any, build: Callable[[], Any]) -> Any:
        """Returns the engine for these options, building it at the first call."""
        if key not in self._built:
            self._built[key] = build()
        return self._built[key]

    def __deepcopy__(self, memo: dict[int, Any]) -> Engines:
        return Engines()

    def __reduce__(self) -> tuple[type, tuple[()]]:
        return (Engines, ())


@dataclass
class Prepared:
    """A call that passed all checks, ready to run.

    Attributes:
        model: the user's model without wrappers.
        target: what the engine runs: the model, or a `ValuedModel` around it.
        args, kwargs: the arguments of the target's forward.
        forward: what the model's forward takes.
        call: the call as it was filled.
        given: the arguments as they were recognised.
        options: with devices and flags that were passed by position filled in.
    """

    model: torch.nn.Module
    target: torch.nn.Module
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    forward: Forward
    call: Call
    given: Given
    options: Options


def prepare(
    model: torch.nn.Module,
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
    options: Options = Options(),
    *,
    as_edges: bool = False,
) -> Prepared:
    """Returns the call of forward that the arguments of ``inference`` stand for, after all checks.

    Args:
        model: any model, wrapped or not.
        args: positional arguments, recognised by type (`sort_arguments`).
        kwargs: named arguments of forward, and those known from PyG's ``inference``.
        options: how to run.
        as_edges: hand sparse matrices to forward as edges, their values to the layers, and features as dense tensors.

    Raises:
        InputError: if an argument is missing, unknown, or does not fit the model.
    """
    if not isinstance(options.verify, (str, bool, type(None))) or options.verify not in _VERIFY:
        raise InputError(f"verify must be 'auto', 'always' or 'off' (got {options.verify!r}).")
    model = unwrap(model)
    forward = forward_of(model)
    given = sort_arguments(args, kwargs, forward)
    options = _with_given(options, given)
    if options.device is not None:
        given.devices = [as_device(options.device)]
    given.as_edges = as_edges
    call = fill(given, forward, model)
    if given.loader is not None and not as_edges:
        warn_about_loader(given.loader)
    check_width(model, forward, call, given)
    target, args, kwargs = _target(model, forward, call)
    return Prepared(model, target, tuple(args), dict(kwargs), forward, call, given, options)


def _with_given(options: Options, given: Given) -> Options:
    """Devices and flags by position are PyG's ``device, embedding_device`` and ``progress_bar, cache``."""
    devices = given.devices
    if options.device is None and devices:
        options = replace(options, device=devices[0])
    if options.embedding_device is None and len(devices) > 1:
        options = replace(options, embedding_device=devices[1])
    if given.flags and given.flags[0]:
        options = replace(options, progress_bar=True)
    return options


def _target(
    model: torch.nn.Module, forward: Forward, call: Call
) -> tuple[torch.nn.Module, Sequence[Any], Mapping[str, Any]]:
    """The model, or where the graph was passed as a matrix, the model whose layers are handed its values."""
    if call.adjacency is None:
        return model, call.args, call.kwargs
    layers = carriers(model, call.adjacency)
    value = call.adjacency.value if layers else None
    if value is not None and all(argument == "edge_type" for argument in layers.values()):
        value = value.long()
    named = dict(zip(forward.positional, call.args, strict=False))
    target = ValuedModel(model, layers, call.adjacency, forward.graph, forward.features)
    return target, (), {VALUE: value, **named, **call.kwargs}


@survives_fork
def run(
    model: Any,
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
    options: Options,
    build: Build,
    *,
    instead_of_pyg: bool = False,
) -> Any:
    """Runs ``inference(model, *args, **kwargs)``.

    Args:
        model: any model, wrapped or not, or a method bound to one.
        args, kwargs: see `prepare`.
        options: how to run.
        build: makes an engine for a model; it is kept on the model for later calls.
        instead_of_pyg: whether PyG's own ``inference()`` was meant, so that users are told of the
            differences.
    """
    model = as_model(model)
    with evaluating(unwrap(model), options.force_eval):
        prepared = prepare(model, args, kwargs, options)
        options = prepared.options
        names = (*prepared.call.passed, *(name for name in prepared.given.named if name.startswith("edge_")))
        if instead_of_pyg or prepared.given.loader is not None:  # nobody else had PyG's inference(loader) in mind
            tell_differences(prepared.model, names)
        tell_passed(prepared.model, prepared.call.passed)
        if isinstance(options.out, (str, Path)):
            check_target(options.out)
        result = _either(prepared, args, kwargs, lambda call: _called(call, build))
    return _delivered(result, prepared.call.source, options)


def _called(prepared: Prepared, build: Build) -> Any:
    """What the engine gives for a prepared call."""
    options, nodes = prepared.options, Nodes.of(prepared.options.nodes)
    engine = engine_of(prepared, build)
    engine.verify = _VERIFY[options.verify]
    before = engine.verification, len(engine.notes)
    try:
        with _perhaps_without_features(prepared):
            return engine(*prepared.args, nodes=nodes, progress=options.progress_bar, **prepared.kwargs)
    finally:  # a note of a call that failed is not noted again
        _tell(prepared, engine, *before)


def _either(prepared: Prepared, args: Sequence[Any], kwargs: Mapping[str, Any], call: Callable[[Prepared], Any]) -> Any:
    """A call with sparse matrices as forward gets them; where that cannot be captured, as edges and dense features.

    Args:
        prepared: the call.
        args, kwargs: it was prepared of these.
        call: what to do with it.

    Raises:
        CaptureError: neither can be, and the options do not say to run the model's own forward. It is about the first.
    """
    options = prepared.options
    if not prepared.call.has_matrix:
        return call(prepared)
    try:
        return call(replace(prepared, options=replace(options, fallback="error")))
    except CaptureError as error:
        refused = error
    try:
        edges = prepare(prepared.model, args, kwargs, replace(options, fallback="error"), as_edges=True)
        if edges.call.has_matrix or (edges.call.adjacency is not None and not any(message_layers(prepared.model))):
            raise refused
        return call(edges)
    except (CaptureError, InputError):
        if options.fallback == "error":
            raise refused from None
    return call(prepared)


def as_model(model: Any) -> torch.nn.Module:
    """The model to run: a module, or a method bound to one (or another function) as a module, made once.

    Raises:
        InputError: it is neither.
    """
    if isinstance(model, torch.nn.Module):
        return model
    if not callable(model) or isinstance(model, (type, BaseData)):  # a Data can be called
        raise InputError(
            "The first argument must be the model, a torch.nn.Module, or a method of one such as model.encode (got "
            f"{type(model).__name__})."
        )
    if not is_method(model):
        holder = getattr(model, "__dict__", None)
        return as_module(model) if holder is None else _kept(holder).get("as a module", lambda: as_module(model))
    if type(model.__self__).forward is model.__func__:
        return model.__self__
    return _kept(vars(model.__self__)).get(model.__func__, lambda: as_module(model))


def _kept(holder: dict[str, Any]) -> Engines:
    return holder.setdefault(_SLOT, Engines())


@contextmanager
def _perhaps_without_features(prepared: Prepared) -> Iterator[None]:
    """Says that features are missing where None was passed for them and the forward fails on it."""
    try:
        yield
    except Exception as error:
        ours = isinstance(error, (InputError, GraphError, FullGraphMismatch)) and not isinstance(error, CallError)
        if ours or prepared.call.assumed is None:
            raise
        lines = str(error).strip().splitlines() or [type(error).__name__]
        text = no_features(prepared.forward, prepared.given)
        raise InputError(f"{text} With {prepared.call.assumed}=None: {lines[0]}") from error


def _tell(prepared: Prepared, engine: Any, verification: Any, notes: int) -> None:
    """Logs what the engine did: what it verified, and what it noted for the first time."""
    for note in engine.notes[notes:]:
        LOGGER.warning("%s: %s", prepared.forward.owner, note)
    if engine.verification is not None and engine.verification is not verification:
        LOGGER.info("%s: %s", prepared.forward.owner, engine.verification)


def _delivered(result: Any, source: torch.device, options: Options) -> Any:
    """The result on the device asked for, and where ``out=`` says."""
    where = source if options.embedding_device is None else as_device(options.embedding_device)
    result = mapped(lambda leaf: leaf.to(where) if isinstance(leaf, Tensor) else leaf, result)
    if isinstance(options.out, Tensor):
        if options.outputs:
            return copied(options.out, result[0]), result[1]
        return copied(options.out, result)
    if options.out is not None:
        save(result, options.out)
    return result


def engine_of(prepared: Prepared, build: Build) -> Any:
    """Returns the engine for a prepared call, built at the first one.

    Engines live on the model and die with it; a graph passed as a matrix has an engine of its own, on a
    `ValuedModel`.
    """
    engines = _kept(vars(prepared.model))
    options, target = prepared.options, prepared.target
    named = {name: getattr(options, name) for name in ("threads", "home", "fallback", "order", "calls")}
    named["outputs"] = (options.outputs,) if isinstance(options.outputs, str) else tuple(options.outputs or ())
    key: tuple[Any, ...] = (build, *named.values())
    if isinstance(target, ValuedModel):
        key = (*key, *target.layers.items(), target.adjacency.kind, target.graph)
    return engines.get(key, lambda: build(target, **named))


@survives_fork
def explain(
    model: torch.nn.Module, args: Sequence[Any], kwargs: Mapping[str, Any], options: Options, build: Build
) -> Any:
    """Returns the engine's report on a call of ``inference(model, *args, **kwargs)``, without running it."""
    model = as_model(model)
    with evaluating(unwrap(model), options.force_eval):
        prepared = prepare(model, args, kwargs, options)
        return _either(prepared, args, kwargs, lambda p: engine_of(p, build).explain(*p.args, **p.kwargs))


def forget_engines(model: torch.nn.Module) -> None:
    """Drops the engines of a model, with their traces and cached structure."""
    vars(model).pop(_SLOT, None)
