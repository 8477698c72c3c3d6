"""What users call: `inference`, `compile`, `accelerate`, `restore`."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch_geometric.data.data import BaseData

from pyg_fullgraph.engine import Engine
from pyg_fullgraph.errors import InputError
from pyg_fullgraph.front import accelerate as _accelerate
from pyg_fullgraph.front.forward import unwrap
from pyg_fullgraph.front.options import check_known
from pyg_fullgraph.front.run import Options, run
from pyg_fullgraph.nn.function import as_module


def inference(
    model: torch.nn.Module | Callable[..., Any],
    *args: Any,
    device: torch.device | str | int | None = None,
    embedding_device: torch.device | str | None = None,
    progress_bar: bool = False,
    cache: bool | None = None,
    nodes: Any = None,
    verify: str | bool = "auto",
    fallback: str = "error",
    threads: int | None = None,
    home: str = "memory",
    out: Any = None,
    force_eval: bool = False,
    order: str | None = None,
    calls: int = 1,
    outputs: Any = (),
    **kwargs: Any,
) -> Any:
    """Returns the model's output for every node of a graph, exactly as ``model.forward`` gives it over the
    whole graph.

    Args:
        model: any PyG model in evaluation mode; ``DistributedDataParallel`` and ``torch.compile`` wrappers
            are opened. Or a method bound to one, ``model.encode``.
        args: recognised by type, in any order: ``Data``, a ``NeighborLoader`` or another loader with
            ``.data`` (it is never iterated), node features ``[N, F]``, ``edge_index`` ``[2, E]`` or a sparse
            ``adj_t``, a device, its name or a rank. Further tensors go to the parameters of forward in order.
        device: where to compute; must be the device of the model.
        embedding_device: where the result goes; ``None`` means where the features came from.
        progress_bar: show a bar with the time left.
        cache: taken for PyG's sake; there is nothing to cache.
        nodes: node numbers ``[M]`` or a mask ``[N]``: only these rows, and only the work that they need.
        verify: ``"auto"`` recomputes 8 random nodes with the model's own forward at the first call,
            ``"always"`` at every call, ``"off"`` (or ``False``) never.
        fallback: what to do with a model that cannot be captured: ``"error"``, or ``"eager"`` to run it as it
            is.
        threads: how many threads to use; ``None`` means ``torch.get_num_threads()``.
        home: where values between supersteps live: ``"memory"``, or ``"mapped"`` for files that the system
            may write out.
        out: a tensor that the result is copied into, or a ``.npy`` or ``.pt`` file that it is written to as
            well (whole or not at all).
        force_eval: evaluate a model in training mode, and switch it back.
        order: compute with the nodes in another order, once per graph: ``"rcm"``, ``"community"``, or ``"auto"``
            where that is predicted to pay; the result is in the given order. ``None`` keeps the given one.
        calls: how many calls on this graph ``"auto"`` may expect.
        outputs: names of submodules, ``["convs.0"]``: the result is then ``(result, {"convs.0": ...})`` with what they
            return for all nodes (or ``nodes``), in the same run; a list where forward calls one several times.
        kwargs: arguments of ``model.forward`` by name. What forward requires is else taken from the data, and
            so are ``edge_weight``, ``edge_attr``, ``edge_type``, ``batch`` and ``pos`` where it takes and
            uses them.

    Returns:
        What ``model.forward`` returns; row ``i`` belongs to node ``i`` (to ``nodes[i]``).

    Raises:
        InputError: if an argument is missing or does not fit the model.
        GraphError: if the graph is malformed.
        CaptureError: if the model cannot be captured exactly.
        FullGraphMismatch: if verification finds a wrong row.
    """
    options = Options(
        device,
        embedding_device,
        progress_bar,
        nodes,
        verify,
        fallback,
        threads,
        home,
        out,
        force_eval,
        order,
        calls,
        outputs,
    )
    return run(model, args, kwargs, options, Engine)


def compile(model: torch.nn.Module | Callable[..., Any], **options: Any) -> Engine:
    """Returns an engine that takes the arguments of ``model.forward``, or of a function; traced at the first call.

    A function may take `Graph`s, tensors, and lists and dictionaries of them. Its tensors are read at every call, like
    the parameters of a module. Which of them have one row per node or edge is found by how the function uses them.

    Args:
        model: any PyG model; wrappers are opened. Or a function written on `Graph`, see docs/programming.md.
        options: of `pyg_fullgraph.engine.Engine`: ``threads``, ``home``, ``verify``, ``fallback``,
            ``order``, ``calls``, ``dims``, ``outputs``.

    Raises:
        InputError: if ``model`` is neither a module nor callable, or a function reads tensors that are not among its
            arguments, or there is no such option.
    """
    check_known(options, [name for name in inspect.signature(Engine).parameters if name != "model"], "compile")
    if isinstance(model, torch.nn.Module):
        return Engine(unwrap(model), **options)
    if not callable(model) or isinstance(model, (type, BaseData)):  # a Data can be called
        raise InputError(f"compile needs a torch.nn.Module or a function (got {_named(model)}).")
    return Engine(as_module(model), **options)


def _named(value: Any) -> str:
    return f"the class {value.__name__}, not an instance" if isinstance(value, type) else type(value).__name__


def accelerate(model: torch.nn.Module, data: Any = None, **options: Any) -> torch.nn.Module:
    """Replaces ``model.inference`` by a whole-graph run under PyG's signature, and returns the model.

    ``model.inference(loader, device, embedding_device="cpu", progress_bar=False, cache=False)`` works as
    before, as do the other argument orders in circulation; the loader is asked for its data and never
    iterated. Parts of the model with an ``inference`` of their own (``to_hetero`` models) are replaced too.
    Copies and pickles of the model keep it.

    Args:
        model: any PyG model, wrapped or not; it need not have an ``inference``.
        data: the graph for calls that pass none, ``model.inference(x_all)``.
        options: defaults of these calls, as in `inference`.
    """
    return _accelerate.install(model, _options(options), Engine, data)


def accelerated(model: torch.nn.Module, data: Any = None, **options: Any) -> AbstractContextManager[torch.nn.Module]:
    """`accelerate` for the length of a ``with`` block."""
    return _accelerate.installed(model, _options(options), Engine, data)


def restore(model: torch.nn.Module) -> torch.nn.Module:
    """Undoes `accelerate`, drops the model's engines, and returns the model."""
    return _accelerate.uninstall(model)


def _options(named: dict[str, Any]) -> Options:
    """Options by name; an unknown one is an error that lists them."""
    check_known(named, list(Options.__dataclass_fields__), "accelerate")
    return Options(**named)
