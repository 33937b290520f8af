# mypy: ignore-errors
"""Plan: one program that decides everything of a step; csrc/core/plan.h in lanes."""

import triton
import triton.language as tl

from lrfused.backends.triton.counts import count_updates, first_miscounted
from lrfused.backends.triton.hyperparameters import (
    evaluate_hyperparameters,
    first_unusable,
    publish,
)
from lrfused.backends.triton.memory import as_bits
from lrfused.backends.triton.norms import measured_norms, tiny_share
from lrfused.backends.triton.scalars import inverse_scale
from lrfused.backends.triton.spans import finish_span
from lrfused.backends.triton.tickets import is_last
from lrfused.backends.triton.words import (
    ADVANCES_ON_SKIP,
    BACKOFF_FACTOR,
    BAD_COUNT,
    BAD_GRADIENT,
    BAD_HYPERPARAMETER,
    CHECKS_GRADIENTS,
    CLIP_COEFFICIENT,
    CLIP_NORM,
    CLIPPED_STEPS,
    COEFFICIENT,
    CONSECUTIVE_SKIPS,
    DYNAMIC_SCALE,
    ERROR,
    ERROR_PLACE,
    ERROR_SLOT,
    ERROR_STEP,
    ERROR_VALUE,
    FOUND_INF,
    GRAD_NORM,
    GROWTH_FACTOR,
    GROWTH_INTERVAL,
    GROWTH_TRACKER,
    HYSTERESIS,
    HYSTERESIS_TRACKER,
    INVERSE,
    LARGEST_FLOAT32,
    LARGEST_GRADIENT,
    LARGEST_SCALE,
    LOSS_SCALE,
    MAX_GRAD_NORM,
    MEASURES,
    NO_ERROR,
    NOW,
    PROCEED,
    PROCEEDS,
    RAISES,
    REFUSED,
    SKIPPED,
    SKIPPED_STEPS,
    SLOTS,
    SMALLEST_SCALE,
    STEP,
    TINY_GRADIENTS,
    Call,
)


@triton.jit
def add_to(place, value):
    """One more here, one less there."""
    tl.store(place, tl.load(place) + value)


@triton.jit
def latch(state, error, now):
    """Note an error, and say that it is noted: unless there is one that the host has not seen.

    (To be used as a mask: what is asked in a branch might be another answer for other warps.)
    """
    is_first = tl.load(state.words + ERROR) == NO_ERROR
    tl.store(state.words + ERROR, error, mask=is_first)
    tl.store(state.words + ERROR_STEP, now, mask=is_first)
    return is_first


@triton.jit
def count_step(state, skip, coefficient, FLAGS: tl.constexpr):
    """Move the counters: a skipped step leaves the schedule where it is, unless told otherwise."""
    words = state.words
    if skip:
        add_to(words + SKIPPED_STEPS, 1)
        add_to(words + CONSECUTIVE_SKIPS, 1)
        if ADVANCES_ON_SKIP & FLAGS:
            add_to(words + STEP, 1)
    else:
        tl.store(words + CONSECUTIVE_SKIPS, 0)
        add_to(words + CLIPPED_STEPS, (coefficient < 1.0).to(tl.int64))
        add_to(words + STEP, 1)


@triton.jit
def update_loss_scale(table, state, skip):
    """Growth and backoff; every product is rounded to float32, as GradScaler's are."""
    numbers = table.numbers
    words = state.words
    scale = tl.load(state.loss_scale).to(tl.float64)
    growth = tl.load(words + GROWTH_TRACKER) + 1
    hysteresis = tl.load(words + HYSTERESIS_TRACKER) - 1
    if skip:
        tl.store(words + GROWTH_TRACKER, 0)
        tl.store(words + HYSTERESIS_TRACKER, hysteresis)
        lower = scale * tl.load(numbers + BACKOFF_FACTOR)
        smallest = tl.load(numbers + SMALLEST_SCALE)
        scale = tl.where(hysteresis <= 0, tl.where(lower > smallest, lower, smallest), scale)
    else:
        tl.store(words + HYSTERESIS_TRACKER, tl.load(numbers + HYSTERESIS).to(tl.int64))
        grows = growth >= tl.load(numbers + GROWTH_INTERVAL).to(tl.int64)
        tl.store(words + GROWTH_TRACKER, tl.where(grows, 0, growth))
        higher = scale * tl.load(numbers + GROWTH_FACTOR)
        largest = tl.load(numbers + LARGEST_SCALE)
        held = tl.where(higher < largest, higher, largest)
        scale = tl.where(grows & (higher <= LARGEST_FLOAT32), held, scale)
    rounded = scale.to(tl.float32)
    tl.store(state.loss_scale, rounded)
    tl.store(words + LOSS_SCALE, as_bits(rounded.to(tl.float64)))


