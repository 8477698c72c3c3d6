"""Let a matrix product add onto what it is added to, which saves a pass over the rows.

::

    before                                             after
    a = mm(%s, %Wl)                                    a = addmm(%bias, %s, %Wl)
    b = %a + %bias                                     out = addmm(%a, %x, %Wr)
    out = %b + mm(%x, %Wr)
"""

from __future__ import annotations

import torch

from pyg_fullgraph.ir import Program, Ref, Stage, Value, is_aten

aten = torch.ops.aten


def accumulate_products(program: Program) -> None:
    """Replace `a + mm(x, w)` by `addmm(a, x, w)` where nothing else uses the product, in place."""
    for value in list(program):
        if value.target is not aten.add.Tensor or value.kwargs or len(value.refs()) != 2:
            continue
        if value.stage is not Stage.DATA or len(value.shape) != 2 or value.row_dim != 0:
            continue
        outputs = program.output_names()
        left, right = value.refs()
        for onto, product in ((left, right), (right, left)):
            item = program[product]
            single = product not in outputs and program.users_of(product) == [value.name]
            alike = (item.shape, item.dtype) == (
                value.shape,
                value.dtype,
            )  # a float32 zero plus a bfloat16 product is not
            if is_aten(item, aten.mm) and alike and single and _fits(program[onto], value):
                program.values[value.name] = Value(
                    value.name,
                    "aten",
                    (Ref(onto), *item.args),
                    {},
                    value.shape,
                    value.dtype,
                    Stage.DATA,
                    target=aten.addmm.default,
                    where=value.where,
                )
                break
    program.drop_dead()


def _fits(onto: Value, value: Value) -> bool:
    """A bias per column, or rows of the same shape."""
    if onto.dtype != value.dtype:
        return False
    return onto.shape == value.shape or (onto.row_dim is None and tuple(onto.shape) == (value.shape[1],))
