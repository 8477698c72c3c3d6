"""Results of every kind, taken apart and put together again."""

from __future__ import annotations

import argparse
import collections
import dataclasses
import types
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor

from pyg_fullgraph.capture.returned import mapped, paths_of, tensors_of, unpack

Pair = collections.namedtuple("Pair", "logits hidden")


class Typed(NamedTuple):
    logits: Tensor
    number: int


@dataclasses.dataclass(frozen=True)
class Frozen:
    logits: Tensor
    number: int = 3
    more: dict[str, Tensor] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "derived", self.logits + 1)


@dataclasses.dataclass(slots=True)
class Slotted:
    logits: Tensor
    hidden: Any = None


@dataclasses.dataclass
class Output(collections.OrderedDict):  # type: ignore[type-arg]
    """As libraries write them: attributes and items are the same."""

    logits: Any = None
    hidden: Any = None

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            if getattr(self, field.name) is not None:
                self[field.name] = getattr(self, field.name)

    def __setitem__(self, key: str, value: Any) -> None:
        super().__setitem__(key, value)
        super().__setattr__(key, value)


class Items(list[Any]):
    pass


class Keyed(dict[str, Any]):
    def __init__(self, required: dict[str, Any]) -> None:
        super().__init__(required)


X = torch.randn(4, 3)
RESULTS = {
    "tensor": X,
    "none": None,
    "tuple": (X, None, 3),
    "list": [X, [X + 1]],
    "dict": {"b": X, "a": (X, "text")},
    "namedtuple": Pair(X, X + 1),
    "NamedTuple": Typed(X, 3),
    "max": X.max(dim=1),
    "topk": X.topk(2),
    "qr": torch.linalg.qr(X),
    "size": X.shape,
    "frozen": Frozen(X, 4, {"k": X * 2}),
    "slots": Slotted(X),
    "output": Output(X, X + 1),
    "half of an output": Output(X),
    "list class": Items([X]),
    "dict class": Keyed({"k": X}),
    "ordered": collections.OrderedDict(b=X, a=X + 1),
    "default": collections.defaultdict(list, k=X),
    "user dict": collections.UserDict(k=X),
    "namespace": types.SimpleNamespace(a=X, b=[X]),
    "arguments": argparse.Namespace(a=X),
    "deque": collections.deque([X], 3),
    "nested": (Frozen(X), {"k": Pair(X, X.sort(dim=1))}),
}


@pytest.mark.parametrize("name", RESULTS)
def test_comes_back_as_what_it_was(name: str) -> None:
    result = RESULTS[name]
    leaves, packing = unpack(result)
    again = packing.of_simple(packing.simple(leaves))
    assert type(again) is type(result)
    both = paths_of(again), paths_of(result)
    assert [path for path, _ in both[0]] == [path for path, _ in both[1]]
    assert all(a is b for (_, a), (_, b) in zip(*both, strict=True))
    doubled = mapped(lambda leaf: leaf * 2 if isinstance(leaf, Tensor) else leaf, result)
    assert type(doubled) is type(result)
    assert all(torch.equal(a, b * 2) for a, b in zip(tensors_of(doubled), tensors_of(result), strict=True))


def test_what_only_objects_have() -> None:
    double = mapped(lambda leaf: leaf * 2 if isinstance(leaf, Tensor) else leaf, RESULTS["frozen"])
    assert torch.equal(double.derived, (X + 1) * 2) and double.number == 4
    output = mapped(lambda leaf: leaf + 1 if isinstance(leaf, Tensor) else leaf, Output(X, None))
    assert output.logits is output["logits"] and output.hidden is None and list(output) == ["logits"]
    assert mapped(lambda leaf: leaf, X.max(dim=1)).values is not None
    assert mapped(lambda leaf: leaf, RESULTS["default"]).default_factory is list
    assert mapped(lambda leaf: leaf, RESULTS["deque"]).maxlen == 3


def test_one_tensor_stays_one() -> None:
    one = X + 0
    first, second, third = mapped(lambda leaf: leaf.clone(), (one, one, X + 0))
    assert first is second and first is not third


def test_paths_have_keys_and_fields() -> None:
    assert [path for path, _ in paths_of({"a": Frozen(X), "b": [X, None]})] == [
        ("a", "logits"), ("a", "number"), ("a", "derived"), ("b", 0), ("b", 1),
    ]  # fmt: skip
