"""Program -> Program, one pass per file, and the cut into supersteps. The pipeline is a plain named list."""

from collections.abc import Callable, Collection

from pyg_fullgraph.ir import Program
from pyg_fullgraph.passes.accumulate import accumulate_products
from pyg_fullgraph.passes.cse import merge_equal
from pyg_fullgraph.passes.cut import cut
from pyg_fullgraph.passes.fuse import fuse_aggregations
from pyg_fullgraph.passes.mean import fuse_mean
from pyg_fullgraph.passes.narrow import narrow_aggregations
from pyg_fullgraph.passes.softmax import fuse_softmax

PIPELINE: list[tuple[str, Callable[[Program], None]]] = [
    ("cse", merge_equal),
    ("softmax", fuse_softmax),
    ("fuse", fuse_aggregations),
    ("mean", fuse_mean),
    ("narrow", narrow_aggregations),
    ("accumulate", accumulate_products),
]


def optimise(program: Program, skip: Collection[str] = ()) -> Program:
    """Run the pipeline in place.

    Args:
        program: from capture.
        skip: names of passes to leave out (any of them may be: the result is the same, only slower).

    Raises:
        ValueError: `skip` names no pass.
    """
    unknown = set(skip) - {name for name, _ in PIPELINE}
    if unknown:
        raise ValueError(f"no pass named {sorted(unknown)}; there are {[name for name, _ in PIPELINE]}")
    for name, run in PIPELINE:
        if name not in skip:
            run(program)
    return program


__all__ = ["PIPELINE", "cut", "optimise"]
