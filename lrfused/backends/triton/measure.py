# mypy: ignore-errors
"""Measure: what has to be known of every gradient before the first parameter may move."""

import triton
import triton.language as tl

from lrfused.backends.triton.memory import NAN_BITS, as_bits, element_size
from lrfused.backends.triton.norm import half_sums
from lrfused.backends.triton.plan import finish_and_plan
from lrfused.backends.triton.riders import bits_of, kept_count
from lrfused.backends.triton.scalars import inverse_scale, value_bound
from lrfused.backends.triton.tickets import is_last
from lrfused.backends.triton.words import (
    ACTIVE,
    CLIPPED,
    FLOAT64,
    GRADIENT_ADDRESS,
    GRADIENT_KIND,
    GRADIENT_SIZE,
    GROUP_SIZE,
    GROUP_START,
    HALF_CHUNK,
    HALF_SECOND,
    HALF_SIZE,
    KIND_AGC,
    KIND_CLIP,
    KIND_G,
    KIND_MASK,
    KIND_P,
    KIND_SIZE,
    ONLY_MEASURES,
    OVERFLOWS,
    PART_COUNT,
    PART_OFFSET,
    PART_SIZE,
    PART_TENSOR,
    SPAN,
    SPANS,
    STEP,
    TENSOR_GROUP,
    TENSOR_P,
    TENSOR_SIZE,
    Call,
)

INFINITY = tl.constexpr(float("inf"))


@triton.jit
def seen_bits(largest, inverse, bound):
    """The largest magnitude after unscaling and value clip; every nan has the same bits."""
    seen = largest * inverse
    seen = tl.where(seen > bound, bound, seen)
    return tl.max(tl.where(seen != seen, NAN_BITS, as_bits(seen)), 0)


@triton.jit
def measure_half(
    table,
    call,
    state,
    measured,
    chunk,
    second,
    KINDS: tl.constexpr,
    KIND: tl.constexpr,
    SHAPES: tl.constexpr,
):
    """Half a chunk of a tensor of this kind."""
    P: tl.constexpr = KINDS[KIND * KIND_SIZE + KIND_P]
    MASKED: tl.constexpr = KINDS[KIND * KIND_SIZE + KIND_MASK]
    G: tl.constexpr = KINDS[KIND * KIND_SIZE + KIND_G]
    AGC: tl.constexpr = KINDS[KIND * KIND_SIZE + KIND_AGC]
    CLIP: tl.constexpr = KINDS[KIND * KIND_SIZE + KIND_CLIP]
    DOUBLE: tl.constexpr = P == FLOAT64
    COMPUTE: tl.constexpr = tl.float64 if DOUBLE else tl.float32
    part = table.chunks + chunk * PART_SIZE
    tensor = tl.load(part + PART_TENSOR)
    offset = tl.load(part + PART_OFFSET)
    count = tl.load(part + PART_COUNT).to(tl.int32)
    row = table.tensors + tensor * TENSOR_SIZE
    inverse = inverse_scale(table, call, state)
    rounded = inverse.to(COMPUTE)
    bound = tl.full((1,), INFINITY, tl.float64)
    if CLIP:
        bound = value_bound(table, call, state, tl.load(row + TENSOR_GROUP), SHAPES)
    g = tl.load(call.gradients + tensor * GRADIENT_SIZE + GRADIENT_ADDRESS)
    g += offset * element_size(G)
    mask = bits_of(row, offset)
    raw, clipped, bits, normal = half_sums(
        g, mask, second, count, rounded, bound.to(COMPUTE), G, DOUBLE, CLIP, MASKED
    )
    magnitude = bits.to(COMPUTE, bitcast=True)
    # A gradient that is finite may overflow when it is unscaled in the compute type.
    overflows = ((magnitude * rounded < INFINITY) == 0).to(tl.int64)
    largest = magnitude.to(tl.float64)
    slot = 2 * chunk + second
    tl.store(measured.raw + slot, raw)
    tl.store(measured.clipped + slot, clipped)
    tl.store(measured.largest + slot, as_bits(largest))
    tl.store(measured.seen + slot, seen_bits(largest, inverse, bound))
    tl.store(measured.findings + slot, overflows * OVERFLOWS + (ACTIVE + CLIPPED * CLIP))
    elements = count
    if MASKED:
        elements = kept_count(mask, count)
    tl.store(measured.elements + slot, tl.where(second == 0, elements, 0))  # once a chunk
    tl.store(measured.normal + slot, normal)
    if AGC:
        p = tl.load(row + TENSOR_P) + offset * element_size(P)
        weight, _clipped, _largest, _normal = half_sums(
            p, mask, second, count, 1.0, 1.0, P, DOUBLE, False, MASKED
        )
        tl.store(measured.param + slot, weight)


