# mypy: ignore-errors
"""exp, log, cos, pow in Triton: the operations of lrfused/numerics/elementary.py, one for one.

All take and return float64 blocks. Wherever a minus sign is needed it is a multiplication by
-1.0, because Triton's own ``-x`` is 0 - x, which loses the sign of zero.
"""

import triton
import triton.language as tl

from lrfused.numerics import elementary as numpy

LOG2_E = tl.constexpr(numpy.LOG2_E)
LN2_HI = tl.constexpr(numpy.LN2_HI)
LN2_LO = tl.constexpr(numpy.LN2_LO)
SQRT_HALF_BITS = tl.constexpr(numpy.SQRT_HALF_BITS)
FROM_SQRT_HALF = tl.constexpr(0x3FF0000000000000 - numpy.SQRT_HALF_BITS)
FRACTION_BITS = tl.constexpr(0x000FFFFFFFFFFFFF)
IMPLICIT_BIT = tl.constexpr(0x0010000000000000)
LOW32 = tl.constexpr(0xFFFFFFFF)

PIO2 = tl.constexpr(numpy.PIO2)
PIO2_HIGH = tl.constexpr(numpy.PIO2_HIGH)
PIO2_LOW = tl.constexpr(numpy.PIO2_LOW)
PIO2_REST = tl.constexpr(numpy.PIO2_REST)

EXP_SERIES = tl.constexpr(tuple(numpy.EXP_SERIES))
LOG_SERIES = tl.constexpr(tuple(numpy.LOG_SERIES))
SIN_SERIES = tl.constexpr(tuple(numpy.SIN_SERIES))
COS_SERIES = tl.constexpr(tuple(numpy.COS_SERIES))

INF = tl.constexpr(float("inf"))


@triton.jit
def magnitude(x):
    """|x|, of a float64."""
    return (x.to(tl.uint64, bitcast=True) & 0x7FFFFFFFFFFFFFFF).to(tl.float64, bitcast=True)


@triton.jit
def horner(COEFFICIENTS: tl.constexpr, COUNT: tl.constexpr, x):
    """A polynomial, highest power first."""
    total = x * COEFFICIENTS[0] + COEFFICIENTS[1]
    for i in tl.static_range(2, COUNT):
        total = total * x + COEFFICIENTS[i]
    return total


@triton.jit
def power_of_two(k):
    """2**k for a normal result."""
    return ((k + 1023) << 52).to(tl.float64, bitcast=True)


@triton.jit
def exp(x):
    """e**x: x = k ln 2 + r with |r| <= ln 2 / 2, then 2**k times the series of e**r."""
    held = tl.where(x > 710.0, 710.0, tl.where(x < -746.0, -746.0, x))
    held = tl.where(x != x, 0.0, held)
    k = tl.floor(held * LOG2_E + 0.5)
    r = (held - k * LN2_HI) - k * LN2_LO
    y = 1.0 + (r + (r * r) * horner(EXP_SERIES, 12, r))
    power = k.to(tl.int64)
    half = power >> 1
    y = (y * power_of_two(half)) * power_of_two(power - half)
    return tl.where(x != x, x, y)


@triton.jit
def log(x):
    """Natural logarithm: x = 2**k m, sqrt(1/2) <= m < sqrt(2), series in s = f / (2 + f)."""
    tiny = x < 2.0**-1022
    bits = tl.where(tiny, x * 2.0**54, x).to(tl.uint64, bitcast=True)
    shifted = bits + FROM_SQRT_HALF
    k = (shifted >> 52).to(tl.float64) - tl.where(tiny, 1077.0, 1023.0)
    m = ((shifted & FRACTION_BITS) + SQRT_HALF_BITS).to(tl.float64, bitcast=True)
    f = m - 1.0
    s = f / (2.0 + f)
    z = s * s
    half_square = 0.5 * (f * f)
    tail = s * (half_square + z * horner(LOG_SERIES, 10, z))
    y = k * LN2_HI - ((half_square - (tail + k * LN2_LO)) - f)
    y = tl.where(x == INF, x, y)
    y = tl.where(x == 0.0, -INF, y)
    return tl.where((x < 0.0) | (x != x), float("nan"), y)


