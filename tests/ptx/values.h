// The values of PTX: types by their names, and what x86 does otherwise than the manual says.
//
// A register is a local variable with as many bits as it was declared with; an instruction reads
// its low bits as the type that it names (as) and writes its result over all of them (put).
// Floating-point operations round to nearest even and keep subnormal numbers, as the flags of g++
// and the mode that the launch sets have it.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <type_traits>

extern "C" void ptx_stop(int line, const char* reason);

using pred = bool;
using s8 = int8_t;
using u8 = uint8_t;
using b8 = uint8_t;
using s16 = int16_t;
using u16 = uint16_t;
using b16 = uint16_t;
using s32 = int32_t;
using u32 = uint32_t;
using b32 = uint32_t;
using s64 = int64_t;
using u64 = uint64_t;
using b64 = uint64_t;
using f32 = float;
using f64 = double;

template <class To, class From>
To bits(From from) {
    static_assert(sizeof(To) == sizeof(From), "as many bits");
    To to;
    std::memcpy(&to, &from, sizeof to);
    return to;
}

// The low bits of a register, as a type.
template <class T, class Register>
T as(Register x) {
    static_assert(sizeof(T) <= sizeof x, "more bits than the register has");
    T value;
    std::memcpy(&value, &x, sizeof value);
    return value;
}

// A wider register gets the bits of an integer's value.
template <class T, class Register>
void put(Register& x, T value) {
    static_assert(sizeof value <= sizeof x, "more bits than the register has");
    if constexpr (sizeof value == sizeof x) std::memcpy(&x, &value, sizeof x);
    else if constexpr (std::is_signed_v<T>) x = static_cast<Register>(s64(value));
    else x = static_cast<Register>(value);
}

// The nan of arithmetic: in float32 there is one; in float64 x86 and the chips keep an argument's.
inline float canonical(float x) { return x == x ? x : bits<float>(0x7FFFFFFFu); }
inline double canonical(double x) { return x; }

template <class F>
u64 pairwise(u64 a, u64 b, F f) {
    auto half = [](u64 x, int i) { return bits<float>(u32(x >> (32 * i))); };
    auto result = [&](int i) { return u64(bits<u32>(canonical(f(half(a, i), half(b, i))))); };
    return result(0) | result(1) << 32;
}

// Of a number and a nan the number; -0 is less than +0.
template <class T>
T least(T a, T b) {
    if (a != a || b != b) return a == a ? a : b == b ? b : canonical(a);
    return a < b || (a == b && std::signbit(a)) ? a : b;
}
template <class T>
T most(T a, T b) {
    if (a != a || b != b) return a == a ? a : b == b ? b : canonical(a);
    return a > b || (a == b && !std::signbit(a)) ? a : b;
}

// The nearest value that the type has. A nan is 0 where neither type has 64 bits, else the top bit.
template <class T, class F>
T integer(F x) {
    if (x != x) return sizeof(F) == 8 || sizeof(T) == 8 ? T(T(1) << (8 * sizeof(T) - 1)) : T(0);
    if (x < F(std::numeric_limits<T>::min())) return std::numeric_limits<T>::min();
    // The largest integer may have been rounded up to one that is none.
    if (x >= F(std::numeric_limits<T>::max())) return std::numeric_limits<T>::max();
    return T(x);
}

template <class T>
T high_product(T a, T b) {
    using Wide = std::conditional_t<std::is_signed_v<T>, __int128, unsigned __int128>;
    return T(Wide(a) * Wide(b) >> (8 * sizeof(T)));
}

template <class T>
T quotient(T a, T b, int line) {
    if (b == 0 || (std::is_signed_v<T> && a == std::numeric_limits<T>::min() && b == T(-1)))
        ptx_stop(line, "a division without a result");
    return T(a / b);
}
template <class T>
T remainder(T a, T b, int line) {
    return T(a - b * quotient(a, b, line));
}

