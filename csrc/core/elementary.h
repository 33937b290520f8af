// exp, log, cos, pow: the same operations as lrfused/numerics/elementary.py, so that host, device
// and Python agree bit for bit. No libm, no fma, no slow path.
#pragma once

#include "core/common.h"

namespace lrfused {

struct TwoOverPi {
    // The binary digits of 2/pi in 32-bit words, after 96 zero bits.
    uint32_t words[40];
};

LRF_CONSTANT TwoOverPi two_over_pi = {{
    0x00000000, 0x00000000, 0x00000000, 0xA2F9836E, 0x4E441529, 0xFC2757D1, 0xF534DDC0, 0xDB629599,
    0x3C439041, 0xFE5163AB, 0xDEBBC561, 0xB7246E3A, 0x424DD2E0, 0x06492EEA, 0x09D1921C, 0xFE1DEB1C,
    0xB129A73E, 0xE88235F5, 0x2EBB4484, 0xE99C7026, 0xB45F7E41, 0x3991D639, 0x835339F4, 0x9C845F8B,
    0xBDF9283B, 0x1FF897FF, 0xDE05980F, 0xEF2F118B, 0x5A0A6D1F, 0x6D367ECF, 0x27CB09B7, 0x4F463F66,
    0x9E5FEA2D, 0x7527BAC7, 0xEBE5F17B, 0x3D0739F7, 0x8A5292EA, 0x6BFB5FB1, 0x1F8D5D08, 0x56033046,
}};

LRF_HD inline double power_of_two(int64_t k) {
    return double_from_bits(static_cast<uint64_t>(k + 1023) << 52);
}

LRF_HD inline double exponential(double x) {
    if (x != x) return x;
    double held = x > 710.0 ? 710.0 : (x < -746.0 ? -746.0 : x);
    double k = floor_of(held * 1.4426950408889634 + 0.5);
    double r = (held - k * 0x1.62e42fee00000p-1) - k * 0x1.a39ef35793c76p-33;
    double q = 1.0 / 6227020800.0;
    q = q * r + 1.0 / 479001600.0;
    q = q * r + 1.0 / 39916800.0;
    q = q * r + 1.0 / 3628800.0;
    q = q * r + 1.0 / 362880.0;
    q = q * r + 1.0 / 40320.0;
    q = q * r + 1.0 / 5040.0;
    q = q * r + 1.0 / 720.0;
    q = q * r + 1.0 / 120.0;
    q = q * r + 1.0 / 24.0;
    q = q * r + 1.0 / 6.0;
    q = q * r + 1.0 / 2.0;
    double y = 1.0 + (r + (r * r) * q);
    // Two factors, because 2^k itself may be subnormal or beyond the range.
    int64_t power = static_cast<int64_t>(k);
    int64_t half = power >> 1;
    return (y * power_of_two(half)) * power_of_two(power - half);
}

LRF_HD inline double logarithm(double x) {
    if (!(x >= 0.0)) return quiet_nan();
    if (x == 0.0) return -infinity();
    if (x == infinity()) return x;
    constexpr uint64_t sqrt_half = 0x3FE6A09E667F3BCD;
    bool tiny = x < 0x1p-1022;
    uint64_t shifted = bits_of(tiny ? x * 0x1p54 : x) + (0x3FF0000000000000 - sqrt_half);
    double k = static_cast<double>(shifted >> 52) - (tiny ? 1077.0 : 1023.0);
    double f = double_from_bits((shifted & 0x000FFFFFFFFFFFFF) + sqrt_half) - 1.0;
    double s = f / (2.0 + f);
    double z = s * s;
    double q = 2.0 / 21.0;
    q = q * z + 2.0 / 19.0;
    q = q * z + 2.0 / 17.0;
    q = q * z + 2.0 / 15.0;
    q = q * z + 2.0 / 13.0;
    q = q * z + 2.0 / 11.0;
    q = q * z + 2.0 / 9.0;
    q = q * z + 2.0 / 7.0;
    q = q * z + 2.0 / 5.0;
    q = q * z + 2.0 / 3.0;
    double half_square = 0.5 * (f * f);
    double tail = s * (half_square + z * q);
    return k * 0x1.62e42fee00000p-1 - ((half_square - (tail + k * 0x1.a39ef35793c76p-33)) - f);
}

// magnitude * 2/pi modulo 4 as six 32-bit words, lowest first; the top bit weighs 2.
// The significand is multiplied only by the 192 binary digits of 2/pi whose products weigh between
// 2 and 2^-190 (Payne and Hanek): every argument takes the same integer operations.
LRF_HD inline void times_two_over_pi(double magnitude, uint64_t words[6]) {
    uint64_t bits = bits_of(magnitude);
    uint64_t significand = (bits & 0x000FFFFFFFFFFFFF) | 0x0010000000000000;
    uint64_t position = (bits >> 52) - (1075 - 94);
    uint64_t word = position >> 5, shift = 32 - (position & 31);
    constexpr uint64_t low32 = 0xFFFFFFFF;
    uint64_t digits[6];
    for (int j = 0; j < 6; ++j) {
        uint64_t pair = static_cast<uint64_t>(two_over_pi.words[word + j]) << 32;
        pair |= two_over_pi.words[word + j + 1];
        digits[5 - j] = (pair >> shift) & low32;
    }
    uint64_t low = significand & low32, high = significand >> 32, carry = 0;
    for (int j = 0; j < 6; ++j) {
        uint64_t total = carry + ((low * digits[j]) & low32);
        if (j >= 1) total += ((low * digits[j - 1]) >> 32) + ((high * digits[j - 1]) & low32);
        if (j >= 2) total += (high * digits[j - 2]) >> 32;
        words[j] = total & low32;
        carry = total >> 32;
    }
}

struct Reduced {
    int quadrant;
    double r, rest;
};

LRF_HD inline Reduced reduce_angle(double magnitude) {
    uint64_t words[6];
    times_two_over_pi(magnitude, words);
    int quadrant = static_cast<int>(words[5] >> 30);
    double top = static_cast<double>(words[5] & 0x3FFFFFFF);
    if (top >= 0x1p29) {
        top -= 0x1p30;
        quadrant = (quadrant + 1) & 3;
    }
    double first = top * 0x1p-30, second = static_cast<double>(words[4]) * 0x1p-62;
    double h = first + second;
    double rest = (second - (h - first)) + (static_cast<double>(words[3]) * 0x1p-94 +
                                            static_cast<double>(words[2]) * 0x1p-126);
    double turn = h + rest;
    double turn_rest = rest - (turn - h);
    // turn * pi/2 with its rounding error: Dekker's product, since fma is not used here.
    double big = turn * 134217729.0;
    double high = big - (big - turn);
    double low = turn - high;
    double product = turn * 0x1.921fb54442d18p+0;
    double error = ((high * 0x1.921fb50000000p+0 - product) + high * 0x1.110b460000000p-26 +
                    low * 0x1.921fb50000000p+0) +
                   low * 0x1.110b460000000p-26;
    double tail = error + (turn * 0x1.1a62633145c07p-54 + turn_rest * 0x1.921fb54442d18p+0);
    double r = product + tail;
    return {quadrant, r, tail - (r - product)};
}

LRF_HD inline double cosine(double x) {
    double magnitude = x < 0.0 ? -x : x;
    if (!(magnitude < infinity())) return quiet_nan();
    if (magnitude < 0x1p-30) return 1.0;
    Reduced angle = reduce_angle(magnitude);
    double r = angle.r, z = r * r, y;
    if (angle.quadrant & 1) {
        double q = 1.0 / 355687428096000.0;
        q = q * z + -1.0 / 1307674368000.0;
        q = q * z + 1.0 / 6227020800.0;
        q = q * z + -1.0 / 39916800.0;
        q = q * z + 1.0 / 362880.0;
        q = q * z + -1.0 / 5040.0;
        q = q * z + 1.0 / 120.0;
        q = q * z + -1.0 / 6.0;
        y = r + (r * z * q + angle.rest);
    } else {
        double q = 1.0 / 20922789888000.0;
        q = q * z + -1.0 / 87178291200.0;
        q = q * z + 1.0 / 479001600.0;
        q = q * z + -1.0 / 3628800.0;
        q = q * z + 1.0 / 40320.0;
        q = q * z + -1.0 / 720.0;
        q = q * z + 1.0 / 24.0;
        y = 1.0 - ((0.5 * z - (z * z) * q) + r * angle.rest);
    }
    return angle.quadrant == 1 || angle.quadrant == 2 ? -y : y;
}

// x^n by repeated squaring; a negative n divides 1 by x^|n|.
LRF_HD inline double power_integer(double x, int64_t n) {
    uint64_t left = static_cast<uint64_t>(n < 0 ? -n : n);
    double result = 1.0;
    for (; left; left >>= 1) {
        if (left & 1) result = result * x;
        x = x * x;
    }
    return n < 0 ? 1.0 / result : result;
}

LRF_HD inline double power(double x, double y) {
    double magnitude = y < 0.0 ? -y : y;
    if (floor_of(y) == y && magnitude < 0x1p53) return power_integer(x, static_cast<int64_t>(y));
    // From 2^53 on every y is even, so the sign of x is irrelevant, as is that of x = -inf.
    double base = (magnitude >= 0x1p53 && x < 0.0) || x == -infinity() ? -x : x;
    return base == 1.0 ? 1.0 : exponential(y * logarithm(base));
}

}  // namespace lrfused
