// What the threads of a block do together: sums in the order of core/norm.h, maxima, minima; and
// sixteen bytes at a time from and to global memory.
#pragma once

#include <cuda_runtime.h>

#include <cstring>
#include <type_traits>

#include "core/dtypes.h"
#include "core/norm.h"
#include "cuda/table.h"

namespace lrfused {

constexpr unsigned EVERYBODY = 0xFFFFFFFFu;
constexpr int WARP = 32;

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

__device__ inline double warp_largest(double x) { return over_warp(x, propagating_maximum); }

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

// Pointers that come from a table: without this, the compiler would not know what they point to.
template <class T>
__device__ inline T* global(T* pointer) {
#ifdef __CUDA_ARCH__
    __builtin_assume(__isGlobal(pointer));
#endif
    return pointer;
}

// What is in shared memory does not wait in registers from here on until it is needed.
__device__ inline void read_anew() {
#ifdef __CUDA_ARCH__
    asm volatile("" ::: "memory");
#endif
}

__device__ inline Stretch at(Stretch stretch, int64_t element) {
    int shift = stretch.dtype == FLOAT64 ? 3 : stretch.dtype == FLOAT32 ? 2 : 1;
    return {static_cast<char*>(stretch.data) + (element << shift), stretch.dtype};
}

// In words of 16 bytes; of 8 or 4 where it is no more than that.
template <class T, int count>
struct Elements {
    static constexpr int bytes = static_cast<int>(sizeof(T)) * count;
    using Wide = std::conditional_t<bytes == 8, uint2, uint4>;
    using Word = std::conditional_t<bytes == 4, unsigned, Wide>;
    static constexpr int words = bytes / static_cast<int>(sizeof(Word));

    alignas(Word) T x[count];
};

// What is read once more (gradients) stays in L2 if it can; what is streamed leaves first.
template <bool streamed, int count, class T>
__device__ inline Elements<T, count> read_aligned(const T* from) {
    Elements<T, count> elements;
    using Word = typename Elements<T, count>::Word;
    Word words[Elements<T, count>::words];
    const Word* source = reinterpret_cast<const Word*>(from);
#pragma unroll
    for (int i = 0; i < elements.words; ++i)
        words[i] = streamed ? __ldcs(source + i) : __ldcg(source + i);
    memcpy(&elements, words, sizeof elements);
    return elements;
}

template <bool streamed, int count, class T>
__device__ inline void write_aligned(const Elements<T, count>& elements, T* to) {
    using Word = typename Elements<T, count>::Word;
    Word words[Elements<T, count>::words];
    memcpy(words, &elements, sizeof elements);
    Word* target = reinterpret_cast<Word*>(to);
#pragma unroll
    for (int i = 0; i < elements.words; ++i) {
        if (streamed) __stcs(target + i, words[i]);
        else global(target)[i] = words[i];
    }
}

// body(a number of the type that the code stands for).
template <class Body>
__device__ inline void with_type(int dtype, Body body) {
    switch (dtype) {
        case FLOAT64: return body(double());
        case FLOAT32: return body(float());
        case BFLOAT16: return body(bfloat16());
        case FLOAT16: return body(float16());
    }
}

}  // namespace lrfused
