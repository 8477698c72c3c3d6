"""`Engine`: a model, captured once, that computes its exact output for all nodes of any graph."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from pyg_fullgraph.capture.batches import Traces, with_numbers
from pyg_fullgraph.capture.failures import as_capture_error
from pyg_fullgraph.capture.hooks import hidden_notes, named_submodules
from pyg_fullgraph.capture.raising import raise_program
from pyg_fullgraph.capture.reads import Reads
from pyg_fullgraph.capture.signature import Signature, bind
from pyg_fullgraph.capture.sparse import Held, assembled
from pyg_fullgraph.capture.state import ModelState, autocast_state
from pyg_fullgraph.capture.trace import Traced, trace
from pyg_fullgraph.errors import CallError, CaptureError, InputError
from pyg_fullgraph.front.attempts import Verification
from pyg_fullgraph.front.check import Check, compared
from pyg_fullgraph.front.of_model import OfModel, forward_arguments
from pyg_fullgraph.front.options import VERIFY, check_options
from pyg_fullgraph.front.ordinary import ordinary_layers
from pyg_fullgraph.front.own import Own
from pyg_fullgraph.front.own_rows import own_forward, own_instead, without_nodes
from pyg_fullgraph.front.versions import tell_untried
from pyg_fullgraph.ir import Program, needs_all_rows
from pyg_fullgraph.ops.forked import lock_whole_at_fork, num_threads, survives_fork
from pyg_fullgraph.passes import cut, optimise
from pyg_fullgraph.plan import StepCost, measure_machine, predict
from pyg_fullgraph.report import Report, explain, whole_notes
from pyg_fullgraph.runtime import Compiled, Progress, Run, Structure, make_home
from pyg_fullgraph.runtime.arrange import Arrangement
from pyg_fullgraph.runtime.indices import check_indices
from pyg_fullgraph.runtime.kept import Kept, Key
from pyg_fullgraph.runtime.ordered import NOTE, Orders
from pyg_fullgraph.runtime.receptive_field import receptive_field
from pyg_fullgraph.runtime.release import released
from pyg_fullgraph.runtime.results import check_out, copied, not_cached
from pyg_fullgraph.runtime.selection import Nodes, OutputRows
from pyg_fullgraph.runtime.spare import Spare
from pyg_fullgraph.runtime.store import TableStore
from pyg_fullgraph.runtime.workers import Workers

#: Held while a model is traced or its own forward runs to verify: a trace replaces tensors of the model, and torch's
#: tracing is not made for several threads.
_MODELS = lock_whole_at_fork()


@dataclass
class _Captured:
    """A traced call: its program for the sizes of the first graph, its schedule, and structures of graphs it ran on."""

    signature: Signature
    traced: Traced
    sizes: dict[str, int]
    skipped: tuple[str, ...]
    program: Program
    compiled: Compiled
    rows: OutputRows
    structures: Kept[Structure]
    arranged: Kept[tuple[Arrangement | None, str]]
    orders: Orders | None = None
    check: Check = field(default_factory=Check)


class Engine(OfModel):
    """Exact whole-graph inference of one model.

    The model is traced on the first call and re-used for graphs of any size; parameters are read at each call.

    Args:
        model: any `nn.Module` in eval mode. Kept by reference, left unchanged.
        threads: row blocks in flight; torch's number of threads if None.
        home: where values between supersteps live: "memory", or "mapped" for files the system may write out.
        verify: "auto" compares a few nodes with the model's own forward on the first call, "always" on every call,
            "off" never (True and False mean the last two).
        fallback: "error" raises `CaptureError` for a model that cannot be captured; "eager" runs its own forward.
        skip_passes: names of compiler passes to leave out (`pyg_fullgraph.passes.PIPELINE`), for debugging.
        order: the order of the nodes that a call computes in: None for the given one, "rcm" (reverse Cuthill-McKee),
            "community", or "auto" for "rcm" where measured reuse of the rows predicts that its cost returns. Results
            are always in the given order. It is computed once per graph; a model for which it cannot be shown that
            the nodes' order does not matter, and calls with `nodes`, keep the given order. `notes` tell.
        calls: how many calls "auto" may expect on the same graph.
        outputs: names of submodules; a call then returns `(result, {name: what the submodule returned})`, a list where
            forward calls it several times.
        dims: argument name -> what its axes count, `{"x": ("N", 16)}`, where that is not to be inferred. The names
            are those that `explain` prints.

    Raises:
        InputError: an option has no such value.
    """

    def __init__(
        self,
        model: torch.nn.Module,
        *,
        threads: int | None = None,
        home: str = "memory",
        verify: bool | str = "auto",
        fallback: str = "error",
        skip_passes: Collection[str] = (),
        order: str | None = None,
        calls: int = 1,
        dims: Mapping[str, tuple[int | str, ...]] | None = None,
        outputs: str | Collection[str] = (),
    ) -> None:
        check_options(
            threads=threads, home=home, verify=verify, fallback=fallback, skip_passes=skip_passes, order=order,
            calls=calls, dims=dims,
        )  # fmt: skip
        self.model, self.order, self.calls = model, order, calls
        self.threads, self.home, self.fallback = threads, home, fallback
        self.verify = VERIFY[verify]
        self.skip_passes = tuple(skip_passes)
        self.dims = dict(dims or {})
        self.outputs = named_submodules(model, outputs)
        self.notes: list[str] = []
        self.verification: Verification | None = None
        self._forget()

    def _forget(self) -> None:
        """As before the first call."""
        self._captured: dict[tuple[Any, ...], _Captured] = {}
        self._refused: dict[tuple[Any, ...], list[str]] = {}  # the problems found, so that no call looks twice
        self._last: Signature | None = None
        self._state, self._held, self._traces = ModelState(_MODELS), Held(), Traces()
        self._workers, self._spare = Workers(), Spare()

    def __getstate__(self) -> dict[str, Any]:
        """The model and the options: a copy, or an engine sent to another process, traces at its own first call."""
        return {name: value for name, value in vars(self).items() if not name.startswith("_")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._forget()

    def __repr__(self) -> str:
        return f"Engine({type(self.model).__name__}, traced calls: {len(self._captured)})"

    @released()
    @survives_fork
    @ordinary_layers()
    @torch.inference_mode(False)  # it belongs to the caller's thread, and blocks run in others
    @torch.no_grad()
    def __call__(
        self,
        *args: Any,
        nodes: Any = None,
        progress: bool = False,
        out: Tensor | None = None,
        **kwargs: Any,
    ) -> Any:
        """The output of `model(*args, **kwargs)`.

        Args:
            args, kwargs: as for the model's forward; or a `Data`, and what else forward takes.
            nodes: rows wanted, int64 [M] or bool [N], or a dictionary of these by kind of node; the work is restricted
                to their in-neighbourhood where the model allows it. All rows if None.
            progress: show a tqdm bar over supersteps and rows.
            out: tensor that the result is copied to (and returned), for a model that returns one tensor.

        Returns:
            What forward returns (a graph that lacks all nodes, or all of one type, is given to the model's own
            forward: there is nothing to compute, and layers branch on it; so is one with none or one of some kind
            for which the forward takes another branch than it took in the trace, or of a size that it asks for by
            number); with `nodes`, every tensor that has one row per node has only these rows.

        Raises:
            InputError: the model is in training mode, or the arguments do not fit each other.
            GraphError: an edge names a node that does not exist.
            CaptureError: the forward has no exact capture, and `fallback` is "error".
            FullGraphMismatch: verification failed.
        """
        args, kwargs = forward_arguments(self.model, args, kwargs)
        wanted = Nodes.of(nodes)
        try:
            state, signature, tensors = self._bind(args, kwargs)
        except CaptureError as error:
            return self._by_itself(
                error, functools.partial(own_forward, self.model, args, kwargs, wanted, outputs=self.outputs), out
            )
        sizes = signature.sizes(tensors)
        own = functools.partial(own_forward, self.model, args, kwargs, wanted, signature, tensors, self.outputs)
        if without_nodes(sizes) or not signature.decided:  # layers branch on it; one node or edge tells nothing
            return self._into(out, own())
        try:
            captured = self._capture(signature, state, tensors)
        except CaptureError as error:
            return self._by_itself(error, own, out)
        branch = captured.traced.differs(sizes)
        if branch is not None:
            result = self._into(out, own())
            self._note(
                f"ran the model's own forward on a graph that takes another branch at {branch}: it has none or one of "
                "some kind, or exactly as many as are asked for there"
            )
            return result
        check_out(out, captured.program)
        hidden = captured.traced.hidden
        full = captured.traced.packing.of_simple(self._ordered(captured, tensors, wanted, progress))
        result = hidden.of(full)
        if captured.check.due(self.verify):
            with _MODELS:
                self._verify(captured, tensors, result, wanted)
        self._last = signature
        try:
            hidden.tell(self.model, args, kwargs, full)
        except CaptureError as error:
            return self._by_itself(error, own, out)
        return self._into(out, result)

    def _into(self, out: Tensor | None, result: Any) -> Any:
        """The result, what forward returns of it in `out` where that is given."""
        return (copied(out, result[0]), result[1]) if self.outputs else copied(out, result)

    def _by_itself(self, error: CaptureError, own: Callable[[], Any], out: Tensor | None) -> Any:
        """The model's own forward, where the call cannot be captured and `fallback` says so."""
        if self.fallback == "error":
            raise error
        result = self._into(out, own_instead(error, own))
        self._note(f"ran the model's own forward: {error}")
        return result

    def _note(self, text: str, instead_of: str | None = None) -> None:
        """Tell it once, in the place of an earlier note that begins like that: an engine may see many graphs."""
        for number, earlier in enumerate(self.notes):
            if earlier == text or (instead_of is not None and earlier.startswith(instead_of)):
                self.notes[number] = text
                return
        self.notes.append(text)

    def _verify(self, captured: _Captured, tensors: list[Tensor], result: Any, nodes: Nodes | None) -> None:
        """Compare a few rows with the model's own forward; raises `FullGraphMismatch`."""
        signature = captured.signature

        def again(*args: Any, **kwargs: Any) -> Any:
            smaller, changed = bind(self.model, args, kwargs, like=signature, places=signature.places)
            if smaller.key != signature.key or captured.traced.differs(smaller.sizes(changed)) is not None:
                return Own(self.model, hidden=captured.traced.hidden)(lambda: (args, kwargs))
            graph = Key.of(signature, changed, 1)
            result = self._run(captured, changed, None, False, graph)  # in the given order: the graph is small
            return captured.traced.hidden.of(captured.traced.packing.of_simple(result))

        numbers = None
        if nodes is not None:
            structure = self._structure(captured, tensors, Key.of(signature, tensors, self._threads()))
            numbers = nodes.on(captured.rows, structure.size_of).by_space(captured.program)
        self.verification = None  # of this call, or of none
        self.verification = captured.check.run(
            functools.partial(  # an error would keep a lambda, and that the result
                compared, self.model, signature, captured.compiled, tensors, result, again, numbers, captured.traced
            )
        )
        if note := Check.note(self.verification):
            self._note(note)

    @survives_fork
    def explain(self, *args: Any, **kwargs: Any) -> Report:
        """How a call runs: supersteps, kernels, bytes and peak memory, and predicted against measured seconds.

        The first report of a process measures the machine's rates, which takes about a second and 384 MiB. Measured
        seconds are those of the last call for all nodes on a graph of these very contents: call the engine before.

        Args:
            args, kwargs: as for the model's forward; or a `Data`, and what else forward takes.
        """
        args, kwargs = forward_arguments(self.model, args, kwargs)
        state, signature, tensors = self._bind(args, kwargs)
        if not signature.decided:
            raise InputError("A graph of one node or one edge tells too little to explain; pass a larger one.")
        captured = self._capture(signature, state, tensors)
        graph = Key.of(signature, tensors, self._threads())
        arrangement, note = self._arrangement(captured, tensors, graph)
        if arrangement is not None:
            tensors, graph = arrangement.arranged(signature.names, tensors), graph.also(arrangement.number)
        structure = self._structure(captured, tensors, graph)
        self._last, compiled = signature, captured.compiled
        plan = structure.planned(functools.partial(compiled.plan, structure))
        keys = sorted(compiled.code)
        return explain(
            captured.program,
            compiled.schedule,
            predict(captured.program, compiled.schedule, structure.size_of, self._threads(), plan),
            [compiled.code[key].kernels for key in keys],
            [compiled.code[key].text for key in keys],
            structure.nbytes() + (0 if arrangement is None else arrangement.nbytes),
            optimise(raise_program(captured.traced, captured.sizes), captured.skipped, record=True),
            [*whole_notes(captured.program, compiled.schedule, compiled.joined), *([note] if note else [])],
            measure_machine(self._threads()),
            structure.measured,
            plan,
        )

    @property
    def hops(self) -> int:
        """Over how many edges a row of the output can see."""
        return max((item.compiled.schedule.hops for item in self._captured.values()), default=0)

    @property
    def has_global_reduction(self) -> bool:
        """True where a traced call needs a value from all rows (a graph-wide norm, say)."""
        return any(needs_all_rows(item.program, item.compiled.schedule) for item in self._captured.values())

    # -- one call ---------------------------------------------------------------------------------------------

    def _bind(self, args: Any, kwargs: dict[str, Any]) -> tuple[int, Signature, list[Tensor]]:
        """The model's state, and the call taken apart: its arguments, and matrices in attributes of the model."""
        state = self._state.number(self.model)
        places = self._held.places(self.model, state)
        with _MODELS if places else contextlib.nullcontext():  # a trace puts stand-ins in these places
            return state, *bind(self.model, args, kwargs, dims=self.dims, like=self._last, places=places)

    def _threads(self) -> int:
        return self.threads or num_threads()

    def _capture(self, signature: Signature, state: int, tensors: list[Tensor]) -> _Captured:
        """The traced call; `state` is the model's, and passes choose by the sizes of the first graph's tensors."""
        key = (signature.key, state, autocast_state())
        found = self._captured.get(key)
        if found is None:
            with _MODELS:
                key = (signature.key, self._state.number(self.model), key[2])  # nobody traces it now
                numbers = with_numbers(signature, tensors) if key in self._refused else None
                if key in self._refused and numbers is None:
                    raise CaptureError(self._refused[key])
                if numbers is None and key not in self._captured:  # another thread may have been first
                    try:
                        key = self._traced(signature, tensors, key)
                    except CaptureError:
                        numbers = with_numbers(signature, tensors)
                        if numbers is None:
                            raise
                if numbers is not None:  # of graphs: this forward wants plain ones
                    return self._capture(numbers, state, tensors)
                found = self._captured[key]
        return found

    def _traced(self, signature: Signature, tensors: list[Tensor], key: tuple[Any, ...]) -> tuple[Any, ...]:
        """Trace the call and file it; returns its key, which names what this trace has read as well."""
        tell_untried()
        reads, sizes, skipped = Reads(), signature.sizes(tensors), self.skip_passes
        if any(tensor.device.type != "cpu" for tensor in tensors):
            skipped = (*skipped, "halves")  # it is about the processor
        try:
            traced = self._traces.of(trace, self.model, signature, sizes, self.outputs, reads, key[1:])
            with as_capture_error(self.model):
                program = raise_program(traced, sizes)
                optimise(program, skipped)
                compiled = Compiled(program, cut(program))
        except CaptureError as error:
            key = self._learned(key, reads)
            if not isinstance(error, CallError):  # which is about this call: another of its kind has other shapes
                self._refused[key] = error.problems
            raise
        key = self._learned(key, reads)
        told = whole_notes(program, compiled.schedule, compiled.joined, costly=True)
        for note in (*told, *hidden_notes(traced.hidden, traced.writes)):
            self._note(note)
        rows = OutputRows(program, traced.hidden.leaves)
        self._captured[key] = _Captured(signature, traced, sizes, skipped, program, compiled, rows, Kept(), Kept())
        return key

    def _learned(self, key: tuple[Any, ...], reads: Reads) -> tuple[Any, ...]:
        """The key of a trace, now that it is known what it reads; traces of states that are gone are dropped."""
        if self._traces.served:  # nothing was traced
            return key
        number = self._state.learn(self.model, reads.found)
        self._captured = self._state.kept(self._captured, key[1])
        self._refused = self._state.kept(self._refused, key[1])
        self._traces.filed = self._state.kept(self._traces.filed, key[1])
        for note in self._state.notes:
            self._note(note)
        return key[0], number, key[2]

    def _structure(self, captured: _Captured, tensors: list[Tensor], graph: Key) -> Structure:
        """The graph's structure: from the cache where a graph of these very contents was seen."""
        structure = captured.structures.get(graph)
        if structure is not None:
            return structure
        captured.traced.check(captured.signature.sizes(tensors))
        structure = Structure(captured.program, dict(zip(captured.signature.names, tensors, strict=True)))
        sizes = captured.signature.sizes(tensors)
        captured.traced.check_ranges(tensors, sizes)
        check_indices(captured.program, structure)
        captured.traced.check_ranges(tensors, sizes, ends=True)
        captured.compiled.prepare(structure)
        captured.structures.put(graph, structure)
        return structure

    def _ordered(self, captured: _Captured, tensors: list[Tensor], nodes: Nodes | None, progress: bool) -> Any:
        """The result, computed with the nodes in another order where that was asked for and is possible."""
        graph = Key.of(captured.signature, tensors, self._threads())
        if self.order is None or nodes is not None:
            return self._run(captured, tensors, nodes, progress, graph)
        arrangement, note = self._arrangement(captured, tensors, graph)
        if arrangement is None:
            result = self._run(captured, tensors, None, progress, graph)
        else:
            moved = arrangement.arranged(captured.signature.names, tensors)
            result = arrangement.restored(self._run(captured, moved, None, progress, graph.also(arrangement.number)))
        self._note(note, instead_of=NOTE)
        return result

    def _arrangement(self, captured: _Captured, tensors: list[Tensor], graph: Key) -> tuple[Arrangement | None, str]:
        """The nodes of the graph in another order, None for the given one; and why."""
        if self.order is None:
            return None, ""
        graph = graph.also(self.order, self.calls)
        found = captured.arranged.get(graph)
        if found is None:
            if captured.orders is None:
                captured.orders = Orders(raise_program(captured.traced))
            inputs = dict(zip(captured.signature.names, tensors, strict=True))

            def predicted() -> list[StepCost]:
                sizes = Structure(captured.program, inputs).size_of
                return predict(captured.program, captured.compiled.schedule, sizes, self._threads())

            found = captured.orders.choose(self.order, self.calls, inputs, predicted)
            captured.arranged.put(graph, found)
        return found

    def _run(self, captured: _Captured, tensors: list[Tensor], nodes: Nodes | None, progress: bool, graph: Key) -> Any:
        structure = self._structure(captured, tensors, graph)
        leaves = captured.signature.leaves
        inputs = dict(zip((leaf.name for leaf in leaves), tensors, strict=True))
        limits, position = None, None
        picked = None if nodes is None else nodes.on(captured.rows, structure.size_of)
        if picked is not None:
            found = None
            if picked.asked is not None:
                found = receptive_field(captured.compiled, structure, inputs, picked.asked)
            if found is not None:
                structure, inputs, limits, position = found.structure, found.inputs, found.limits, found.position
        device = tensors[0].device if tensors else torch.device("cpu")
        plan = structure.planned(functools.partial(captured.compiled.plan, structure, limits))
        store = TableStore(make_home(self.home, device, self._spare))
        steps = len(captured.compiled.schedule.steps)
        try:
            run = Run(
                captured.compiled,
                structure,
                plan,
                inputs,
                lambda name: self._parameter(captured, inputs, name).detach(),
                store,
                self._threads() if device.type == "cpu" else 1,
                Progress(progress, steps),
                self._workers,
            )
            result = assembled(not_cached(run.run(), structure, tensors))
            structure.measured = tuple(run.seconds)
        finally:
            store.close()
        return result if picked is None else picked.rows_of(result, position)

    def _parameter(self, captured: _Captured, inputs: Mapping[str, Tensor], name: str) -> Tensor:
        if name.startswith("@"):
            return inputs[name[1:]]
        held = captured.traced.held.get(name)
        return self._state.tensor(name) if held is None else held
