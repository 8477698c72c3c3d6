"""Work in a process apart: its results, and what is told of its failures."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
import torch

from benchmarks.apart import Apart, ApartError


class Counter:
    """An object to be served."""

    def __init__(self, start: int, path: str = "") -> None:
        if start < 0:
            raise ValueError("no such start")
        self.value, self.path = start, path

    def add(self, amount: int) -> int:
        self.value += amount
        return self.value

    def threads(self) -> int:
        return torch.get_num_threads()

    def fail(self) -> None:
        raise ValueError("no such\ngraph")

    def swallow(self) -> None:
        raise MemoryError("all of it")

    def close(self) -> None:
        if self.path:
            with open(self.path, "w") as file:
                file.write(str(self.value))


class OneCall:
    """An object that ends its process at the second call, as the system does where memory runs out."""

    def __init__(self, seconds: float) -> None:
        self.left = [seconds]

    def timed(self) -> float:
        if not self.left:
            os.kill(os.getpid(), signal.SIGKILL)
        return self.left.pop()


def test_an_object_apart(tmp_path: Path) -> None:
    with Apart(Counter, 3, str(tmp_path / "end"), threads=1) as process:
        assert [process.call("add", 4), process.call("add", 1)] == [7, 8]
        with pytest.raises(ApartError, match=r"^ValueError: no such graph$"):
            process.call("fail")
        with pytest.raises(ApartError, match=r"^out of memory: all of it$"):
            process.call("swallow")
        assert process.call("threads") == 1
    assert (tmp_path / "end").read_text() == "8"
    with pytest.raises(ApartError, match="gone"):
        process.call("add", 1)


def test_a_death_is_told() -> None:
    with Apart(OneCall, 0.5) as process:
        assert process.call("timed") == 0.5
        with pytest.raises(ApartError, match="out of memory"):
            process.call("timed")


def test_what_cannot_be_built_is_told() -> None:
    with pytest.raises(ApartError, match="ValueError: no such start"):
        Apart(Counter, -1)
