// The kernels for AVX2. No fma is ever contracted (-ffp-contract=off), so the bits are the
// baseline's. The headers come first: what is shared must not need this instruction set.
#include "cpu/kernels.h"

#if defined(__x86_64__)
#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx2"))), apply_to = function)
#else
#pragma GCC target("avx2")
#endif

#define LRF_ISA avx2
#include "cpu/kernels.inl"

#if defined(__clang__)
#pragma clang attribute pop
#endif

namespace lrfused {
const Kernels kernels_avx2 = {"avx2", avx2::measure, avx2::apply};
}
#endif
