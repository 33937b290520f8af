// The four storage types: their codes, and conversions of bfloat16 and float16 to float32 and back
// (to nearest, ties to even) by integer operations, which vectorise and do not depend on the
// compiler. A GPU has instructions for them (to bfloat16 from 8.0 on); only the bits of nan differ.
#pragma once

#include "core/common.h"

namespace lrfused {

enum Dtype { FLOAT64, FLOAT32, BFLOAT16, FLOAT16 };

struct bfloat16 {
    uint16_t bits;
};

struct float16 {
    uint16_t bits;
};

LRF_HD inline float widen(bfloat16 x) {
    return float_from_bits(static_cast<uint32_t>(x.bits) << 16);
}

// 2^112 corrects the exponent; it makes subnormals normal, exactly, and turns infinity into 2^16.
LRF_HD inline float widen(float16 x) {
#ifdef __CUDA_ARCH__
    float y;
    asm("cvt.f32.f16 %0, %1;" : "=f"(y) : "h"(x.bits));
    return y;
#else
    uint32_t magnitude = x.bits & 0x7FFFu, sign = static_cast<uint32_t>(x.bits & 0x8000u) << 16;
    uint32_t bits = bits_of(float_from_bits(magnitude << 13) * 0x1p112f);
    bits = magnitude >= 0x7C00u ? bits | 0x7F800000u : bits;
    return float_from_bits(bits | sign);
#endif
}

// x rounded to bfloat16 in the upper 16 bits; the lower 16 bits are garbage.
LRF_HD inline uint32_t rounded_above(float x) {
    uint32_t bits = bits_of(x);
    return x != x ? 0x7FC00000u : bits + 0x7FFFu + ((bits >> 16) & 1u);
}

LRF_HD inline void write_as(float x, bfloat16& y) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
    asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(y.bits) : "f"(x));
#else
    y.bits = static_cast<uint16_t>(rounded_above(x) >> 16);
#endif
}

LRF_HD inline void write_as(float x, float16& y) {
#ifdef __CUDA_ARCH__
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(y.bits) : "f"(x));
#else
    uint32_t bits = bits_of(x), magnitude = bits & 0x7FFFFFFFu;
    uint32_t normal = (magnitude - 0x38000000u + 0x0FFFu + ((magnitude >> 13) & 1u)) >> 13;
    // Adding 0.5 shifts a subnormal's digits, rounded, to the low bits of the significand.
    uint32_t tiny = bits_of(float_from_bits(magnitude) + 0.5f) - 0x3F000000u;
    uint32_t half = magnitude < 0x38800000u ? tiny : normal;
    half = magnitude >= 0x477FF000u ? 0x7C00u : half;
    half = magnitude > 0x7F800000u ? 0x7E00u : half;
    y.bits = static_cast<uint16_t>(half | ((bits >> 16) & 0x8000u));
#endif
}

template <class T>
LRF_HD inline void write_as(double x, T& y) {  // through float32, like torch
    write_as(static_cast<float>(x), y);
}

LRF_HD inline void write_as(double x, double& y) { y = x; }
LRF_HD inline void write_as(double x, float& y) { y = static_cast<float>(x); }
LRF_HD inline void write_as(float x, double& y) { y = x; }
LRF_HD inline void write_as(float x, float& y) { y = x; }

LRF_HD inline void read_as(double x, double& y) { y = x; }
LRF_HD inline void read_as(double x, float& y) { y = static_cast<float>(x); }
LRF_HD inline void read_as(float x, double& y) { y = x; }
LRF_HD inline void read_as(float x, float& y) { y = x; }
template <class T, class C>
LRF_HD inline void read_as(T x, C& y) {
    y = static_cast<C>(widen(x));
}

// Calls body with a value of the type that `dtype` denotes.
template <class Body>
LRF_HD inline void with_type(int dtype, Body body) {
    switch (dtype) {
        case FLOAT64: return body(double());
        case FLOAT32: return body(float());
        case BFLOAT16: return body(bfloat16());
        case FLOAT16: return body(float16());
    }
}

LRF_HD inline double smallest_normal(double) { return 0x1p-1022; }
LRF_HD inline double smallest_normal(float) { return 0x1p-126; }
LRF_HD inline double smallest_normal(bfloat16) { return 0x1p-126; }
LRF_HD inline double smallest_normal(float16) { return 0x1p-14; }

// In the compute type: the smallest magnitude that is normal both there and as T.
template <class T, class C>
LRF_HD inline C smallest_normal() {
    const double stored = smallest_normal(T()), computed = smallest_normal(C());
    return static_cast<C>(stored > computed ? stored : computed);
}

// The binary logarithm of an element's size.
LRF_HD inline int size_shift(int dtype) { return dtype == FLOAT64 ? 3 : dtype == FLOAT32 ? 2 : 1; }

}  // namespace lrfused
