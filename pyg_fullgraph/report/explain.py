"""`explain`: the supersteps of a model on a graph, their kernels, bytes and peak memory."""

from __future__ import annotations

import html
from dataclasses import dataclass

from pyg_fullgraph.ir import Program, Schedule
from pyg_fullgraph.ir.printer import format_schedule
from pyg_fullgraph.passes import Change
from pyg_fullgraph.plan import Machine, Plan, StepCost


@dataclass(frozen=True)
class Report:
    """A readable account of a compiled model on one graph; `str()` it, or show it in a notebook.

    Args:
        schedule_text: the supersteps, one value a line.
        costs: predicted bytes per superstep.
        kernels: kernels of every block program, in order.
        code: the Python text of every block program.
        structure_bytes: what is cached with the graph.
        notes: what the user should know.
        passes: what each compiler pass changed; `report.passes[i].diff` shows the program's lines.
        machine: the rates that the predicted seconds rest on; None where there are none (no C++ kernels).
        measured: seconds of every superstep of the last call on this very graph; empty where there was none.
        plan: what each superstep stores, fetches and frees, in bytes; `print(report.plan)`.
    """

    schedule_text: str
    costs: tuple[StepCost, ...]
    kernels: tuple[tuple[str, ...], ...]
    code: tuple[str, ...]
    structure_bytes: int
    notes: tuple[str, ...]
    passes: tuple[Change, ...] = ()
    machine: Machine | None = None
    measured: tuple[float, ...] = ()
    plan: Plan | None = None

    @property
    def predicted(self) -> tuple[float, ...]:
        """Predicted seconds of every superstep; empty where the machine's rates are not known."""
        return () if self.machine is None else tuple(step.seconds(self.machine) for step in self.costs)

    @property
    def supersteps(self) -> int:
        """How many supersteps there are."""
        return len(self.costs)

    @property
    def bytes_moved(self) -> int:
        """Bytes that all supersteps must move between memory and processor (predicted)."""
        return sum(block.moved for step in self.costs for block in step.blocks)

    @property
    def flops(self) -> int:
        """Floating point operations of the matrix products."""
        return sum(block.flops for step in self.costs for block in step.blocks)

    @property
    def peak_bytes(self) -> int:
        """Predicted peak of what the run allocates beside its inputs, the graph's structure included."""
        return max((step.tables + step.in_flight for step in self.costs), default=0) + self.structure_bytes

    def _rows(self) -> list[tuple[str, ...]]:
        rows: list[tuple[str, ...]] = []
        kernels = iter(self.kernels)
        for number, step in enumerate(self.costs):
            for position, block in enumerate(step.blocks):
                rows.append(
                    (
                        str(number),
                        block.space,
                        f"{block.rows:,}",
                        ", ".join(next(kernels)) or "rows only",
                        _size(block.gathered),
                        _size(block.read),
                        _size(block.written),
                        f"{block.flops / 1e9:.2f}",
                        _size(step.tables),
                        "-" if self.machine is None else _time(block.seconds(self.machine)),
                        self._measured(number) if position == 0 else "",
                    )
                )
        return rows

    def _measured(self, number: int) -> str:
        return _time(self.measured[number]) if self.measured else "-"

    _HEAD = (
        "superstep",
        "space",
        "rows",
        "kernels",
        "gathered",
        "read",
        "written",
        "GFLOP",
        "tables alive",
        "predicted",
        "measured",
    )

    def __str__(self) -> str:
        table = [self._HEAD, *self._rows()]
        widths = [max(len(row[i]) for row in table) for i in range(len(self._HEAD))]
        lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in table]
        notes = [f"note: {note}" for note in self.notes]
        passes = [f"pass {change}" for change in self.passes if change.counts]
        return "\n".join([self.schedule_text, "", *lines, "", self._summary(), *passes, *notes])

    def _summary(self) -> str:
        return (
            f"predicted: {_size(self.bytes_moved)} moved, peak {_size(self.peak_bytes)} beside the inputs, of which "
            f"{_size(self.structure_bytes)} are kept with the graph{self._times()}"
        )

    def _times(self) -> str:
        """Predicted against measured seconds, and what they rest on."""
        told = []
        if self.machine is not None:
            told.append(f"{_time(sum(self.predicted))} at the rates of {self.machine.threads} threads here")
        if self.measured:
            told.append(f"{_time(sum(self.measured))} measured in the last call")
        return "".join(f"; {item}" for item in told)

    def _repr_html_(self) -> str:
        cells = "".join(
            "<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>" for row in self._rows()
        )
        head = "".join(f"<th>{html.escape(name)}</th>" for name in self._HEAD)
        notes = "".join(f"<li>{html.escape(note)}</li>" for note in self.notes)
        return (
            f"<table><thead><tr>{head}</tr></thead><tbody>{cells}</tbody></table><p>{html.escape(self._summary())}</p>"
            f"<ul>{notes}</ul>{_passes_in_html(self.passes)}<details><summary>program</summary><pre>{html.escape(self.schedule_text)}</pre></details>"
        )


def _passes_in_html(passes: tuple[Change, ...]) -> str:
    """What each pass changed, its lines folded away."""
    folded = [
        f"<details><summary>{html.escape(str(change))}</summary><pre>{html.escape(change.diff)}</pre></details>"
        for change in passes
        if change.counts
    ]
    return "".join(folded)


def _time(seconds: float) -> str:
    return f"{seconds:.2f} s" if seconds >= 1 else f"{seconds * 1e3:.2f} ms"


def _size(count: int) -> str:
    amount = float(count)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if amount < 1024 or unit == "GiB":
            return f"{amount:.0f} {unit}" if unit == "B" else f"{amount:.1f} {unit}"
        amount /= 1024
    raise AssertionError


def explain(
    program: Program,
    schedule: Schedule,
    costs: list[StepCost],
    kernels: list[tuple[str, ...]],
    code: list[str],
    structure_bytes: int,
    passes: list[Change],
    notes: list[str],
    machine: Machine | None = None,
    measured: tuple[float, ...] = (),
    plan: Plan | None = None,
) -> Report:
    """A report of a schedule, its predicted costs, and what the last call took."""
    return Report(
        format_schedule(program, schedule),
        tuple(costs),
        tuple(kernels),
        tuple(code),
        structure_bytes,
        (*program.notes, *notes),
        tuple(passes),
        machine,
        measured,
        plan,
    )
