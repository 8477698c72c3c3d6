"""After a fork of a process that has run threads, every entrance answers in the child, and rightly."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="there is no fork")

#: What the scripts below share: torch on two threads, and children that are killed after a while.
START = """
import os, signal, sys, threading, warnings
warnings.simplefilter("ignore")
import torch
from torch_geometric.nn import GAT, GCN, GraphNorm, GraphSAGE
import pyg_fullgraph as fg
from pyg_fullgraph import ops

torch.set_num_threads(2)
torch.set_grad_enabled(False)
N = 20000  # enough for torch to share its operators
x, edge_index = torch.randn(N, 32), torch.randint(0, N, (2, 5 * N))
model = GCN(32, 32, 2, 8, norm="graph_norm").eval()

def in_child(name, call, expected):
    child = os.fork()
    if child == 0:
        signal.alarm(40)
        code = 1
        try:
            got = call()
            torch.set_num_threads(1)  # or the comparison would hang, which is torch's own
            code = 0 if torch.allclose(got, expected, atol=1e-4) else 2
        except Exception as error:
            print(name, type(error).__name__, error, flush=True)
        finally:
            os._exit(code)
    status = os.waitpid(child, 0)[1]
    print(name, "fine" if status == 0 else f"WRONG {status}", flush=True)
"""

AFTER_OURS = """
other = edge_index.flip(0)
expected, turned = model(x, edge_index), model(x, other)
engine, explicit = fg.Engine(model), fg.Engine(model, threads=2)
engine(x, edge_index), explicit(x, edge_index)
graph = fg.Graph(edge_index, N)
summed = graph.sum(graph.src(x))
layer = fg.nn.SAGEConv(32, 8).eval()
of_layer = layer(x, edge_index)
in_child("same graph", lambda: engine(x, edge_index), expected)
in_child("same graph, threads=2", lambda: explicit(x, edge_index), expected)
in_child("new graph", lambda: engine(x, edge_index.flip(0)), turned)
in_child("new graph, threads=2", lambda: explicit(x, edge_index.flip(0)), turned)
in_child("new engine", lambda: fg.Engine(model, verify="always", threads=2)(x, other), turned)
in_child("inference", lambda: fg.inference(model, x, other, threads=2), turned)
in_child("order", lambda: fg.Engine(model, order="rcm")(x, other), turned)
in_child("some nodes", lambda: explicit(x, other, nodes=torch.arange(9)), turned[:9])
in_child("words", lambda: graph.sum(graph.src(x)), summed)
in_child("a new graph's words", lambda: fg.Graph(edge_index.clone(), N).sum(graph.src(x)), summed)
in_child("operators", lambda: ops.gather(x, edge_index[0], threads=2), x[edge_index[0]])
in_child("sorted by operators", lambda: ops.csr(edge_index[1], N, threads=2)[1].sort().values, torch.arange(5 * N))
in_child("layer", lambda: layer(x, edge_index), of_layer)
in_child("the model's own forward", lambda: model(x, edge_index), expected)
pid = os.getpid()
in_child("threads asked for in the child", lambda: (torch.set_num_threads(2), engine(x, other))[1], turned)
assert torch.get_num_threads() == 2 and os.getpid() == pid  # nothing has changed here
print(engine(x, edge_index).shape, "done")
"""

AFTER_TORCH = """
other = edge_index.flip(0)
expected = model(x, other)  # torch alone has run threads
in_child("first use in the child", lambda: fg.inference(model, x, other), expected)
in_child("engine", lambda: fg.Engine(model, threads=2)(x, other), expected)
summed = torch.zeros_like(x).index_add_(0, other[1], x[other[0]])
in_child("words", lambda: fg.Graph(other, N).sum(fg.Graph(other, N).src(x)), summed)
print("done")
"""


@pytest.mark.parametrize("script", [AFTER_OURS, AFTER_TORCH], ids=["after ours", "after torch"])
def test_a_forked_child_answers(script: str) -> None:
    environment = {**os.environ, "OMP_NUM_THREADS": "2", "PYTHONPATH": str(Path(__file__).parent.parent)}
    done = subprocess.run(
        [sys.executable, "-c", START + script], env=environment, capture_output=True, text=True, timeout=500
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "done" in done.stdout
    assert "WRONG" not in done.stdout, done.stdout
