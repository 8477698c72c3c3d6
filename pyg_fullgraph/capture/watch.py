"""`Watch`: sees every call of a tensor function that a traced forward makes, before torch does.

* Functions that fake tensors cannot run but that have an exact form get it: the operators of torch_scatter
  (`capture.scatter`) and sparse matrices (`capture.sparse`).
* Functions that hand values of a tensor to Python (`if tensor`, `tolist()`, `numpy()`) are refused with the
  user's line; checks that only raise are left out, and told (`capture.asserted`), or made at each call where they
  are about sizes (`capture.required`).
* What is refused is written down here, not just raised: user code may catch an exception, but not the record.

A trace that is refused is run once more to find what else is wrong; it then *guesses* instead of raising. Its
result is thrown away.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from types import FrameType
from typing import Any, NoReturn

import sympy
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import _disable_current_modes
from torch_geometric.utils import coalesce

from pyg_fullgraph.capture.asserted import harmless_answer, is_discarded
from pyg_fullgraph.capture.failures import BRANCH_ADVICE, NUMBER_ADVICE, ONLY_IN_A_TRACE, explain_failure
from pyg_fullgraph.capture.modules import replaced
from pyg_fullgraph.capture.problems import Problem, Problems
from pyg_fullgraph.capture.required import Required
from pyg_fullgraph.capture.where import Tracker, inside_forward
from pyg_fullgraph.errors import CaptureError
from pyg_fullgraph.graph.convert import SPARSE_LAYOUTS

#: Stands in for a function: called as `replacement(watch, function, args, kwargs)`.
Replacement = Callable[["Watch", Any, tuple[Any, ...], dict[str, Any]], Any]

_DECIDES = (
    "asks for the truth of a value that depends on the data, and one program has to serve all graphs",
    BRANCH_ADVICE,
)
_READS = "gives Python the values of a tensor, and one program has to serve all graphs"
_EITHER_WAY = {coalesce.__code__: False}  # a shortcut for edges without duplicates; the long way gives the same


class Watch(TorchFunctionMode):
    """The torch function mode of one trace.

    Args:
        model: the traced model.
        tracker: names the running code.
        replacements: what to call in place of a function, an operator or all operators of a namespace (its name).
        guess: go on with a guess where the trace must be refused.
        values: learns of tensors outside of the trace whose values the forward turns into numbers of Python.
    """

    def __init__(
        self,
        model: torch.nn.Module,
        tracker: Tracker,
        replacements: Mapping[Any, Replacement],
        guess: bool = False,
        values: list[Tensor] | None = None,
    ) -> None:
        super().__init__()
        self.model, self.tracker, self.guess = model, tracker, guess
        self.values = [] if values is None else values
        self.problems = Problems()
        self.notes: list[str] = []
        self.guessed = False
        self.count = 0  # operators recorded so far
        self.relied: dict[tuple[sympy.Expr, bool], str] = {}
        self.required = Required()
        self._replacements = {**_READERS, **replacements}

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func in _READ_OUTSIDE and args and all(_is_outside(arg) for arg in args if isinstance(arg, Tensor)):
            self.values += [arg for arg in args if isinstance(arg, Tensor)]
            with _disable_current_modes():
                return func(*args, **kwargs)
        if any(_is_stray_matrix(value) for value in (*args, *kwargs.values())):
            what, why = (
                "a sparse matrix",
                "is neither an argument nor held by a module, so its entries would not be read again",
            )
            self.refuse(what, why, "Pass it to forward, or keep it on the model: self.adj = adj.")
        replacement = self._replacements.get(func) or self._replacements.get(getattr(func, "namespace", None))
        replacement = replacement or self._replacements.get(_namespace(func))
        try:
            return func(*args, **kwargs) if replacement is None else replacement(self, func, args, kwargs)
        except ONLY_IN_A_TRACE as error:
            called = getattr(func, "__name__", str(func))
            problem = explain_failure(error, self.tracker, self.model, self.count, self.tracker.place(), called)
            self.problems.add(problem)
            raise

    # Refusing -------------------------------------------------------------------------------------------------

    def refuse(self, what: str, why: str, advice: str) -> NoReturn:
        """Write a problem of the running line down and raise it.

        Raises:
            CaptureError: always.
        """
        problem = Problem(what, why, advice, self.tracker.place(), self.count)
        self.problems.add(problem)
        one = Problems()
        one.add(problem)
        raise CaptureError(one.texts())

    def guess_or_refuse(self, guess: Any, what: str, why: str, advice: str) -> Any:
        """Write a problem down, and return `guess` where only problems are looked for."""
        if not self.guess:
            self.refuse(what, why, advice)
        self.problems.add(Problem(what, why, advice, self.tracker.place(), self.count))
        self.guessed = True
        return guess

    def note(self, text: str) -> None:
        """Tell the user something about the running line."""
        self.notes.append(f"{text} at {self.tracker.place().where}")

    # Decisions ------------------------------------------------------------------------------------------------

    def decide(self) -> bool:
        """The truth value of a tensor that the running line asks for."""
        frames = list(inside_forward())[1:]
        frames = frames[next(i for i, f in enumerate(frames) if f.f_code.co_filename != __file__) :]
        if frames[0].f_code in _EITHER_WAY:
            return _EITHER_WAY[frames[0].f_code]
        answer = harmless_answer(frames)
        if answer is None:
            return self.guess_or_refuse(False, "a decision of Python", *_DECIDES)
        self._left_out()
        return answer

    def _left_out(self) -> None:
        self.note("a check that depends on the data is not part of the captured program: it is not made")

    def asked(self, frame: FrameType, question: Any) -> bool | int | float | None:
        """The answer to a question about a symbolic number that depends on the data; see `capture.guards`."""
        if isinstance(question, sympy.Symbol) or not isinstance(question, sympy.logic.boolalg.Boolean):
            real = not question.is_integer
            what = f"a number found in the data ({question})"
            return self.guess_or_refuse(1.0 if real else 1, what, "is used as a plain number of Python", NUMBER_ADVICE)
        frames = list(inside_forward())[1:]  # without this one, whose list would hold itself
        answer = harmless_answer(frames[frames.index(frame) :])
        if answer is None and self.required.compares_with_number(question):
            self.relies_on(question, isinstance(question, sympy.Ne))  # of any other size; this one is told apart
            return isinstance(question, sympy.Ne)
        if answer is None:
            return self.guess_or_refuse(False, "a decision of Python", *_DECIDES)
        if not self.required.take(question, answer, self.tracker.place()):
            self._left_out()
        return answer

    def relies_on(self, question: sympy.Expr, answer: bool) -> None:
        """Remember what a branch of the forward took for granted of the sizes; see `Traced.differs`."""
        self.relied.setdefault((question, answer), self.tracker.place().where)


def _is_stray_matrix(value: Any) -> bool:
    """Whether a value is a real sparse tensor: those of arguments and attributes have stand-ins."""
    return type(value) in (Tensor, torch.nn.Parameter) and value.layout in SPARSE_LAYOUTS


def _namespace(func: Any) -> str | None:
    """The name before `::` of an operator, for packets of overloads too."""
    name = getattr(func, "_qualified_op_name", None)
    return name.split("::")[0] if isinstance(name, str) else None


# What hands values of a tensor to Python ----------------------------------------------------------------------


def _decision(watch: Watch, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    """`if tensor`, and what is a decision in itself: `torch.equal`, `3 in tensor`."""
    return watch.decide()


def _item(watch: Watch, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """`tensor.item()`: a symbolic number."""
    number = func(*args, **kwargs)
    if isinstance(number, torch.SymInt):
        number.node.shape_env.read_from_data(number)
    return number


def _number(kind: type) -> Replacement:
    """`int(tensor)` and the like, where they are not replaced by symbolic numbers: a plain number is wanted."""

    def replacement(watch: Watch, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        what = f"a tensor used as a Python {kind.__name__}"
        return watch.guess_or_refuse(kind(1), what, "depends on the data", NUMBER_ADVICE)

    return replacement


def _values(name: str, make: Callable[[Tensor], Any]) -> Replacement:
    """Functions that return all values of a tensor."""

    def replacement(watch: Watch, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        advice = "Compute with tensors, or do this outside of the model and pass the result."
        return watch.guess_or_refuse(make(args[0]) if watch.guess else None, f"`{name}`", _READS, advice)

    return replacement


def _some(tensor: Tensor) -> Tensor:
    """A real tensor of as many dimensions, two rows in place of a symbolic number of them."""
    return torch.zeros([size if isinstance(size, int) else 2 for size in tensor.shape], dtype=tensor.dtype)


def _real(make: Callable[[Tensor], Any]) -> Callable[[Tensor], Any]:
    def made(tensor: Tensor) -> Any:
        with _disable_current_modes():
            return make(_some(tensor))

    return made


def _diagonal(watch: Watch, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """`x.fill_diagonal_(value)`: torch asks for plain sizes and writes through a view; here through a mask."""
    x, value = args[0], args[1] if len(args) > 1 else kwargs["fill_value"]
    if x.dim() != 2 or kwargs.get("wrap", len(args) > 2 and args[2]):
        advice = "Write `torch.where(mask, value, x)` with a mask of the diagonal."
        return watch.guess_or_refuse(
            x, "`fill_diagonal_`", "of more than two axes, or wrapped, has no exact form", advice
        )
    row, column = (torch.arange(size, device=x.device) for size in x.shape)
    return x.masked_fill_(row.unsqueeze(1) == column, value)


def _text(watch: Watch, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> str:
    """`print(tensor)`: harmless, but it prints while tracing only, and no values."""
    if not is_discarded(inside_forward()):
        what, why = "the text of a tensor", "is kept, and shows values that depend on the data"
        watch.guess_or_refuse("", what, why, "Print it where it is made, or outside of the model.")
    watch.note("a tensor is printed: while tracing it has no values, and later runs do not print")
    shape = ", ".join(str(size) for size in args[0].shape)
    return f"<{str(args[0].dtype).removeprefix('torch.')}[{shape}] of the captured program>"


@contextlib.contextmanager
def reading(watch: Watch) -> Iterator[None]:
    """What a torch function mode does not see: `tolist` of a fake tensor, and the text of a symbolic number."""
    original = FakeTensor.tolist

    def tolist(self: FakeTensor) -> Any:
        if all(isinstance(size, int) for size in self.shape):
            return original(self)  # symbolic numbers, as many as everywhere
        return _values("tolist()", _real(lambda tensor: tensor.tolist()))(watch, None, (self,), {})

    def text(self: Any, spec: str) -> str:
        return str(self)  # `{loss.item():.3f}`

    with contextlib.ExitStack() as stack:
        stack.enter_context(replaced(FakeTensor, "tolist", tolist))
        for kind in (torch.SymInt, torch.SymFloat, torch.SymBool):
            stack.enter_context(replaced(kind, "__format__", text))
        yield


_READERS: dict[Any, Replacement] = {
    Tensor.__bool__: _decision,
    Tensor.is_nonzero: _decision,
    torch.is_nonzero: _decision,
    Tensor.equal: _decision,
    torch.equal: _decision,
    Tensor.allclose: _decision,
    torch.allclose: _decision,
    Tensor.__contains__: _decision,
    Tensor.item: _item,
    Tensor.__int__: _number(int),
    Tensor.__index__: _number(int),
    Tensor.__float__: _number(float),
    Tensor.__complex__: _number(complex),
    Tensor.numpy: _values("numpy()", _real(lambda tensor: tensor.numpy())),
    Tensor.__array__: _values("numpy.asarray(tensor)", _real(lambda tensor: tensor.numpy())),
    Tensor.__repr__: _text,
    Tensor.__format__: _text,
    Tensor.fill_diagonal_: _diagonal,
}


_READ_OUTSIDE = {*_READERS, Tensor.tolist}


def _is_outside(tensor: Tensor) -> bool:
    """Whether a tensor is no value of the trace: its values are there to be read."""
    return type(tensor) in (Tensor, torch.nn.Parameter, torch.nn.Buffer)


__all__ = ["Replacement", "Watch", "reading"]
