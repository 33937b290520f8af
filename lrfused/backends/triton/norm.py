# mypy: ignore-errors
"""The norm of lrfused/numerics/norm.py in Triton: the same additions in the same order."""

import triton
import triton.language as tl

from lrfused.backends.triton.magnitudes import largest_bits, normal_count
from lrfused.backends.triton.memory import pointer, read
from lrfused.backends.triton.riders import keeps
from lrfused.backends.triton.scalars import clip_value
from lrfused.backends.triton.words import (
    BLOCK,
    COLUMNS,
    HALF,
    LANE_LEVELS,
    LANES,
    LARGEST_SUM,
    SMALLEST_SUM,
)

TURN = tl.constexpr(2 * HALF.value)


@triton.jit
def pairwise_sums(x, COUNT: tl.constexpr, LEVELS: tl.constexpr):
    """The sums of COUNT parts of 2**LEVELS numbers, neighbours first.

    tl.sum adds in an order of its own, but of two numbers there is only one.
    """
    for level in tl.static_range(LEVELS):
        x = tl.sum(tl.reshape(x, (COUNT * 2 ** (LEVELS - 1 - level), 2)), 1)
    return x


@triton.jit
def pairwise_sum(x, LEVELS: tl.constexpr):
    """The sum of 2**LEVELS numbers, neighbours first; a scalar."""
    return tl.sum(pairwise_sums(x, 2, LEVELS - 1), 0)


@triton.jit
def read_rows(
    start,
    mask,
    offset,
    last,
    first,
    COUNT: tl.constexpr,
    DTYPE: tl.constexpr,
    DOUBLE: tl.constexpr,
    MASKED: tl.constexpr,
    WHOLE: tl.constexpr,
):
    """Rows of 16 blocks: COUNT vectors, in which a lane is a column of a block.

    MASKED elements are 0, whatever they are in memory.
    """
    lane = tl.arange(0, LANES)
    column = offset + lane // COLUMNS * BLOCK + lane % COLUMNS
    rows = ()
    for row in tl.static_range(COUNT):
        place = column + (first + row) * COLUMNS
        present = None if WHOLE else place < last
        x = read(start, place, present, DTYPE, DOUBLE)
        if MASKED:
            x = tl.where(keeps(mask, place, present), x, 0.0)
        rows = rows + (x,)
    return rows


@triton.jit
def clip_rows(x, inverse, bound, COUNT: tl.constexpr):
    """Rows of the unscaled gradient, clipped by value."""
    rows = ()
    for row in tl.static_range(COUNT):
        rows = rows + (clip_value(x[row] * inverse, bound),)
    return rows


@triton.jit
def exact_sums(
    start,
    mask,
    offset,
    last,
    inverse,
    bound,
    DTYPE: tl.constexpr,
    DOUBLE: tl.constexpr,
    CLIP: tl.constexpr,
    MASKED: tl.constexpr,
    WHOLE: tl.constexpr,
):
    """(column sums of squares in float64, bits of the largest magnitudes, how many are normal).

    From memory, half the rows at a time: all of them in float64 would not fit in the registers.
    """
    sums = tl.full((LANES,), 0.0, tl.float64)
    normal = tl.full((LANES,), 0, tl.int32)
    largest = tl.full((LANES,), 0, tl.int64 if DOUBLE else tl.int32)
    for half in range(0, 2):
        x = read_rows(start, mask, offset, last, half * 4, 4, DTYPE, DOUBLE, MASKED, WHOLE)
        if CLIP:
            x = clip_rows(x, inverse, bound, 4)
        bits = largest_bits(x, 4, DOUBLE)
        largest = tl.where(bits > largest, bits, largest)
        normal += normal_count(x, 4, DTYPE, DOUBLE)
        a = x[0].to(tl.float64)
        b = x[1].to(tl.float64)
        c = x[2].to(tl.float64)
        d = x[3].to(tl.float64)
        sums += (a * a + b * b) + (c * c + d * d)
    return sums, largest, normal


@triton.jit
def column_sums(x):
    """Sums of eight squares."""
    a, b, c, d, e, f, g, h = x
    return ((a * a + b * b) + (c * c + d * d)) + ((e * e + f * f) + (g * g + h * h))