@triton.jit
def times_two_over_pi(x, digits):
    """x * 2/pi modulo 4 as six 32-bit words, lowest first; ``digits`` are those of 2/pi."""
    bits = x.to(tl.uint64, bitcast=True)
    significand = (bits & FRACTION_BITS) | IMPLICIT_BIT
    position = ((bits >> 52).to(tl.int64) - 981).to(tl.uint64)
    place = digits + (position >> 5).to(tl.int64)
    shift = 32 - (position & 31)
    low = significand & LOW32
    high = significand >> 32
    carry = low & 0
    before = low & 0  # the digits of the two words before
    before_that = low & 0
    words = ()
    upper = tl.load(place + 6).to(tl.uint64)
    for j in tl.static_range(6):
        lower = tl.load(place + 5 - j).to(tl.uint64)
        word = (((lower << 32) | upper) >> shift) & LOW32
        total = carry + ((low * word) & LOW32)
        total = total + ((low * before) >> 32) + ((high * before) & LOW32)
        total = total + ((high * before_that) >> 32)
        words = words + (total & LOW32,)
        carry = total >> 32
        before_that = before
        before = word
        upper = lower
    return words


@triton.jit
def reduce_angle(x, digits):
    """(quadrant, r, rest) with x = quadrant pi/2 + r + rest and |r| <= pi/4."""
    words = times_two_over_pi(x, digits)
    quadrant = words[5] >> 30
    top = (words[5] & 0x3FFFFFFF).to(tl.float64)
    upper = top >= 2.0**29
    top = tl.where(upper, top - 2.0**30, top)
    quadrant = (quadrant + upper.to(tl.uint64)) & 3
    first = top * 2.0**-30
    second = words[4].to(tl.float64) * 2.0**-62
    h = first + second
    rest = (second - (h - first)) + (
        words[3].to(tl.float64) * 2.0**-94 + words[2].to(tl.float64) * 2.0**-126
    )
    turn = h + rest
    turn_rest = rest - (turn - h)
    # turn * pi/2 with its rounding error: Dekker's product, since there is no fma here.
    big = turn * 134217729.0
    high = big - (big - turn)
    low = turn - high
    product = turn * PIO2
    error = ((high * PIO2_HIGH - product) + high * PIO2_LOW + low * PIO2_HIGH) + low * PIO2_LOW
    tail = error + (turn * PIO2_REST + turn_rest * PIO2)
    r = product + tail
    return quadrant, r, tail - (r - product)


@triton.jit
def cos(x, digits):
    """Cosine, of any finite x: cos or sin of the remainder, by quadrant."""
    size = magnitude(x)
    usual = (size >= 2.0**-30) & (size < INF)
    quadrant, r, rest = reduce_angle(tl.where(usual, size, 1.0), digits)
    z = r * r
    sine = r + (r * z * horner(SIN_SERIES, 8, z) + rest)
    cosine = 1.0 - ((0.5 * z - (z * z) * horner(COS_SERIES, 7, z)) + r * rest)
    y = tl.where((quadrant & 1) == 1, sine, cosine)
    y = tl.where((quadrant == 1) | (quadrant == 2), y * -1.0, y)
    y = tl.where(size < 2.0**-30, 1.0, y)
    return tl.where(size < INF, y, float("nan"))


@triton.jit
def power_integer(x, n):
    """x**n by repeated squaring; a negative n divides 1 by x**|n|."""
    left = tl.where(n < 0, 0 - n, n)
    base = x
    result = tl.full(x.shape, 1.0, tl.float64)
    while tl.max(left, 0) > 0:
        result = tl.where((left & 1) == 1, result * base, result)
        base = base * base
        left = left >> 1
    return tl.where(n < 0, 1.0 / result, result)


@triton.jit
def power(x, y):
    """x**y: repeated squaring for integers below 2**53, else exp(y log x); specials as in C."""
    size = magnitude(y)
    whole = (tl.floor(y) == y) & (size < 2.0**53)
    by_squaring = power_integer(x, tl.where(whole, y, 0.0).to(tl.int64))
    # From 2**53 on every y is even, so the sign of x does not matter; nor does that of -inf.
    base = tl.where((size >= 2.0**53) | (x == -INF), magnitude(x), x)
    by_exp = tl.where(base == 1.0, 1.0, exp(y * log(base)))
    return tl.where(whole, by_squaring, by_exp)
