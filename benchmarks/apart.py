"""Work in a fresh process, which owes nothing to what ran before and whose death does not end the benchmark."""

from __future__ import annotations

import multiprocessing
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

CALL_LIMIT = 1800.0  # seconds after which a call counts as hung


class ApartError(RuntimeError):
    """A call in a process apart failed, the process died, or it did not answer; the text says which."""


class Apart:
    """An object in a fresh process, whose methods are called by name; a context manager.

    Args:
        build: at module level (it is sent by name); makes the object. If that has a ``close``, it is called at the end.
        arguments: sent to it.
        threads: torch threads there; those of this process if not given.
        limit: seconds that a call may take.

    Raises:
        ApartError: if ``build`` fails or the process dies.
    """

    def __init__(
        self, build: Callable[..., Any], *arguments: Any, threads: int | None = None, limit: float = CALL_LIMIT
    ) -> None:
        context = multiprocessing.get_context("spawn")
        self._connection, there = context.Pipe()
        threads = threads or torch.get_num_threads()
        self._process = context.Process(target=_serve, args=(there, threads, build, arguments), daemon=True)
        self._limit = limit
        self._process.start()
        there.close()
        try:
            self._answer()
        except ApartError:
            self.close()
            raise

    def call(self, method: str, *arguments: Any) -> Any:
        """Calls a method of the object; its result is sent back.

        Raises:
            ApartError: if it raises, the process dies, or the limit passes.
        """
        try:
            self._connection.send((method, arguments))
        except OSError as error:
            raise ApartError("its process is gone") from error
        return self._answer()

    def close(self) -> None:
        """Ends the process."""
        self._connection.close()
        self._process.join(2)
        if self._process.is_alive():
            self._process.kill()
        self._process.join()

    def __enter__(self) -> Apart:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _answer(self) -> Any:
        try:
            if not self._connection.poll(self._limit):
                self._process.kill()
                raise ApartError(f"no answer within {self._limit:.0f} s")
            good, value = self._connection.recv()
        except (EOFError, ConnectionResetError):
            self._process.join(10)
            raise ApartError(_death(self._process.exitcode)) from None
        if not good:
            raise ApartError(value)
        return value


def _death(exit_code: int | None) -> str:
    """How a process died, in words."""
    if exit_code == -signal.SIGKILL:
        return "out of memory: the system killed its process (signal 9)"
    if exit_code is not None and exit_code < 0:
        return f"its process died of signal {-exit_code} ({signal.Signals(-exit_code).name})"
    return f"its process ended with exit code {exit_code}"


def _serve(connection: Any, threads: int, build: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    """What runs in the fresh process, until the other side closes."""
    _be_the_victim()
    torch.set_num_threads(threads)
    served = None
    method = ""
    while True:
        try:
            if served is None:
                served = build(*arguments)
                answer = (True, None)
            else:
                answer = (True, getattr(served, method)(*arguments))
        except Exception as error:  # told to the other side, which raises it
            answer = (False, _words(error))
        try:
            connection.send(answer)
            method, arguments = connection.recv()
        except (EOFError, OSError):
            break
    close = getattr(served, "close", None)
    if close is not None:
        close()


def _words(error: Exception) -> str:
    """An error in one line; torch's and Python's way to say that memory is short as such."""
    text = " ".join(str(error).split())
    if isinstance(error, MemoryError) or "can't allocate memory" in text or "not enough memory" in text:
        return f"out of memory: {text[:160]}"
    return f"{type(error).__name__}: {text[:240]}"


def _be_the_victim() -> None:
    """Where memory runs out, the system (Linux) shall end this process and not the benchmark that started it."""
    score = Path("/proc/self/oom_score_adj")
    if score.exists():
        score.write_text("1000")
