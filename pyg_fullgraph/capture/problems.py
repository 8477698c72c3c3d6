"""What stands in the way of an exact capture: one `Problem` per construct and line, all of them in one error."""

from __future__ import annotations

from dataclasses import dataclass

from pyg_fullgraph.capture.where import Place


@dataclass(frozen=True)
class Problem:
    """One construct of a forward that has no exact capture.

    Args:
        what: the construct, as a noun: "`tolist()`", "the operator 'aten.bernoulli.default'".
        why: what is wrong with it, a clause: "reads values of a tensor".
        advice: what to do instead, in whole sentences.
        place: where it is; None where it belongs to no line.
        number: how many operators were recorded before it; orders problems of different sources.
    """

    what: str
    why: str
    advice: str
    place: Place | None = None
    number: int = 0


class Problems:
    """The problems found so far; the same construct at the same line counts once, with all its layers."""

    def __init__(self) -> None:
        self._found: dict[tuple[str, str], list[Problem]] = {}

    def __bool__(self) -> bool:
        return bool(self._found)

    def add(self, problem: Problem) -> None:
        """Take a problem in."""
        where = problem.place.where if problem.place is not None else ""
        self._found.setdefault((problem.what, where), []).append(problem)

    def add_unless_known(self, problem: Problem) -> None:
        """Take a problem in, unless another one is known at its line: it may be what followed from that one."""
        places = {p.place.where for group in self._found.values() for p in group if p.place is not None}
        if problem.place is None or problem.place.where not in places:
            self.add(problem)

    def update(self, others: Problems) -> None:
        """Take in all problems of another collection."""
        for group in others._found.values():
            for problem in group:
                self.add(problem)

    def copy(self) -> Problems:
        """The same problems, which a later one is not added to."""
        made = Problems()
        made._found = {key: list(group) for key, group in self._found.items()}
        return made

    def become(self, others: Problems) -> None:
        """Hold exactly the problems of another collection."""
        self._found = {key: list(group) for key, group in others._found.items()}

    def beyond(self, others: Problems) -> list[str]:
        """The texts of those that another collection does not have."""
        more = Problems()
        for key, group in self._found.items():
            for problem in group[len(others._found.get(key, ())) :]:
                more.add(problem)
        return more.texts()

    def texts(self) -> list[str]:
        """One line each, in the order of the forward."""
        groups = sorted(self._found.values(), key=lambda group: group[0].number)
        return [_text(group) for group in groups]


def _text(group: list[Problem]) -> str:
    first = group[0]
    text = first.what
    if first.place is not None:
        names = list(dict.fromkeys(p.place.layer for p in group if p.place is not None and p.place.layer))
        layers = ", ".join(f"'{name}'" for name in names)
        code = f" (`{first.place.code}`)" if first.place.code else ""
        text += f" at {first.place.where}{code}"
        text += f", layer{'s' if len(names) > 1 else ''} {layers}" if names else ""
        text += ":" if not first.why.startswith("is ") else ""
    return f"{text[0].upper()}{text[1:]} {first.why}. {first.advice}"
