# mypy: ignore-errors
"""Rows of blocks: read, clipped, and looked at once each for all that measure wants to know."""

import triton
import triton.language as tl

from lrfused.backends.triton.magnitudes import largest_of_fours, smallest_of_fours
from lrfused.backends.triton.memory import element_size, read, read_pairs
from lrfused.backends.triton.riders import keeps
from lrfused.backends.triton.scalars import clip_value
from lrfused.backends.triton.words import BLOCK, COLUMNS, FLOAT16, LANES

FOURS = tl.constexpr(LANES.value // 4)
FINE = tl.constexpr(0x7F000000)  # up to here nothing is in doubt


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
    half = tl.arange(0, LANES // 2)
    pair = offset // 2 + half // (COLUMNS // 2) * (BLOCK // 2) + half % (COLUMNS // 2)
    rows = ()
    for row in tl.static_range(COUNT):
        place = column + (first + row) * COLUMNS
        present = None if WHOLE else place < last
        if WHOLE and (element_size(DTYPE) == 2) and (not DOUBLE):
            x = read_pairs(start, pair + (first + row) * (COLUMNS // 2), DTYPE)
        else:
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
def exact_squares(x, COUNT: tl.constexpr):
    """The sums of two or four squares in float64."""
    a = x[0].to(tl.float64)
    b = x[1].to(tl.float64)
    sums = a * a + b * b
    if COUNT == 4:
        c = x[2].to(tl.float64)
        d = x[3].to(tl.float64)
        sums += c * c + d * d
    return sums


@triton.jit
def look_at(x, COUNT: tl.constexpr):
    """Two or eight float32 rows: (sums of squares, of each four columns the bits of the smallest
    square, of the largest number and, unsigned, of the largest with a sign).

    Row after row, for else the compiler keeps all of them and their squares in registers.
    """
    smallest = tl.full((FOURS,), 0x7FFFFFFF, tl.int32)
    positive = tl.full((FOURS,), -0x80000000, tl.int32)
    negative = tl.full((FOURS,), 0, tl.uint32)
    for row in tl.static_range(0, COUNT, 2):
        for k in tl.static_range(2):
            y = x[row + k]
            bits = largest_of_fours(y.to(tl.int32, bitcast=True))
            positive = tl.where(bits > positive, bits, positive)
            bits = largest_of_fours(y.to(tl.uint32, bitcast=True))
            negative = tl.where(bits > negative, bits, negative)
            bits = smallest_of_fours((y * y).to(tl.int32, bitcast=True))
            smallest = tl.where(bits < smallest, bits, smallest)
        pair = x[row] * x[row] + x[row + 1] * x[row + 1]
        if row == 0:
            sums = pair
        elif row == 4:
            four = pair
        elif row == 2:
            sums += pair
        else:
            sums += four + pair
    negative = (negative & 0x7FFFFFFF).to(tl.int32, bitcast=True)
    return sums, smallest, tl.where(negative > positive, negative, positive)


@triton.jit
def in_doubt(sums, smallest, largest, DTYPE: tl.constexpr, CLIP: tl.constexpr):
    """Some sum may be unsafe, or some number tiny: so is its square. (Clipped ones do not count.)

    By the bits, which order numbers that are not negative, in one reduction: unsigned, what is too
    small is too large once the least that is allowed has been subtracted. That it needs the largest
    keeps the compiler from looking for it later, with all numbers in registers until then.
    """
    tiny: tl.constexpr = 0x31800000 if DTYPE == FLOAT16 else 1  # below 2^-28; 0
    least: tl.constexpr = 0 if CLIP else tiny
    least_sum: tl.constexpr = 0x0D800000  # 2^-100
    much: tl.constexpr = 0x5E800000  # 2^62: eight squares of it are safe
    sums = smallest_of_fours(sums.to(tl.int32, bitcast=True)).to(tl.uint32, bitcast=True)
    sums -= least_sum
    doubt = smallest.to(tl.uint32, bitcast=True) - least
    doubt = tl.where(sums > doubt, sums, doubt)
    largest = largest.to(tl.uint32, bitcast=True) + (FINE - much)
    return tl.max(tl.where(largest > doubt, largest, doubt), 0) > FINE
