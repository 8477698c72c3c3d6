"""Where an error came from is told for any code and any owner, on every version of Python."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from pyg_fullgraph.capture.where import _describe


class Ambiguous:
    """As NumPy arrays and sparse matrices: it is neither true nor false."""

    def __bool__(self) -> bool:
        raise ValueError("ambiguous")


@pytest.mark.parametrize(
    "qualname, owner, expected",
    [
        ("Net.<locals>.forward", Ambiguous(), "net.py:7 in Net.forward"),
        (None, Ambiguous(), "net.py:7 in Ambiguous.forward"),
        (None, None, "net.py:7 in forward"),
        (None, 0, "net.py:7 in int.forward"),
    ],
)
def test_the_owner_is_never_asked_whether_it_is_true(qualname: str | None, owner: object, expected: str) -> None:
    code = SimpleNamespace(co_filename="/some/where/net.py", co_name="forward")
    if qualname is not None:
        code.co_qualname = qualname
    assert _describe(code, 7, owner) == expected
