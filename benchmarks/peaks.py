"""Does a later call need more memory than the second?

    python benchmarks/peaks.py --models sage hgt --log2-nodes 10 13 --calls 1 2 10 100

Every model and graph has a fresh process (`Runner` of `peers.py`). Told is the highest resident size during each of
these calls over the size before the first, with nothing collected, trimmed or warmed between them.
"""

from __future__ import annotations

import argparse

from apart import Apart
from graphs import Source
from measure import announce, mib, print_table
from models import MODELS, Setting
from peers import PEERS, Runner


def peaks(key: str, setting: Setting, calls: list[int]) -> list[int]:
    """The peak extra bytes of each call of these numbers, in rising order."""
    with Apart(Runner, key, setting, 60.0) as process:
        first = int(process.call("first", None)["extra_bytes"])
        return [first if number == 1 else int(process.call("later", number)) for number in calls]


def main() -> None:
    """Runs the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    parser.add_argument("--peer", choices=[key for key in PEERS if key != "sampled"], default="ours")
    parser.add_argument("--log2-nodes", nargs="+", type=float, default=[10, 13])
    parser.add_argument("--degree", type=int, default=16)
    parser.add_argument("--width", type=int, default=128)
    parser.add_argument("--calls", nargs="+", type=int, default=[1, 2, 10, 100])
    parser.add_argument("--threads", type=int, default=None)
    arguments = parser.parse_args()
    announce(arguments.threads)
    calls, rows = sorted({1, 2, *arguments.calls}), []
    for size in arguments.log2_nodes:
        for model in arguments.models:
            source = Source(size, arguments.degree)
            found = peaks(arguments.peer, Setting(model, source, arguments.width), calls)
            rows.append([model, source.title, *map(mib, found), f"{found[-1] / max(found[1], 1):.3f}"])
            print("  ".join(rows[-1]), flush=True)
    print_table(["model", "graph", *(f"call {number}" for number in calls), "last / 2nd"], rows, left=2)


if __name__ == "__main__":
    main()
