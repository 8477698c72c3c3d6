"""`torch.compile(model, backend="pyg_fullgraph", dynamic=True)`: what Dynamo captures, run by the engine.

Dynamo hands over one graph of torch functions per part of a model that it takes whole. Each part is captured again, by
the same trace and the same passes as any model; the sizes that Dynamo keeps symbolic are its spaces, so that nothing
is guessed. A part that cannot be served runs as Dynamo recorded it, which is told once with the reason.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any

import sympy
import torch
import torch._dynamo
from torch import Tensor, fx

from pyg_fullgraph.engine import Engine
from pyg_fullgraph.errors import InputError
from pyg_fullgraph.front.notes import LOGGER, ONCE
from pyg_fullgraph.nn.running import OPTIONS, WRITES, is_served, watched

_AGGREGATES = re.compile(r"scatter|index_add|index_reduce|index_put|segment|reduce_by|softmax_by")
_STATIC = (
    "torch.compile recorded fixed sizes, and what it recorded runs as it is. Say torch.compile(..., dynamic=True), or "
    "mark what varies: torch._dynamo.mark_dynamic(x, 0); torch._dynamo.mark_dynamic(edge_index, 1)"
)
_GRADIENT = "a gradient is wanted, so what torch.compile recorded runs as it is. For inference, use torch.no_grad()"


def backend(
    graph: fx.GraphModule, example_inputs: Sequence[Any], *, options: Mapping[str, Any] | None = None
) -> Callable[..., Any]:
    """Serves one graph of Dynamo; what `torch.compile` calls.

    Args:
        graph: as Dynamo recorded it.
        example_inputs: one per placeholder; only their kinds are looked at.
        options: of the engine, from ``torch.compile(..., options={...})``: ``threads``, ``home``, ``verify``.

    Returns:
        A function of the graph's inputs.

    Raises:
        InputError: if an option is unknown.
    """
    unknown = sorted(set(options or {}) - set(OPTIONS))
    if unknown:
        raise InputError(f"Unknown option '{unknown[0]}' of backend 'pyg_fullgraph'. Options: {', '.join(OPTIONS)}.")
    if not any(_AGGREGATES.search(str(node.target)) for node in graph.graph.nodes):
        return graph.forward  # nothing to fuse: rows only, or the making of edges
    return Recorded(graph, dict(options or {}))


def dynamo_options() -> AbstractContextManager[None]:
    """Settings with which Dynamo takes models with self-loops (GCN, GAT, ...) whole, for a ``with`` block.

    They are read when Dynamo captures, that is at the first call of a compiled model. To set them for good:
    ``torch._dynamo.config.capture_scalar_outputs = True`` and ``capture_dynamic_output_shape_ops = True``.
    """
    settings = {"capture_scalar_outputs": True, "capture_dynamic_output_shape_ops": True}
    patched: AbstractContextManager[None] = torch._dynamo.config.patch(settings)
    return patched


class Recorded:
    """One graph of Dynamo, and the engine that serves it."""

    def __init__(self, graph: fx.GraphModule, options: dict[str, Any]) -> None:
        self.graph = graph
        self.inputs = _Inputs(graph)
        self.options = options
        self.engine: Engine | None = None
        self.told: set[str] = set()
        self.final = "" if self.inputs.symbols else _STATIC

    def __call__(self, *args: Any) -> Any:
        """The outputs of the graph."""
        reason = self.final or self._reason(args)
        if not reason:
            try:
                out = self._engine(args)(*self.inputs.given(args))
                if not self.final:
                    return out
                reason = self.final
            except Exception as error:  # told below, where the graph itself does not raise as well
                reason = self.final = f"{type(error).__name__}: {error}"
        out = self.graph.forward(*args)
        self._tell(reason)
        return out

    def _reason(self, args: tuple[Any, ...]) -> str:
        """Why this call is none for the engine."""
        tensors = [arg for arg in args if isinstance(arg, Tensor)]
        if torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors):
            return _GRADIENT
        if any(args[i] < 0 for i in self.inputs.sizes):
            return "it takes a negative number"
        if not any(isinstance(dim, str) for dims in self.inputs.dims(args).values() for dim in dims):
            return "its rows cannot be told from its columns"
        return "" if is_served(tensors) else "there is no kernel for its tensors"

    def _engine(self, args: tuple[Any, ...]) -> Engine:
        if self.engine is None:
            self.engine = Engine(_Model(self.graph, self.inputs, self._note_writes), **self.options)
        self.engine.dims = self.inputs.dims(args)
        return self.engine

    def _note_writes(self) -> None:
        self.final = WRITES

    def _tell(self, reason: str) -> None:
        if reason in (_STATIC, _GRADIENT):  # advice on the call of torch.compile: once is enough
            if ONCE.first(Recorded, reason):
                LOGGER.warning(reason)
        elif reason not in self.told:
            self.told.add(reason)
            names = ", ".join(self.inputs.names[:4])
            LOGGER.warning("torch.compile: the part that takes (%s, ...) runs as recorded: %s", names, reason)


class _Inputs:
    """The placeholders of a graph: which are tensors, which are sizes of them, which are numbers.

    A size that no tensor has travels as a tensor without memory that has it, a Python float as itself.

    Attributes:
        names: of what the engine is given: the tensors, the sizes, the floats; readable and unique.
        symbols: the symbolic sizes of the tensors.
    """

    def __init__(self, graph: fx.GraphModule) -> None:
        self.placeholders = [node for node in graph.graph.nodes if node.op == "placeholder"]
        values = [node.meta.get("example_value") for node in self.placeholders]
        everything = range(len(values))
        self.floats = [i for i in everything if _is_float(self.placeholders[i])]
        self.tensors = [i for i in everything if isinstance(values[i], Tensor) and i not in self.floats]
        self.shapes = [tuple(_size(dim) for dim in values[i].shape) for i in self.tensors]
        self.symbols = _symbols(self.shapes)
        sizes = {i: values[i].node.expr for i in everything if isinstance(values[i], torch.SymInt)}
        #: placeholder of a size -> where it can be read: (number among `tensors`, axis)
        self.read_at = {i: place for i, size in sizes.items() if (place := _find(size, self.shapes)) is not None}
        self.sizes = [i for i in sizes if i not in self.read_at]
        self.names = _unique([_readable(self.placeholders[i].name) for i in (*self.tensors, *self.sizes, *self.floats)])
        self.integer = [not values[i].is_floating_point() and not values[i].is_complex() for i in self.tensors]
        self.counted = [sizes[i] for i in self.sizes]

    def dims(self, args: tuple[Any, ...]) -> dict[str, tuple[int | str, ...]]:
        """Name -> what its axes count: a space named after Dynamo's symbol, or a size.

        Dynamo may keep columns symbolic as well; here they are the numbers that they are in this call.
        """
        real = [tuple(args[i].shape) for i in self.tensors]
        rows = {shape[0] for shape, whole in zip(self.shapes, self.integer, strict=True) if shape and not whole}
        columns: set[Any] = set()
        edges: set[Any] = set()
        for shape, sizes, whole in zip(self.shapes, real, self.integer, strict=True):
            if whole and len(shape) == 2 and sizes[0] == 2 and shape[0] not in rows:  # [2, E]
                columns.add(shape[0])
                edges.add(shape[1])
            else:
                columns.update(shape[1:])
        spaces = _space_names(_symbols([*self.shapes, self.counted]), edges, columns)
        found = {
            name: tuple(spaces.get(dim, size) for dim, size in zip(shape, sizes, strict=True))
            for name, shape, sizes in zip(self.names, self.shapes, real, strict=False)
        }
        counters = zip(self.names[len(self.tensors) :], self.sizes, self.counted, strict=False)
        return found | {name: (spaces.get(size, args[i]),) for name, i, size in counters}

    def given(self, args: tuple[Any, ...]) -> list[Any]:
        """What the engine is given for a call."""
        counters = [torch.zeros(()).expand(args[i]) for i in self.sizes]
        floats = [args[i].item() if isinstance(args[i], Tensor) else args[i] for i in self.floats]
        return [*(args[i] for i in self.tensors), *counters, *floats]

    def recorded(self, given: Sequence[Any]) -> list[Any]:
        """The arguments of the graph again, from what the engine was given."""
        out: list[Any] = [None] * len(self.placeholders)
        rest = iter(given)
        tensors = [next(rest) for _ in self.tensors]
        for i, tensor in zip(self.tensors, tensors, strict=True):
            out[i] = tensor
        for i, (k, axis) in self.read_at.items():
            out[i] = tensors[k].size(axis)
        for i in self.sizes:
            out[i] = next(rest).size(0)
        for i in self.floats:
            out[i] = torch.tensor(next(rest), dtype=torch.float64)
        return out


class _Model(torch.nn.Module):
    """A graph of Dynamo as a model, whose forward takes only what sizes do not tell."""

    def __init__(self, graph: fx.GraphModule, inputs: _Inputs, tell_writes: Callable[[], None]) -> None:
        super().__init__()
        graph.training = self.training = False  # what it recorded is the same in both modes
        self.graph = graph

        def forward(*given: Any) -> Any:
            return watched(graph.forward, tell_writes, *inputs.recorded(given))

        positional = [inspect.Parameter(name, inspect.Parameter.POSITIONAL_ONLY) for name in inputs.names]
        forward.__signature__ = inspect.Signature(positional)  # type: ignore[attr-defined]
        self.forward = forward


def _is_float(node: fx.Node) -> bool:
    """Whether a placeholder is a Python float that Dynamo passes as a tensor."""
    return bool(getattr(node.meta.get("grapharg"), "pass_arg_as_tensor", False))


def _size(dim: Any) -> int | sympy.Expr:
    expr = dim.node.expr if isinstance(dim, torch.SymInt) else sympy.Integer(dim)
    return int(expr) if expr.is_Integer else expr


def _symbols(shapes: Sequence[Sequence[Any]]) -> list[sympy.Expr]:
    """The sizes that are no numbers, each once."""
    return list(dict.fromkeys(dim for shape in shapes for dim in shape if not isinstance(dim, int)))


def _find(size: sympy.Expr, shapes: Sequence[Sequence[Any]]) -> tuple[int, int] | None:
    """The first tensor and axis of this size."""
    places = ((k, axis) for k, shape in enumerate(shapes) for axis, dim in enumerate(shape) if dim == size)
    return next(places, None)


def _space_names(symbols: list[sympy.Expr], edges: set[Any], columns: set[Any]) -> dict[Any, str]:
    """`E` for the symbols that count edges, `N` for other rows, with the symbol's name where there are several."""
    names: dict[Any, str] = {}
    rows = [symbol for symbol in symbols if symbol not in columns]
    for letter, group in (("E", [s for s in rows if s in edges]), ("N", [s for s in rows if s not in edges])):
        names.update({symbol: letter if len(group) == 1 else f"{letter}:{symbol}" for symbol in group})
    return names


def _readable(name: str) -> str:
    """`l_self_modules_convs_modules_0_modules_lin_parameters_weight_` -> `convs_0_lin_weight`."""
    short = re.sub(r"^[lg]_", "", name.lower()).strip("_")
    short = re.sub(r"^self_", "", short)
    short = re.sub(r"(^|_)(modules|parameters|buffers)_", r"\1", short)
    return short or "value"


def _unique(names: list[str]) -> list[str]:
    found: list[str] = []
    for name in names:
        count, fresh = 2, name
        while fresh in found:
            fresh, count = f"{name}_{count}", count + 1
        found.append(fresh)
    return found
