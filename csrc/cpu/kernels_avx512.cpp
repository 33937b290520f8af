// The kernels for AVX512. Nothing is contracted to fma (-ffp-contract=off), so the bits equal the
// baseline's. Headers come first: shared inline functions must not use this instruction set.
#include "cpu/kernels.h"

#if defined(__x86_64__)
#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx512f,avx512bw,avx512dq,avx512vl"))), apply_to = function)
#else
#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl,prefer-vector-width=512")
#endif

#define LRF_ISA avx512
#include "cpu/kernels.inl"

#if defined(__clang__)
#pragma clang attribute pop
#endif

namespace lrfused {
const Kernels kernels_avx512 = {"avx512", avx512::measure, avx512::apply};
}
#endif
