"""Matrix products of float16 and bfloat16 in float32, where the processor has no product of their kind.

::

    before                                   after
    h = addmm(%bias, %x, %W)   # bfloat16    b, w = _to_copy(%bias), _to_copy(%W)     # once a call
                                             p = addmm(%b, _to_copy(%x), %w)          # float32, in a block
                                             h = _to_copy(%p)                         # bfloat16

torch has such products everywhere, but without the instructions they took 16 to 18 times as long as those of float32
(docs/log.md). Values are stored and gathered in the half type as before, and a product is rounded once, as torch's is.
"""

from __future__ import annotations

import torch

from pyg_fullgraph.ir import Program, Ref, Stage, is_aten
from pyg_fullgraph.ir.build import Builder

aten = torch.ops.aten

_PRODUCTS = (aten.mm, aten.addmm, aten.bmm, aten.baddbmm)


def slow_types() -> list[torch.dtype]:
    """The half types for which oneDNN has no product on this processor."""
    known = torch.ops.mkldnn
    there = torch.backends.mkldnn.is_available()
    bfloat16 = there and known._is_mkldnn_bf16_supported()
    float16 = there and known._is_mkldnn_fp16_supported()
    return [kind for kind, fast in ((torch.bfloat16, bfloat16), (torch.float16, float16)) if not fast]


def widen_products(program: Program) -> None:
    """Put conversions around products of half types that are slow here, in place."""
    slow = slow_types()
    wide: dict[str, Ref] = {}
    for anchor in list(program.values):
        value = program[anchor]
        if value.dtype not in slow or value.stage is not Stage.DATA:
            continue
        if not any(is_aten(value, product) for product in _PRODUCTS):
            continue
        build = Builder(program, anchor)
        for name in value.refs():
            if name not in wide:
                wide[name] = build.aten(aten._to_copy.default, Ref(name), dtype=torch.float32)
        product = build.aten(value.target, *(wide[name] for name in value.refs()), **value.kwargs)
        build.replace_anchor(build.aten(aten._to_copy.default, product, dtype=value.dtype))
