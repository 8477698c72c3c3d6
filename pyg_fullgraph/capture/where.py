"""Where a value comes from: the layer, and the lines of the user's and of PyG's code, read from the Python
stack.
"""

from __future__ import annotations

import os
import re
import sys
import traceback
from types import FrameType
from typing import Any

import torch

_TORCH = os.path.dirname(torch.__file__) + os.sep
_OWN = os.path.dirname(__file__) + os.sep
_PYG_PART = os.sep + "torch_geometric" + os.sep


_GENERATED = re.compile(r"_(propagate|edge_updater)_\w*\.py$")  # torch_geometric's templates, one file per class


def is_machinery(filename: str) -> bool:
    """True for files of torch, of this package, and for generated code: nobody looks for a line there."""
    if filename.startswith((_TORCH, _OWN, "<")) or filename.endswith(os.sep + "contextlib.py"):
        return True
    return bool(_GENERATED.search(filename))


def _describe(code: Any, line: int, owner: Any) -> str:
    name = getattr(code, "co_qualname", None) or (f"{type(owner).__name__}.{code.co_name}" if owner else code.co_name)
    return f"{os.path.basename(code.co_filename)}:{line} in {name.replace('.<locals>', '')}"


class Tracker:
    """Names the code that runs now, by walking the stack outwards.

    Args:
        model: its modules give layers their qualified names.
    """

    def __init__(self, model: torch.nn.Module) -> None:
        self._names = {id(module): name for name, module in model.named_modules()}

    def here(self) -> tuple[str, str]:
        """`(where, layer)`: innermost frame of PyG or the user `<-` innermost frame of the user, and the
        layer's name.
        """
        inner, user, generated, layer = "", "", "", None
        frame: FrameType | None = sys._getframe(1)
        while frame is not None:
            filename = frame.f_code.co_filename
            owner = frame.f_locals.get("self") if "self" in frame.f_code.co_varnames[:1] else None
            if layer is None and owner is not None:
                layer = self._names.get(id(owner))
            if filename == _BOUNDARY and frame.f_code.co_name == "_forward":
                break
            if not generated and filename.startswith("<eval_with_key>"):  # torch.fx: to_hetero, a traced model
                generated = f"line {frame.f_lineno} of the code of {type(owner).__name__}.{frame.f_code.co_name}"
            if not is_machinery(filename):
                text = _describe(frame.f_code, frame.f_lineno, owner)
                inner = inner or text
                if not user and _PYG_PART not in filename:
                    user = text
            frame = frame.f_back
        inner = inner or generated or "forward"
        return (f"{inner} <- {user}" if user and user != inner else inner), layer or ""

    def of_error(self, error: BaseException) -> tuple[str, str]:
        """The same for the frames that `error` passed through."""
        inner, user, layer = "", "", ""
        inside = False
        for frame, line in traceback.walk_tb(error.__traceback__):
            filename = frame.f_code.co_filename
            if filename == _BOUNDARY and frame.f_code.co_name == "_forward":
                inside, inner, user, layer = True, "", "", ""
                continue
            owner = frame.f_locals.get("self")
            if inside and owner is not None and id(owner) in self._names:
                layer = self._names[id(owner)]
            if inside and not is_machinery(filename):
                inner = _describe(frame.f_code, line, owner)
                if _PYG_PART not in filename:
                    user = inner
        return (f"{inner} <- {user}" if user and user != inner else inner), layer


_BOUNDARY = os.path.join(os.path.dirname(__file__), "trace.py")
