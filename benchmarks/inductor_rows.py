"""Does compiling the row-wise parts with Inductor pay? One block of a SAGE and of a GAT superstep, both ways.

    python benchmarks/inductor_rows.py [--rows 4096] [--width 128]

Prints the time Inductor needs before its first result (with an empty cache), the time of a block eagerly with placed
outputs (as the executor runs it) and compiled, and after how many rows compiling has paid for itself.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Callable

import torch
from torch import Tensor


def sage_rows(s: Tensor, x: Tensor, bias: Tensor, left: Tensor, right: Tensor) -> Tensor:
    """What follows the mean in a SAGE superstep."""
    return torch.addmm(torch.addmm(bias, s, left), x, right).relu()


def sage_placed(s: Tensor, x: Tensor, bias: Tensor, left: Tensor, right: Tensor, out: Tensor) -> Tensor:
    torch.addmm(bias, s, left, out=out)
    torch.addmm(out, x, right, out=out)
    return out.relu_()


def gat_rows(s: Tensor, x: Tensor, bias: Tensor, left: Tensor, right: Tensor) -> Tensor:
    """What follows the attention in a GAT superstep, up to the next layer's projection."""
    return torch.mm(torch.nn.functional.elu(s + bias), left)


def gat_placed(s: Tensor, x: Tensor, bias: Tensor, left: Tensor, right: Tensor, out: Tensor) -> Tensor:
    return torch.mm(torch.nn.functional.elu_(s + bias), left, out=out)


def seconds(run: Callable[[], object], repeat: int = 30) -> float:
    run()
    times = []
    for _ in range(repeat):
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return sorted(times)[repeat // 2]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=4096)
    parser.add_argument("--width", type=int, default=128)
    options = parser.parse_args()
    torch.set_num_threads(1)  # as a block runs
    rows, width = options.rows, options.width
    arguments = [torch.randn(rows, width), torch.randn(rows, width), torch.randn(width)]
    arguments += [torch.randn(width, width) / width**0.5 for _ in range(2)]
    out = torch.empty(rows, width)
    with torch.no_grad(), tempfile.TemporaryDirectory() as cache:
        os.environ["TORCHINDUCTOR_CACHE_DIR"] = cache
        print(f"{'block':6} {'compile s':>10} {'eager ms':>9} {'compiled ms':>12} {'pays after rows':>16}")
        for name, plain, placed in (("SAGE", sage_rows, sage_placed), ("GAT", gat_rows, gat_placed)):
            compiled = torch.compile(plain)
            start = time.perf_counter()
            compiled(*arguments)
            cost = time.perf_counter() - start
            eager = seconds(lambda placed=placed: placed(*arguments, out))  # type: ignore[misc]
            fused = seconds(lambda compiled=compiled: compiled(*arguments))  # type: ignore[misc]
            gain = eager - fused
            pays = f"{cost / gain * rows:,.0f}" if gain > 0 else "never"
            print(f"{name:6} {cost:10.1f} {eager * 1e3:9.2f} {fused * 1e3:12.2f} {pays:>16}")


if __name__ == "__main__":
    main()
