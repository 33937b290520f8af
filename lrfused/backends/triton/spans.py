# mypy: ignore-errors
"""Spans: what 256 neighbouring chunks say together, found by the program that finishes the last.

Chunks are lanes here, and what a function is told of several spans is as long as all of them.
"""

import triton
import triton.language as tl

from lrfused.backends.triton.memory import NAN_BITS, as_bits, from_bits
from lrfused.backends.triton.norm import pairwise_sums
from lrfused.backends.triton.scalars import early_value, inverse_scale
from lrfused.backends.triton.words import (
    ACTIVE,
    ADAPTIVE,
    AGC,
    CHUNKS,
    CLIP_NORM,
    CLIPPED,
    CLIPS_BEFORE_NORM,
    EARLY_AGC,
    GROUP_AGC,
    GROUP_AGC_SHAPE,
    GROUP_SIZE,
    OVERFLOWS,
    PART_SIZE,
    PART_UNIT,
    SPAN,
    SPAN_ELEMENTS,
    SPAN_FINDINGS,
    SPAN_LARGEST,
    SPAN_LEVELS,
    SPAN_NORMAL,
    SPAN_RAW,
    SPAN_SEEN,
    SPAN_SEEN_LARGEST,
    SPAN_SIZE,
    UNIT_CHUNKS,
    UNIT_GROUP,
    UNIT_NORM_FLOOR,
    UNIT_SIZE,
)


@triton.jit
def load_half(words, chunk, second, present):
    """What another program stored, before a ticket."""
    return tl.load(words + 2 * chunk + second, mask=present, other=0)


@triton.jit
def load_sum(sums, chunk, present):
    """The sum of a chunk from its halves."""
    return load_half(sums, chunk, 0, present) + load_half(sums, chunk, 1, present)


@triton.jit
def load_largest(words, chunk, present):
    """The larger of the halves' bits, of numbers that are not negative."""
    first = load_half(words, chunk, 0, present)
    second = load_half(words, chunk, 1, present)
    return tl.where(second > first, second, first)


@triton.jit
def load_findings(findings, chunk, present):
    """What was found in either half."""
    return load_half(findings, chunk, 0, present) | load_half(findings, chunk, 1, present)


@triton.jit
def unscaled(measured, chunk, present, square):
    """Sums of squares of the unscaled gradient, after value clip where there is one."""
    findings = load_findings(measured.findings, chunk, present)
    sums = load_sum(measured.raw, chunk, present) * square
    if_clipped = load_sum(measured.clipped, chunk, present)
    sums = tl.where((findings & CLIPPED) != 0, if_clipped, sums)
    return tl.where((findings & ACTIVE) != 0, sums, 0.0)


@triton.jit
def agc_factor(threshold, gradient, weight):
    """min(1, threshold * max(|p|, 1e-3) / |g|) of units, from their sums of squares."""
    norm = tl.sqrt(gradient)
    size = tl.sqrt(weight)
    limit = threshold * tl.where(size > UNIT_NORM_FLOOR, size, UNIT_NORM_FLOOR)
    return tl.where(norm > limit, limit / norm, 1.0)


@triton.jit
def short_factors(
    table, call, state, measured, decided, chunk, present, square, SHAPES: tl.constexpr
):
    """Factors of the chunks that are a unit each; of units of several chunks plan knows them."""
    unit = tl.load(table.chunks + chunk * PART_SIZE + PART_UNIT, mask=present, other=0)
    row = table.units + unit * UNIT_SIZE
    group = tl.load(row + UNIT_GROUP, mask=present, other=0)
    short = present & (tl.load(row + UNIT_CHUNKS, mask=present, other=0) == 1)
    adapts = tl.load(table.groups + group * GROUP_SIZE + GROUP_AGC, mask=short, other=0) != 0
    threshold = early_value(
        table, call, state, group, adapts, AGC, GROUP_AGC_SHAPE, EARLY_AGC, SHAPES, SPAN
    )
    gradient = unscaled(measured, chunk, adapts, square)
    factor = agc_factor(threshold, gradient, load_sum(measured.param, chunk, adapts))
    factor = tl.where(adapts, factor, 1.0)
    tl.store(decided.factors + unit, factor, mask=short)
    return factor


@triton.jit
def seen_of_spans(measured, chunk, present, square, factor, COUNT: tl.constexpr):
    """(sums of squares, bits of the largest magnitudes) that the global clip sees, by span."""
    sums = unscaled(measured, chunk, present, square) * (factor * factor)
    seen = from_bits(load_largest(measured.seen, chunk, present)) * factor
    bits = tl.where(seen != seen, NAN_BITS, as_bits(seen))
    return pairwise_sums(sums, COUNT, SPAN_LEVELS), tl.max(tl.reshape(bits, (COUNT, SPAN)), 1)


@triton.jit(noinline=True)
def finish_span(
    table, call, state, measured, decided, span, SHAPES: tl.constexpr, FLAGS: tl.constexpr
):
    """Everything about a span that can be said before all others have been measured."""
    chunk = span * SPAN + tl.arange(0, SPAN)
    present = chunk < tl.load(table.sizes + CHUNKS)
    one = tl.arange(0, 1)
    row = measured.spans + span * SPAN_SIZE
    raw = pairwise_sums(load_sum(measured.raw, chunk, present), 1, SPAN_LEVELS)
    tl.store(row + SPAN_RAW + one, as_bits(raw))
    tl.store(row + SPAN_LARGEST, tl.max(load_largest(measured.largest, chunk, present), 0))
    findings = load_findings(measured.findings, chunk, present)
    tl.store(row + SPAN_FINDINGS, tl.max(findings & OVERFLOWS, 0))
    tl.store(row + SPAN_ELEMENTS, tl.sum(load_sum(measured.elements, chunk, present), 0))
    tl.store(row + SPAN_NORMAL, tl.sum(load_sum(measured.normal, chunk, present), 0))
    inverse = inverse_scale(table, call, state)
    square = inverse * inverse
    factor = tl.full((SPAN,), 1.0, tl.float64)
    if ADAPTIVE & FLAGS:
        factor = short_factors(
            table, call, state, measured, decided, chunk, present, square, SHAPES
        )
    if ((CLIPS_BEFORE_NORM & FLAGS) != 0) and ((CLIP_NORM & FLAGS) != 0):
        sums, largest = seen_of_spans(measured, chunk, present, square, factor, 1)
        tl.store(row + SPAN_SEEN + one, as_bits(sums))
        tl.store(row + SPAN_SEEN_LARGEST + one, largest)
