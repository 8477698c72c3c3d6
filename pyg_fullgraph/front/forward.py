"""What a model's forward takes: which parameter is the graph, which the features, which the whole data
object."""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch_geometric.data import Data, HeteroData

from pyg_fullgraph.errors import InputError
from pyg_fullgraph.front.through import parameters_of

_GRAPH_NAMES = ("edge_index", "adj_t", "adj", "adjs", "edges", "edge_index_dict", "adj_t_dict", "ei")
_FEATURE_NAMES = [
    "x",
    "x_all",
    "x_dict",
    "feat",
    "feats",
    "feature",
    "features",
    "h",
    "inputs",
    "input",
    "node_feat",
    "node_feats",
    "node_features",
    "xs",
]
_DATA_NAMES = ("data", "batch", "graph", "g", "batched_data", "batch_data", "sample")
_NO_VARIADIC = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)

#: Names that say that an argument is no node features, whatever its place.
_NO_FEATURES = re.compile(
    r"(^|_)(edge|edges|adj|adjs|ei|index|indices|batch|ptr|mask|weight|weights|attr|type|types|etype|rel|relations?|size"
    r"|sizes|num|pairs?|triplets?|labels?|t|time|times)(_|$)|^(pos|y|node_type|num_\w+)$"
)
_NO_GRAPH = re.compile(r"(^|_)(batch|ptr|mask|weight|attr|type|types|size|num|pos|y)(_|$)")

#: Optional arguments of forward that are taken from the data when it has them.
OPTIONAL_FROM_DATA = ("edge_weight", "edge_attr", "edge_type", "batch", "pos", "node_type", "ptr")


@dataclass(frozen=True)
class Forward:
    """The parameters of a model's forward by role.

    Attributes:
        owner: the class of the model, for messages.
        parameters: name -> default (``inspect.Parameter.empty`` where there is none), in order.
        positional: names that can be passed by position, in order.
        open: whether forward takes ``**kwargs``.
        graph: the parameter for the graph, or ``None``.
        features: the parameter for the node features, or ``None``.
        data: the parameter for a whole ``Data``; ``graph`` and ``features`` are ``None`` then.
    """

    owner: str
    parameters: Mapping[str, Any]
    positional: tuple[str, ...]
    open: bool
    graph: str | None
    features: str | None
    data: str | None

    @property
    def layered(self) -> bool:
        """Whether the graph is a list of one ``(edge_index, e_id, size)`` per layer, as samplers give."""
        return self.graph == "adjs"

    def required(self, name: str) -> bool:
        """Whether forward cannot be called without this parameter."""
        return self.parameters[name] is inspect.Parameter.empty

    def __str__(self) -> str:
        return f"{self.owner}.forward({', '.join(self.parameters)})"


def forward_of(model: torch.nn.Module) -> Forward:
    """Returns the parameters of ``model.forward`` by role, from their names and annotations.

    Args:
        model: the model itself, without wrappers (:func:`unwrap`).
    """
    declared = getattr(getattr(model, "signature", None), "param_dict", None)  # torch_geometric.nn.Sequential
    if declared is not None:
        parameters: dict[str, Any] = {name: inspect.Parameter.empty for name in declared}
        return _by_role(type(model).__name__, parameters, tuple(parameters), False, None)
    if getattr(model.forward, "__func__", None) is torch.nn.Module.forward:
        raise InputError(_without_forward(model))
    all_of_them = parameters_of(model.forward)
    named = {p.name: p for p in all_of_them if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)}
    if not named and any(p.kind == p.VAR_POSITIONAL for p in all_of_them):  # HeteroConv: by what is usual
        named = {name: inspect.Parameter(name, inspect.Parameter.POSITIONAL_ONLY) for name in ("x", "edge_index")}
    is_open = any(p.kind == p.VAR_KEYWORD for p in all_of_them)
    positional = tuple(name for name, p in named.items() if p.kind in _NO_VARIADIC)
    whole = next((name for name, p in named.items() if _is_data(p.annotation)), None)
    defaults = {name: p.default for name, p in named.items()}
    return _by_role(type(model).__name__, defaults, positional, is_open, whole)


def _without_forward(model: torch.nn.Module) -> str:
    """What to do with a model that has methods only."""
    own = [name for cls in type(model).__mro__ if not cls.__module__.startswith("torch.") for name in vars(cls)]
    methods = [n for n in dict.fromkeys(own) if not n.startswith("_") and n not in ("forward", "reset_parameters")]
    methods = [name for name in methods if callable(getattr(model, name, None))]
    example = "encode" if "encode" in methods else next(iter(methods), "method")
    return (
        f"{type(model).__name__} has no forward. Pass the method to run, bound to the model: "
        f"inference(model.{example}, data)" + (f" (it has {', '.join(methods)})." if methods else ".")
    )


def unwrap(model: torch.nn.Module) -> torch.nn.Module:
    """Opens ``DistributedDataParallel``, ``DataParallel``, ``AveragedModel`` and ``torch.compile`` wrappers.

    Raises:
        InputError: the model was compiled by ``torch.jit``: there is no Python code that could be captured.
    """
    wrappers = (
        torch.nn.parallel.DistributedDataParallel,
        torch.nn.DataParallel,
        torch.optim.swa_utils.AveragedModel,
    )
    while True:
        if isinstance(model, torch.jit.ScriptModule):
            raise InputError(
                f"The model {getattr(model, 'original_name', type(model).__name__)} was compiled by torch.jit "
                "(scripted, traced, frozen or loaded from a file), so there is no Python code that could be captured. "
                "Pass the eager model that it was made from; compiled.state_dict() has its weights."
            )
        inner = model._modules.get("_orig_mod")
        if inner is None and isinstance(model, wrappers):
            inner = model.module
        if inner is None:
            return model
        model = inner


def _by_role(
    owner: str, parameters: dict[str, Any], positional: tuple[str, ...], is_open: bool, whole: str | None
) -> Forward:
    """Finds graph and features; a single required parameter that is neither is the data object."""
    required = [name for name, default in parameters.items() if default is inspect.Parameter.empty]
    graph = next((name for name in parameters if name in _GRAPH_NAMES), None)
    if graph is None:
        graph = next((name for name in parameters if name.endswith("edge_index")), None)
    if whole is None and graph is None and len(required) == 1:
        name = required[0]
        whole = name if name in _DATA_NAMES or name not in _FEATURE_NAMES else None
    if whole is not None:
        return Forward(owner, parameters, positional, is_open, None, None, whole)
    if graph is None and len(required) > 1:
        graph = next((name for name in required[1:] if name not in _FEATURE_NAMES and not _NO_GRAPH.search(name)), None)
    features = next((name for name in parameters if name in _FEATURE_NAMES), None)
    if features is None:
        features = next((name for name in required if name != graph and not _NO_FEATURES.search(name)), None)
    return Forward(owner, parameters, positional, is_open, graph, features, None)


def _is_data(annotation: Any) -> bool:
    """Whether an annotation names PyG's data classes, as a class or as text."""
    if isinstance(annotation, type):
        return issubclass(annotation, (Data, HeteroData))
    return isinstance(annotation, str) and annotation.split(".")[-1] in ("Data", "HeteroData", "Batch")
