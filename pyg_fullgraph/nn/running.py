"""One call of a fast layer: the engine or the layer's own forward, and what a layer remembers between calls."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor
from torch.autograd import forward_ad
from torch.nn.parameter import UninitializedParameter
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import _get_current_dispatch_mode
from torch_geometric import EdgeIndex, Index
from torch_geometric.data import Data, HeteroData

from pyg_fullgraph import ops
from pyg_fullgraph.capture.modules import hook_problems
from pyg_fullgraph.engine import Engine
from pyg_fullgraph.errors import FullGraphMismatch
from pyg_fullgraph.front.notes import LOGGER
from pyg_fullgraph.front.ordinary import inside_an_engine
from pyg_fullgraph.graph import Graph
from pyg_fullgraph.ops.forked import survives_fork

SLOT = "_fullgraph_layer"  # where a layer keeps its `State`
OPTIONS = ("threads", "home", "verify")  # of the engine
WRITES = "it writes into one of its arguments in place, and an engine gives outputs only"
_OF_ENGINE = ("nodes", "progress", "out")  # arguments that an engine would take for its own
_ORDINARY = (Tensor, torch.nn.Parameter, torch.nn.Buffer, EdgeIndex, Index)

Forward = Callable[..., Any]


class State:
    """What one layer remembers; copies and pickles of the layer keep only its options.

    Args:
        layer: the layer; None for a copy, until that is called.
        options: of its engine.
        patched: whether `patch` made it fast.
    """

    def __init__(self, layer: torch.nn.Module | None, options: dict[str, Any], patched: bool = False) -> None:
        self.layer = None if layer is None else weakref.ref(layer)
        self.options, self.patched = dict(options), patched
        self.engine: Engine | None = None
        self.told: set[str] = set()
        self.final = ""  # why the engine must not be asked again: a wrong row, a forward that writes

    def belongs_to(self, layer: torch.nn.Module) -> bool:
        """Tells whether this is the state of this very object: `copy.copy` of a layer copies references."""
        return self.layer is not None and self.layer() is layer

    def tell(self, layer: torch.nn.Module, reason: str) -> None:
        """Says once per layer and reason that its own forward ran."""
        if reason not in self.told:
            self.told.add(reason)
            LOGGER.warning("%s runs its own forward, not the engine: %s", layer, reason)

    def __deepcopy__(self, memo: dict[int, Any]) -> State:
        return State(None, self.options, self.patched)

    def __reduce__(self) -> tuple[type, tuple[Any, ...]]:
        return (State, (None, self.options, self.patched))


def state_of(layer: torch.nn.Module) -> State:
    """The state of a layer, a fresh one for a new or copied layer."""
    state = vars(layer).get(SLOT)
    if state is None or not state.belongs_to(layer):
        state = State(layer, {}) if state is None else State(layer, state.options, state.patched)
        vars(layer)[SLOT] = state
    return state


def runs_own(layer: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    """Whether a call is none for the engine: training, gradients, somebody's trace, tensors that no kernel takes."""
    if inside_an_engine() or _is_traced() or any(module.training for module in layer.modules()):
        return True
    tensors = list(_tensors((args, kwargs)))
    if not is_served(tensors):
        return True
    parameters = list(layer.parameters())
    if torch.is_grad_enabled() and any(tensor.requires_grad for tensor in (*tensors, *parameters)):
        return True
    return any(isinstance(parameter, UninitializedParameter) for parameter in parameters)


@survives_fork
def run(
    layer: torch.nn.Module, plain: torch.nn.Module, own: Forward, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Any:
    """The output of a layer from its engine; from its own forward where there is a reason, which is told once.

    Args:
        layer: keeps the engine.
        plain: the same layer under a class that runs its own forward; what the engine captures.
        own: the layer's own forward.
        args, kwargs: the call.
    """
    state = state_of(layer)
    reason = state.final or _hooks(layer) or _ambiguous(kwargs)
    if not reason:
        if state.engine is None:
            state.engine = Engine(plain, **state.options)
        try:
            out = state.engine(*args, **kwargs)
            if not state.final:
                return out
            reason = state.final
        except FullGraphMismatch as error:
            reason = state.final = str(error)
        except Exception as error:  # told below, where the layer's own forward does not raise as well
            reason = f"{type(error).__name__}: {error}"
    out = own(*args, **kwargs)
    state.tell(layer, reason)
    return out


def watched(own: Forward, tell_writes: Callable[[], None], *args: Any, **kwargs: Any) -> Any:
    """The output of a forward; tells if, while it is captured, it writes into its arguments.

    Args:
        own: the forward.
        tell_writes: called if it does: an engine gives outputs, and nothing else.
        args, kwargs: the call.
    """
    arguments = [tensor for tensor in _tensors((args, kwargs)) if isinstance(tensor, FakeTensor)]
    before = [tensor._version for tensor in arguments]
    out = own(*args, **kwargs)
    if any(tensor._version != version for tensor, version in zip(arguments, before, strict=True)):
        tell_writes()
    return out


def _is_traced() -> bool:
    """Whether somebody records or transforms what runs: a trace of ours, torch.export, torch.jit, vmap, jvp."""
    return (
        torch.jit.is_tracing()
        or _get_current_dispatch_mode() is not None
        or torch._C._functorch.maybe_current_level() is not None
        or forward_ad._current_level >= 0
        or torch.is_autocast_enabled("cpu")
    )


def _tensors(tree: Any) -> Iterator[Tensor]:
    """All tensors of a call, also those inside data objects."""
    for leaf in pytree.tree_leaves(tree):
        if isinstance(leaf, Tensor):
            yield leaf
        elif isinstance(leaf, Graph):
            yield leaf.edge_index
        elif isinstance(leaf, (Data, HeteroData)):
            yield from _tensors([list(store.values()) for store in leaf.stores])


def is_served(tensors: Sequence[Tensor]) -> bool:
    """Whether kernels take these tensors: ordinary ones, on a device for which kernels are built."""
    devices = ops.kernels()["devices"]
    return bool(tensors) and all(
        type(tensor) in _ORDINARY and tensor.device.type in devices and not tensor.is_complex() for tensor in tensors
    )


def _hooks(layer: torch.nn.Module) -> str:
    """Hooks on messages and parts, which the engine would not run. Those of the layer itself run around it."""
    found = hook_problems(layer).texts()
    if found:  # asked here, since a trace would run them
        return found[0]
    for name, module in layer.named_modules():
        if module is not layer and (module._forward_hooks or module._forward_pre_hooks):
            return f"its part '{name}' has a forward hook, which runs Python per call"
    everywhere = torch.nn.modules.module
    if everywhere._global_forward_hooks or everywhere._global_forward_pre_hooks:
        return "there are global forward hooks, which run Python per call of every module"
    return ""


def _ambiguous(kwargs: dict[str, Any]) -> str:
    taken = sorted(set(kwargs) & set(_OF_ENGINE))
    return f"its argument '{taken[0]}' has the name of an option of the engine" if taken else ""
