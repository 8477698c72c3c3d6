"""Every error a user of pyg_fullgraph can meet: one class per failure, each saying what, where and what to do."""

from __future__ import annotations


class FullGraphError(Exception):
    """Base of all errors raised by pyg_fullgraph."""


class CaptureError(FullGraphError, RuntimeError):
    """The model's forward could not be captured exactly.

    Args:
        problems: one text per problem found, each naming the operator, the layer and the user's line.
    """

    def __init__(self, problems: list[str] | str) -> None:
        self.problems = [problems] if isinstance(problems, str) else list(problems)
        super().__init__("\n".join(self.problems))


class FullGraphMismatch(FullGraphError, RuntimeError):
    """Verification found rows that differ from the model's own forward."""


class GraphError(FullGraphError, ValueError):
    """The graph is malformed: an index out of range, a wrong shape or a wrong dtype."""


class InputError(FullGraphError, ValueError):
    """An argument of the call does not fit the model or the graph."""


class CallError(CaptureError, InputError):
    """The model's forward refuses these arguments: it cannot be captured for this call, nor run by itself."""


class KernelError(FullGraphError, RuntimeError):
    """The C++ kernels were asked for and cannot serve."""


class SpaceError(FullGraphError, OSError):
    """A file of ours could not be written: the disk is full, say."""


class OperatorError(FullGraphError, ValueError):
    """An operator got an argument of a wrong shape, type or name."""
