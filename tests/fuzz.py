"""Random whole calls: any case of the coverage table, any graph, any options, half types too, compared with eager.

::

    python -m tests.fuzz --calls 5000            # minutes; prints every difference with the trial that found it
    python -m tests.fuzz --trial 17              # that trial again

A trial draws a case, a type and options of the engine, traces once, and calls it on several graphs; between the calls
the parameters move. Some calls ask for a few rows, some run under autocast. A result must equal the model's own within
the tolerance of its type; where the model amplifies rounding, it may be twice as far from float64 as the model's own
(which excuses nothing in float64 itself). Half types have so few digits that the model's own distance is a matter of
luck there: a variance of equal messages is rounding alone. Where that decides, the model's own distance is the largest
over inputs that differ by one unit in the last place. Under autocast a tenth of the largest magnitude is allowed.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import random
import sys
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any
from unittest import mock

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from pyg_fullgraph.engine import Engine
from pyg_fullgraph.errors import CaptureError, FullGraphError
from pyg_fullgraph.plan import blocks
from tests.cases.case import Case, GraphLike, Inputs, module_of
from tests.cases.table import ALL

CASES = [case for case in ALL if case.status == "exact"]
TYPES = (torch.float32, torch.float32, torch.float32, torch.float64, torch.bfloat16, torch.float16)
#: Largest difference, as a share of the largest magnitude, where the model does not amplify rounding.
TOLERANCE = {torch.float64: 1e-10, torch.float32: 1e-5}
CALLS = 8  # of one engine
NEIGHBOURS = 16  # inputs a unit in the last place away, on which the model's own rounding is measured


@dataclass
class Tally:
    """What became of the calls: how many of each kind, and a line for every one that is wrong."""

    counts: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        return ", ".join(f"{name} {count}" for name, count in sorted(self.counts.items()))


def graph_of(draw: random.Random) -> GraphLike:
    """Of one node to sixty, without edges, with hubs, loops, duplicates, isolated nodes, or as many edges as nodes."""
    nodes = draw.choice([1, 2, 3, 5, draw.randint(6, 20), draw.randint(20, 60), draw.randint(20, 60)])
    edges = draw.choice([0, 1, nodes, 2 * nodes, 5 * nodes, 5 * nodes, draw.randint(0, 300)])
    generator = torch.Generator().manual_seed(draw.getrandbits(32))
    edge_index = torch.randint(0, nodes, (2, edges), generator=generator)
    for change in draw.sample(["hub in", "hub out", "loops", "duplicates", "few", "none"], 2):
        if change == "hub in":
            edge_index[1, ::2] = nodes - 1
        elif change == "hub out":
            edge_index[0, ::3] = 0
        elif change == "loops":
            edge_index[0, ::4] = edge_index[1, ::4]
        elif change == "duplicates":
            edge_index[:, edges // 2 :] = edge_index[:, : edges - edges // 2].clone()
        elif change == "few":
            edge_index = edge_index % max(nodes // 3, 1)
    return nodes, edge_index


def in_type(tree: Any, dtype: torch.dtype) -> Any:
    return pytree.tree_map(lambda leaf: leaf.to(dtype) if _is_float(leaf) else leaf, tree)


def _is_float(leaf: Any) -> bool:
    return isinstance(leaf, Tensor) and leaf.is_floating_point()


def own(module: torch.nn.Module, inputs: Inputs) -> Any:
    """The module's own output; None where it fails."""
    try:
        with torch.no_grad():
            return module(*inputs[0], **inputs[1])
    except Exception:  # not made for such a graph, or for this type
        return None


def difference(module: torch.nn.Module, inputs: Inputs, expected: Any, got: Any) -> str:
    """What is wrong with a result, "" if nothing is."""
    wanted, given = pytree.tree_leaves(expected), pytree.tree_leaves(got)
    if len(wanted) != len(given):
        return f"{len(given)} outputs for {len(wanted)}"
    exact: list[Any] | None = None
    for number, (a, b) in enumerate(zip(wanted, given, strict=True)):
        if not isinstance(a, Tensor):
            if a != b:
                return f"output {number} is {b!r} for {a!r}"
            continue
        if (a.shape, a.dtype) != (b.shape, b.dtype):
            return f"output {number} is {b.dtype} {list(b.shape)} for {a.dtype} {list(a.shape)}"
        off = distance(a, b)
        if a.is_floating_point() and off > TOLERANCE.get(a.dtype, 0.0):
            exact = _in_float64(module, inputs, len(wanted)) if exact is None else exact
            known = exact[number]
            if known is None or not (
                _excused(a, b, known)
                or distance(known, b) <= 2 * _own_rounding(module, inputs, number, len(wanted), distance(known, b) / 2)
            ):
                return f"output {number} is off by {off:.1e} of its largest magnitude"
        elif not a.is_floating_point() and off and not _is_half(inputs):
            return f"output {number}, {a.dtype}, differs"
    return ""


