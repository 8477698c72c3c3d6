"""`trace`: run a model's own forward on fake tensors and record it as a graph of functional ATen operators.

Every space of the signature is one *unbacked* symbolic size (no guard, no specialisation on the example), parameters,
buffers and plain tensor attributes are lifted to inputs by `functional_call` so that they stay live (tensors found
elsewhere are lifted afterwards, `capture.adopt`), and the adapters of `capture.shims` stand in for what fake tensors
cannot answer. The route was chosen by a comparison over 121 models against torch.compile, torch.export and torch.fx;
plain torch.fx inside layers gave silently wrong graphs.
"""

from __future__ import annotations

import contextlib
import enum
import gc
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import sympy
import torch
import torch.utils._pytree as pytree
from torch import Tensor, fx
from torch._functorch import config as functorch_config
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.fx.experimental.proxy_tensor import get_proxy_mode, make_fx

from pyg_fullgraph.capture.adopt import adopt
from pyg_fullgraph.capture.clean import clean, drop_dead
from pyg_fullgraph.capture.failures import as_capture_error, explain_failure, first_line, first_of, only_in_a_trace
from pyg_fullgraph.capture.functionalize import Functionalized, functionalize
from pyg_fullgraph.capture.guards import Guards
from pyg_fullgraph.capture.hooks import Hidden, Recorder
from pyg_fullgraph.capture.lazy import Untouched
from pyg_fullgraph.capture.merged import merging_names
from pyg_fullgraph.capture.mistakes import mistake, mixed_product, types_of
from pyg_fullgraph.capture.modules import check_ready, hook_problems, lifted_tensors, plain_tensors, preserved
from pyg_fullgraph.capture.origins import origins, sizes_from_values
from pyg_fullgraph.capture.problems import Problem, Problems
from pyg_fullgraph.capture.quiet import quiet
from pyg_fullgraph.capture.ranges import Range, check_ranges, ranges
from pyg_fullgraph.capture.reads import Reads
from pyg_fullgraph.capture.reads import recorded as recorded_reads
from pyg_fullgraph.capture.repeated import many_alike
from pyg_fullgraph.capture.required import Required, misshapen
from pyg_fullgraph.capture.returned import Packing, unpack
from pyg_fullgraph.capture.scalars import numbers_to_tensors
from pyg_fullgraph.capture.scatter import SCATTER, scatter_names
from pyg_fullgraph.capture.shims import adapted, uncache
from pyg_fullgraph.capture.signature import Leaf, Signature, of_number
from pyg_fullgraph.capture.sparse import SPARSE, in_place, sparse_names, stand_ins, taken_apart
from pyg_fullgraph.capture.standins import STAND_INS
from pyg_fullgraph.capture.walk import Walk
from pyg_fullgraph.capture.watch import Replacement, Watch, reading
from pyg_fullgraph.capture.where import Tracker
from pyg_fullgraph.capture.written import Writes
from pyg_fullgraph.errors import CallError, CaptureError, InputError

aten = torch.ops.aten

_ONE_TRACE_AT_A_TIME = threading.RLock()  # the adapters touch names that all threads share

REPLACEMENTS: dict[Any, Replacement] = {**STAND_INS, **SCATTER, **SPARSE}

#: What is returned as it is, besides None.
_CONSTANTS = (bool, int, float, complex, str, bytes, enum.Enum, torch.dtype, torch.device)

_MOST_WAYS = 64  # sizes of graphs for which it is kept whether they take another branch
_MOST_NODES = 2**31 - 1  # bounds that let a forward check `num_nodes * num_nodes` against int64
_MOST_EDGES = 2**40


