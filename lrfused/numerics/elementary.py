"""exp, log, cos, pow: each one fixed sequence of IEEE float64 operations, in NumPy.

``csrc/core/elementary.h`` is the same sequence in C++; the two agree bit for bit, unlike
any pair of maths libraries (NumPy, torch and libm differ in up to 5% of values).
exp, log and cos are within 2 ulp of the true value wherever it is finite.
All functions take and return float64 arrays; the caller silences NumPy's warnings.
"""

import math

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Words = NDArray[np.uint64]

LOG2_E = 1.4426950408889634
# ln 2 in two parts: the first has 21 zero bits at its end, so k * LN2_HI is exact.
LN2_HI = float.fromhex("0x1.62e42fee00000p-1")
LN2_LO = float.fromhex("0x1.a39ef35793c76p-33")
SQRT_HALF_BITS = 0x3FE6A09E667F3BCD

# pi/2 = PIO2_HIGH + PIO2_LOW (26 bits each) rounded to float64, and the remainder PIO2_REST.
PIO2 = float.fromhex("0x1.921fb54442d18p+0")
PIO2_HIGH = float.fromhex("0x1.921fb50000000p+0")
PIO2_LOW = float.fromhex("0x1.110b460000000p-26")
PIO2_REST = float.fromhex("0x1.1a62633145c07p-54")

# Horner coefficients, highest power first: plain Taylor-like series, easy to verify.
EXP_SERIES = [1.0 / math.factorial(n) for n in range(13, 1, -1)]
LOG_SERIES = [2.0 / (2 * n + 1) for n in range(10, 0, -1)]
SIN_SERIES = [(-1.0) ** n / math.factorial(2 * n + 1) for n in range(8, 0, -1)]
COS_SERIES = [(-1.0) ** n / math.factorial(2 * n) for n in range(8, 1, -1)]

# The binary digits of 2/pi in 32-bit words, after 96 zero bits.
TWO_OVER_PI = np.array(
    [
        0x00000000,
        0x00000000,
        0x00000000,
        0xA2F9836E,
        0x4E441529,
        0xFC2757D1,
        0xF534DDC0,
        0xDB629599,
        0x3C439041,
        0xFE5163AB,
        0xDEBBC561,
        0xB7246E3A,
        0x424DD2E0,
        0x06492EEA,
        0x09D1921C,
        0xFE1DEB1C,
        0xB129A73E,
        0xE88235F5,
        0x2EBB4484,
        0xE99C7026,
        0xB45F7E41,
        0x3991D639,
        0x835339F4,
        0x9C845F8B,
        0xBDF9283B,
        0x1FF897FF,
        0xDE05980F,
        0xEF2F118B,
        0x5A0A6D1F,
        0x6D367ECF,
        0x27CB09B7,
        0x4F463F66,
        0x9E5FEA2D,
        0x7527BAC7,
        0xEBE5F17B,
        0x3D0739F7,
        0x8A5292EA,
        0x6BFB5FB1,
        0x1F8D5D08,
        0x56033046,
    ],
    dtype=np.uint64,
)


def _bits(x: Floats) -> Words:
    return x.view(np.uint64)


def _floats(bits: Words) -> Floats:
    return bits.view(np.float64)


def _u64(value: int) -> np.uint64:
    return np.uint64(value)


def _horner(coefficients: list[float], x: Floats) -> Floats:
    total = np.full_like(x, coefficients[0])
    for coefficient in coefficients[1:]:
        total = total * x + coefficient
    return total


def _power_of_two(k: NDArray[np.int64]) -> Floats:
    """2**k for a normal result."""
    return _floats(((k + 1023) << 52).view(np.uint64))


def exp(x: Floats) -> Floats:
    """e**x: x = k ln 2 + r with |r| <= ln 2 / 2, then 2**k times the series of e**r."""
    held = np.where(x > 710.0, 710.0, np.where(x < -746.0, -746.0, x))
    held = np.where(np.isnan(x), 0.0, held)
    k = np.floor(held * LOG2_E + 0.5)
    r = (held - k * LN2_HI) - k * LN2_LO
    y = 1.0 + (r + (r * r) * _horner(EXP_SERIES, r))
    # Two factors, because 2**k itself may be subnormal or beyond the range.
    power = k.astype(np.int64)
    half = power >> 1
    y = (y * _power_of_two(half)) * _power_of_two(power - half)
    return np.where(np.isnan(x), x, y)


def log(x: Floats) -> Floats:
    """Natural logarithm: x = 2**k m, sqrt(1/2) <= m < sqrt(2), series in s = f / (2 + f)."""
    tiny = x < 2.0**-1022
    bits = _bits(np.where(tiny, x * 2.0**54, x))
    shifted = bits + _u64(0x3FF0000000000000 - SQRT_HALF_BITS)
    k = (shifted >> _u64(52)).astype(np.float64) - np.where(tiny, 1077.0, 1023.0)
    m = _floats((shifted & _u64(0x000FFFFFFFFFFFFF)) + _u64(SQRT_HALF_BITS))
    f = m - 1.0
    s = f / (2.0 + f)
    z = s * s
    half_square = 0.5 * (f * f)
    tail = s * (half_square + z * _horner(LOG_SERIES, z))
    y = k * LN2_HI - ((half_square - (tail + k * LN2_LO)) - f)
    y = np.where(x == np.inf, x, y)
    y = np.where(x == 0.0, -np.inf, y)
    return np.where((x < 0.0) | np.isnan(x), np.nan, y)


