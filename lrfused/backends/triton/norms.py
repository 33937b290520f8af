# mypy: ignore-errors
"""What the spans say: the norms before and after clipping, and what is not finite."""

import triton
import triton.language as tl

from lrfused.backends.triton.memory import as_bits, from_bits
from lrfused.backends.triton.norm import pairwise_sum
from lrfused.backends.triton.spans import agc_factor, load_sum, seen_of_spans, unscaled
from lrfused.backends.triton.words import (
    ADAPTIVE,
    AGC,
    CHUNKS,
    CLIP_NORM,
    CLIPS_BEFORE_NORM,
    INFINITY_NORM,
    LONG_SPANS,
    LONG_UNITS,
    PART_SIZE,
    PART_UNIT,
    SLOTS,
    SPAN,
    SPAN_ELEMENTS,
    SPAN_FINDINGS,
    SPAN_LANE_LEVELS,
    SPAN_LANES,
    SPAN_LARGEST,
    SPAN_LEVELS,
    SPAN_NORMAL,
    SPAN_RAW,
    SPAN_SEEN,
    SPAN_SEEN_LARGEST,
    SPAN_SIZE,
    SPANS,
    UNIT_CHUNKS,
    UNIT_FIRST,
    UNIT_GROUP,
    UNIT_SIZE,
)

AT_ONCE = tl.constexpr(4)  # spans that hold chunks of units of several


@triton.jit
def load_span(measured, span, present, WORD: tl.constexpr):
    """What another program stored of spans, before a ticket."""
    word = measured.spans + span * SPAN_SIZE + WORD
    return tl.load(word, mask=present, other=0)


@triton.jit
def combine_spans(table, measured, SUM: tl.constexpr, MAXIMUM: tl.constexpr):
    """(sum, largest magnitude, something is not finite) of all spans."""
    spans = tl.load(table.sizes + SPANS)
    sums = tl.full((SPAN_LANES,), 0.0, tl.float64)
    largest = tl.full((SPAN_LANES,), 0, tl.int64)
    findings = tl.full((SPAN_LANES,), 0, tl.int64)
    for start in range(0, spans, SPAN_LANES):
        span = start + tl.arange(0, SPAN_LANES)
        sums += from_bits(load_span(measured, span, span < spans, SUM))
        bits = load_span(measured, span, span < spans, MAXIMUM)
        largest = tl.where(bits > largest, bits, largest)
        findings |= load_span(measured, span, span < spans, SPAN_FINDINGS)
    total = pairwise_sum(sums, SPAN_LANE_LEVELS)
    return total, from_bits(tl.max(largest, 0)), tl.max(findings, 0) != 0


@triton.jit
def tiny_share(table, measured):
    """The share of gradient elements that are zero or subnormal; nan of none."""
    spans = tl.load(table.sizes + SPANS)
    elements = tl.full((SPAN_LANES,), 0, tl.int64)
    normal = tl.full((SPAN_LANES,), 0, tl.int64)
    for start in range(0, spans, SPAN_LANES):
        span = start + tl.arange(0, SPAN_LANES)
        elements += load_span(measured, span, span < spans, SPAN_ELEMENTS)
        normal += load_span(measured, span, span < spans, SPAN_NORMAL)
    total = tl.sum(elements, 0)
    return (total - tl.sum(normal, 0)).to(tl.float64) / total.to(tl.float64)


@triton.jit
def enter_lane(lanes, total, turn):
    """The lanes after the sum of the span of this turn has entered its own."""
    lane = tl.arange(0, SPAN_LANES)
    return lanes + tl.where((lane - turn) % SPAN_LANES == 0, total, 0.0)


@triton.jit
def long_factors(table, measured, decided, square):
    """Factors of units of several chunks, whose norms are combined as the whole norm is.

    One by one: each has more than 65,536 elements. (Several at once, Triton compiles for minutes.)
    """
    lane = tl.arange(0, SPAN)
    for i in range(0, tl.load(table.sizes + LONG_UNITS)):
        unit = tl.load(table.long_units + i)
        row = table.units + unit * UNIT_SIZE
        first = tl.load(row + UNIT_FIRST)
        chunks = tl.load(row + UNIT_CHUNKS)
        gradient = tl.full((SPAN_LANES,), 0.0, tl.float64)
        weight = tl.full((SPAN_LANES,), 0.0, tl.float64)
        for turn in range(0, (chunks + SPAN - 1) // SPAN):
            within = turn * SPAN + lane
            g = unscaled(measured, first + within, within < chunks, square)
            p = load_sum(measured.param, first + within, within < chunks)
            gradient = enter_lane(gradient, pairwise_sum(g, SPAN_LEVELS), turn)
            weight = enter_lane(weight, pairwise_sum(p, SPAN_LEVELS), turn)
        gradient = pairwise_sum(gradient, SPAN_LANE_LEVELS)
        weight = pairwise_sum(weight, SPAN_LANE_LEVELS)
        threshold = tl.load(decided.matrix + tl.load(row + UNIT_GROUP) * SLOTS + AGC)
        tl.store(decided.factors + unit, agc_factor(threshold, gradient, weight))


@triton.jit
def redo_long_spans(table, measured, decided, square):
    """What the global clip sees of the spans that hold chunks of such units."""
    count = tl.load(table.sizes + LONG_SPANS)
    chunks = tl.load(table.sizes + CHUNKS)
    lane = tl.arange(0, AT_ONCE * SPAN)
    for start in range(0, count, AT_ONCE):
        here = start + lane // SPAN < count
        span = tl.load(table.long_spans + start + lane // SPAN, mask=here, other=0)
        chunk = span * SPAN + lane % SPAN
        present = here & (chunk < chunks)
        unit = tl.load(table.chunks + chunk * PART_SIZE + PART_UNIT, mask=present, other=0)
        factors = decided.factors + unit
        factor = tl.load(factors, mask=present, other=1.0)
        sums, largest = seen_of_spans(measured, chunk, present, square, factor, AT_ONCE)
        place = start + tl.arange(0, AT_ONCE)
        row = tl.load(table.long_spans + place, mask=place < count, other=0) * SPAN_SIZE
        tl.store(measured.spans + row + SPAN_SEEN, as_bits(sums), mask=place < count)
        tl.store(measured.spans + row + SPAN_SEEN_LARGEST, largest, mask=place < count)


@triton.jit
def measured_norms(table, measured, decided, inverse, FLAGS: tl.constexpr):
    """(norm before any clip, norm that the global clip sees, largest gradient, not finite)."""
    total, largest, nonfinite = combine_spans(table, measured, SPAN_RAW, SPAN_LARGEST)
    norm = largest * inverse if INFINITY_NORM & FLAGS else tl.sqrt(total) * inverse
    seen = norm
    if ADAPTIVE & FLAGS:
        long_factors(table, measured, decided, inverse * inverse)
        tl.debug_barrier()
    if ((CLIPS_BEFORE_NORM & FLAGS) != 0) and ((CLIP_NORM & FLAGS) != 0):
        if ADAPTIVE & FLAGS:
            redo_long_spans(table, measured, decided, inverse * inverse)
            tl.debug_barrier()
        square, largest_seen, _ = combine_spans(table, measured, SPAN_SEEN, SPAN_SEEN_LARGEST)
        seen = largest_seen if INFINITY_NORM & FLAGS else tl.sqrt(square)
    return norm, seen, largest, nonfinite
