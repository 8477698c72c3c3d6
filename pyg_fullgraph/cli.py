"""The command line: ``pyg-fullgraph demo | infer | explain | doctor``.

Exit codes: 0 done, 1 the run failed or the results are wrong, 2 a mistake in the arguments or the input, 130
stopped.
"""

from __future__ import annotations

import argparse
import logging
import sys
import time
from functools import partial
from typing import Any

import torch
from torch import Tensor

from pyg_fullgraph import api
from pyg_fullgraph.engine import Engine
from pyg_fullgraph.errors import FullGraphError, InputError
from pyg_fullgraph.front import demo, doctor
from pyg_fullgraph.front.load import load_model, load_nodes
from pyg_fullgraph.front.notes import LOGGER
from pyg_fullgraph.front.output import check_target, save
from pyg_fullgraph.front.readers import read_graph
from pyg_fullgraph.front.run import Options, explain


def main(argv: list[str] | None = None) -> int:
    """Runs one command and returns its exit code."""
    arguments = _parser().parse_args(argv)
    logging.basicConfig(level=logging.WARNING, format="note: %(message)s")
    if arguments.verbose:
        LOGGER.setLevel(logging.INFO)
    try:
        code: int = arguments.run(arguments)
    except (FullGraphError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2 if isinstance(error, (ValueError, OSError)) else 1
    except (MemoryError, torch.OutOfMemoryError) as error:
        print(f"error: out of memory: {str(error).splitlines()[0] if str(error) else ''}", file=sys.stderr)
        return 1
    except Exception as error:  # the user's model, and ours: -v shows where
        if arguments.verbose:
            raise
        first = (str(error).splitlines() or [""])[0]
        print(f"error: {type(error).__name__}: {first} (-v shows where it was raised)", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        return 130
    return code


def _parser() -> argparse.ArgumentParser:
    """The commands and their options."""
    parser = argparse.ArgumentParser(
        prog="pyg-fullgraph",
        description="Exact inference over a whole graph for any PyTorch Geometric model.",
    )
    parser.add_argument("--version", action="version", version=f"%(prog)s {doctor.installed('pyg_fullgraph')}")
    parser.set_defaults(verbose=False)
    commands = parser.add_subparsers(dest="command", required=True, metavar="demo | infer | explain | doctor")

    shown = commands.add_parser("demo", help="train a GCN and a GAT and compare PyG's ways with ours")
    demo.add_arguments(shown)
    shown.set_defaults(run=demo.run)

    infer = commands.add_parser("infer", help="run a model over a graph and write one row per node")
    _model_arguments(infer)
    infer.add_argument("--out", required=True, help="an .npy or .pt file; appears whole or not at all")
    infer.add_argument("--nodes", help="a file of node numbers (text or .npy): only these rows, in this order")
    infer.add_argument("--no-verify", action="store_true", help="do not recompute a few nodes by PyG's forward")
    infer.add_argument("--progress", action="store_true", help="show a progress bar")
    infer.set_defaults(run=_infer)

    explained = commands.add_parser("explain", help="print the program, kernels, bytes and memory of a run")
    _model_arguments(explained)
    explained.set_defaults(run=_explain)

    doctored = commands.add_parser("doctor", help="versions, which kernels serve and why, a five-second self-test")
    doctored.set_defaults(run=_doctor)
    return parser


def _model_arguments(parser: argparse.ArgumentParser) -> None:
    """What `infer` and `explain` have in common."""
    parser.add_argument(
        "--model",
        required=True,
        metavar="FILE.py:NAME",
        help="a model, or a function that returns it (given the data); it is put in evaluation mode",
    )
    parser.add_argument("--weights", help="a file with the model's state_dict")
    parser.add_argument(
        "--graph",
        required=True,
        help="an .npz or .pt file, a PyG data set such as Planetoid/PubMed, or community:NODES",
    )
    parser.add_argument("--data-root", default="data", help="folder for downloaded data sets (default: %(default)s)")
    parser.add_argument("--threads", type=int, help="threads to use (default: all that torch uses)")
    parser.add_argument(
        "--order",
        choices=["rcm", "community", "auto"],
        help="compute with the nodes in another order; auto: where that pays within this one run",
    )
    parser.add_argument("-v", "--verbose", action="store_true", help="say more")


def _inputs(arguments: argparse.Namespace) -> tuple[torch.nn.Module, Any]:
    """The model and the graph."""
    if arguments.threads is not None and arguments.threads < 1:
        raise InputError(f"--threads must be at least 1 (got {arguments.threads}).")
    data = read_graph(arguments.graph, root=arguments.data_root)
    return load_model(arguments.model, arguments.weights, data), data


def _infer(arguments: argparse.Namespace) -> int:
    """Run a model over a graph and write the result."""
    target = check_target(arguments.out, "--out ")
    model, data = _inputs(arguments)
    nodes = None if arguments.nodes is None else load_nodes(arguments.nodes)
    start = time.perf_counter()
    result = api.inference(
        model,
        data,
        nodes=nodes,
        verify="off" if arguments.no_verify else "auto",
        threads=arguments.threads,
        order=arguments.order,
        progress_bar=arguments.progress,
    )
    seconds = time.perf_counter() - start
    save(result, target, "--out ")
    print(f"{target}: {_describe(result)}, {seconds:.2f} s")
    return 0


def _explain(arguments: argparse.Namespace) -> int:
    """Print the engine's report."""
    model, data = _inputs(arguments)
    options = Options(threads=arguments.threads, order=arguments.order)
    print(explain(model, (data,), {}, options, Engine))
    return 0


def _doctor(arguments: argparse.Namespace) -> int:
    """Print the report on this machine."""
    return 0 if doctor.examine(partial(api.inference, verify="off")) else 1


def _describe(result: Any) -> str:
    """Shape and dtype of a result."""
    if isinstance(result, Tensor):
        return f"{list(result.shape)} {str(result.dtype).removeprefix('torch.')}"
    return type(result).__name__


if __name__ == "__main__":
    raise SystemExit(main())
