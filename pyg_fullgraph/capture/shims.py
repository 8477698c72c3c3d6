"""Adapters that hold while a model is traced, for what fake tensors cannot answer.

Each adapter is one context manager over public names; a name that this version of torch_geometric does not
have is left alone. `adapted(model)` enters them all, and everything is put back on exit, also after an error.

1. `int(tensor)`, `float(tensor)`, `len(tensor)`, `min(n, m)` and `max(n, m)` in the modules of PyG and of the model
   -> symbolic numbers
2. `torch_geometric.is_compiling() -> True`: the plain torch path, whatever optional packages are installed (but where
   PyG itself hooks messages, those hooks are run)
3. `HeteroLinear.forward` -> `pyg_fullgraph::typed_linear`
4. recurrent layers, attention, instance norm of torch -> plain operators (`capture.recurrent`, `capture.layers`)
5. aggregations that sort, pad or attend -> one opaque node (`capture.operators.OpaqueAggregation`)
6. `cached=True` -> computed anew (a warm cache would bake the old graph)
7. pyg_lib's matrix products by segment and by group are not used; where PyG counts relations to choose them, it still
   does (a relation out of range is its caller's mistake)
8. functions under `torch.jit.script` -> the Python functions that they were made of
9. functions of the edges alone (`gcn_norm`, self-loops, degrees) -> traced once for all layers (`capture.repeated`)
10. loops over many relations -> one pass over pairs of a relation and a node (`capture.relations`)
11. `torch_geometric.utils.to_dense_batch` and `.num_nodes.maybe_num_nodes` -> without questions about sizes
"""

from __future__ import annotations

import builtins
import contextlib
import functools
import sys
from collections.abc import Iterable, Iterator, Mapping
from types import FunctionType, ModuleType
from typing import Any

import torch
import torch_geometric
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor
from torch_geometric.nn import aggr as pyg_aggr
from torch_geometric.nn import dense as pyg_dense
from torch_geometric.utils import num_nodes as pyg_num_nodes
from torch_geometric.utils import to_dense_batch

from pyg_fullgraph.capture import layers, recurrent
from pyg_fullgraph.capture.modules import replaced
from pyg_fullgraph.capture.opaque import record_opaque
from pyg_fullgraph.capture.operators import OpaqueAggregation, linear_by_type
from pyg_fullgraph.capture.relations import grouped_relations
from pyg_fullgraph.capture.repeated import remembered

_maybe_num_nodes: Any = getattr(pyg_num_nodes, "maybe_num_nodes", None)

_TRACEABLE_AGGREGATIONS = [
    "SumAggregation",
    "MeanAggregation",
    "MaxAggregation",
    "MinAggregation",
    "MulAggregation",
    "VarAggregation",
    "StdAggregation",
    "SoftmaxAggregation",
    "PowerMeanAggregation",
    "MultiAggregation",
    "FusedAggregation",
    "DegreeScalerAggregation",
    "AttentionalAggregation",
    "DeepSetsAggregation",
    "VariancePreservingAggregation",
    "Set2Set",
]


class _NumberType(type):
    """Metaclass of the stand-ins for `int` and `float`: calls see fake tensors, all else sees the builtin."""

    builtin: type
    symbolic: type

    def __call__(cls, *args: Any, **kwargs: Any) -> Any:
        if args and isinstance(args[0], Tensor) and not kwargs:
            return cls.of_tensor(args[0])
        if args and isinstance(args[0], (torch.SymInt, torch.SymFloat)):
            return cls.of_symbol(args[0])
        return cls.builtin(*args, **kwargs)

    def __instancecheck__(cls, instance: Any) -> bool:
        return isinstance(instance, (cls.builtin, cls.symbolic))

    def __subclasscheck__(cls, other: type) -> bool:
        return issubclass(other, (cls.builtin, cls.symbolic))

    def __eq__(cls, other: Any) -> bool:
        return other is cls or other is cls.builtin

    def __hash__(cls) -> int:
        return hash(cls.builtin)

    def __getattr__(cls, name: str) -> Any:
        return getattr(cls.builtin, name)

    def __or__(cls, other: Any) -> Any:
        return cls.builtin | other


class _TracedInt(metaclass=_NumberType):
    builtin = int
    symbolic = torch.SymInt

    @staticmethod
    def of_tensor(tensor: Tensor) -> Any:
        value = tensor.item()
        if isinstance(value, torch.SymInt):
            torch._check(value >= 0)  # the integers that models read from tensors are sizes
            return value
        return torch.sym_int(value)

    @staticmethod
    def of_symbol(value: Any) -> Any:
        return torch.sym_int(value)


class _TracedFloat(metaclass=_NumberType):
    builtin = float
    symbolic = torch.SymFloat

    @staticmethod
    def of_tensor(tensor: Tensor) -> Any:
        return torch.sym_float(tensor.item())

    @staticmethod
    def of_symbol(value: Any) -> Any:
        return torch.sym_float(value)


