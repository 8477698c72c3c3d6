"""Results on disk: a file appears whole or not at all."""

from __future__ import annotations

import contextlib
import errno
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from pyg_fullgraph.errors import InputError, SpaceError
from pyg_fullgraph.runtime.home import free_bytes

SUFFIXES = (".npy", ".pt")

_PARTIAL = re.compile(r"\..+\.(?:npy|pt)\.(\d+)\.partial")


def check_target(path: str | Path, option: str = "out=") -> Path:
    """Returns the path of an output file, checked before any work is done for it.

    Args:
        path: where to write.
        option: what the caller calls it: ``out=``, or ``--out `` on the command line.

    Raises:
        InputError: if the suffix is unknown, or the folder is absent or not writable.
    """
    path = Path(path)
    named = f"{option}{str(path)!r}" if option.endswith("=") else f"{option}{path}"
    if path.suffix not in SUFFIXES:
        raise InputError(f"{named}: the name must end in {' or '.join(SUFFIXES)}.")
    folder = path.parent
    if not folder.is_dir():
        raise InputError(f"{named}: there is no folder {folder}. Create it first: mkdir -p {folder}")
    if path.is_dir():
        raise InputError(f"{named} is a folder. Give the file in it a name.")
    _remove_left(folder)
    aside = _aside(path)
    try:  # asking for permission is not enough: /proc and /sys say yes and then refuse
        with open(aside, "wb"):
            pass
        aside.unlink()
    except OSError as error:
        raise InputError(f"{named}: this place cannot be written ({error.strerror}). Choose another.") from error
    return path


def save(result: Any, path: str | Path, option: str = "out=") -> None:
    """Writes a result aside, flushes it to the disk and gives it its name.

    Args:
        result: a tensor for ``.npy``; for ``.pt`` whatever ``torch.save`` takes.
        path: where to; an existing file is replaced in one step.
        option: see `check_target`.

    Raises:
        InputError: if the result does not fit the format.
        SpaceError: if it cannot be written; nothing is left of it.
    """
    path = check_target(path, option)
    if path.suffix == ".pt":
        write_whole(path, lambda file: torch.save(result, file), _bytes(result))
        return
    if not isinstance(result, Tensor):
        raise InputError(
            f"The model returns a {type(result).__name__}, but {path.suffix} holds one array. Use "
            f"{option}{path.with_suffix('.pt')}."
        )
    tensor = result.detach().cpu()
    if tensor.dtype == torch.bfloat16:  # NumPy has no such type
        tensor = tensor.float()
    write_whole(path, lambda file: np.save(file, tensor.numpy(force=True), allow_pickle=False), _bytes(tensor))


def write_whole(path: Path, write: Callable[[IO[bytes]], Any], size: int = 0) -> None:
    """Writes a file beside its place, syncs it, renames it; leaves nothing behind on failure.

    Args:
        path: the final name.
        write: writes the content to an open binary file.
        size: about how many bytes that is, where it is known.

    Raises:
        SpaceError: if it cannot be written, for a full disk say.
    """
    aside = _aside(path)
    try:
        if size > free_bytes(path.parent):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        with open(aside, "wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(aside, path)
    except (OSError, RuntimeError) as error:  # torch.save raises the latter for a write that fails
        why = (error.strerror if isinstance(error, OSError) else None) or (str(error).splitlines() or [""])[0]
        raise SpaceError(
            f"{path} could not be written ({why}): it takes about {size:,} bytes, and {free_bytes(path.parent):,} are "
            f"free in {path.parent}. Nothing of it was left there."
        ) from error
    finally:
        aside.unlink(missing_ok=True)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)  # the new name, too, is on the disk
    finally:
        os.close(folder)


def _aside(path: Path) -> Path:
    """Where this process writes a file before it has its name."""
    return path.with_name(f".{path.name}.{os.getpid()}.partial")


def _remove_left(folder: Path) -> None:
    """Remove what processes that are no more began to write here."""
    for name in os.listdir(folder):
        found = _PARTIAL.fullmatch(name)
        if found and not _is_running(int(found[1])):
            with contextlib.suppress(OSError):  # another process was faster, or it is another user's
                os.unlink(folder / name)


def _is_running(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):
        return True  # another user's, or no number of a process: not ours to judge
    return True


def _bytes(result: Any) -> int:
    """The bytes of all tensors of a result."""
    return sum(leaf.nbytes for leaf in pytree.tree_leaves(result) if isinstance(leaf, Tensor))
