# mypy: ignore-errors
"""What the chunks' sums say: the norms before and after clipping, and what is not finite."""

import triton
import triton.language as tl

from lrfused.triton.memory import NAN_BITS, as_bits, from_bits
from lrfused.triton.norm import pairwise_sum
from lrfused.triton.words import (
    ACTIVE,
    ADAPTIVE,
    AGC,
    CHUNK_LANES,
    CHUNKS,
    CLIP_NORM,
    CLIPPED,
    CLIPS_BEFORE_NORM,
    GROUP_AGC,
    GROUP_SIZE,
    INFINITY_NORM,
    LONG_UNITS,
    OVERFLOWS,
    PART_SIZE,
    PART_UNIT,
    SLOTS,
    UNIT_CHUNKS,
    UNIT_FIRST,
    UNIT_GROUP,
    UNIT_NORM_FLOOR,
    UNIT_SIZE,
    UNITS,
    WIDTH,
)

AHEAD = tl.constexpr(4)  # loads in flight: additions wait for each other, loads need not


@triton.jit
def load_half(words, chunk, second, present):
    """What another program stored: past this multiprocessor's own cache."""
    return tl.load(words + 2 * chunk + second, mask=present, other=0, cache_modifier=".cg")


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
def coefficients(table, decided, unit, present, gradient, weight):
    """min(1, threshold * max(|p|, 1e-3) / |g|) of units, from their sums of squares."""
    group = tl.load(table.units + unit * UNIT_SIZE + UNIT_GROUP, mask=present, other=0)
    clips = tl.load(table.groups + group * GROUP_SIZE + GROUP_AGC, mask=present, other=0) != 0
    threshold = tl.load(decided.matrix + group * SLOTS + AGC, mask=present, other=0.0)
    norm = tl.sqrt(gradient)
    size = tl.sqrt(weight)
    limit = threshold * tl.where(size > UNIT_NORM_FLOOR, size, UNIT_NORM_FLOOR)
    return tl.where(clips & (norm > limit), limit / norm, 1.0)


@triton.jit
def short_units(table, measured, decided, square):
    """Factors of units that are one chunk, or none."""
    units = tl.load(table.sizes + UNITS)
    for start in range(0, units, WIDTH):
        unit = start + tl.arange(0, WIDTH)
        present = unit < units
        row = table.units + unit * UNIT_SIZE
        chunks = tl.load(row + UNIT_CHUNKS, mask=present, other=0)
        chunk = tl.load(row + UNIT_FIRST, mask=present, other=0)
        gradient = unscaled(measured, chunk, chunks == 1, square)
        weight = load_sum(measured.param, chunk, chunks == 1)
        factor = coefficients(table, decided, unit, present, gradient, weight)
        tl.store(decided.factors + unit, factor, mask=present & (chunks <= 1))


@triton.jit
def long_units(table, measured, decided, square):
    """Factors of units of several chunks, one by one: each has more than 65,536 elements."""
    count = tl.load(table.sizes + LONG_UNITS)
    lane = tl.arange(0, CHUNK_LANES)
    for i in range(0, count):
        unit = tl.load(table.long_units + i)
        first = tl.load(table.units + unit * UNIT_SIZE + UNIT_FIRST)
        chunks = tl.load(table.units + unit * UNIT_SIZE + UNIT_CHUNKS)
        gradient = tl.full((CHUNK_LANES,), 0.0, tl.float64)
        weight = tl.full((CHUNK_LANES,), 0.0, tl.float64)
        for start in range(0, chunks, CHUNK_LANES):
            present = start + lane < chunks
            gradient += unscaled(measured, first + start + lane, present, square)
            weight += load_sum(measured.param, first + start + lane, present)
        gradient = pairwise_sum(gradient, CHUNK_LANES)
        weight = pairwise_sum(weight, CHUNK_LANES)
        factor = coefficients(table, decided, unit, True, gradient, weight)
        tl.store(decided.factors + unit, factor)


@triton.jit
def before_clips(table, measured):
    """(sum of squares, largest magnitude, something is not finite) of all gradients."""
    chunks = tl.load(table.sizes + CHUNKS)
    sums = tl.full((CHUNK_LANES,), 0.0, tl.float64)
    largest = tl.full((CHUNK_LANES,), 0, tl.int64)
    findings = tl.full((CHUNK_LANES,), 0, tl.int64)
    for start in range(0, chunks, CHUNK_LANES * AHEAD):
        for turn in tl.static_range(AHEAD):
            chunk = start + turn * CHUNK_LANES + tl.arange(0, CHUNK_LANES)
            sums += load_sum(measured.raw, chunk, chunk < chunks)
            bits = load_largest(measured.largest, chunk, chunk < chunks)
            largest = tl.where(bits > largest, bits, largest)
            findings |= load_findings(measured.findings, chunk, chunk < chunks)
    nonfinite = tl.max(findings & OVERFLOWS, 0) != 0
    return pairwise_sum(sums, CHUNK_LANES), from_bits(tl.max(largest, 0)), nonfinite


@triton.jit
def after_clips(table, measured, decided, square, FLAGS: tl.constexpr):
    """(sum of squares, largest magnitude) that the global clip sees."""
    chunks = tl.load(table.sizes + CHUNKS)
    sums = tl.full((CHUNK_LANES,), 0.0, tl.float64)
    largest = tl.full((CHUNK_LANES,), 0, tl.int64)
    for start in range(0, chunks, CHUNK_LANES):
        chunk = start + tl.arange(0, CHUNK_LANES)
        present = chunk < chunks
        sum_here = unscaled(measured, chunk, present, square)
        seen = from_bits(load_largest(measured.seen, chunk, present))
        if ADAPTIVE & FLAGS:
            unit = tl.load(table.chunks + chunk * PART_SIZE + PART_UNIT, mask=present, other=0)
            factor = tl.load(decided.factors + unit, mask=present, other=1.0)
            sum_here = sum_here * (factor * factor)
            seen = seen * factor
        sums += sum_here
        bits = tl.where(seen != seen, NAN_BITS, as_bits(seen))
        largest = tl.where(bits > largest, bits, largest)
    return pairwise_sum(sums, CHUNK_LANES), from_bits(tl.max(largest, 0))


@triton.jit
def measured_norms(table, measured, decided, inverse, FLAGS: tl.constexpr):
    """(norm before any clip, norm that the global clip sees, largest gradient, not finite)."""
    total, largest, nonfinite = before_clips(table, measured)
    if ADAPTIVE & FLAGS:
        short_units(table, measured, decided, inverse * inverse)
        long_units(table, measured, decided, inverse * inverse)
        tl.debug_barrier()
    norm = largest * inverse if INFINITY_NORM & FLAGS else tl.sqrt(total) * inverse
    seen = norm
    if ((CLIPS_BEFORE_NORM & FLAGS) != 0) and ((CLIP_NORM & FLAGS) != 0):
        square, largest_seen = after_clips(table, measured, decided, inverse * inverse, FLAGS)
        seen = largest_seen if INFINITY_NORM & FLAGS else tl.sqrt(square)
    return norm, seen, largest, nonfinite
