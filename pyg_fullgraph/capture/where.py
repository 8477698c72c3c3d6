"""Where a value comes from: the layer, and the lines of the user's and of PyG's code, read from the Python
stack.
"""

from __future__ import annotations

import linecache
import os
import re
import sys
import traceback
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import FrameType
from typing import Any

import torch

_TORCH = os.path.dirname(torch.__file__) + os.sep
_OWN = os.path.dirname(os.path.dirname(__file__)) + os.sep
_LIBRARIES = tuple(  # code between the user's and ours
    os.sep + name + os.sep
    for name in ("torch_geometric", "torch_scatter", "torch_sparse", "torch_cluster", "torch_spline_conv", "pyg_lib")
)
_BOUNDARY = os.path.join(os.path.dirname(__file__), "trace.py")
_TYPED = ("<stdin>", "<string>", "<ipython", "<doctest")  # code that a user typed, in no file
_GENERATED = re.compile(r"_(propagate|edge_updater)_\w*\.py$")  # torch_geometric's templates, one file per class


@dataclass(frozen=True)
class Place:
    """A place in the code of a forward.

    Args:
        where: "file.py:line in Class.method", innermost of PyG and the user, `<-` the user's own line.
        layer: qualified name of the layer; empty for the model itself.
        code: the text of the innermost line, where its file can be read.
    """

    where: str
    layer: str
    code: str = ""


def is_machinery(filename: str) -> bool:
    """True for files of torch, of this package, and for generated code: nobody looks for a line there."""
    if filename.startswith("<"):
        return not filename.startswith(_TYPED)
    if filename.startswith((_TORCH, _OWN)) or filename.endswith(os.sep + "contextlib.py"):
        return True
    return bool(_GENERATED.search(filename))


def inside_forward() -> Iterator[FrameType]:
    """The frames of the traced forward, innermost first, without those of the tracer itself.

    None is of this file: one that looks at its own variables makes them a cycle, and with it all frames below, up to
    those of the call that is traced and their tables.
    """
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and not _is_boundary(frame):
        if frame.f_code.co_filename != __file__:
            yield frame
        frame = frame.f_back


def _is_boundary(frame: FrameType) -> bool:
    return frame.f_code.co_filename == _BOUNDARY and frame.f_code.co_name == "_forward"


def _describe(code: Any, line: int, owner: Any) -> str:
    name = getattr(code, "co_qualname", None)  # Python 3.11 and later
    if name is None:  # an owner may be any object of the user's: it is not asked whether it is true
        name = code.co_name if owner is None else f"{type(owner).__name__}.{code.co_name}"
    return f"{os.path.basename(code.co_filename)}:{line} in {name.replace('.<locals>', '')}"


class Tracker:
    """Names the code that runs now, by walking the stack outwards.

    Args:
        model: its modules give layers their qualified names.
        more: modules that are not registered (in plain lists), by name.
    """

    def __init__(self, model: torch.nn.Module, more: Mapping[str, torch.nn.Module] | None = None) -> None:
        named = {**(more or {}), **dict(model.named_modules())}
        self._names = {id(module): name for name, module in named.items()}

    def here(self) -> tuple[str, str]:
        """`(where, layer)` of the code that runs now, as in `Place`."""
        place = self.place()
        return place.where, place.layer

    def place(self) -> Place:
        """Where the traced forward is now."""
        return self._read((frame, frame.f_lineno) for frame in inside_forward())

    def of_error(self, error: BaseException) -> Place:
        """Where an exception of the traced forward was raised; empty where no frame of it is known."""
        frames = list(traceback.walk_tb(error.__traceback__))
        starts = [i for i, (frame, _) in enumerate(frames) if _is_boundary(frame)]
        inside = frames[starts[-1] + 1 :] if starts else frames
        return self._read(reversed(inside), otherwise="")

    def _read(self, frames: Any, otherwise: str = "forward") -> Place:
        inner, user, generated, code, layer = "", "", "", "", None
        for frame, line in frames:
            filename = frame.f_code.co_filename
            owner = frame.f_locals.get("self") if "self" in frame.f_code.co_varnames[:1] else None
            if layer is None and owner is not None:
                layer = self._names.get(id(owner))
            if not generated and filename.startswith("<eval_with_key>"):  # torch.fx: to_hetero, a traced model
                generated = f"line {line} of the code of {type(owner).__name__}.{frame.f_code.co_name}"
            if is_machinery(filename):
                continue
            text = _describe(frame.f_code, line, owner)
            code = code or (linecache.getline(filename, line).strip() if not inner else "")
            inner = inner or text
            if not user and not any(part in filename for part in _LIBRARIES):
                user = text
        inner = inner or generated or otherwise
        return Place(f"{inner} <- {user}" if user and user != inner else inner, layer or "", code)
