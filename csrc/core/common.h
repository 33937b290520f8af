// Macros that differ between host and device compilers, and bit casts of floats.
#pragma once

#include <cstdint>
#include <cstring>

#ifdef __CUDACC__
#define LRF_HD __host__ __device__
#define LRF_CONSTANT static __device__ __constant__ const
#else
#define LRF_HD
#define LRF_CONSTANT static constexpr
#endif

#if defined(__GNUC__)
#define LRF_NOINLINE __attribute__((noinline))
#define LRF_ALWAYS_INLINE __attribute__((always_inline)) inline
#define LRF_PREFETCH(address) __builtin_prefetch(address)
#else
#define LRF_NOINLINE
#define LRF_ALWAYS_INLINE inline
#define LRF_PREFETCH(address)
#endif

namespace lrfused {

LRF_HD inline uint64_t bits_of(double x) {
    uint64_t bits;
    memcpy(&bits, &x, sizeof bits);
    return bits;
}

LRF_HD inline uint32_t bits_of(float x) {
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    return bits;
}

LRF_HD inline double double_from_bits(uint64_t bits) {
    double x;
    memcpy(&x, &bits, sizeof x);
    return x;
}

LRF_HD inline float float_from_bits(uint32_t bits) {
    float x;
    memcpy(&x, &bits, sizeof x);
    return x;
}

LRF_HD inline double infinity() { return double_from_bits(0x7FF0000000000000); }
LRF_HD inline double quiet_nan() { return double_from_bits(0x7FF8000000000000); }
LRF_HD inline double floor_of(double x) { return __builtin_floor(x); }
LRF_HD inline double root_of(double x) { return __builtin_sqrt(x); }

}  // namespace lrfused