def _traced_len(value: Any) -> Any:
    return value.size(0) if isinstance(value, Tensor) and value.dim() else builtins.len(value)


def _extremum(builtin: Any, symbolic: Any) -> Any:
    """`min` or `max` that also compares symbolic sizes."""

    def call(*args: Any, **kwargs: Any) -> Any:
        items = list(args[0]) if len(args) == 1 else list(args)
        if kwargs or not any(isinstance(item, torch.SymInt) for item in items):
            return builtin(*((items,) if len(args) == 1 else args), **kwargs)
        return functools.reduce(symbolic, items)

    return call


def _num_nodes(edge_index: Any, num_nodes: Any = None) -> Any:
    """`maybe_num_nodes` of torch_geometric: the largest entry plus one, zero where there is none."""
    if num_nodes is not None or not isinstance(edge_index, FakeTensor) or edge_index.layout is not torch.strided:
        return _maybe_num_nodes(edge_index, num_nodes)
    entries = torch.cat([edge_index.reshape(-1), edge_index.new_full((1,), -1)])
    return _TracedInt.of_tensor(entries.max() + 1)


_by_interpreter = torch.jit.ScriptFunction.__call__


def _by_python(function: Any, *args: Any, **kwargs: Any) -> Any:
    """A function under `torch.jit.script` by the Python function that it was made of, where it knows that."""
    original = getattr(function, "_torchdynamo_inline", None)
    return _by_interpreter(function, *args, **kwargs) if original is None else original(*args, **kwargs)


def _always() -> bool:
    return True


def _never() -> bool:
    return False


def _never_any(**_sizes: Any) -> bool:
    return False


def _is_generated(names: dict[str, Any]) -> bool:
    """True for the module that PyG writes for a layer's `propagate`, where hooks on messages are run or skipped."""
    return str(names.get("__name__")).endswith("_propagate")


@contextlib.contextmanager
def adapted(model: torch.nn.Module, modules: Mapping[str, torch.nn.Module] | None = None) -> Iterator[None]:
    """All adapters, for the time of one trace of `model`.

    Args:
        model: to be traced.
        modules: its modules by name, also those that are not registered; the registered ones if None.
    """
    modules = dict(model.named_modules()) if modules is None else modules
    with contextlib.ExitStack() as stack:
        stack.enter_context(_module_globals(modules.values()))
        stack.enter_context(_torch_layers())
        stack.enter_context(_hetero_linear())
        stack.enter_context(_opaque_aggregations(modules))
        stack.enter_context(replaced(torch.jit.ScriptFunction, "__call__", _by_python))
        stack.enter_context(grouped_relations())
        stack.enter_context(_no_segment_products())
        yield


@contextlib.contextmanager
def _no_segment_products() -> Iterator[None]:
    """The loop over relations and types, whatever is installed."""
    with contextlib.ExitStack() as stack:
        for name in ("WITH_SEGMM", "WITH_GMM"):
            if hasattr(torch_geometric.typing, name):
                stack.enter_context(replaced(torch_geometric.typing, name, False))
        if hasattr(torch_geometric.backend, "use_segment_matmul_heuristic"):
            stack.enter_context(replaced(torch_geometric.backend, "use_segment_matmul_heuristic", _never_any))
        elif hasattr(torch_geometric.backend, "use_segment_matmul"):
            stack.enter_context(replaced(torch_geometric.backend, "use_segment_matmul", False))
        yield


@contextlib.contextmanager
def _module_globals(modules: Iterable[torch.nn.Module]) -> Iterator[None]:
    """Stand-ins for builtins in the global names of PyG's modules and of the model's own."""
    stand_ins = {
        "int": _TracedInt,
        "float": _TracedFloat,
        "len": _traced_len,
        "min": _extremum(builtins.min, torch.sym_min),
        "max": _extremum(builtins.max, torch.sym_max),
    }
    functions = {
        "maybe_num_nodes": (_maybe_num_nodes, _num_nodes),
        "to_dense_batch": (to_dense_batch, layers.dense_batch(to_dense_batch)),
        **remembered(),
    }
    hooked = any(getattr(module, "_message_forward_hooks", None) for module in modules)
    undo: list[tuple[dict[str, Any], str, Any]] = []
    missing = object()
    try:
        for names in _namespaces(modules):
            changes: dict[str, Any] = {key: value for key, value in stand_ins.items() if key not in names}
            if getattr(names.get("is_compiling"), "__module__", "").startswith("torch_geometric"):
                changes["is_compiling"] = _never if hooked and _is_generated(names) else _always
            changes |= {key: new for key, (old, new) in functions.items() if old is not None and names.get(key) is old}
            for key, value in changes.items():
                undo.append((names, key, names.get(key, missing)))
                names[key] = value
        yield
    finally:
        for names, key, old in reversed(undo):
            if old is missing:
                del names[key]
            else:
                names[key] = old


