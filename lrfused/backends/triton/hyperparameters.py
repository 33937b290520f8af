# mypy: ignore-errors
"""The hyperparameters of a step: numbers of the caller, or programs, groups side by side."""

import triton
import triton.language as tl

from lrfused.backends.triton.memory import as_bits
from lrfused.backends.triton.program import evaluate
from lrfused.backends.triton.words import (
    BELOW_ONE,
    EMA_DECAY,
    FIELDS,
    GROUP_RANGES,
    GROUP_SIZE,
    GROUP_START,
    GROUPS,
    LARGEST_FLOAT32,
    LIMIT,
    OF_SCALARS,
    POSITIVE,
    ROW_FIXED,
    ROW_PLACE,
    SHAPE_CONSTANTS,
    SHAPE_INPUTS,
    SHAPES_COUNT,
    SHAPES_FIRST,
    SLOTS,
    UNIT,
    VALUES,
    WIDTH,
    ZERO,
)

NOWHERE = tl.constexpr(2**62)


@triton.jit
def evaluate_hyperparameters(table, call, decided, now, SHAPES: tl.constexpr):
    """Every place of the matrix (group, slot): the caller's number, or a program's value."""
    places = tl.load(table.sizes + GROUPS) * SLOTS
    for start in range(0, places, WIDTH):
        place = start + tl.arange(0, WIDTH)
        value = tl.load(call.numbers + VALUES + place, mask=place < places, other=0.0)
        tl.store(decided.matrix + place, value, mask=place < places)
    tl.debug_barrier()
    COUNT: tl.constexpr = SHAPES[SHAPES_COUNT]
    for S in tl.static_range(COUNT):
        if (OF_SCALARS & SHAPES[SHAPES_FIRST + 2 * S + 1]) == 0:
            evaluate_shape(table, call, decided, now, places, SHAPES, S)


@triton.jit(noinline=True)
def evaluate_shape(table, call, decided, now, places, SHAPES: tl.constexpr, S: tl.constexpr):
    """All schedules of one shape, as lanes."""
    AT: tl.constexpr = SHAPES[SHAPES_FIRST + 2 * S]
    CONSTANTS: tl.constexpr = SHAPES[AT + SHAPE_CONSTANTS]
    INPUTS: tl.constexpr = SHAPES[AT + SHAPE_INPUTS]
    SIZE: tl.constexpr = ROW_FIXED + CONSTANTS + 2 * INPUTS
    first = tl.load(table.shapes + 2 * S)
    count = tl.load(table.shapes + 2 * S + 1)
    for start in range(0, count, WIDTH):
        lane = start + tl.arange(0, WIDTH)
        row = table.rows + first + lane * SIZE
        place = tl.load(row + ROW_PLACE, mask=lane < count, other=0)
        is_override = tl.load(call.numbers + VALUES + places + place, mask=lane < count, other=1.0)
        present = is_override == 0.0
        step = tl.full((WIDTH,), 0.0, tl.float64) + now.to(tl.float64)
        value = evaluate(SHAPES, AT, row, present, step, table.samples, table.digits)
        tl.store(decided.matrix + place, value, mask=present)


@triton.jit
def first_unusable(table, decided, now):
    """The first place whose value no step can use, of groups that have started; -1 if none."""
    places = tl.load(table.sizes + GROUPS) * SLOTS
    first = tl.full((), NOWHERE, tl.int64)
    for start in range(0, places, WIDTH):
        place = start + tl.arange(0, WIDTH)
        present = place < places
        value = tl.load(decided.matrix + place, mask=present, other=0.0)
        slot = place % SLOTS
        row = table.groups + place // SLOTS * GROUP_SIZE
        # Averages go on before a group starts.
        started = tl.load(row + GROUP_START, mask=present, other=0) <= now
        present = present & (started | (slot == EMA_DECAY))
        kind = tl.load(row + GROUP_RANGES + slot, mask=present, other=0)
        usable = (value <= LARGEST_FLOAT32) & (value >= -LARGEST_FLOAT32)
        usable = tl.where(kind == POSITIVE, usable & (value > 0.0), usable)
        usable = tl.where(kind == LIMIT, value >= 0.0, usable)
        usable = tl.where(kind == BELOW_ONE, (value >= 0.0) & (value < 1.0), usable)
        usable = tl.where(kind == ZERO, value == 0.0, usable)
        usable = tl.where(kind == UNIT, (value >= 0.0) & (value <= 1.0), usable)
        here = tl.min(tl.where(present & (usable == 0), place.to(tl.int64), NOWHERE), 0)
        first = tl.where(here < first, here, first)
    return tl.where(first == NOWHERE, -1, first)


@triton.jit
def publish(table, state, decided):
    """The values that the step uses, among the words that the host reads."""
    places = tl.load(table.sizes + GROUPS) * SLOTS
    for start in range(0, places, WIDTH):
        place = start + tl.arange(0, WIDTH)
        value = tl.load(decided.matrix + place, mask=place < places, other=0.0)
        tl.store(state.words + FIELDS + place, as_bits(value), mask=place < places)
