// The kernels for AVX2. Nothing is contracted to fma (-ffp-contract=off), so the bits equal the
// baseline's. Headers come first: shared inline functions must not use this instruction set.
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
