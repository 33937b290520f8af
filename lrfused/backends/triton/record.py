# mypy: ignore-errors
"""The scalars that apply multiplies by: what plan decided, for one stretch, rounded once."""

from typing import NamedTuple

import triton
import triton.language as tl

from lrfused.backends.triton.words import (
    CLIP_VALUE,
    COEFFICIENT,
    GROUP_MAXIMIZE,
    GROUP_SIZE,
    INVERSE,
    SLOTS,
    TENSORS,
)


class Record(NamedTuple):
    """The scalars of a stretch, in the compute type: of the prologue, then of the rule."""

    pre_scale: object  # multiplies the gradient, which is then clipped to +-clip_bound,
    clip_bound: object
    post_scale: object  # and multiplied again
    sign: object
    scalars: object


@triton.jit
def make_record(
    table,
    decided,
    tensor,
    group,
    unit,
    SCALARS: tl.constexpr,
    AGC: tl.constexpr,
    CLIP: tl.constexpr,
    TYPE: tl.constexpr,
):
    """Every scalar in float64, rounded once; with a clip by value other factors come after it."""
    sign = tl.where(tl.load(table.groups + group * GROUP_SIZE + GROUP_MAXIMIZE) != 0, -1.0, 1.0)
    sign = sign.to(tl.float64)
    inverse = tl.load(decided.scalars + INVERSE)
    coefficient = tl.load(decided.scalars + COEFFICIENT)
    factor = tl.full((), 1.0, tl.float64)
    if AGC:
        factor = tl.load(decided.factors + unit)
    if CLIP:
        pre_scale = sign * inverse
        post_scale = factor * coefficient
    else:
        pre_scale = sign * ((inverse * factor) * coefficient)
        post_scale = tl.full((), 1.0, tl.float64)
    return Record(
        pre_scale.to(TYPE),
        tl.load(decided.matrix + group * SLOTS + CLIP_VALUE).to(TYPE),
        post_scale.to(TYPE),
        sign.to(TYPE),
        rule_scalars(table, decided, tensor, SCALARS, TYPE),
    )


@triton.jit
def rule_scalars(table, decided, tensor, SCALARS: tl.constexpr, TYPE: tl.constexpr):
    """Those of the rule's update of a tensor."""
    tensors = tl.load(table.sizes + TENSORS)
    scalars = ()
    for i in tl.static_range(SCALARS):
        value = tl.load(decided.records + i * tensors + tensor)
        scalars = scalars + (value.to(TYPE),)
    return scalars
