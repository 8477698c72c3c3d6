"""Apply local rewrite rules until none fits: the driver that several passes share."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from pyg_fullgraph.ir import Program, Stage, Value

#: Looks at one value and rewrites the program where it fits; True where it did.
Rule = Callable[[Program, Value], bool]

_ROUNDS = 1000  # far more than any model needs; only a rule that undoes another gets there


def rewrite(program: Program, rules: Sequence[Rule], stages: tuple[Stage, ...] = (Stage.DATA,)) -> None:
    """Try every rule on every value of some stages, again and again until nothing changes.

    Args:
        program: changed in place; dead values are removed.
        rules: tried in order; the first that fits a value ends its turn.
        stages: only values of these stages are looked at.
    """
    for _ in range(_ROUNDS):
        changed = False
        for name in list(program.values):
            value = program.values.get(name)
            if value is not None and value.stage in stages:
                changed |= any(rule(program, value) for rule in rules)
        if not changed:
            program.drop_dead()
            return
    raise AssertionError("two rewrite rules undo each other")


def redirect(program: Program, value: Value, to: str) -> bool:
    """Have the users of `value` use the value named `to` instead; always True."""
    program.substitute({value.name: to})
    del program.values[value.name]
    return True
