"""What can this machine do? Stream triad, reads of random rows by row size, and matrix products: the yardsticks.

python benchmarks/roofline.py [--bytes 536870912] [--save]
"""

from __future__ import annotations

import argparse
from typing import Any

import torch
from measure import busy, print_table, save_result, time_interleaved

from pyg_fullgraph.ops import backend

ROW_BYTES = (64, 128, 256, 512, 1024, 2048)
READ_BYTES = 1 << 30  # per measured run


def measure_triad(size: int, threads: list[int]) -> list[dict[str, Any]]:
    """STREAM's a = b + s * c over three arrays of together `size` bytes, in GB/s."""
    probe = extension().probe_triad
    return [{"probe": "triad", "threads": count, "gb_per_s": probe(size, count) / 1e9} for count in threads]


def measure_rows(size: int, threads: list[int]) -> list[dict[str, Any]]:
    """Reads of random rows of an array of `size` bytes, with the kernels' prefetch, in GB/s."""
    probe = extension().probe_rows
    return [
        {
            "probe": f"random rows of {row} B",
            "threads": count,
            "gb_per_s": probe(row, size, READ_BYTES // row // 4, count) / 1e9,
        }
        for row in ROW_BYTES
        for count in threads
    ]


def measure_product(threads: list[int], rows: int = 32768, width: int = 256) -> list[dict[str, Any]]:
    """torch.mm of [rows, width] @ [width, width], in GFLOP/s."""
    found, before = [], torch.get_num_threads()
    for count in threads:
        torch.set_num_threads(count)
        for dtype in (torch.float32, torch.bfloat16):
            a, b = torch.randn(rows, width).to(dtype), torch.randn(width, width).to(dtype)
            timing = time_interleaved({"mm": lambda a=a, b=b: a @ b})["mm"]
            rate = 2 * rows * width * width / min(timing.seconds) / 1e9
            name = f"torch.mm {str(dtype).removeprefix('torch.')}"
            found.append({"probe": name, "threads": count, "gflop_per_s": rate})
    torch.set_num_threads(before)
    return found


def extension() -> Any:
    """The built extension, which holds the probes."""
    module, reason = backend.load()
    if module is None:
        raise SystemExit(f"The probes are part of the C++ kernels: {reason}")
    return module


def random_row_bandwidth(row_bytes: int, size: int, threads: int, read_bytes: int | None = None) -> float:
    """Bytes per second of random reads of such rows from such an array, of `READ_BYTES` if not said otherwise."""
    read_bytes = read_bytes or READ_BYTES
    rounded = max(64, (row_bytes + 63) // 64 * 64)
    rate: float = extension().probe_rows(rounded, size, read_bytes // rounded // 4, threads)
    return rate


def main() -> None:
    """Measure, print, and save if asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bytes", type=int, default=1 << 29, help="size of the arrays; beyond the caches")
    parser.add_argument("--save", action="store_true", help="keep the result under benchmarks/results")
    arguments = parser.parse_args()
    warning = busy()
    threads = sorted({1, torch.get_num_threads()})
    rows = measure_triad(arguments.bytes, threads) + measure_rows(arguments.bytes, threads)
    rows += measure_product(threads)
    table = [
        [
            row["probe"],
            str(row["threads"]),
            f"{row['gb_per_s']:.1f}" if "gb_per_s" in row else "",
            f"{row['gflop_per_s']:.0f}" if "gflop_per_s" in row else "",
        ]
        for row in rows
    ]
    print_table(["probe", "threads", "GB/s", "GFLOP/s"], table)
    if warning:
        print(warning)
    if arguments.save:
        print(save_result("roofline", vars(arguments), rows))


if __name__ == "__main__":
    main()