@triton.jit(noinline=True)
def measure_apart(
    table,
    call,
    state,
    measured,
    chunk,
    second,
    KINDS: tl.constexpr,
    KIND: tl.constexpr,
    SHAPES: tl.constexpr,
):
    """One of several kinds: a function that is called.

    (Triton's passes take time that grows with the square of a function's size, or faster.)
    """
    measure_half(table, call, state, measured, chunk, second, KINDS, KIND, SHAPES)


@triton.jit
def skip_half(measured, slot):
    """It takes no part in this step."""
    tl.store(measured.raw + slot, 0.0)
    tl.store(measured.clipped + slot, 0.0)
    tl.store(measured.param + slot, 0.0)
    tl.store(measured.largest + slot, 0)
    tl.store(measured.seen + slot, 0)
    tl.store(measured.findings + slot, 0)
    tl.store(measured.elements + slot, 0)
    tl.store(measured.normal + slot, 0)


@triton.jit(do_not_specialize=["gradients", "numbers", "grad_scale", "found_inf"])
def measure_kernel(
    table,
    gradients,
    numbers,
    grad_scale,
    found_inf,
    state,
    measured,
    decided,
    KINDS: tl.constexpr,
    SHAPES: tl.constexpr,
    FLAGS: tl.constexpr,
):
    """Two programs a chunk, one a short one; who finishes a span's last sums it up, and of those
    who do that the last one plans.

    Not where other devices measure, too: then plan is a launch of its own.
    """
    call = Call(gradients, numbers, grad_scale, found_inf)
    row = table.halves + tl.program_id(0).to(tl.int64) * HALF_SIZE
    chunk = tl.load(row + HALF_CHUNK)
    second = tl.load(row + HALF_SECOND).to(tl.int32)
    tensor = tl.load(table.chunks + chunk * PART_SIZE + PART_TENSOR)
    group = tl.load(table.tensors + tensor * TENSOR_SIZE + TENSOR_GROUP)
    kind = tl.load(call.gradients + tensor * GRADIENT_SIZE + GRADIENT_KIND)
    start = tl.load(table.groups + group * GROUP_SIZE + GROUP_START)
    if (kind < 0) | (tl.load(state.words + STEP) < start):
        skip_half(measured, 2 * chunk + second)
    else:
        COUNT: tl.constexpr = len(KINDS) // KIND_SIZE
        if COUNT == 1:
            measure_half(table, call, state, measured, chunk, second, KINDS, 0, SHAPES)
        else:
            for K in tl.static_range(COUNT):
                if KINDS[K * KIND_SIZE + KIND_G] >= 0:  # noqa: SIM102 (for the compiler)
                    if kind == K:
                        measure_apart(table, call, state, measured, chunk, second, KINDS, K, SHAPES)
    if (ONLY_MEASURES & FLAGS) == 0:
        span = chunk // SPAN
        if is_last(measured.tickets + 1 + span, tl.load(table.spans + span)):
            finish_and_plan(
                table,
                call,
                state,
                measured,
                decided,
                span,
                tl.load(table.sizes + SPANS),
                SHAPES,
                FLAGS,
            )
