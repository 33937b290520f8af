# mypy: ignore-errors
"""Single numbers that more than one kernel needs, and clipping by value."""

import triton
import triton.language as tl

from lrfused.triton.program import evaluate
from lrfused.triton.words import (
    ACCUMULATION_STEPS,
    CLIP_VALUE,
    GRAD_SCALE,
    GROUP_CLIP_ROW,
    GROUP_CLIP_SHAPE,
    GROUP_SIZE,
    GROUPS,
    SHAPES_COUNT,
    SHAPES_FIRST,
    SLOTS,
    STEP,
    VALUES,
)


@triton.jit
def inverse_scale(table, call, state):
    """What unscales and averages a gradient."""
    scale = tl.load(state.loss_scale).to(tl.float64) * tl.load(table.numbers + ACCUMULATION_STEPS)
    # A number or a tensor: the other of the two is 1.
    outside = tl.load(call.numbers + GRAD_SCALE) * tl.load(call.grad_scale).to(tl.float64)
    return 1.0 / (scale * outside)


@triton.jit
def is_given(table, call, place):
    """The caller's number leads, not a program."""
    places = tl.load(table.sizes + GROUPS) * SLOTS
    return tl.load(call.numbers + VALUES + places + place) != 0.0


@triton.jit
def value_bound(table, call, state, group, SHAPES: tl.constexpr):
    """The bound of a group's value clip at this step, before plan has run: a block of one."""
    lane = tl.arange(0, 1)
    place = group * SLOTS + CLIP_VALUE
    bound = tl.load(call.numbers + VALUES + place + lane)
    row = table.groups + group * GROUP_SIZE
    shape = tl.load(row + GROUP_CLIP_SHAPE)
    if (shape >= 0) & (is_given(table, call, place) == 0):
        program = table.rows + tl.load(row + GROUP_CLIP_ROW) + lane
        step = tl.load(state.words + STEP + lane).to(tl.float64)
        COUNT: tl.constexpr = SHAPES[SHAPES_COUNT]
        for S in tl.static_range(COUNT):
            if SHAPES[SHAPES_FIRST + 2 * S + 1]:  # noqa: SIM102 (the first is for the compiler)
                if shape == S:
                    bound = evaluate(
                        SHAPES,
                        SHAPES[SHAPES_FIRST + 2 * S],
                        program,
                        lane == 0,
                        step,
                        table.samples,
                        table.digits,
                    )
    return bound


@triton.jit
def clip_value(x, bound):
    """By compare and select: nan stays nan."""
    x = tl.where(x > bound, bound, x)
    return tl.where(x < bound * -1.0, bound * -1.0, x)
