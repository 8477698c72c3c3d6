"""Every class that torch_geometric.nn exports has a status: exact, refused with its reason, or not runnable here.

`tests/test_exactness.py` checks that the exact ones are; this file checks the others, that no class is missing, and
that `docs/coverage.md` says the same. The page is made by

    python -m tests.test_coverage > docs/coverage.md
"""

from __future__ import annotations

import importlib
import inspect
import re
import textwrap
from pathlib import Path

import pytest
import torch
import torch_geometric

from pyg_fullgraph.engine import Engine
from pyg_fullgraph.errors import CaptureError, InputError
from tests.cases.case import Case, module_of, replay_graph
from tests.cases.table import ALL, BY_ID

PAGE = Path(__file__).parents[1] / "docs" / "coverage.md"
#: kind of a case -> the module whose names it covers
NAMESPACES = {
    "conv": "torch_geometric.nn.conv",
    "models": "torch_geometric.nn.models",
    "norm": "torch_geometric.nn.norm",
    "aggr": "torch_geometric.nn.aggr",
    "pool": "torch_geometric.nn.pool",
    "unpool": "torch_geometric.nn.unpool",
    "dense": "torch_geometric.nn.dense",
    "attention": "torch_geometric.nn.attention",
    "kge": "torch_geometric.nn.kge",
    "nn": "torch_geometric.nn",
}
#: Exported names that are no model: there is no forward to capture.
HELPERS = {
    "aggr.Aggregation": "base class",
    "kge.KGEModel": "base class",
    "models.to_captum_input": "prepares arguments",
    "models.captum_output_to_dicts": "takes results apart",
    "nn.DataParallel": "copies a model to several GPUs",
    "nn.to_fixed_size": "rewrites a model for graphs of one size",
    "nn.summary": "prints a model",
    **{
        f"pool.{name}": "search index"
        for name in ("KNNIndex", "L2KNNIndex", "MIPSKNNIndex", "ApproxL2KNNIndex", "ApproxMIPSKNNIndex")
    },
}


def exported(kind: str) -> list[str]:
    """The public names of a namespace."""
    return list(importlib.import_module(NAMESPACES[kind]).__all__)


def cases_of(kind: str, name: str) -> list[Case]:
    return [case for case in ALL if (case.kind, case.name) == (kind, name)]


def share(cases: list[Case]) -> float:
    """How many of the cases that run here are exact."""
    running = [case for case in cases if case.status != "not runnable"]
    return sum(case.status == "exact" for case in running) / len(running)


def exact_classes() -> tuple[list[str], list[str]]:
    """Classes of conv and models that run here, and those of them whose first configuration that runs is exact."""
    running, exact = [], []
    for kind in ("conv", "models"):
        for name in exported(kind):
            statuses = [case.status for case in cases_of(kind, name) if case.status != "not runnable"]
            running += [name] if statuses else []
            exact += [name] if statuses[:1] == ["exact"] else []
    return running, exact


@pytest.mark.parametrize("kind", NAMESPACES)
def test_every_export_has_a_status(kind: str) -> None:
    module = importlib.import_module(NAMESPACES[kind])
    missing = []
    for name in exported(kind):
        if f"{kind}.{name}" in HELPERS:
            item = getattr(module, name)
            assert not cases_of(kind, name)
            assert HELPERS[f"{kind}.{name}"] == "base class" or not hasattr(item, "forward") or name == "DataParallel"
        elif not cases_of(kind, name):
            missing.append(name)
    assert not missing


def test_cases_are_about_what_is_exported() -> None:
    for case in ALL:
        assert case.kind in ("user", "hetero") or case.name in exported(case.kind), case.id


def test_at_least_95_percent_are_exact() -> None:
    running, exact = exact_classes()
    assert len(exact) >= 0.95 * len(running), sorted(set(running) - set(exact))
    assert share([case for case in ALL if case.kind in ("conv", "models")]) >= 0.95


@pytest.mark.parametrize("case", [case for case in ALL if case.status == "refused"], ids=lambda case: case.id)
def test_refused_with_its_reason(case: Case) -> None:
    """Refused before any work, with the reason; the model's own forward runs, before and after."""
    module = module_of(case)
    args, kwargs = case.make_inputs(replay_graph())
    with torch.no_grad():
        module(*args, **kwargs)
    with pytest.raises((CaptureError, InputError), match=case.refused) as caught:
        Engine(module)(*args, **kwargs)
    assert isinstance(caught.value, InputError) or re.search(r"\.py:\d+", str(caught.value))
    with torch.no_grad():
        module(*args, **kwargs)


