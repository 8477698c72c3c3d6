"""Lazy parameters that have no shape yet: a forward that never touches them needs none."""

from __future__ import annotations

from typing import Any

import torch
from torch.nn.parameter import UninitializedBuffer, UninitializedParameter

from pyg_fullgraph.errors import InputError


class Untouched:
    """Stands guard over the lazy parameters and buffers of a model while it is traced.

    Args:
        modules: by name.

    Attributes:
        touched: names of those that the forward used.
    """

    def __init__(self, modules: dict[str, torch.nn.Module]) -> None:
        self._places = [
            (held, key, f"{name}.{key}" if name else key)
            for name, module in modules.items()
            for held in (module._parameters, module._buffers)
            for key, value in held.items()
            if isinstance(value, (UninitializedParameter, UninitializedBuffer))
        ]
        self.touched: list[str] = []

    def put(self) -> None:
        """Put the stand-ins in place; `preserved` puts the parameters back."""
        for held, key, name in self._places:
            held[key] = self._stand_in(held[key], name)

    def check(self) -> None:
        """Raise `InputError` where the forward used one."""
        if self.touched:
            raise InputError(
                f"{len(self.touched)} lazy parameters have no shape yet ('{self.touched[0]}' first). Run the model "
                "once on a small batch of its data, as torch_geometric asks for lazy layers."
            )

    def _stand_in(self, value: Any, name: str) -> Any:
        kind: Any = type(value)
        touched = self.touched

        def touch() -> Any:
            if name not in touched:
                touched.append(name)
            raise InputError(f"The lazy parameter '{name}' has no shape yet.")

        class StandIn(kind):
            def materialize(self, *args: Any, **kwargs: Any) -> Any:
                touch()

            @classmethod
            def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
                try:
                    return super().__torch_function__(func, types, args, kwargs)
                except ValueError:  # torch's own: the parameter has no values
                    touch()

        return StandIn(device=value.device, dtype=value.dtype)
