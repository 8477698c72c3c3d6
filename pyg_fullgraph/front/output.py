"""Results on disk: a file appears whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch
from torch import Tensor

from pyg_fullgraph.errors import InputError

SUFFIXES = (".npy", ".pt")


def check_target(path: str | Path) -> Path:
    """Returns the path of an output file, checked before any work is done for it.

    Raises:
        InputError: if the suffix is unknown, or the folder is absent or not writable.
    """
    path = Path(path)
    if path.suffix not in SUFFIXES:
        raise InputError(f"--out {path}: the name must end in {' or '.join(SUFFIXES)}.")
    folder = path.parent
    if not folder.is_dir():
        raise InputError(f"--out {path}: there is no folder {folder}. Create it first: mkdir -p {folder}")
    if path.is_dir() or not os.access(folder, os.W_OK):
        raise InputError(f"--out {path}: this place cannot be written. Choose another.")
    return path


def save(result: Any, path: str | Path) -> None:
    """Writes a result aside, flushes it to the disk and gives it its name.

    Args:
        result: a tensor for ``.npy``; for ``.pt`` whatever ``torch.save`` takes.
        path: where to; an existing file is replaced in one step.

    Raises:
        InputError: if the result does not fit the format.
    """
    path = check_target(path)
    if path.suffix == ".pt":
        write_whole(path, lambda file: torch.save(result, file))
        return
    if not isinstance(result, Tensor):
        raise InputError(
            f"The model returns a {type(result).__name__}, but {path.suffix} holds one array. Use --out "
            f"{path.with_suffix('.pt')}."
        )
    tensor = result.detach().cpu()
    if tensor.dtype == torch.bfloat16:  # NumPy has no such type
        tensor = tensor.float()
    write_whole(path, lambda file: np.save(file, tensor.numpy(), allow_pickle=False))


def write_whole(path: Path, write: Callable[[IO[bytes]], Any]) -> None:
    """Writes a file beside its place, syncs it, renames it; leaves nothing behind on failure.

    Args:
        path: the final name.
        write: writes the content to an open binary file.
    """
    aside = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        with open(aside, "wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(aside, path)
    finally:
        aside.unlink(missing_ok=True)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)  # the new name, too, is on the disk
    finally:
        os.close(folder)
