"""Which implementation serves, and what it says about it."""

from __future__ import annotations

import threading

import pytest
import torch

from pyg_fullgraph import ops

from .conftest import Case


def test_kernels_describes_the_choice(extension):
    told = ops.kernels()
    assert told["backend"] == "cpp" and told["reason"] == ""
    assert told["isa"] in told["isas"] and told["isas"][0] == "baseline"
    assert told["threads"] == torch.get_num_threads()
    assert told["thread_pool"] == "openmp"


def test_unknown_isa_lists_the_valid_ones(extension):
    with pytest.raises(ValueError, match="baseline"):
        extension.set_isa("pentium")


def test_calls_from_many_threads_at_once(extension):
    """Row blocks on Python threads, each kernel inline, as the executor runs them."""
    case = Case(500, [i % 40 for i in range(400)])
    x = case.normal(500, 33)
    expected, out = ops.gather_reduce(x, case.src, case.rowptr), torch.zeros(400, 33)

    def block(r0: int) -> None:
        e0, e1 = int(case.rowptr[r0]), int(case.rowptr[r0 + 50])
        ops.gather_reduce(x, case.src[e0:e1], case.rowptr[r0 : r0 + 51], out=out[r0 : r0 + 50], threads=1)

    workers = [threading.Thread(target=block, args=(r0,)) for r0 in range(0, 400, 50)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert torch.equal(out, expected)


def test_meta_tensors_get_shapes():
    x = torch.empty(5, 3, device="meta")
    src = torch.empty(4, dtype=torch.int64, device="meta")
    assert ops.gather(x, src).shape == (4, 3)
