# mypy: ignore-errors
"""Magnitudes as bits: the largest of some, and how many are neither zero nor subnormal."""

import triton
import triton.language as tl

from lrfused.backends.triton.words import FLOAT16, FLOAT64


@triton.jit
def absolute_bits(x, DOUBLE: tl.constexpr):
    """The bits without the sign: as integers, nan is above infinity, infinity above numbers."""
    if DOUBLE:
        bits = x.to(tl.int64, bitcast=True) & 0x7FFFFFFFFFFFFFFF
    else:
        bits = x.to(tl.int32, bitcast=True) & 0x7FFFFFFF
    return bits


@triton.jit
def largest_bits(x, COUNT: tl.constexpr, DOUBLE: tl.constexpr):
    """The bits of the largest magnitude of each column."""
    largest = absolute_bits(x[0], DOUBLE)
    for row in tl.static_range(1, COUNT):
        bits = absolute_bits(x[row], DOUBLE)
        largest = tl.where(bits > largest, bits, largest)
    return largest


@triton.jit
def largest_of_fours(x):
    """Of each four neighbours, which a thread has."""
    return tl.max(tl.reshape(x, (x.shape[0] // 4, 4)), 1)


@triton.jit
def smallest_of_fours(x):
    """Of each four neighbours, which a thread has."""
    return tl.min(tl.reshape(x, (x.shape[0] // 4, 4)), 1)


@triton.jit
def sum_of_fours(x):
    """Of each four neighbours, which a thread has."""
    return tl.sum(tl.reshape(x, (x.shape[0] // 4, 4)), 1)


@triton.jit
def smallest_normal(DTYPE: tl.constexpr, DOUBLE: tl.constexpr):
    """The bits of the smallest magnitude that is normal in DTYPE and in the compute type."""
    if DOUBLE:
        if DTYPE == FLOAT64:
            bits = 0x0010000000000000  # 2^-1022
        elif DTYPE == FLOAT16:
            bits = 0x3F10000000000000  # 2^-14
        else:
            bits = 0x3810000000000000  # 2^-126
    else:
        bits = 0x38800000 if DTYPE == FLOAT16 else 0x00800000
    return bits


@triton.jit
def normal_count(x, COUNT: tl.constexpr, DTYPE: tl.constexpr, DOUBLE: tl.constexpr):
    """How many of each column are neither zero nor subnormal."""
    least = smallest_normal(DTYPE, DOUBLE)
    normal = (absolute_bits(x[0], DOUBLE) >= least).to(tl.int32)
    for row in tl.static_range(1, COUNT):
        normal += (absolute_bits(x[row], DOUBLE) >= least).to(tl.int32)
    return normal
