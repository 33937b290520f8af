# mypy: ignore-errors
"""The scalars that apply multiplies by: what plan decided, for one stretch."""

from typing import NamedTuple

import triton
import triton.language as tl

from lrfused.backends.triton.words import (
    BETA1,
    BETA2,
    CLIP_VALUE,
    COEFFICIENT,
    DECAY_BY_LR,
    DECAY_INDEPENDENT,
    EPS,
    GROUP_DECAY_MODE,
    GROUP_MAXIMIZE,
    GROUP_PEAK_LR,
    GROUP_SIZE,
    INVERSE,
    LR,
    SLOTS,
    WEIGHT_DECAY,
)


class Record(NamedTuple):
    """The scalars of a stretch, in the compute type."""

    before: object  # multiplies the gradient, which is then clipped to +-bound,
    bound: object
    after: object  # and multiplied again
    sign: object
    decay: object
    beta1: object
    one_minus_beta1: object
    beta2: object
    one_minus_beta2: object
    eps: object
    step_size: object
    inverse_root: object


@triton.jit
def decay_factor(row, lr, weight_decay):
    """What multiplies the parameters."""
    mode = tl.load(row + GROUP_DECAY_MODE)
    peak = tl.load(row + GROUP_PEAK_LR).to(tl.float64, bitcast=True)
    ratio = 1.0 - weight_decay * (lr / peak)
    other = tl.where(mode == DECAY_INDEPENDENT, 1.0 - weight_decay, ratio)
    return tl.where(mode == DECAY_BY_LR, 1.0 - lr * weight_decay, other)


@triton.jit
def make_record(
    table, decided, tensor, group, unit, AGC: tl.constexpr, CLIP: tl.constexpr, TYPE: tl.constexpr
):
    """Every scalar in float64, rounded once."""
    row = table.groups + group * GROUP_SIZE
    values = decided.matrix + group * SLOTS
    sign = tl.where(tl.load(row + GROUP_MAXIMIZE) != 0, -1.0, 1.0).to(tl.float64)
    inverse = tl.load(decided.scalars + INVERSE)
    coefficient = tl.load(decided.scalars + COEFFICIENT)
    factor = tl.full((), 1.0, tl.float64)
    if AGC:
        factor = tl.load(decided.factors + unit)
    if CLIP:
        before = sign * inverse
        after = factor * coefficient
    else:
        before = sign * ((inverse * factor) * coefficient)
        after = tl.full((), 1.0, tl.float64)
    beta1 = tl.load(values + BETA1)
    beta2 = tl.load(values + BETA2)
    decay = decay_factor(row, tl.load(values + LR), tl.load(values + WEIGHT_DECAY))
    return Record(
        before.to(TYPE),
        tl.load(values + CLIP_VALUE).to(TYPE),
        after.to(TYPE),
        sign.to(TYPE),
        decay.to(TYPE),
        beta1.to(TYPE),
        (1.0 - beta1).to(TYPE),
        beta2.to(TYPE),
        (1.0 - beta2).to(TYPE),
        tl.load(values + EPS).to(TYPE),
        tl.load(decided.records + 2 * tensor).to(TYPE),
        tl.load(decided.records + 2 * tensor + 1).to(TYPE),
    )
