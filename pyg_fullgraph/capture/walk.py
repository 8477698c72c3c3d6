"""`Walk`: everything that a forward may read beside its arguments, from the model outwards.

From the modules (also those in plain lists, dictionaries and objects) to their attributes, the objects in these, the
classes of all of them up to those of libraries, the functions, and the global names and variables of enclosing
functions that the functions' code reads, helper functions included. One walk gives

* `tokens`: a description by value, equal for two states in which a trace does the same;
* `checks`: what to look at to know that nothing was changed since, see `capture.unchanged`;
* `tensors`: those of the model by the name of their place, which are read at each call.
"""

from __future__ import annotations

import array
import enum
import functools
import types
import weakref
from collections import deque
from collections.abc import Callable, Collection, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.parameter import UninitializedBuffer, UninitializedParameter

from pyg_fullgraph.capture.codes import (
    attribute_names,
    global_names,
    home_of,
    is_library,
    is_only_filled,
    read_from,
)
from pyg_fullgraph.capture.matrices import is_matrix
from pyg_fullgraph.capture.shims import is_opaque
from pyg_fullgraph.capture.told import (
    ATOMS,
    BY_VALUE,
    KEPT_BY_IDENTITY,
    Identity,
    atom,
    hashable,
    is_seen,
    items_of,
    order_of,
    pickled,
    slots_of,
    values_of,
    within,
)
from pyg_fullgraph.capture.unchanged import Unchanged, content_of, described

_STRUCTURE = ("training", "_parameters", "_buffers", "_modules")
_METHOD_LIKE = (types.MethodType, types.BuiltinMethodType, types.MethodWrapperType)
_DESCRIPTORS = (types.WrapperDescriptorType, types.MethodDescriptorType, types.GetSetDescriptorType)


