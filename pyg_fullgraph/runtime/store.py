"""`TableStore`: hands out every table of a run, knows how many bytes they are, and keeps within a budget.

Where the bytes lie is its home's business (`runtime/home.py`): memory, or files that are mapped.
"""

from __future__ import annotations

from torch import Tensor

from pyg_fullgraph.errors import SpaceError
from pyg_fullgraph.plan.plan import Plan
from pyg_fullgraph.plan.tables import Residence, TableSpec, root_of
from pyg_fullgraph.runtime.home import Home, Table

_LARGEST = 3  # tables that an error names


class TableStore:
    """The tables of one run.

    Args:
        home: where they live.
        budget: bytes that they may take together; None for any number.
    """

    def __init__(self, home: Home, budget: int | None = None) -> None:
        self.home, self.budget = home, budget
        self.held = 0
        self._plan: Plan | None = None
        self._bytes: dict[str, int] = {}  # value with memory of its own -> bytes
        self._users: dict[str, set[str]] = {}  # the same -> the values in that memory

    def reserve(self, plan: Plan) -> None:
        """Get ready for a plan, before any work.

        Raises:
            SpaceError: it takes more than the budget; names the largest tables, and the smallest budget that would do.
        """
        if self.budget is not None and plan.peak > self.budget:
            at = max(range(len(plan.steps)), key=lambda number: plan.steps[number].held)
            alive = [spec for spec in plan.tables.values() if spec.born <= at <= spec.dies]
            largest = sorted(alive, key=lambda spec: -spec.nbytes)[:_LARGEST]
            raise SpaceError(
                f"The tables of superstep {at} take {plan.peak:,} bytes, more than the budget of {self.budget:,}: "
                f"the largest are {'; '.join(map(str, largest))}. The smallest budget that would do is {plan.peak:,}."
            )
        self._plan = plan

    def allocate(self, spec: TableSpec, rows: int, tail: tuple[int, ...]) -> Table:
        """A table of undefined content.

        Args:
            spec: of the plan.
            rows, tail: its sizes, also where the plan does not know them.
        """
        assert spec.dtype is not None
        table = self.home.allocate(rows, tail, spec.dtype)
        self._take(spec.value, table.whole())
        return table

    def adopt(self, name: str, tensor: Tensor) -> Table:
        """Take over what an operator or a reduction has made whole, rows first; a view is counted with its base."""
        spec = None if self._plan is None else self._plan.tables.get(name)
        if spec is not None and spec.residence is not Residence.VIEW:
            self._take(name, tensor)
        elif spec is not None:
            self.share(name)
        return self.home.adopt(tensor)

    def view(self, name: str, tensor: Tensor) -> Table:
        """The table of a value that is a view of another."""
        self.share(name)
        return self.home.adopt(tensor)

    def share(self, name: str) -> None:
        """A value is in the memory of another, which must not be given back before."""
        self._users.setdefault(self._root(name), set()).add(name)

    def free(self, name: str) -> None:
        """A value is needed no longer; its memory is given back with the last value that lies in it."""
        root = self._root(name)
        users = self._users.get(root, set())
        users.discard(name)
        if not users and root in self._bytes:
            self.held -= self._bytes.pop(root)
            self._users.pop(root, None)

    def close(self) -> None:
        """Give back everything."""
        self._bytes.clear()
        self._users.clear()
        self.held = 0
        self.home.close()

    def _take(self, name: str, tensor: Tensor) -> None:
        self._users.setdefault(name, set()).add(name)
        if name not in self._bytes:
            self._bytes[name] = tensor.numel() * tensor.element_size()
            self.held += self._bytes[name]

    def _root(self, name: str) -> str:
        return name if self._plan is None else root_of(self._plan.tables, name)
