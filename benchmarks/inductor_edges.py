"""Does compiling the arithmetic on edges with Inductor pay? One tile of four message functions, both ways.

    python benchmarks/inductor_edges.py [--edges 8192] [--width 128]

A tile is what a block program holds of its edges between the gathers and the reduction: the part that has no kernel of
its own. Prints the time Inductor needs before its first result (with an empty cache), the time of a tile eagerly and
compiled, in interleaved rounds, and after how many edges compiling has paid for itself.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from collections.abc import Callable

import torch
import torch.nn.functional as F
from measure import time_interleaved
from torch import Tensor


def gated(a: Tensor, b: Tensor, c: Tensor, w: Tensor) -> Tensor:
    """CGConv: two gates, already added up, multiplied."""
    return torch.sigmoid(a) * F.softplus(b)


def residual(a: Tensor, b: Tensor, c: Tensor, w: Tensor) -> Tensor:
    """ResGatedGraphConv: a gate of both ends on the source's value."""
    return torch.sigmoid(a + b) * c


def network(a: Tensor, b: Tensor, c: Tensor, w: Tensor) -> Tensor:
    """A message network with a product between two activations."""
    return torch.tanh(torch.tanh(a * b + c) @ w)


def weighted(a: Tensor, b: Tensor, c: Tensor, w: Tensor) -> Tensor:
    """A score of one's own that weighs the message."""
    return (F.elu(a - b) * c).sum(-1, keepdim=True).exp() * c


TILES: dict[str, Callable[..., Tensor]] = {
    "gates (CGConv)": gated,
    "gate (ResGated)": residual,
    "network": network,
    "own score": weighted,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--edges", type=int, default=8192)
    parser.add_argument("--width", type=int, default=128)
    options = parser.parse_args()
    torch.set_num_threads(1)  # as a block runs
    edges, width = options.edges, options.width
    tile = [torch.randn(edges, width) for _ in range(3)] + [torch.randn(width, width) / width**0.5]
    with torch.no_grad(), tempfile.TemporaryDirectory() as cache:
        os.environ["TORCHINDUCTOR_CACHE_DIR"] = cache
        print(
            f"{'tile':18} {'compile s':>10} {'eager ms':>9} {'compiled ms':>12} {'ratio':>6} {'pays after edges':>17}"
        )
        for name, plain in TILES.items():
            compiled = torch.compile(plain, dynamic=True)  # tiles differ in how many edges they hold
            runs = {"eager": lambda p=plain: p(*tile), "compiled": lambda c=compiled: c(*tile)}  # type: ignore[misc]
            found = time_interleaved(runs, repeat=40)
            cost, eager, fused = found["compiled"].first, found["eager"].median, found["compiled"].median
            gain = eager - fused
            pays = f"{cost / gain * edges:,.0f}" if gain > 0 else "never"
            line = f"{cost:10.1f} {eager * 1e3:9.2f} {fused * 1e3:12.2f} {eager / fused:6.2f} {pays:>17}"
            print(f"{name:18} {line}")


if __name__ == "__main__":
    main()