@dataclass
class Traced:
    """A captured forward.

    Args:
        graph: functional operators only, dead code removed. Every node has `meta["val"]` (a fake tensor or
            symbolic number), `meta["where"]` ("file.py:line in Class.method <- the user's line") and
            `meta["layer"]`.
        param_names: placeholder name -> name of the parameter, buffer or other tensor, as `capture.walk` names places.
        held: tensors outside of the model by name: they are read from the very object.
        input_names: placeholder name -> the leaf of the signature, in the order of its leaves.
        symbols: space name -> its size in the graph's shapes; an integer where the model fixes it.
        outputs: the return value of forward with nodes in place of tensors (and symbolic numbers), in tuples, lists and
            dictionaries.
        packing: makes of these the objects that forward returns.
        hidden: what else is computed, beside what forward returns.
        writes: names of what forward writes into that outlives the call.
        model_notes: what a user should know.
        constants: tensors that the forward made from Python numbers, by target of the graph's `get_attr`
            nodes.
        assumed: (question about sizes, answer) -> the line of a branch that it decided.
        numbers: as `symbols`, for numbers among the arguments that are sizes.
        required: checks of the forward that are made at each call.
        ranges: the rows that integer arguments select, checked for every graph.
        copies: sizes of the trace that are plain numbers for the programs made of it (`capture.batches`), by space.
    """

    graph: fx.Graph
    param_names: dict[str, str]
    input_names: dict[str, Leaf]
    symbols: dict[str, sympy.Expr]
    outputs: Any
    packing: Packing = field(default_factory=lambda: Packing(0))
    hidden: Hidden = field(default_factory=Hidden)
    writes: list[str] = field(default_factory=list)
    model_notes: list[str] = field(default_factory=list)
    constants: dict[str, Tensor] = field(default_factory=dict)
    held: dict[str, Tensor] = field(default_factory=dict)
    assumed: dict[tuple[sympy.Expr, bool], str] = field(default_factory=dict)
    numbers: dict[str, sympy.Symbol] = field(default_factory=dict)
    required: Required = field(default_factory=Required)
    ranges: tuple[Range, ...] = ()
    copies: dict[str, int] = field(default_factory=dict)
    _ways: dict[tuple[tuple[str, int], ...], str | None] = field(default_factory=dict, repr=False)

    def differs(self, sizes: dict[str, int]) -> str | None:
        """Where the forward takes another branch for a graph of these sizes than it took in the trace.

        Sizes of at least 2 are taken for granted, so `if edge_index.size(1) == 0` was decided in the trace; and so was
        `x.size(0) == 2`, for all sizes but that.

        Args:
            sizes: real size per space, from `Signature.sizes`.

        Returns:
            The line of the branch; None where all of them go the way of the trace.

        Raises:
            InputError: a check of the forward fails for these sizes.
        """
        sizes = {**sizes, **self.copies}
        self.required.check(list(self.input_names.values()), sizes)
        if min(sizes.values(), default=2) >= 2 and not self._told_apart:
            return None
        key = tuple(sizes.items())
        if key not in self._ways:
            if len(self._ways) >= _MOST_WAYS:
                self._ways.clear()
            self._ways[key] = self._way_of(sizes)
        return self._ways[key]

    @cached_property
    def _told_apart(self) -> bool:
        """Whether a branch was decided that a graph of some certain size of 2 or more takes the other way."""
        return any(isinstance(question, (sympy.Eq, sympy.Ne)) for question, _ in self.assumed)

    def _way_of(self, sizes: dict[str, int]) -> str | None:
        known = {
            symbol: sizes[space] for space, symbol in (self.required.symbols | self.numbers).items() if space in sizes
        }
        for (question, answer), where in self.assumed.items():
            if question.free_symbols <= known.keys() and bool(question.subs(known)) != answer:
                return where
        return None

    def check_ranges(self, tensors: Sequence[Tensor], sizes: Mapping[str, int], ends: bool = False) -> None:
        """Refuse integer arguments that select rows which do not exist.

        Args:
            tensors: of the signature's leaves.
            sizes: real size per space.
            ends: those that are a row of an argument (ends of edges), else all others.

        Raises:
            InputError: naming the argument, the entry and the range.
        """
        chosen = [item for item in self.ranges if item.is_row == ends]
        sizes = {**sizes, **self.copies}
        check_ranges(chosen, list(self.input_names.values()), tensors, self.required.symbols, sizes)

    def check(self, sizes: dict[str, int]) -> None:
        """Refuse a graph whose sizes this program cannot take.

        Args:
            sizes: real size per space, from `Signature.sizes`.

        Raises:
            InputError: a size differs from what a parameter fixes, or from another that the model equates it
                with.
        """
        first: dict[sympy.Expr, str] = {}
        sizes = {**sizes, **self.copies}
        for space, symbol in self.symbols.items():
            if symbol.is_Integer and sizes[space] != int(symbol):
                for leaf in self.input_names.values():
                    if space in leaf.dims and misshapen(leaf, sizes):
                        raise InputError(misshapen(leaf, sizes))
                raise InputError(
                    f"The model has parameters for exactly {symbol} rows of {space}, this graph has "
                    f"{sizes[space]}. "
                    "A transductive model runs only on the graph it was built for."
                )
            other = first.setdefault(symbol, space)
            if not symbol.is_Integer and sizes[space] != sizes[other]:
                raise InputError(
                    f"The model combines {other} and {space} row by row, so they must have the same size; "
                    f"got {sizes[other]} and {sizes[space]}."
                )

    def module(self) -> fx.GraphModule:
        """The graph as a callable of (parameters by name..., inputs...) in placeholder order; for tests and
        debugging.
        """
        return fx.GraphModule(dict(self.constants), self.graph)