def _namespaces(modules: Iterable[torch.nn.Module]) -> list[dict[str, Any]]:
    """Global names of every module whose code a forward may run: PyG, the model's classes, what those
    import.
    """
    found: dict[int, dict[str, Any]] = {}
    for name, module in list(sys.modules.items()):
        if name == "torch_geometric" or name.startswith("torch_geometric."):
            found[id(vars(module))] = vars(module)
    for cls in {base for module in modules for base in type(module).__mro__}:
        for value in list(vars(cls).values()):
            if isinstance(value, FunctionType) and not _is_foreign(value.__module__):
                found[id(value.__globals__)] = value.__globals__
    for names in list(found.values()):
        if str(names.get("__name__", "")).startswith("torch_geometric"):
            continue
        for value in list(names.values()):  # helper functions and helper modules, one import away
            if isinstance(value, FunctionType) and not _is_foreign(value.__module__):
                found[id(value.__globals__)] = value.__globals__
            elif isinstance(value, ModuleType) and not _is_foreign(value.__name__):
                found[id(vars(value))] = vars(value)
    return list(found.values())


def _is_foreign(module: str | None) -> bool:
    """True for code that is neither the user's nor PyG's."""
    top = (module or "builtins").split(".")[0]
    return top in ("torch", "numpy", "pyg_fullgraph", "sympy", "scipy") or (
        top in sys.stdlib_module_names and (top != "__main__")
    )


@contextlib.contextmanager
def _torch_layers() -> Iterator[None]:
    with contextlib.ExitStack() as stack:
        for cls in (torch.nn.RNN, torch.nn.LSTM, torch.nn.GRU):
            stack.enter_context(replaced(cls, "forward", recurrent.recurrent_forward))
        stack.enter_context(replaced(torch.nn.GRUCell, "forward", recurrent.gru_cell_forward))
        stack.enter_context(replaced(torch.nn.LSTMCell, "forward", recurrent.lstm_cell_forward))
        stack.enter_context(replaced(torch.nn.RNNCell, "forward", recurrent.rnn_cell_forward))
        stack.enter_context(replaced(torch.nn.MultiheadAttention, "forward", layers.multihead_forward))
        stack.enter_context(replaced(torch.nn.InstanceNorm1d, "forward", layers.instance_norm_forward))
        stack.enter_context(_transformer_fast_path_off())
        yield


@contextlib.contextmanager
def _transformer_fast_path_off() -> Iterator[None]:
    """`torch.nn.TransformerEncoderLayer` by its layers, not as one operator."""
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)


@contextlib.contextmanager
def _hetero_linear() -> Iterator[None]:
    cls = getattr(pyg_dense, "HeteroLinear", None)
    if cls is None:
        yield
        return

    def forward(self: Any, x: Tensor, type_vec: Tensor) -> Tensor:
        return linear_by_type(x, self.weight, self.bias, type_vec).to(x.dtype)

    with replaced(cls, "forward", forward):
        yield


@contextlib.contextmanager
def _opaque_aggregations(modules: Mapping[str, torch.nn.Module]) -> Iterator[None]:
    """Aggregations that ATen cannot express over symbolic sizes become one node each."""
    base = pyg_aggr.Aggregation
    names = {id(module): name for name, module in modules.items()}
    real = {
        id(module): {**dict(module.named_parameters()), **dict(module.named_buffers())}
        for module in modules.values()
        if is_opaque(module)
    }
    original = base.__call__

    def call(
        self: Any,
        x: Tensor,
        index: Tensor | None = None,
        ptr: Tensor | None = None,
        dim_size: Any = None,
        dim: int = -2,
        **kwargs: Any,
    ) -> Tensor:
        if id(self) not in real or not isinstance(x, FakeTensor):
            return original(self, x, index, ptr, dim_size, dim, **kwargs)
        if index is None:
            index = x.new_zeros(x.size(dim), dtype=torch.long)
        if dim_size is None:
            dim_size = _TracedInt.of_tensor(index.max()) + 1
        if ptr is not None or any(value is not None for value in kwargs.values()):
            raise NotImplementedError(f"{type(self).__name__} with 'ptr' or {sorted(kwargs)}")
        handle = OpaqueAggregation(self, names[id(self)])
        return record_opaque(handle, real[id(self)], x, index, dim_size, dim)

    with replaced(base, "__call__", call):
        yield


def is_opaque(module: torch.nn.Module) -> bool:
    """True for PyG aggregations that run as one opaque node."""
    return (
        isinstance(module, pyg_aggr.Aggregation)
        and not any(cls.__name__ in _TRACEABLE_AGGREGATIONS for cls in type(module).__mro__)
        and type(module).__module__.startswith("torch_geometric")
    )


def uncache(modules: Mapping[str, torch.nn.Module]) -> list[str]:
    """Switch `cached=True` layers to computing anew; the caller restores the modules. Returns their names."""
    changed: list[str] = []
    for name, module in modules.items():
        attributes = vars(module)
        if attributes.get("cached") is True:
            attributes["cached"] = False
            changed.append(name or type(module).__name__)
        for key in attributes:
            if key.startswith("_cached") and not isinstance(attributes[key], (bool, int, float, str)):
                attributes[key] = None
    return changed
