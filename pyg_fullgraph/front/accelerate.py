"""``accelerate(model)``: ``model.inference`` becomes a whole-graph run, under PyG's signature."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch.fx import GraphModule

from pyg_fullgraph.errors import InputError
from pyg_fullgraph.front.forward import unwrap
from pyg_fullgraph.front.run import Build, Options, forget_engines, run

_ABSENT = "no inference of its own"


class Inference:
    """What ``model.inference`` is after `accelerate`; it lives in the model's ``__dict__`` and is copied with
    it.

    Args:
        model: the model to run, without wrappers.
        options: how to run.
        data: the graph of calls that pass none, such as ``model.inference(x_all)``; not pickled with the
            model.
        build: makes an engine.
        previous: what ``model.__dict__`` held under this name before.
    """

    __signature__ = inspect.Signature(
        [
            inspect.Parameter("args", inspect.Parameter.VAR_POSITIONAL),
            *(
                inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default)
                for name, default in {
                    "loader": None,
                    "device": None,
                    "embedding_device": "cpu",
                    "progress_bar": False,
                    "cache": False,
                    "nodes": None,
                }.items()
            ),
            inspect.Parameter("kwargs", inspect.Parameter.VAR_KEYWORD),
        ]
    )

    def __init__(
        self, model: torch.nn.Module, options: Options, data: Any, build: Build, previous: Any = _ABSENT
    ) -> None:
        self.model = model
        self.options = options
        self.data = data
        self.build = build
        self.previous = previous

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Runs ``model.forward`` over the whole graph; takes what PyG's ``inference`` takes, in any order.

        Args:
            args: a loader (never iterated), a ``Data``, features ``x_all``, a device or rank.
            kwargs: ``loader``, ``device``, ``embedding_device`` (default ``"cpu"``), ``progress_bar``,
                ``cache`` (there is nothing to cache), ``nodes``, and arguments of forward.

        Returns:
            One row per node, in node order, on ``embedding_device``.
        """
        known = {name: kwargs.pop(name) for name in list(kwargs) if name in Options.__dataclass_fields__}
        options = replace(self.options, **known)
        if self.data is not None and not _has_graph(args, kwargs):
            args = (*args, self.data)
        return run(self.model, args, kwargs, _to_cpu(options, args), self.build, instead_of_pyg=True)

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "data": None}

    def __repr__(self) -> str:
        return f"<pyg_fullgraph inference of {type(self.model).__name__}>"


def _to_cpu(options: Options, args: tuple[Any, ...]) -> Options:
    """PyG's default: embeddings on the CPU, unless a second device was passed."""
    devices = [a for a in args if isinstance(a, (torch.device, str, int)) and not isinstance(a, bool)]
    if options.embedding_device is None and len(devices) < 2:
        return replace(options, embedding_device="cpu")
    return options


def _has_graph(args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    """Whether a call brings something that may hold a graph."""
    values = [*args, *kwargs.values()]
    return any(
        hasattr(value, name)
        for value in values
        for name in ("edge_index", "edge_types", "data", "loader", "dataset")
        if not isinstance(value, torch.Tensor)
    ) or any(_looks_like_edges(value) for value in values)


def _looks_like_edges(value: Any) -> bool:
    if not isinstance(value, torch.Tensor):
        return hasattr(value, "sparse_sizes") or hasattr(value, "tocoo")
    return value.layout != torch.strided or (value.dim() == 2 and value.size(0) == 2 and not value.is_floating_point())


def install(model: torch.nn.Module, options: Options, build: Build, data: Any = None) -> torch.nn.Module:
    """Replaces ``inference`` of a model and of the parts of it that have one; returns the model.

    Wrappers (DDP, ``torch.compile``) get it as well as the model inside. Parts are sub-modules whose class
    defines ``inference``, and the GraphModules that ``to_hetero`` makes of such a class.

    Raises:
        InputError: if ``model`` is not a module.
    """
    if not isinstance(model, torch.nn.Module):
        raise InputError(f"accelerate needs a torch.nn.Module (got {type(model).__name__}).")
    inner = unwrap(model)
    for module in inner.modules():
        if module is inner or isinstance(module, GraphModule) or callable(getattr(type(module), "inference", None)):
            _install_one(module, module, options, build, data if module is inner else None)
    if model is not inner:
        _install_one(model, inner, options, build, data)
    return model


def _install_one(holder: torch.nn.Module, model: torch.nn.Module, options: Options, build: Build, data: Any) -> None:
    """Puts an `Inference` of ``model`` into the ``__dict__`` of ``holder``, remembering what was there."""
    previous = vars(holder).get("inference", _ABSENT)
    if isinstance(previous, Inference):
        previous = previous.previous
    vars(holder)["inference"] = Inference(model, options, data, build, previous)


def uninstall(model: torch.nn.Module) -> torch.nn.Module:
    """Undoes `install` and drops the engines; returns the model."""
    for module in {id(m): m for m in (model, *model.modules(), *unwrap(model).modules())}.values():
        current = vars(module).get("inference")
        if isinstance(current, Inference):
            if isinstance(current.previous, str) and current.previous == _ABSENT:
                del vars(module)["inference"]
            else:
                vars(module)["inference"] = current.previous
        forget_engines(module)
    return model


@contextmanager
def installed(model: torch.nn.Module, options: Options, build: Build, data: Any = None) -> Iterator[torch.nn.Module]:
    """`install` for the length of a ``with`` block."""
    try:
        yield install(model, options, build, data)
    finally:
        uninstall(model)
