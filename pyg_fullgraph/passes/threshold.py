"""Small numbers that are replaced, in one pass over them instead of four (a mask, a copy, a fill, a copy).

::

    before                                   after
    m = le(%x, 0.003)       # bool [N, F]    out = threshold(%x, 0.003, 0.0)
    out = masked_fill(%x, m, 0.0)

Both keep a NaN. PyG's standard deviation ends like that.
"""

from __future__ import annotations

import torch

from pyg_fullgraph.ir import Program, Ref, Stage, Value
from pyg_fullgraph.ir.build import Builder
from pyg_fullgraph.passes.rewrite import rewrite

aten = torch.ops.aten

#: Types that both operators compare in; half types are compared in another one.
_DTYPES = (torch.float32, torch.float64)


def fuse_thresholds(program: Program) -> None:
    """Replace such fills by `threshold`, in place."""
    rewrite(program, (_fill_below,))


def _fill_below(program: Program, value: Value) -> bool:
    """`masked_fill(x, x <= c, v)` -> `threshold(x, c, v)`."""
    if value.target is not aten.masked_fill.Scalar or value.stage is not Stage.DATA or value.dtype not in _DTYPES:
        return False
    x, mask = value.args[0], program[value.args[1].name]
    if mask.target is not aten.le.Scalar or mask.kwargs or not isinstance(mask.args[0], Ref):
        return False
    same = mask.args[0].name == x.name and program[x.name].dtype == value.dtype
    numbers = all(isinstance(number, (int, float)) for number in (mask.args[1], value.args[2]))
    if not same or not numbers:
        return False
    build = Builder(program, value.name)
    build.replace_anchor(build.aten(aten.threshold.default, x, mask.args[1], value.args[2], like=value))
    return True