def distance(a: Tensor, b: Tensor) -> float:
    """The largest difference as a share of the largest magnitude; infinite where only one is finite."""
    if not a.numel():
        return 0.0
    a, b = a.double(), b.double()
    equal = (a == b) | (a.isnan() & b.isnan())
    finite = a[a.isfinite()]
    scale = float(finite.abs().max()) if finite.numel() else 1.0
    return float(torch.where(equal, 0.0, (a - b).abs()).nan_to_num(nan=float("inf")).max()) / max(scale, 1e-30)


def _excused(a: Tensor, b: Tensor, exact: Tensor) -> bool:
    """No farther from float64 than twice the model's own result, and than the ends of half types' digits."""
    ends = 8 * torch.finfo(a.dtype).eps if a.dtype.itemsize == 2 else 0.0
    return distance(exact, b) <= 2 * distance(exact, a) + ends


def _own_rounding(module: torch.nn.Module, inputs: Inputs, number: int, count: int, enough: float) -> float:
    """How far an output of the module itself is from float64, at worst, on inputs next to these of a half type.

    Each neighbour is compared with the float64 result of that very neighbour, so that this is the rounding of the
    model's own operators, and not what moving the inputs does to the result. 0 where the inputs are not of a half type.
    """
    worst = 0.0
    for seed in range(NEIGHBOURS) if _is_half(inputs) else ():
        near = next_to(inputs, torch.Generator().manual_seed(seed))
        leaves = pytree.tree_leaves(own(copy.deepcopy(module), near))
        exact = _in_float64(module, near, count)[number]
        if len(leaves) == count and exact is not None:
            worst = max(worst, distance(exact, leaves[number]))
        if worst >= enough:
            break
    return worst


def next_to(inputs: Inputs, generator: torch.Generator) -> Inputs:
    """The inputs, each number of a half type moved by one unit in the last place or none, at random."""

    def moved(leaf: Any) -> Any:
        if not _is_float(leaf) or leaf.dtype.itemsize != 2:
            return leaf
        way = torch.randint(-1, 2, leaf.shape, generator=generator)
        ends = (way * float("inf")).nan_to_num(nan=0.0, posinf=float("inf"), neginf=-float("inf")).to(leaf.dtype)
        return torch.where(way == 0, leaf, torch.nextafter(leaf, ends))

    return pytree.tree_map(moved, inputs)  # type: ignore[no-any-return]


def _in_float64(module: torch.nn.Module, inputs: Inputs, count: int) -> list[Any]:
    """The outputs of the module in float64; None for each where it does not run so."""
    result = own(copy.deepcopy(module).double(), in_type(inputs, torch.float64))
    leaves = pytree.tree_leaves(result)
    return leaves if len(leaves) == count else [None] * count


def _is_half(inputs: Inputs) -> bool:
    return any(_is_float(leaf) and leaf.dtype.itemsize == 2 for leaf in pytree.tree_leaves(inputs))


@contextlib.contextmanager
def small_blocks(wanted: bool) -> Iterator[None]:
    """Blocks of a few rows, so that a small graph has many."""
    with contextlib.ExitStack() as stack:
        for name, value in (("MIN_ROWS", 1), ("MAX_ROWS", 5), ("SMALLEST", 1)) if wanted else ():
            stack.enter_context(mock.patch.object(blocks, name, value))
        yield


def engine_of(draw: random.Random, module: torch.nn.Module) -> Engine:
    return Engine(
        module,
        threads=draw.choice([1, 2]),
        home=draw.choice(["memory", "memory", "mapped"]),
        verify=draw.choice(["auto", "off", "always"]),
        order=draw.choice([None, None, None, "rcm"]),
        skip_passes=draw.choice([(), (), (), ("fuse",), ("narrow", "hoist")]),
    )


def trial(number: int, tally: Tally, calls: int = CALLS) -> None:
    """One engine and its calls."""
    draw = random.Random(number)
    case, dtype = draw.choice(CASES), draw.choice(TYPES)
    module = module_of(case).to(dtype)
    engine = engine_of(draw, module)
    with small_blocks(draw.random() < 0.5):
        for call in range(calls):
            if call and draw.random() < 0.3:
                _move(module, draw)
            what = _call(draw, case, module, engine, dtype)
            tally.counts[what.split(":")[0]] += 1
            if ":" in what:
                options = (dtype, engine.home, engine.verify, engine.order, engine.skip_passes, engine.threads)
                tally.wrong.append(f"trial {number}, call {call}, {case.id}, {options}: {what}")


