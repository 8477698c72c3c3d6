"""What an engine offers as the face of its model: a whole `Data` as argument, a module's parameters, and HTML."""

from __future__ import annotations

import html
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch_geometric.data.data import BaseData

from pyg_fullgraph.errors import InputError
from pyg_fullgraph.front.forward import forward_of
from pyg_fullgraph.front.run import prepare


def forward_arguments(
    model: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The arguments of forward where a graph came as one `Data`, as `inference` takes them from it.

    Those of a forward that takes a `Data` itself are what they are.

    Raises:
        InputError: the data lacks what forward requires, or holds weights that forward does not take by itself.
    """
    if not args or not isinstance(args[0], BaseData) or forward_of(model).data is not None:
        return args, kwargs
    prepared = prepare(model, args, kwargs)
    if prepared.target is not model:
        raise InputError(
            "The data holds the graph as a matrix with values, which this forward takes through its layers only: call "
            "fg.inference(model, data), or pass the arguments of forward."
        )
    return prepared.args, prepared.kwargs


class OfModel:
    """The part of an engine that is its model's: parameters, modes, and how a notebook shows it."""

    model: torch.nn.Module
    notes: list[str]

    def eval(self) -> Any:
        """Put the model into evaluation mode, which every call asks for; returns the engine."""
        self.model.eval()
        return self

    def parameters(self) -> Iterator[torch.nn.Parameter]:
        """The model's parameters: they are read at each call."""
        return self.model.parameters()

    def state_dict(self) -> dict[str, Any]:
        """The model's."""
        return self.model.state_dict()

    def load_state_dict(self, state: Mapping[str, Any], strict: bool = True) -> Any:
        """Load it into the model; the next call computes with it."""
        return self.model.load_state_dict(state, strict=strict)

    def _repr_html_(self) -> str:
        """For notebooks: what `repr` says, the options, and the notes."""
        options = {
            name: value
            for name, value in vars(self).items()
            if not name.startswith("_") and isinstance(value, (str, int)) and value != ""
        }
        rows = "".join(f"<tr><th>{html.escape(n)}</th><td>{html.escape(str(v))}</td></tr>" for n, v in options.items())
        notes = "".join(f"<li>{html.escape(note)}</li>" for note in self.notes)
        return (
            f"<p><b>{html.escape(repr(self))}</b></p><table>{rows}</table>"
            + (f"<ul>{notes}</ul>" if notes else "")
            + f"<pre>{html.escape(str(self.model))}</pre>"
        )
