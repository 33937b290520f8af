# mypy: ignore-errors
"""The norm of lrfused/numerics/norm.py in Triton: the same additions in the same order."""

import triton
import triton.language as tl

from lrfused.backends.triton.magnitudes import (
    largest_bits,
    largest_of_fours,
    normal_count,
    sum_of_fours,
)
from lrfused.backends.triton.memory import pointer
from lrfused.backends.triton.rows import (
    FOURS,
    clip_rows,
    exact_squares,
    in_doubt,
    look_at,
    read_rows,
)
from lrfused.backends.triton.words import HALF, LANE_LEVELS, LANES, LARGEST_SUM, SMALLEST_SUM

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
def exact_rows(
    start,
    mask,
    offset,
    last,
    inverse,
    bound,
    first,
    COUNT: tl.constexpr,
    DTYPE: tl.constexpr,
    DOUBLE: tl.constexpr,
    CLIP: tl.constexpr,
    MASKED: tl.constexpr,
    WHOLE: tl.constexpr,
):
    """What exact_sums returns, of some rows."""
    x = read_rows(start, mask, offset, last, first, COUNT, DTYPE, DOUBLE, MASKED, WHOLE)
    if CLIP:
        x = clip_rows(x, inverse, bound, COUNT)
    largest = largest_bits(x, COUNT, DOUBLE)
    normal = sum_of_fours(normal_count(x, COUNT, DTYPE, DOUBLE))
    return exact_squares(x, COUNT), largest, normal


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
    """(column sums of squares in float64, bits of the largest magnitudes, normal numbers of fours).

    From memory, a few rows at a time: all of them in float64 would not fit in the registers.
    """
    sums = tl.full((LANES,), 0.0, tl.float64)
    largest = tl.full((LANES,), 0, tl.int64 if DOUBLE else tl.int32)
    normal = tl.full((FOURS,), 0, tl.int32)
    if DOUBLE:
        for half in tl.static_range(2):
            part, bits, count = exact_rows(
                start,
                mask,
                offset,
                last,
                inverse,
                bound,
                4 * half,
                4,
                DTYPE,
                DOUBLE,
                CLIP,
                MASKED,
                WHOLE,
            )
            largest = tl.where(bits > largest, bits, largest)
            normal += count
            sums += part
    else:  # a rare case, which must not set the number of registers: loops with ends unknown
        for half in range(0, 2):
            part = tl.full((LANES,), 0.0, tl.float64)
            for first in range(half * 4, half * 4 + 4, 2):
                pair, bits, count = exact_rows(
                    start,
                    mask,
                    offset,
                    last,
                    inverse,
                    bound,
                    first,
                    2,
                    DTYPE,
                    DOUBLE,
                    CLIP,
                    MASKED,
                    WHOLE,
                )
                largest = tl.where(bits > largest, bits, largest)
                normal += count
                part += pair
            sums += part
    return sums, largest, normal


@triton.jit
def unsafe(sums, largest):
    """float32 sums that may have over- or underflowed; where all numbers are 0, so is the sum."""
    inside = (sums >= SMALLEST_SUM) & (sums <= LARGEST_SUM)
    return (inside == 0) & (largest != 0)


@triton.jit
def single_sums(
    start,
    mask,
    offset,
    last,
    inverse,
    bound,
    DTYPE: tl.constexpr,
    CLIP: tl.constexpr,
    MASKED: tl.constexpr,
    WHOLE: tl.constexpr,
):
    """What exact_sums returns, but sums in float32 where these are safe.

    Magnitudes are looked at one by one only where some number is tiny or some sum is not safe.
    """
    if WHOLE:
        x = read_rows(start, mask, offset, last, 0, 8, DTYPE, False, MASKED, True)
        if CLIP:
            x = clip_rows(x, inverse, bound, 8)
        single, smallest, largest = look_at(x, 8)
    else:  # two by two: masks and addresses take registers, too
        single = tl.full((LANES,), 0.0, tl.float32)
        smallest = tl.full((FOURS,), 0x7FFFFFFF, tl.int32)
        largest = tl.full((FOURS,), 0, tl.int32)
        for half in range(0, 2):
            part = tl.full((LANES,), 0.0, tl.float32)
            for first in range(half * 4, half * 4 + 4, 2):
                x = read_rows(start, mask, offset, last, first, 2, DTYPE, False, MASKED, False)
                if CLIP:
                    x = clip_rows(x, inverse, bound, 2)
                sums, least, bits = look_at(x, 2)
                part += sums
                smallest = tl.where(least < smallest, least, smallest)
                largest = tl.where(bits > largest, bits, largest)
            single += part
    result = single.to(tl.float64)
    normal = tl.full((FOURS,), 4 * 8, tl.int32)
    if in_doubt(single, smallest, largest, DTYPE, CLIP):
        exact, bits, normal = exact_sums(
            start, mask, offset, last, inverse, bound, DTYPE, False, CLIP, MASKED, WHOLE
        )
        result = tl.where(unsafe(single, bits), exact, result)
    return result, largest, normal


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
            bits = largest_of_fours(bits)
        else:
            sums, bits, count = single_sums(
                start, mask, offset, last, inverse, bound, DTYPE, False, MASKED, WHOLE
            )
        if CLIP and DOUBLE:
            again, _largest, _normal = exact_sums(
                start, mask, offset, last, inverse, bound, DTYPE, True, True, MASKED, WHOLE
            )
            clipped += again
        elif CLIP:
            again, _largest, _normal = single_sums(
                start, mask, offset, last, inverse, bound, DTYPE, True, MASKED, WHOLE
            )
            clipped += again
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
    largest = tl.full((FOURS,), 0, tl.int64 if DOUBLE else tl.int32)
    normal = tl.full((FOURS,), 0, tl.int32)
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