def _move(module: torch.nn.Module, draw: random.Random) -> None:
    torch.manual_seed(draw.getrandbits(32))
    with torch.no_grad():
        for parameter in module.parameters():
            if parameter.is_floating_point():
                parameter.mul_(1 + 0.1 * torch.rand(parameter.shape).to(parameter.dtype))


def _call(draw: random.Random, case: Case, module: torch.nn.Module, engine: Engine, dtype: torch.dtype) -> str:
    """One call: its outcome, and after a colon what is wrong with it."""
    graph = graph_of(draw)
    try:
        inputs = in_type(case.make_inputs(graph), dtype)
    except (RuntimeError, ValueError, IndexError, ZeroDivisionError):
        return "no such inputs"
    autocast = dtype == torch.float32 and draw.random() < 0.1
    alone = copy.deepcopy(module) if case.keeps else module
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        expected = own(alone, inputs)
        if expected is None:
            return "eager fails"
        nodes = _nodes(draw, expected, inputs, graph[0])
        try:
            got = engine(*inputs[0], **inputs[1], **({} if nodes is None else {"nodes": nodes}))
        except CaptureError as error:
            return f"refused: {str(error).splitlines()[0]}" if dtype == torch.float32 else "refused in this type"
        except FullGraphError as error:
            if nodes is not None and "the model returns none" in str(error):  # as many rows, but not of nodes
                return "no rows of nodes"
            return f"raised: {type(error).__name__}: {str(error).splitlines()[0]}"
        except Exception as error:  # the product's errors are of its own family
            return f"failed: {type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
        if nodes is not None:
            expected = expected[nodes]
        wrong = difference(_narrowed(alone, nodes), inputs, expected, got)
    if wrong and autocast:
        off = max(map(distance, pytree.tree_leaves(expected), pytree.tree_leaves(got)))
        wrong = "" if off < 0.1 else wrong
    return f"wrong: {wrong}" if wrong else "equal"


def _nodes(draw: random.Random, expected: Any, inputs: Inputs, count: int) -> Tensor | None:
    """Sometimes a few rows, of a model that returns one row per node."""
    x = inputs[0][0] if inputs[0] else None
    plain = isinstance(x, Tensor) and x.dim() == 2 and isinstance(expected, Tensor) and expected.dim() > 0
    if not plain or x.size(0) != count or expected.size(0) != count or count < 2 or draw.random() > 0.2:
        return None
    if draw.random() < 0.5:
        return torch.tensor([draw.random() < 0.4 for _ in range(count)])
    return torch.tensor([draw.randrange(count) for _ in range(draw.randint(1, 5))])


def _narrowed(module: torch.nn.Module, nodes: Tensor | None) -> Any:
    """The module, giving only these rows."""
    return module if nodes is None else _Rows(module, nodes)


class _Rows(torch.nn.Module):
    def __init__(self, module: torch.nn.Module, nodes: Tensor) -> None:
        super().__init__()
        self.module, self.nodes = module, nodes

    def forward(self, *args: Any, **kwargs: Any) -> Tensor:
        rows: Tensor = self.module(*args, **kwargs)[self.nodes]
        return rows


def run(calls: int, seed: int = 0, tell: Callable[[str], None] = lambda line: None) -> Tally:
    """Trials until there were so many calls that a result was compared in."""
    tally, number = Tally(), seed
    while tally.counts["equal"] + len(tally.wrong) < calls:
        known = len(tally.wrong)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            trial(number, tally)
        for line in tally.wrong[known:]:
            tell(line)
        number += 1
    return tally


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--calls", type=int, default=5000, help="compared calls (default: 5000)")
    parser.add_argument("--seed", type=int, default=0, help="number of the first trial")
    parser.add_argument("--trial", type=int, help="run this trial alone")
    options = parser.parse_args()
    if options.trial is not None:
        tally = Tally()
        trial(options.trial, tally)
        print("\n".join(tally.wrong))
    else:
        tally = run(options.calls, options.seed, lambda line: print(line, flush=True))
    print(f"{len(tally.wrong)} wrong of {tally}")
    return 1 if tally.wrong else 0


if __name__ == "__main__":
    sys.exit(main())