def trace(
    model: torch.nn.Module,
    signature: Signature,
    sizes: Mapping[str, int] | None = None,
    outputs: tuple[str, ...] = (),
    reads: Reads | None = None,
    look_further: bool = True,
) -> Traced:
    """Capture `model.forward` for calls of this signature.

    Args:
        model: in eval mode. It is left exactly as it was.
        signature: from `capture.signature.bind`.
        sizes: of the call that it is captured for.
        outputs: submodules whose outputs are computed beside the result, see `capture.hooks`.
        reads: learns what the forward reads beside its arguments, also where the trace is refused.
        look_further: trace a forward that must be refused once more, to find all problems.

    Raises:
        InputError: the model is in train mode, its forward uses a lazy parameter that is not initialised, a check that
            it makes fails for these sizes, or it does not call one of `outputs`.
        CallError: the forward raises, for arguments of another type or shape than it takes.
        CaptureError: the forward does something that has no exact capture; its `problems` are all that were
            found, each with the construct, the layer and the line.
    """
    check_ready(model)
    reads = Reads() if reads is None else reads
    with _ONE_TRACE_AT_A_TIME, as_capture_error(model):
        before = Walk(model)
        problems = hook_problems(model, before.modules)
        attempt = _Trace(model, signature, before, reads, outputs)
        try:
            recorded = attempt.record()
            attempt.watch.required.check(signature.leaves, sizes or {})
            if recorded is None:
                attempt.untouched.check()
            if recorded is None and (text := mistake(model, signature, sizes or {}, attempt.error)):
                raise CallError(f"{text} (The forward raises: {first_line(attempt.error)})") from attempt.error
            if recorded is not None:
                traced = attempt.finish(recorded)
                if traced is not None and not problems:
                    _check_products(model, signature, sizes or {}, traced)
                    return traced
            attempt.untouched.check()
            if recorded is None and isinstance(attempt.error, InputError):
                raise attempt.error
            problems.update(_look_further(model, signature, attempt) if look_further else attempt.watch.problems)
            raise CaptureError(problems.texts()) from attempt.error
        finally:
            attempt.error = None  # an error keeps the frames it came through, and one of these the attempt


def _check_products(model: torch.nn.Module, signature: Signature, sizes: Mapping[str, int], traced: Traced) -> None:
    """Refuse products of two types, which fake tensors multiply and real ones do not."""
    node = mixed_product(traced.graph)
    if node is None:
        return
    text = mistake(model, signature, sizes, None) or "Arguments, parameters and constants must be of one type."
    raise CallError(f"{text} (The forward multiplies {types_of(node)} at {node.meta.get('where', '')}.)")


def _look_further(model: torch.nn.Module, signature: Signature, failed: _Trace) -> Problems:
    """All problems of a forward: those of a trace that goes on with guesses, and the one that ended the first."""
    second = _Trace(model, signature, failed.before, Reads(), failed.recorder.hidden.outputs, guess=True)
    try:
        recorded = second.record()
        if recorded is not None:
            second.finish(recorded)
        elif second.graph is not None:
            _without_failed(second.graph)
            second.look_at(second.graph)
        for attempt in (failed, second):
            for problem in attempt.last_problems():
                second.watch.problems.add_unless_known(problem)
        second.watch.problems.update(failed.watch.problems)  # the same ones, but for what luck decides
        return second.watch.problems
    finally:
        second.error = None


def _without_failed(graph: fx.Graph) -> None:
    """Take out the operator that ended the trace: it gave nothing."""
    for node in reversed(list(graph.nodes)):
        if node.op == "call_function" and "val" not in node.meta and not node.users:
            graph.erase_node(node)