def _times_two_over_pi(magnitude: Floats) -> list[Words]:
    """magnitude * 2/pi modulo 4 as six 32-bit words, lowest first; the top bit weighs 2.

    The 53-bit significand is multiplied only by the 192 binary digits of 2/pi whose products weigh
    between 2 and 2**-190 (Payne and Hanek): every argument takes the same integer operations.
    """
    bits = _bits(magnitude)
    significand = (bits & _u64(0x000FFFFFFFFFFFFF)) | _u64(0x0010000000000000)
    position = (bits >> _u64(52)) - _u64(1075 - 94)
    word, shift = position >> _u64(5), _u64(32) - (position & _u64(31))
    low32 = _u64(0xFFFFFFFF)
    digits = [
        (((TWO_OVER_PI[word + _u64(j)] << _u64(32)) | TWO_OVER_PI[word + _u64(j + 1)]) >> shift)
        & low32
        for j in range(5, -1, -1)
    ]
    low, high = significand & low32, significand >> _u64(32)
    carry = np.zeros_like(bits)
    words = []
    for j in range(6):
        total = carry + ((low * digits[j]) & low32)
        if j >= 1:
            total = total + ((low * digits[j - 1]) >> _u64(32)) + ((high * digits[j - 1]) & low32)
        if j >= 2:
            total = total + ((high * digits[j - 2]) >> _u64(32))
        words.append(total & low32)
        carry = total >> _u64(32)
    return words


def _reduce(magnitude: Floats) -> tuple[Words, Floats, Floats]:
    """(quadrant, r, rest) with magnitude = quadrant pi/2 + r + rest and |r| <= pi/4."""
    words = _times_two_over_pi(magnitude)
    quadrant = words[5] >> _u64(30)
    top = (words[5] & _u64(0x3FFFFFFF)).astype(np.float64)
    upper = top >= 2.0**29
    top = np.where(upper, top - 2.0**30, top)
    quadrant = (quadrant + upper.astype(np.uint64)) & _u64(3)
    first, second = top * 2.0**-30, words[4].astype(np.float64) * 2.0**-62
    h = first + second
    rest = (second - (h - first)) + (
        words[3].astype(np.float64) * 2.0**-94 + words[2].astype(np.float64) * 2.0**-126
    )
    turn = h + rest
    turn_rest = rest - (turn - h)
    # turn * pi/2 with its rounding error: Dekker's product, since NumPy has no fma.
    big = turn * 134217729.0
    high = big - (big - turn)
    low = turn - high
    product = turn * PIO2
    error = ((high * PIO2_HIGH - product) + high * PIO2_LOW + low * PIO2_HIGH) + low * PIO2_LOW
    tail = error + (turn * PIO2_REST + turn_rest * PIO2)
    r = product + tail
    return quadrant, r, tail - (r - product)


def cos(x: Floats) -> Floats:
    """Cosine of any finite x: cos or sin of the remainder, by quadrant."""
    magnitude = np.abs(x)
    usual = (magnitude >= 2.0**-30) & (magnitude < np.inf)
    quadrant, r, rest = _reduce(np.where(usual, magnitude, 1.0))
    z = r * r
    sine = r + (r * z * _horner(SIN_SERIES, z) + rest)
    cosine = 1.0 - ((0.5 * z - (z * z) * _horner(COS_SERIES, z)) + r * rest)
    y = np.where((quadrant & _u64(1)) == 1, sine, cosine)
    y = np.where((quadrant == 1) | (quadrant == 2), -y, y)
    y = np.where(magnitude < 2.0**-30, 1.0, y)
    return np.where(magnitude < np.inf, y, np.nan)


def power_integer(x: Floats, n: NDArray[np.int64]) -> Floats:
    """x**n by repeated squaring; a negative n divides 1 by x**|n|."""
    left = np.abs(n)
    base, result = x, np.ones_like(x)
    while np.any(left):
        result = np.where(left & 1, result * base, result)
        base = base * base
        left = left >> 1
    return np.where(n < 0, 1.0 / result, result)


def power(x: Floats, y: Floats) -> Floats:
    """x**y: repeated squaring for integers below 2**53, else exp(y log x); specials as in C."""
    whole = (np.floor(y) == y) & (np.abs(y) < 2.0**53)
    by_squaring = power_integer(x, np.where(whole, y, 0.0).astype(np.int64))
    # From 2**53 on every y is even, so the sign of x is irrelevant, as is that of x = -inf.
    base = np.where((np.abs(y) >= 2.0**53) | (x == -np.inf), np.abs(x), x)
    by_exp = np.where(base == 1.0, 1.0, exp(y * log(base)))
    return np.where(whole, by_squaring, by_exp)