@triton.jit
def unsafe(sums, largest):
    """float32 sums that may have over- or underflowed; where all numbers are 0, so is the sum."""
    inside = (sums >= SMALLEST_SUM) & (sums <= LARGEST_SUM)
    return (inside == 0) & (largest != 0)


@triton.jit
def safe_sums(
    x,
    start,
    mask,
    offset,
    last,
    inverse,
    bound,
    DTYPE: tl.constexpr,
    CLIP: tl.constexpr,
    MASKED: tl.constexpr,
):
    """Column sums of eight float32 rows: what enters the lanes."""
    sums = column_sums(x)
    redo = unsafe(sums, largest_bits(x, 8, False))
    result = sums.to(tl.float64)
    if tl.max(redo.to(tl.int32), 0) > 0:
        exact, _largest, _normal = exact_sums(
            start, mask, offset, last, inverse, bound, DTYPE, False, CLIP, MASKED, False
        )
        result = tl.where(redo, exact, result)
    return result


@triton.jit
def add_turns(
    lanes,
    clipped,
    largest,
    normal,
    address,
    mask,
    first,
    last,
    inverse,
    bound,
    DTYPE: tl.constexpr,
    DOUBLE: tl.constexpr,
    CLIP: tl.constexpr,
    MASKED: tl.constexpr,
    WHOLE: tl.constexpr,
):
    """The lanes (squares, those of the clipped gradient, magnitudes) after some turns."""
    start = pointer(address, DTYPE, WHOLE)
    for offset in range(first, last, TURN):
        if DOUBLE:
            sums, bits, count = exact_sums(
                start, mask, offset, last, inverse, bound, DTYPE, True, False, MASKED, WHOLE
            )
            if CLIP:
                again, _largest, _normal = exact_sums(
                    start, mask, offset, last, inverse, bound, DTYPE, True, True, MASKED, WHOLE
                )
                clipped += again
        else:
            x = read_rows(start, mask, offset, last, 0, 8, DTYPE, False, MASKED, WHOLE)
            bits = largest_bits(x, 8, False)
            count = normal_count(x, 8, DTYPE, False)
            sums = safe_sums(x, start, mask, offset, last, inverse, bound, DTYPE, False, MASKED)
            if CLIP:
                x = clip_rows(x, inverse, bound, 8)
                clipped += safe_sums(
                    x, start, mask, offset, last, inverse, bound, DTYPE, True, MASKED
                )
        lanes += sums
        normal += count
        largest = tl.where(bits > largest, bits, largest)
    return lanes, clipped, largest, normal


@triton.jit
def half_sums(
    address,
    mask,
    second,
    count,
    inverse,
    bound,
    DTYPE: tl.constexpr,
    DOUBLE: tl.constexpr,
    CLIP: tl.constexpr,
    MASKED: tl.constexpr,
):
    """(sum of squares, that of the clipped gradient, largest magnitude's bits, normal numbers).

    Of half the lanes of a chunk: the first 16 of each 32 blocks, or the ``second``.
    """
    lanes = tl.full((LANES,), 0.0, tl.float64)
    clipped = tl.full((LANES,), 0.0, tl.float64)
    largest = tl.full((LANES,), 0, tl.int64 if DOUBLE else tl.int32)
    normal = tl.full((LANES,), 0, tl.int32)
    first = second * HALF
    whole = tl.where((address & 15) == 0, (count - first + HALF) // TURN * TURN, 0)
    ends = (first, first + whole, count)
    for part in tl.static_range(2):  # whole turns, then what is left
        lanes, clipped, largest, normal = add_turns(
            lanes,
            clipped,
            largest,
            normal,
            address,
            mask,
            ends[part],
            ends[part + 1],
            inverse,
            bound,
            DTYPE,
            DOUBLE,
            CLIP,
            MASKED,
            part == 0,
        )
    after = tl.full((), 0.0, tl.float64)
    if CLIP:
        after = pairwise_sum(clipped, LANE_LEVELS)
    return pairwise_sum(lanes, LANE_LEVELS), after, tl.max(largest, 0), tl.sum(normal, 0)