class _Trace:
    """One trace: the fake inputs, the record, and what is read back from it.

    Args:
        model, signature, reads: see `trace`.
        before: a walk over the model from before the trace.
        guess: go on where the trace must be refused, to find more problems; there is no result.
    """

    def __init__(
        self,
        model: torch.nn.Module,
        signature: Signature,
        before: Walk,
        reads: Reads,
        outputs: tuple[str, ...] = (),
        guess: bool = False,
    ) -> None:
        self.model = model
        self.signature = signature
        self.before, self.reads = before, reads
        self.untouched = Untouched(before.modules)
        self.held: dict[str, Tensor] = {}
        self.tracker = Tracker(model, before.modules)
        self.watch = Watch(model, self.tracker, REPLACEMENTS, guess, reads.values)
        self.recorder = Recorder(model, outputs, self.watch.problems, guess)
        self.writes = Writes(model)
        self.real = lifted_tensors(model)
        self.attributes = plain_tensors(model)
        self.notes: list[str] = []
        self.packing = Packing(0)
        self.parts: pytree.TreeSpec | None = None
        self.output_constants: dict[int, Any] = {}
        self.error: Exception | None = None
        self.graph: fx.Graph | None = None
        self._tracer: Any = None
        self.env = Guards(self.watch.asked, self.watch.relies_on)
        # A compiled extension must fail where it reads a fake tensor's memory: there is none behind the pointer.
        with functorch_config.patch(fake_tensor_allow_unsafe_data_ptr_access=False):
            self.fake = FakeTensorMode(shape_env=self.env, allow_non_fake_inputs=True)
        self.fake.cache_enabled &= many_alike(before.modules.values())
        self.sizes = self._symbolic_sizes()
        self.watch.required.symbols = {space: size.node.expr for space, size in self.sizes.items()}

    def record(self) -> fx.GraphModule | None:
        """Run the forward; None where an exception ended it, which is then `error`."""
        inputs = [self._fake_parameter(tensor) for tensor in self.real.values()]
        inputs += [self._fake_leaf(leaf) for leaf in self.signature.leaves]
        modules = self.before.modules
        names = (scatter_names(), sparse_names(self.watch), merging_names(), reading(self.watch))
        recorded: fx.GraphModule | None = None
        with contextlib.ExitStack() as stack:
            quietly = (collector_paused(), quiet())
            kept = preserved(self.model, modules.values())
            for context in (kept, adapted(self.model, modules), *names, torch.no_grad(), *quietly):
                stack.enter_context(context)
            for name in uncache(modules):
                self.notes.append(
                    f"layer '{name}' has cached=True: the cache is not used, each graph is normalised anew"
                )
            self.untouched.put()
            try:
                recorded = make_fx(self._forward, tracing_mode="symbolic", _allow_non_fake_inputs=True)(*inputs)
            except Exception as error:  # whatever the forward raises is explained to the user
                self.error = error
            finally:
                getattr(self._tracer, "__dict__", {}).pop(
                    "create_node", None
                )  # torch keeps the tracer until a garbage collection
                self._tracer = None
        self.reads.finish(self.model, self.before, self.recorder.watched)
        if self.untouched.touched:
            return None
        if recorded is not None:
            assert self.reads.walk is not None
            adopted = adopt(recorded, self.real, self.reads.walk, self._fake_parameter)
            self.real = {**self.real, **adopted.named, **adopted.held}
            self.held = adopted.held
        return recorded

    def last_problems(self) -> list[Problem]:
        """What ended this trace, unless that may only have followed from a guess, or is written down already."""
        if self.error is None or isinstance(first_of(self.error), CaptureError):
            return []
        if self.watch.guessed and not only_in_a_trace(self.error):
            return []
        return [explain_failure(self.error, self.tracker, self.model, self.watch.count)]

    def _forgotten(self, constants: dict[str, Any], graph: fx.Graph) -> list[Problem]:
        """Values of the trace that torch took for constants, since it had forgotten how they were computed."""
        return [
            Problem(
                "a value that the forward computed",
                "was forgotten by torch's tracer, so nothing that follows from it would be right",
                f"Please report this model, with torch {torch.__version__}.",
                node.meta["place"],
                node.meta["number"],
            )
            for node in graph.nodes
            if node.op == "get_attr" and isinstance(constants[node.target], FakeTensor)
        ]

    def look_at(self, graph: fx.Graph) -> Functionalized:
        """Make the graph functional, or its beginning, and write down the problems of its operators."""
        functional = functionalize(graph, frozen=self._frozen(graph))
        for problem in functional.problems:
            self.watch.problems.add(problem)
        return functional

    def _frozen(self, graph: fx.Graph) -> set[fx.Node]:
        """The placeholders of parameters and buffers, under their readable names."""
        placeholders = [node for node in graph.nodes if node.op == "placeholder"]
        names = [*self.real, *(leaf.name for leaf in self.signature.leaves)]
        for i, (node, name) in enumerate(zip(placeholders, names, strict=True)):
            rename(node, ("p_" if i < len(self.real) else "") + name)
            node.meta.setdefault("where", "")
            node.meta.setdefault("layer", "")
        return set(placeholders[: len(self.real)])

    def _symbolic_sizes(self) -> dict[str, torch.SymInt]:
        """One unbacked size per space, known to be at least 2 so that no size-one special case is taken."""
        sizes: dict[str, torch.SymInt] = {}
        with self.env.ignore_fresh_unbacked_symbols():
            for space in sorted(self.signature.spaces, key=lambda name: name.endswith("+1")):
                if space.endswith("+1"):  # row pointers
                    sizes[space] = sizes[space.removesuffix("+1")] + 1
                    continue
                sizes[space] = self.env.create_unbacked_symint()
                torch._check(sizes[space] >= 2)
                torch._check(sizes[space] <= (_MOST_NODES if space.startswith("N") else _MOST_EDGES))
        return sizes

    def _fake_parameter(self, tensor: Tensor) -> Tensor:
        with self.fake:
            out = torch.empty_strided(tuple(tensor.shape), tensor.stride(), dtype=tensor.dtype, device=tensor.device)
        return torch.nn.Parameter(out, requires_grad=False) if isinstance(tensor, torch.nn.Parameter) else out

    def _fake_leaf(self, leaf: Leaf) -> Tensor:
        shape = [self.sizes[dim] if isinstance(dim, str) else dim for dim in leaf.dims]
        with self.fake:
            return torch.empty(shape, dtype=leaf.dtype, device=leaf.device)

    def _forward(self, *tensors: Tensor) -> list[Any]:
        """What make_fx runs: the model's forward, its return value flattened."""
        self._record_where()
        with self.watch:
            return self._run_forward(*tensors)

    def _run_forward(self, *tensors: Tensor) -> list[Any]:
        lifted = dict(zip(self.real, tensors, strict=False))
        for name in self.attributes:
            owner, _, attribute = name.rpartition(".")
            vars(self.model.get_submodule(owner) if owner else self.model)[attribute] = lifted.pop(name)
        given, make = list(tensors[len(self.real) :]), stand_ins(self.watch)
        args, kwargs = self.signature.call(given, make)
        running = (in_place(self.model, self.signature.held(given, make)), self.writes, recorded_reads(self.reads))
        with contextlib.ExitStack() as stack:
            for context in running:
                stack.enter_context(context)
            joined = stack.enter_context(self.recorder.running())
            result = joined(torch.func.functional_call(self.model, lifted, args, kwargs, tie_weights=True))
        values, self.packing = unpack(result)
        leaves, self.parts = pytree.tree_flatten([taken_apart(value) for value in values])
        recorded = []
        for i, leaf in enumerate(leaves):
            if isinstance(leaf, (Tensor, torch.SymInt, torch.SymFloat)):
                recorded.append(leaf)
            elif leaf is None or isinstance(leaf, _CONSTANTS):
                self.output_constants[i] = leaf
            else:
                self.watch.guess_or_refuse(
                    None,
                    f"a {type(leaf).__name__}",
                    f"is returned by {type(self.model).__name__}.forward and cannot be captured",
                    "Return tensors, or tuples, lists, dicts, named tuples and dataclasses of tensors.",
                )
        return recorded

    def _record_where(self) -> None:
        """Have every node of this trace remember the code that made it."""
        mode = get_proxy_mode()
        assert mode is not None
        tracer: Any = mode.tracer
        create_node: Callable[..., fx.Node] = tracer.create_node
        self.graph = tracer.graph

        def create(*args: Any, **kwargs: Any) -> fx.Node:
            node = create_node(*args, **kwargs)
            node.meta["place"] = place = self.tracker.place()
            node.meta["where"], node.meta["layer"] = place.where, place.layer
            node.meta["number"] = self.watch.count
            self.watch.count += 1
            return node

        self._tracer, tracer.create_node = tracer, create

    def finish(self, recorded: fx.GraphModule) -> Traced | None:
        """The trace as a functional graph; None where there are problems, which are then written down."""
        graph = recorded.graph
        functional = self.look_at(graph)
        placeholders = [node for node in graph.nodes if node.op == "placeholder"]
        parameters = set(placeholders[: len(self.real)])
        selected = ranges(graph, placeholders[len(self.real) :], self.watch.required.symbols)
        constants = {node.target: getattr(recorded, node.target) for node in graph.nodes if node.op == "get_attr"}
        drop_dead(graph)
        problems = self._forgotten(constants, graph) + numbers_to_tensors(graph, self.fake)
        if not self.watch.problems and not problems:
            clean(graph, self.env, constants, parameters)
        problems += sizes_from_values(graph, origins(graph, parameters), self._symbols())
        for problem in problems:
            self.watch.problems.add(problem)
        if self.watch.problems:
            return None
        self.notes += functional.notes + self.watch.notes
        used = {node.target for node in graph.nodes if node.op == "get_attr"}
        count = len(self.real)
        return Traced(
            graph=graph,
            param_names={n.name: name for n, name in zip(placeholders[:count], self.real, strict=True)},
            input_names={n.name: leaf for n, leaf in zip(placeholders[count:], self.signature.leaves, strict=True)},
            symbols=self._symbols(),
            outputs=self._outputs(graph),
            packing=self.packing,
            hidden=self.recorder.hidden,
            writes=self.writes.names(self.recorder.watched),
            model_notes=list(dict.fromkeys(self.notes)),
            held=self.held,
            assumed=self.watch.relied,
            numbers=self._numbers(graph),
            required=self.watch.required,
            ranges=selected,
            constants={name: tensor.detach().clone() for name, tensor in constants.items() if name in used},
        )

    def _numbers(self, graph: fx.Graph) -> dict[str, sympy.Symbol]:
        """The symbols of the numbers among the arguments that are sizes."""
        placeholders = [node for node in graph.nodes if node.op == "placeholder"][len(self.real) :]
        leaves = dict(zip(placeholders, self.signature.leaves, strict=True))
        found = {}
        for node in graph.nodes:
            leaf = leaves.get(node.args[0]) if node.target is aten._local_scalar_dense.default else None
            if leaf is not None and leaf.counts:
                found[of_number(leaf)] = node.meta["val"].node.expr
        return found

    def _symbols(self) -> dict[str, sympy.Expr]:
        symbols = {space: sympy.sympify(size.node.expr) for space, size in self.sizes.items()}
        for space, size in symbols.items():
            if size.is_Integer:
                self.notes.append(
                    f"the size of {space} is fixed to {size} by a parameter: this model is transductive "
                    "and runs only "
                    "on graphs of that size"
                )
        return symbols

    def _outputs(self, graph: fx.Graph) -> Any:
        """The leaves of the return value as nodes and constants, in plain containers."""
        nodes = list(next(node for node in graph.nodes if node.op == "output").args[0])
        count = len(nodes) + len(self.output_constants)
        remaining = iter(nodes)
        leaves = [self.output_constants[i] if i in self.output_constants else next(remaining) for i in range(count)]
        assert self.parts is not None
        return self.packing.simple(pytree.tree_unflatten(leaves, self.parts))


@contextlib.contextmanager
def collector_paused() -> Iterator[None]:
    """No run of Python's cycle collector, whoever makes cycles: the forward, a layer, torch.

    Where C++ alone holds a tensor (an operand inside `einsum`) and a cycle that nobody needs holds its Python object,
    the collector clears the weak references to that object. Torch finds by them how a value was computed: torch 2.6
    then takes the value for a constant.
    """
    running = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if running:
            gc.enable()


def rename(node: fx.Node, name: str) -> None:
    """Give a placeholder a readable name that is an identifier, unique in its graph."""
    identifier = "".join(c if c.isalnum() or c == "_" else "_" for c in name)
    node._rename(identifier)
    node.target = node.name