@pytest.mark.parametrize("case", [case for case in ALL if case.status == "not runnable"], ids=lambda case: case.id)
def test_not_runnable_here(case: Case) -> None:
    """Really not: where a library comes along that runs it, this fails, and the case needs another status."""
    args, kwargs = case.make_inputs(replay_graph())
    with pytest.raises((ImportError, AttributeError), match=case.not_runnable):
        case.build()(*args, **kwargs)


def test_parameters_per_node_fix_the_graph() -> None:
    """A transductive model is exact on graphs of its own size; another size is the caller's mistake."""
    engine = Engine(module_of(BY_ID["m.LINKX"]), verify="off")
    with pytest.raises(InputError, match="exactly 40 rows of N, this graph has 23"):
        engine(torch.randn(23, 16), replay_graph()[1])


def test_page_is_up_to_date() -> None:
    text = PAGE.read_text()
    if not re.search(rf"torch_geometric {re.escape(torch_geometric.__version__)}\s", text):
        pytest.skip("the page is of another version of torch_geometric")
    assert text == page(), "run python -m tests.test_coverage > docs/coverage.md"


# The page ----------------------------------------------------------------------------------------------


def page() -> str:
    """The table in Markdown."""
    lines = _head()
    for kind, module in NAMESPACES.items():
        names = [name for name in exported(kind) if cases_of(kind, name)]
        lines += ["", f"## {module}", "", "| name | status | options |", "| --- | --- | --- |"]
        lines += [_row(name, cases_of(kind, name)) for name in names]
        helpers = [key.split(".")[1] for key in HELPERS if key.startswith(f"{kind}.")]
        if helpers:
            lines += ["", f"No model, so nothing to capture: {', '.join(f'`{name}`' for name in helpers)}."]
    return "\n".join(lines) + "\n"


def _head() -> list[str]:
    running, exact = exact_classes()
    checked = [case for case in ALL if case.kind not in ("user", "hetero")]
    counts = {status: sum(case.status == status for case in checked) for status in ("exact", "refused", "not runnable")}
    paragraphs = [
        "Made by `python -m tests.test_coverage` from the cases of the tests; do not edit. Checked with "
        f"torch_geometric {torch_geometric.__version__} and the packages of the development environment, so without "
        "pyg-lib and torch-sparse.",
        "*exact*: captured once, then equal to the model's own forward, element by element, on other graphs, nasty "
        "ones among them. *refused*: an error before any work; `fallback='eager'` runs the model's own forward. "
        "*not runnable*: its own forward fails here, for want of another package.",
        "A row says this of the configurations that it names, with the arguments that `tests/cases` passes: options, "
        "arguments and graphs of other forms are tried elsewhere in the tests, not counted here, and not promised by "
        "this page. The first result of a trace is compared with the model's own forward, whatever this page says.",
        f"Of the {len(running)} classes of `conv` and `models` that run here, {len(exact)} are exact. "
        f"Of {len(checked)} configurations of all namespaces, {counts['exact']} are exact, {counts['refused']} refused "
        f"and {counts['not runnable']} not runnable: {share(checked):.1%} of those that run are exact.",
    ]
    lines = ["# Coverage"]
    for paragraph in paragraphs:
        lines += ["", *textwrap.wrap(paragraph, 118, break_on_hyphens=False)]
    return lines


def _row(name: str, cases: list[Case]) -> str:
    statuses = list(dict.fromkeys(case.status for case in cases))
    options = [_option(case) for case in cases if case.status == "exact" and _option(case)]
    notes = [", ".join(options)] if options else []
    for case in cases:
        if case.status != "exact":
            which = f"{_option(case) or 'default'} {case.status}: " if len(statuses) > 1 else ""
            notes.append(f"{which}{case.why}")
    return f"| `{name}` | {', '.join(statuses)} | {'; '.join(dict.fromkeys(notes))} |"


def _option(case: Case) -> str:
    return case.id.split(".", 1)[-1].partition("-")[2]


def test_every_case_that_is_not_exact_says_why() -> None:
    assert all(case.why for case in ALL if case.status != "exact")


def test_helpers_are_still_exported() -> None:
    for key in HELPERS:
        kind, name = key.split(".")
        assert name in exported(kind)
        assert inspect.isclass(getattr(importlib.import_module(NAMESPACES[kind]), name)) or callable(
            getattr(importlib.import_module(NAMESPACES[kind]), name)
        )


if __name__ == "__main__":
    print(page(), end="")