@triton.jit
def conclude(
    table,
    call,
    state,
    decided,
    now,
    inverse,
    skip,
    coefficient,
    SHAPES: tl.constexpr,
    FLAGS: tl.constexpr,
):
    """Skip or proceed; the counts, the counters and the next loss scale."""
    tl.store(state.words + CLIP_COEFFICIENT, as_bits(coefficient))
    tl.store(decided.words + PROCEED, tl.where(skip != 0, SKIPPED, PROCEEDS))
    if skip == 0:
        count_updates(table, call, state, decided, now, SHAPES)
        tl.store(decided.words + NOW, now)
        tl.store(decided.scalars + INVERSE, inverse)
        tl.store(decided.scalars + COEFFICIENT, coefficient)
    count_step(state, skip, coefficient, FLAGS)
    if DYNAMIC_SCALE & FLAGS:
        update_loss_scale(table, state, skip)


@triton.jit
def decide(table, call, state, measured, decided, now, SHAPES: tl.constexpr, FLAGS: tl.constexpr):
    """From what was measured to a decision."""
    inverse = inverse_scale(table, call, state)
    coefficient = tl.full((), 1.0, tl.float64)
    found_inf = (tl.load(call.numbers + FOUND_INF) != 0.0) | (tl.load(call.found_inf) != 0.0)
    if MEASURES & FLAGS:
        norm, seen, largest, nonfinite = measured_norms(table, measured, decided, inverse, FLAGS)
        if ((RAISES & FLAGS) != 0) & nonfinite & (found_inf == 0):
            latch(state, BAD_GRADIENT, now)
        else:
            if CLIP_NORM & FLAGS:
                ratio = tl.load(decided.matrix + MAX_GRAD_NORM) / (seen + 1e-6)
                coefficient = tl.where((ratio < 1.0) | (ratio != ratio), ratio, 1.0)
            tl.store(state.words + GRAD_NORM, as_bits(norm))
            tl.store(state.words + LARGEST_GRADIENT, as_bits(largest))
            tl.store(state.words + TINY_GRADIENTS, as_bits(tiny_share(table, measured)))
            skip = found_inf
            if CHECKS_GRADIENTS & FLAGS:
                skip = found_inf | nonfinite
            conclude(table, call, state, decided, now, inverse, skip, coefficient, SHAPES, FLAGS)
    else:
        conclude(table, call, state, decided, now, inverse, found_inf, coefficient, SHAPES, FLAGS)


@triton.jit(noinline=True)
def plan(table, call, state, measured, decided, SHAPES: tl.constexpr, FLAGS: tl.constexpr):
    """The decision about a step, for apply; state as it is after the step."""
    now = tl.load(state.words + STEP)
    tl.store(decided.words + PROCEED, REFUSED)
    evaluate_hyperparameters(table, call, decided, now, SHAPES)
    tl.debug_barrier()
    place = first_unusable(table, decided, now)
    if place >= 0:
        value = tl.load(decided.matrix + place)
        noted = latch(state, BAD_HYPERPARAMETER, now)
        tl.store(state.words + ERROR_PLACE, place // SLOTS, mask=noted)
        tl.store(state.words + ERROR_SLOT, place % SLOTS, mask=noted)
        tl.store(state.words + ERROR_VALUE, as_bits(value), mask=noted)
    else:
        tensor = first_miscounted(table, call, state, now)
        if tensor >= 0:
            shown = tl.load(state.steps + tensor).to(tl.float64)
            noted = latch(state, BAD_COUNT, now)
            tl.store(state.words + ERROR_PLACE, tensor, mask=noted)
            tl.store(state.words + ERROR_VALUE, as_bits(shown), mask=noted)
        else:
            publish(table, state, decided)
            decide(table, call, state, measured, decided, now, SHAPES, FLAGS)


@triton.jit(noinline=True)
def finish_and_plan(
    table, call, state, measured, decided, span, spans, SHAPES: tl.constexpr, FLAGS: tl.constexpr
):
    """Sum up a span that has been measured; who does that for the last one plans.

    A function that is called: measure's other half, of which the compiler need not think here.
    """
    finish_span(table, call, state, measured, decided, span, SHAPES, FLAGS)
    if is_last(measured.tickets, spans):
        plan(table, call, state, measured, decided, SHAPES, FLAGS)


@triton.jit(do_not_specialize=["gradients", "numbers", "grad_scale", "found_inf"])
def plan_kernel(
    table,
    gradients,
    numbers,
    grad_scale,
    found_inf,
    state,
    measured,
    decided,
    SHAPES: tl.constexpr,
    FLAGS: tl.constexpr,
):
    """Plan by itself: nothing has to be measured; or several devices have, and it is a program a
    span."""
    call = Call(gradients, numbers, grad_scale, found_inf)
    if MEASURES & FLAGS:
        span = tl.program_id(0).to(tl.int64)
        spans = tl.num_programs(0)
        finish_and_plan(table, call, state, measured, decided, span, spans, SHAPES, FLAGS)
    else:
        plan(table, call, state, measured, decided, SHAPES, FLAGS)
