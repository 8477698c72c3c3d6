"""Files of results: whole or not at all, on a full disk too, and nothing of dead processes."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from pyg_fullgraph.errors import InputError, SpaceError
from pyg_fullgraph.front.output import check_target, save


@pytest.mark.parametrize("name", ["z.pt", "z.npy"])
def test_a_disk_with_too_little_space(name, tmp_path, monkeypatch):
    monkeypatch.setattr("pyg_fullgraph.front.output.free_bytes", lambda folder: 1000)
    (tmp_path / name).write_bytes(b"old")
    with pytest.raises(SpaceError, match=rf"{name} could not be written.*4,000 bytes, and 1,000 are free"):
        save(torch.zeros(1000), tmp_path / name)
    assert [path.name for path in tmp_path.iterdir()] == [name] and (tmp_path / name).read_bytes() == b"old"


@pytest.mark.parametrize("name", ["z.pt", "z.npy"])
def test_a_disk_that_fills_meanwhile(name, tmp_path, monkeypatch):
    def full(_handle: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(SpaceError, match=rf"{name} could not be written \(No space left on device\)"):
        save(torch.zeros(1000), tmp_path / name)
    assert list(tmp_path.iterdir()) == []


def test_what_dead_processes_left_is_removed(tmp_path):
    dead = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, text=True)
    gone, mine = int(dead.stdout), os.getppid()
    left = [f".z.pt.{gone}.partial", f".other.npy.{gone}.partial"]
    kept = [f".z.pt.{mine}.partial", f"z.pt.{gone}.partial", f".notes.txt.{gone}.partial"]
    for name in left + kept:
        (tmp_path / name).write_text("half")
    save(torch.arange(3), tmp_path / "z.pt")
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([*kept, "z.pt"])


def test_places_that_cannot_be_written(tmp_path):
    for path in ("/proc/z.npy", "/sys/z.pt"):
        if Path(path).parent.is_dir():
            with pytest.raises(InputError, match=r"out='/\w+/z\.\w+': this place cannot be written"):
                check_target(path)
    with pytest.raises(InputError, match=r"--out .*z\.csv: the name must end in \.npy or \.pt"):
        check_target(tmp_path / "z.csv", "--out ")
    (tmp_path / "folder.pt").mkdir()
    with pytest.raises(InputError, match="is a folder"):
        check_target(tmp_path / "folder.pt")


def test_lazy_signs_are_written_as_values(tmp_path):
    x = torch.randn(4, 3)
    save(torch._neg_view(-x), tmp_path / "z.npy")
    assert np.array_equal(np.load(tmp_path / "z.npy"), x.numpy())
    z = torch.randn(3, dtype=torch.complex64)
    save(z.conj(), tmp_path / "z.npy")
    assert np.array_equal(np.load(tmp_path / "z.npy"), z.numpy().conj())
