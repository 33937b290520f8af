// What the threads of a block do together: sums in the order of core/norm.h, maxima, minima.
#pragma once

#include <cuda_runtime.h>

#include "core/dtypes.h"
#include "core/norm.h"
#include "cuda/memory.cuh"
#include "cuda/table.h"

namespace lrfused {

constexpr unsigned EVERYBODY = 0xFFFFFFFFu;

// The sum of 2^k numbers, neighbours first.
template <int count>
__device__ inline double pairwise(const double* x) {
    if constexpr (count == 1) return x[0];
    else return pairwise<count / 2>(x) + pairwise<count / 2>(x + count / 2);
}

template <class Value, class Choose>
__device__ inline Value over_warp(Value x, Choose choose) {
    for (int step = 1; step < WARP; step *= 2) x = choose(x, __shfl_xor_sync(EVERYBODY, x, step));
    return x;
}

// Neighbours first, too: of two numbers the order does not matter.
__device__ inline double warp_sum(double x) {
    return over_warp(x, [](double a, double b) { return a + b; });
}

// Asked for each time, so that it does not wait in a register.
__device__ inline int thread_index() {
#ifdef __CUDA_ARCH__
    int index;
    asm volatile("mov.u32 %0, %%tid.x;" : "=r"(index));
    return index;
#else
    return static_cast<int>(threadIdx.x);
#endif
}

__device__ inline bool leads_warp() { return thread_index() % WARP == 0; }
__device__ inline int warp_index() { return thread_index() / WARP; }

}  // namespace lrfused
