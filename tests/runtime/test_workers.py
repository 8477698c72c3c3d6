"""Work runs on as many threads as asked for, on the same ones again, and an error is not lost."""

from __future__ import annotations

import copy
import multiprocessing
import pickle
import threading
import time

import pytest
import torch

from pyg_fullgraph.runtime.workers import Workers, as_on_any_thread


def together(workers: Workers, count: int) -> set[int]:
    """The threads that ran, each of which waited for all others."""
    barrier, found = threading.Barrier(count, timeout=20), set()

    def work() -> None:
        barrier.wait()
        found.add(threading.get_ident())

    workers.run(work, count)
    return found


@pytest.mark.parametrize("count", [1, 2, 5])
def test_all_threads_run_at_once_and_the_callers_is_one(count: int) -> None:
    found = together(Workers(), count)
    assert len(found) == count
    assert threading.get_ident() in found


def test_threads_are_used_again_and_grow_in_number() -> None:
    workers = Workers()
    assert together(workers, 2) == together(workers, 2)
    assert len(together(workers, 4)) == 4
    assert len(together(workers, 2)) == 2


def test_the_error_of_any_thread_is_raised_after_all_have_ended() -> None:
    caller, ended = threading.get_ident(), []
    for fails in ("caller", "helper"):
        barrier = threading.Barrier(2, timeout=20)

        def work(fails: str = fails, barrier: threading.Barrier = barrier) -> None:
            barrier.wait()
            if (threading.get_ident() == caller) == (fails == "caller"):
                raise ZeroDivisionError(fails)
            time.sleep(0.05)
            ended.append(fails)

        with pytest.raises(ZeroDivisionError, match=fails):
            Workers().run(work, 2)
    assert ended == ["caller", "helper"]


def test_a_busy_helper_is_not_waited_for_where_nothing_is_left() -> None:
    workers, release, begun = Workers(), threading.Event(), threading.Event()

    def first() -> None:
        if threading.current_thread() is not other:
            begun.set()
            release.wait(20)

    other = threading.Thread(target=lambda: workers.run(first, 2))
    other.start()
    assert begun.wait(20)
    ran = []
    workers.run(lambda: ran.append(threading.get_ident()), 2)  # the only helper is taken
    assert ran == [threading.get_ident()]
    release.set()
    other.join(20)
    assert not other.is_alive()


def _in_child(workers: Workers, sender) -> None:
    sender.send(len(together(workers, 2)))


@pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="this system has no fork")
def test_a_forked_process_starts_threads_of_its_own() -> None:
    workers = Workers()
    together(workers, 2)
    context = multiprocessing.get_context("fork")
    receiver, sender = context.Pipe(duplex=False)
    child = context.Process(target=_in_child, args=(workers, sender))
    child.start()
    try:
        assert receiver.poll(30)
        assert receiver.recv() == 2
    finally:
        child.kill()
        child.join()


def test_copies_and_pickles_start_without_threads() -> None:
    workers = Workers()
    together(workers, 2)
    for other in (copy.deepcopy(workers), pickle.loads(pickle.dumps(workers))):
        assert len(together(other, 2)) == 2


def test_a_block_is_computed_alike_on_any_thread() -> None:
    threads = torch.get_num_threads()
    a = torch.rand(4, 4, requires_grad=True)
    try:
        with torch.enable_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
            with as_on_any_thread():
                assert (a @ a).dtype == torch.float32
                assert not (a @ a).requires_grad
                assert torch.get_num_threads() == 1
            assert (a @ a).dtype == torch.bfloat16
            assert (a * a).requires_grad
    finally:
        torch.set_num_threads(threads)