// A shift by the width and more moves everything out.
template <class T>
T shifted_left(T a, u32 count) {
    return count >= 8 * sizeof(T) ? T(0) : T(a << count);
}
template <class T>
T shifted_right(T a, u32 count) {
    constexpr u32 width = 8 * sizeof(T);
    if (count < width) return T(a >> count);
    return std::is_signed_v<T> ? T(a >> (width - 1)) : T(0);
}

// 32 bits of the 64 in high and low.
inline u32 funnel_right(u32 low, u32 high, u32 count) {
    return u32((u64(high) << 32 | low) >> count);
}
inline u32 funnel_left(u32 low, u32 high, u32 count) {
    return u32((u64(high) << 32 | low) << count >> 32);
}

// So many bits of a from a place on; the sign is the field's, or a's where the field goes past it.
template <class T>
T field(T a, u32 place, u32 length) {
    constexpr u32 width = 8 * sizeof(T), top = width - 1;
    place &= 255;
    length &= 255;
    if (!length) return 0;
    const u32 last = std::min(place + length - 1, top);
    const bool sign = std::is_signed_v<T> && (u64(a) >> last & 1);
    T result = 0;
    for (u32 i = 0; i < width; ++i) {
        const bool inside = i < length && place + i <= top;
        const bool bit = inside ? u64(a) >> (place + i) & 1 : sign;
        result = T(u64(result) | u64(bit) << i);
    }
    return result;
}

// b with the low bits of a in place of its own.
template <class T>
T inserted(T a, T b, u32 place, u32 length) {
    place &= 255;
    length &= 255;
    for (u32 i = 0; i < length && place + i < 8 * sizeof(T); ++i) {
        const T bit = T(T(1) << (place + i));
        b = a >> i & 1 ? T(b | bit) : T(b & ~bit);
    }
    return b;
}

// Four bytes of the eight in b and a, each chosen by four bits: three for which, one for its sign.
inline u32 permuted(u32 a, u32 b, u32 choice) {
    const u64 bytes = u64(b) << 32 | a;
    u32 result = 0;
    for (int i = 0; i < 4; ++i) {
        const u32 selector = choice >> (4 * i) & 15;
        u32 byte = u32(bytes >> (8 * (selector & 7))) & 255;
        if (selector & 8) byte = byte & 128 ? 255 : 0;
        result |= byte << (8 * i);
    }
    return result;
}

inline float from_bfloat(u16 x) { return bits<float>(u32(x) << 16); }

inline float from_half(u16 x) {
    const u32 sign = u32(x & 0x8000) << 16, exponent = x >> 10 & 31, fraction = x & 1023;
    if (exponent == 31) return bits<float>(sign | 0x7F800000u | fraction << 13);
    const float size = exponent ? std::ldexp(float(1024 + fraction), int(exponent) - 25)
                                : std::ldexp(float(fraction), -24);
    return sign ? -size : size;
}

// As a type of two bytes with so many bits of a fraction: to nearest even, past the largest to
// infinity.
template <class F>
u16 narrowed(F x, int fraction, int bias) {
    if (x != x) return 0x7FFF;
    const u32 sign = std::signbit(x) ? 0x8000 : 0, infinity = (2 * u32(bias) + 1) << fraction;
    const F size = std::fabs(x);
    if (std::isinf(size)) return u16(sign | infinity);
    const int exponent = size == 0 ? 1 - bias : std::max(std::ilogb(size), 1 - bias);
    // A fraction that is rounded up to its end carries into the exponent.
    const auto count = u64(std::nearbyint(size / std::ldexp(F(1), exponent - fraction)));
    const u64 value = (u64(exponent + bias - 1) << fraction) + count;
    return u16(sign | u32(std::min(value, u64(infinity))));
}
template <class F>
u16 to_half(F x) {
    return narrowed(x, 10, 15);
}
template <class F>
u16 to_bfloat(F x) {
    return narrowed(x, 7, 127);
}