class Walk:
    """What can be reached from a model.

    Args:
        model: where to start.
        reads: module name -> attributes that matter; None for all. Of modules that it does not name only the structure
            matters: classes, train or eval mode, parameters and buffers.
        by_id: the same by the modules' identity, see `Reads`.
        valued: names of tensors whose values matter, not only their shape and type.
        looking: hooks that only look: they count, but what they read and write is no part of a trace.

    Attributes:
        modules: by name; `blocks[0]` is one in a plain list.
        tensors: the model's, by the name of every place that they are found at.
        places: identity of a tensor -> the names of its places, also outside of the model: global names, variables of
            enclosing functions, class attributes.
        opaque: what can be compared neither by value nor by identity, in words.
    """

    def __init__(
        self,
        model: torch.nn.Module,
        reads: Mapping[str, frozenset[str]] | None = None,
        by_id: Mapping[int, set[str]] | None = None,
        valued: frozenset[str] = frozenset(),
        looking: Collection[Any] = (),
    ) -> None:
        self._reads, self._by_id, self._valued = reads, by_id, valued
        self._looking = {id(hook) for hook in looking}
        self.modules: dict[str, torch.nn.Module] = {}
        self.tensors: dict[str, Tensor] = {}
        self.places: dict[int, list[str]] = {}
        self.opaque: list[str] = []
        self.tokens: list[Any] = []
        self.checks = Unchanged()
        asked: list[frozenset[str] | set[str]] = [*(reads or {}).values(), *(by_id or {}).values()]
        self._wanted: set[str] | None = None if reads is None and by_id is None else set().union(*asked)
        self._waiting: dict[str, list[tuple[Any, str]]] = {}  # of classes of modules, until code names them
        self._seen: dict[int, int] = {}
        self._alive: list[Any] = []  # so that no identity is used twice
        self._globals: dict[int, tuple[dict[str, Any], dict[str, None]]] = {}
        self._plain: deque[tuple[Any, str]] = deque()  # visited when all registered modules are named
        self._code: deque[tuple[Any, str]] = deque()  # and outside of the model when that is done
        self._stack: list[tuple[Any, str]] = [(model, "")]
        self._inside = True
        for hooks in ("_global_forward_pre_hooks", "_global_forward_hooks"):
            self._code.append((getattr(torch.nn.modules.module, hooks), f"torch's {hooks}"))
        self._run()
        for names, read in self._globals.values():
            self.checks.watch_names(names, read, "the global ")

    def _run(self) -> None:
        for queue in (self._plain, self._code):
            while self._stack or queue:
                value, name = self._stack.pop() if self._stack else queue.popleft()
                self._visit(value, name)
            self._inside = False

    def _push(self, items: list[tuple[Any, str]]) -> None:
        self._stack.extend(reversed(items))

    # -- one value --------------------------------------------------------------------------------------------

    def _visit(self, value: Any, name: str) -> None:
        kind = type(value)
        if kind in ATOMS:
            self.tokens.append(atom(value))
            return
        if isinstance(value, Tensor):
            self._place(value, name)
        seen = self._seen.get(id(value))
        if seen is not None:
            self.tokens.append(("same", seen))
            return
        self._seen[id(value)] = len(self._seen)
        self._alive.append(value)
        for kinds, visit in _VISITORS:
            if isinstance(value, kinds):
                visit(self, value, name)
                return
        self._object(value, name)

    def _place(self, value: Tensor, name: str) -> None:
        if self._inside:
            self.tensors.setdefault(name, value)
        self.places.setdefault(id(value), []).append(name)
        if name in self._valued:
            values = values_of(value)
            self.tokens.append(values)
            self.checks.contents.append((value, values_of, values))

    def has_memory_of(self, tensor: Tensor) -> bool:
        """Whether a tensor was made of an array that the walk met (`torch.from_numpy`)."""
        place = tensor.data_ptr() if tensor.layout is torch.strided else 0
        arrays = (value for value in self._alive if isinstance(value, np.ndarray))
        return any(array.ctypes.data <= place < array.ctypes.data + max(array.nbytes, 1) for array in arrays)

    def met(self, value: Any) -> bool:
        """Whether the walk has come by this very object."""
        return id(value) in self._seen

    def _tensor(self, value: Tensor, name: str) -> None:
        if isinstance(value, (UninitializedParameter, UninitializedBuffer)):
            self.tokens.append(("lazy", type(value), value.dtype))
            self.checks.identities.append((value, type(value)))  # it becomes an ordinary one in place
            return
        if self._inside and is_matrix(value):
            self._matrix(value, name)
            return
        about = described(value)
        self.tokens.append(("tensor", *about))
        self.checks.tensors.append((value, about))
        if not self._inside:
            self.tokens.append(Identity(value))  # a trace that reads it holds this very one

    def _matrix(self, value: Any, name: str) -> None:
        """A sparse matrix of the model goes into a call like an argument, with its sizes."""
        self.tokens.append(("matrix", type(value), getattr(value, "layout", None), getattr(value, "dtype", None)))

    def _module(self, module: torch.nn.Module, name: str) -> None:
        if self._inside or name not in self.modules:
            self.modules[name] = module
        if isinstance(module, torch.jit.ScriptModule):  # has no code to trace; refused where it is run
            self.tokens.append(Identity(module))
            return
        held = vars(module)
        read = self._read_of(module, name)
        seen = [key for key in (held if read is None else sorted(read)) if key not in _STRUCTURE and is_seen(key)]
        plain = [key for key in seen if key in held]
        self.tokens.append(("module", type(module), module.training, *plain))
        if is_opaque(module):  # a trace calls this very one
            self.tokens.append(Identity(module))
        self.checks.watch_object(module, held)
        self.checks.watch_names(held, (*_STRUCTURE, *seen), f"{name or type(module).__name__}.")
        dot = f"{name}." if name else ""
        registered = [held.get(key) or {} for key in _STRUCTURE[1:]]
        for one in registered:
            self.checks.watch_dict(one)
            self.tokens.append(tuple(one))
        self._push([(item, f"{dot}{key}") for one in registered for key, item in one.items()])
        self._plain.extend((held[key], f"{dot}{key}") for key in plain)
        self._code.append((type(module), type(module).__name__))

    def _read_of(self, module: torch.nn.Module, name: str) -> frozenset[str] | set[str] | None:
        if self._by_id is not None:
            read: frozenset[str] | set[str] = self._by_id.get(id(module), set())
        elif self._reads is not None:
            read = self._reads.get(name, frozenset())
        else:
            return None
        return None if "__dict__" in read else read

    # -- containers -------------------------------------------------------------------------------------------

    def _dict(self, value: dict[Any, Any], name: str) -> None:
        self.checks.watch_dict(value, name)
        self.tokens.append((type(value), len(value)))
        items: list[tuple[Any, str]] = []
        for key, item in value.items():
            if name.endswith("_hooks"):  # those that only look are called after each run, these very ones
                self.tokens.append((key, Identity(item) if type(item) not in ATOMS else item))
            items.append((key, f"a key of {name}"))
            if id(item) not in self._looking:
                items.append((item, f"{name}[{key!r}]" if type(key) in ATOMS else f"{name}[...]"))
        self._push(items)
        self._rest_of(value, name)

    def _sequence(self, value: Any, name: str) -> None:
        if not isinstance(value, tuple):
            self.checks.watch_items(value, name)
        if set(map(type, value)) <= ATOMS:
            self.tokens.append((type(value), tuple(map(atom, value))))
        else:
            self.tokens.append((type(value), len(value)))
            self._push([(item, f"{name}[{i}]") for i, item in enumerate(value)])
        self._rest_of(value, name)

    def _set(self, value: Any, name: str) -> None:
        if isinstance(value, set):
            self.checks.watch_items(value, name)
        if set(map(type, value)) <= ATOMS:
            self.tokens.append((type(value), frozenset(map(atom, value))))
            return
        ordered = sorted(value, key=order_of)
        self.tokens.append((type(value), len(ordered)))
        self._push([(item, f"an item of {name}") for item in ordered])

    def _rest_of(self, value: Any, name: str) -> None:
        """What a subclass of a container has beside its items."""
        if type(value).__module__ not in ("builtins", "collections"):
            self._attributes(value, name)
        elif isinstance(getattr(value, "default_factory", None), types.FunctionType):
            self._push([(value.default_factory, f"{name}'s default")])

    # -- objects ----------------------------------------------------------------------------------------------

    def _object(self, value: Any, name: str) -> None:
        """Any other object: by its attributes where it has some, else by value, else not at all."""
        kind = type(value)
        if self._inside and is_matrix(value):
            self._matrix(value, name)
        elif kind is object or within(kind, KEPT_BY_IDENTITY) or isinstance(value, types.ModuleType):
            self.tokens.append(Identity(value))
        elif self._attributes(value, name):
            solid = next((base for base in kind.__mro__ if base in ATOMS), None)
            if solid is not None:  # `class Name(str)`
                self.tokens.append(atom(solid(value)))
        elif isinstance(value, BY_VALUE) or (kind.__hash__ not in (None, object.__hash__) and hashable(value)):
            self.tokens.append((kind, value))  # what has a hash of its value does not change it
        else:
            self._pickled(value, name)

    def _attributes(self, value: Any, name: str) -> bool:
        """An object by its `__dict__` and slots; False where it has neither."""
        held = getattr(value, "__dict__", None)
        slots = slots_of(type(value))
        if not isinstance(held, dict) and not slots:
            return False
        self.tokens.append(("object", type(value)))
        items = []
        if slots:
            present = {key: getattr(value, key) for key in slots if hasattr(value, key)}
            self.checks.watch_slots(value, slots)
            self.tokens.append(tuple(present))
            items += [(item, f"{name}.{key}") for key, item in present.items()]
        if isinstance(held, dict):
            self.checks.watch_object(value, held)
            self.checks.watch_dict(held, name)
            seen = [key for key in held if is_seen(str(key))]
            self.tokens.append(tuple(seen))
            items += [(held[key], f"{name}.{key}") for key in seen]
        self._push(items)
        self._code.append((type(value), type(value).__name__))
        return True

    def _pickled(self, value: Any, name: str) -> None:
        """An object of another language by what it would write into a file."""
        text = pickled(value)
        if text is None:
            self.opaque.append(f"'{name}' ({type(value).__module__}.{type(value).__qualname__})")
            return
        self.tokens.append((type(value), text))
        self.checks.contents.append((value, pickled, text))

    def _buffer(self, value: Any, name: str) -> None:
        """NumPy arrays and other memory, by their bytes."""
        content = content_of(value)
        if content is None:  # an array of objects
            self.tokens.append((type(value), value.shape))
            self._push([(item, f"{name}[...]") for item in value.ravel().tolist()])
            self.checks.contents.append((value, items_of, items_of(value)))
            return
        self.tokens.append((type(value), content))
        self.checks.contents.append((value, content_of, content))

    def _enum(self, value: enum.Enum, name: str) -> None:
        self.tokens.append((type(value), value.name))
        self._code.append((type(value), type(value).__name__))

    def _weak(self, value: Any, name: str) -> None:
        self.tokens.append("weak")
        self._push([(value(), name)])

    # -- code -------------------------------------------------------------------------------------------------

    def _function(self, value: types.FunctionType, name: str) -> None:
        code = value.__code__
        cells = value.__closure__ or ()
        self.tokens.append(("function", code, len(cells)))
        self.checks.functions.append((value, code, value.__defaults__, value.__kwdefaults__))
        found: list[tuple[Any, str]] = []
        for key, cell in zip(code.co_freevars, cells, strict=True):
            label = f"the variable '{key}' around {value.__name__}"
            held = self.checks.watch_cell(cell, label)
            if not is_only_filled(code, key, held):
                found.append((held, label))
        found += [(item, f"a default of {value.__name__}") for item in value.__defaults__ or ()]
        found += [(value.__kwdefaults__ or {}, f"the defaults of {value.__name__}")]
        if value.__dict__:
            found.append((value.__dict__, f"{value.__name__}.__dict__"))
        if not is_library(home_of(value)):
            found += self._read_by(value)
            self._want(attribute_names(code))
        self._later(found)

    def _want(self, names: frozenset[str]) -> None:
        """Code that may use these attributes: what waited for one of them in a class is visited."""
        if self._wanted is not None and not names <= self._wanted:
            self._wanted |= names
            for name in sorted(names & self._waiting.keys()):
                self._code.extend(self._waiting.pop(name))

    def _read_by(self, function: types.FunctionType) -> list[tuple[Any, str]]:
        """The global names in a function's code, and the names of the user's modules among them."""
        found: list[tuple[Any, str]] = []
        for key in global_names(function.__code__):
            if not self._watch(function.__globals__, key):
                self.tokens.append(("builtin", key))
                continue
            value = function.__globals__[key]
            if not is_only_filled(function.__code__, key, value):
                found.append((value, f"the global '{key}'"))
            found += self._read_of_module(value, key, function.__code__)
        return found

    def _read_of_module(self, value: Any, name: str, code: types.CodeType) -> list[tuple[Any, str]]:
        found: list[tuple[Any, str]] = []
        pending, done = [(value, name)], set()
        while pending:
            module, label = pending.pop()
            if not isinstance(module, types.ModuleType) or is_library(module.__name__) or id(module) in done:
                continue
            done.add(id(module))
            for key, item in read_from(module, code).items():
                self._watch(vars(module), key)
                found.append((item, f"'{label}.{key}'"))
                pending.append((item, f"{label}.{key}"))
        return found

    def _watch(self, names: dict[str, Any], key: str) -> bool:
        self._globals.setdefault(id(names), (names, {}))[1][key] = None
        return key in names

    def _later(self, found: list[tuple[Any, str]]) -> None:
        """What code reads lies outside of the model, unless it was met inside before."""
        if self._inside:
            self.tokens.append(("reads", len(found)))
            self._code.extend(found)
        else:
            self._push(found)

    def _bound(self, value: Any, name: str) -> None:
        function = getattr(value, "__func__", None) or value.__name__
        self.tokens.append(("bound", getattr(value, "__module__", None)))
        owner = value.__self__
        self._push([(function, name), *([] if isinstance(owner, types.ModuleType) else [(owner, f"{name}.__self__")])])

    def _partial(self, value: functools.partial[Any], name: str) -> None:
        self.tokens.append("partial")
        self._push([(value.func, name), (value.args, f"{name}.args"), (value.keywords, f"{name}.keywords")])

    def _wrapper(self, value: Any, name: str) -> None:
        parts = [getattr(value, key, None) for key in ("__func__", "fget", "func")]
        self.tokens.append(type(value))
        self._push([(part, name) for part in parts if part is not None])

    def _class(self, value: type, name: str) -> None:
        """A class and its bases; what lies in classes of libraries is told apart by code and identity."""
        self.tokens.append(Identity(value))
        for base in value.__mro__:
            if base is object or (id(base) in self._seen and base is not value):
                continue
            self._seen.setdefault(id(base), len(self._seen))
            if base.__module__ == "builtins":
                continue
            self.checks.watch_class(base)
            known = is_library(base.__module__)
            if known and not issubclass(base, (torch.nn.Module, torch.autograd.Function)):
                continue
            for key, item in list(vars(base).items()):
                self._class_item(base, key, item, known)

    def _class_item(self, base: type, key: str, item: Any, known: bool) -> None:
        function = item if isinstance(item, types.FunctionType) else getattr(item, "__func__", None)
        if known and (function is None or is_library(home_of(function))):
            told = function.__code__ if function is not None else item
            self.tokens.append((key, told if type(told) in ATOMS or function is not None else Identity(told)))
        elif self._is_unread(base, key):
            self._waiting.setdefault(key, []).append((item, f"{base.__name__}.{key}"))
        elif function is not None or not key.startswith("__"):
            self.tokens.append(key)
            self._later([(item, f"{base.__name__}.{key}")])

    def _is_unread(self, base: type, key: str) -> bool:
        """Whether an attribute of a module's class is none that the forward, or the code that it calls, names."""
        if self._wanted is None or key in self._wanted or not issubclass(base, torch.nn.Module):
            return False
        return not key.startswith("__") or key in ("__init__", "__repr__", "__setstate__", "__getstate__")

    def _same_object(self, value: Any, name: str) -> None:
        self.tokens.append(Identity(value))


_VISITORS: list[tuple[Any, Callable[[Walk, Any, str], None]]] = [
    (Tensor, Walk._tensor),
    (torch.nn.Module, Walk._module),
    (dict, Walk._dict),
    ((list, tuple, deque), Walk._sequence),
    ((set, frozenset), Walk._set),
    (types.MappingProxyType, Walk._dict),
    (types.FunctionType, Walk._function),
    (_METHOD_LIKE, Walk._bound),
    (functools.partial, Walk._partial),
    ((staticmethod, classmethod, property, functools.cached_property), Walk._wrapper),
    (_DESCRIPTORS, Walk._same_object),
    (types.CodeType, Walk._same_object),
    (enum.Enum, Walk._enum),
    (type, Walk._class),
    ((np.ndarray, np.generic, bytearray, array.array, memoryview), Walk._buffer),
    (weakref.ref, Walk._weak),
]
