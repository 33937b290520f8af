# mypy: ignore-errors
"""Single numbers that more than one kernel needs, and clipping by value."""

import triton
import triton.language as tl

from lrfused.backends.triton.program import evaluate
from lrfused.backends.triton.words import (
    ACCUMULATION_STEPS,
    CLIP_VALUE,
    EARLY_CLIP,
    GRAD_SCALE,
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
def early_value(
    table,
    call,
    state,
    group,
    present,
    SLOT: tl.constexpr,
    SHAPE_PLACE: tl.constexpr,
    EARLY: tl.constexpr,
    SHAPES: tl.constexpr,
    LANES: tl.constexpr,
):
    """A hyperparameter of groups at this step before plan has run: a lane each.

    The group's row says at SHAPE_PLACE of which shape its program is, then where its data is.
    """
    place = group * SLOTS + SLOT
    value = tl.load(call.numbers + VALUES + place, mask=present, other=0.0)
    is_override = tl.load(
        call.numbers + VALUES + tl.load(table.sizes + GROUPS) * SLOTS + place,
        mask=present,
        other=1.0,
    )
    row = table.groups + group * GROUP_SIZE + SHAPE_PLACE
    shape = tl.load(row, mask=is_override == 0.0, other=-1)
    program = table.rows + tl.load(row + 1, mask=shape >= 0, other=0)
    step = tl.full((LANES,), 0.0, tl.float64) + tl.load(state.words + STEP).to(tl.float64)
    COUNT: tl.constexpr = SHAPES[SHAPES_COUNT]
    for S in tl.static_range(COUNT):
        if EARLY & SHAPES[SHAPES_FIRST + 2 * S + 1]:  # noqa: SIM102 (the first is for the compiler)
            if tl.max((shape == S).to(tl.int32), 0) > 0:
                FIRST: tl.constexpr = SHAPES[SHAPES_FIRST + 2 * S]
                new = evaluate(
                    SHAPES, FIRST, program, shape == S, step, table.samples, table.digits
                )
                value = tl.where(shape == S, new, value)
    return value


@triton.jit
def value_bound(table, call, state, group, SHAPES: tl.constexpr):
    """The bound of a group's value clip: a block of one."""
    lane = tl.arange(0, 1)
    return early_value(
        table,
        call,
        state,
        group + lane,
        lane == 0,
        CLIP_VALUE,
        GROUP_CLIP_SHAPE,
        EARLY_CLIP,
        SHAPES,
        1,
    )


@triton.jit
def clip_value(x, bound):
    """By compare and select: nan stays nan."""
    x = tl.where(x > bound, bound, x)
    return tl.where(x < bound * -1.0, bound * -1.0, x)
