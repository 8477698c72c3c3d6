"""The model and the node list that a user names on the command line."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import sys
import traceback
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch_geometric.data import Data

from pyg_fullgraph.errors import InputError

_STATE_KEYS = ("state_dict", "model_state_dict", "model_state", "model")


def load_model(spec: str, weights: str | Path | None = None, data: Any = None) -> torch.nn.Module:
    """Returns the model that ``file.py:name`` or ``package.module:name`` names, in evaluation mode.

    Args:
        spec: ``name`` is a model, or a function (or class) that returns one; a function with one required
            argument is given the data.
        weights: a file with the model's ``state_dict``, read without running code from it.
        data: the graph, for functions that want to see it.

    Raises:
        InputError: if there is no such thing, it fails, or the weights do not fit.
    """
    where, separator, name = spec.rpartition(":")
    if not separator or not where or not name:
        raise InputError(f"--model {spec}: write FILE.py:NAME or package.module:NAME, for example my_model.py:build.")
    module = _module(where)
    found = getattr(module, name, None)
    if found is None:
        names = [key for key, value in vars(module).items() if callable(value) and not key.startswith("_")]
        raise InputError(f"--model {spec}: {where} has no '{name}' (it defines: {', '.join(names) or 'nothing'}).")
    model = found if isinstance(found, torch.nn.Module) else _build(found, spec, data)
    if weights is not None:
        load_weights(model, weights)
    return model.eval()


def _module(where: str) -> ModuleType:
    """A Python file, or an importable module; its neighbours can be imported by it."""
    path = Path(where)
    try:
        if path.suffix != ".py":
            sys.path.insert(0, str(Path.cwd()))
            return importlib.import_module(where)
        if not path.is_file():
            raise InputError(f"--model {where}: there is no such file.")
        sys.path.insert(0, str(path.resolve().parent))
        spec = importlib.util.spec_from_file_location(path.stem, path)
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules.setdefault(path.stem, module)
        spec.loader.exec_module(module)
        return module
    except InputError:
        raise
    except Exception as error:  # the user's file may raise anything
        raise InputError(f"--model {where} cannot be imported: {_where(error)}") from error


def _build(found: Any, spec: str, data: Any) -> torch.nn.Module:
    """Calls the user's function or class, with the data if it asks for it."""
    if not callable(found):
        raise InputError(f"--model {spec} is a {type(found).__name__}; it must be a model or a function returning one.")
    required = [
        parameter
        for parameter in inspect.signature(found).parameters.values()
        if parameter.default is parameter.empty
        and parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
    ]
    if len(required) > 1:
        names = ", ".join(parameter.name for parameter in required)
        raise InputError(
            f"--model {spec} needs the arguments {names}. Write a function without arguments, or with the "
            f"data as its only one: def build(data): return "
            f"{getattr(found, '__name__', 'Net')}(data.num_features, ...)."
        )
    try:
        model = found(data) if required else found()
    except Exception as error:  # the user's function may raise anything
        raise InputError(f"--model {spec} failed: {_where(error)}{_lacking(data, error)}") from error
    if not isinstance(model, torch.nn.Module):
        raise InputError(f"--model {spec} returned a {type(model).__name__}, not a torch.nn.Module.")
    return model


def _lacking(data: Any, error: Exception) -> str:
    """What the graph does not have, where that may be why a function that was given it failed."""
    if not isinstance(data, Data) or data.x is not None or not isinstance(error, (AttributeError, TypeError)):
        return ""
    name = getattr(data, "name", None)
    keys = [str(key) for key in data.to_dict() if key != "name"]
    return f". The graph{f' {name!r}' if name else ''} has no x (has: {', '.join(keys)})"


def load_weights(model: torch.nn.Module, path: str | Path) -> None:
    """Loads a ``state_dict`` (or a checkpoint that holds one) into a model.

    Raises:
        InputError: if the file is absent, holds no state dict, or its names or shapes do not fit.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"--weights {path}: there is no such file.")
    try:
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # text and other files make the reader raise anything
        if path.stat().st_size == 0:
            raise InputError(f"--weights {path} is empty.") from error
        raise InputError(
            f"--weights {path} holds more than tensors, or was not written by torch.save. Save the state "
            "dict: torch.save(model.state_dict(), path)."
        ) from error
    for key in _STATE_KEYS:
        if isinstance(loaded, Mapping) and isinstance(loaded.get(key), Mapping):
            loaded = loaded[key]
    if not isinstance(loaded, Mapping) or not all(isinstance(value, Tensor) for value in loaded.values()):
        raise InputError(f"--weights {path} holds no state dict. Save it with torch.save(model.state_dict(), path).")
    state = {key.removeprefix("_orig_mod.").removeprefix("module."): value for key, value in loaded.items()}
    try:
        model.load_state_dict(state)
    except RuntimeError as error:
        raise InputError(f"--weights {path} do not fit the model: {' '.join(str(error).split())}") from error


def load_nodes(path: str | Path) -> Tensor:
    """Returns the node numbers in a text file (separated by white space or commas) or an ``.npy`` file.

    Raises:
        InputError: if the file is absent or holds something else.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"--nodes {path}: there is no such file.")
    try:
        if path.suffix == ".npy":
            return torch.from_numpy(np.load(path, allow_pickle=False))
        words = path.read_text().replace(",", " ").split()
        return torch.tensor([int(word) for word in words], dtype=torch.int64)
    except (ValueError, TypeError, UnicodeDecodeError) as error:
        raise InputError(f"--nodes {path} must hold whole node numbers, one a line ({error}).") from error


def _where(error: BaseException) -> str:
    """An error of the user's code as one line, with its place."""
    frames = traceback.extract_tb(error.__traceback__)
    if isinstance(error, SyntaxError):
        return f"{error.filename}:{error.lineno}: {error.msg}"
    place = f" ({Path(frames[-1].filename).name}:{frames[-1].lineno})" if frames else ""
    return f"{type(error).__name__}: {error}{place}"
