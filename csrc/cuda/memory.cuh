// Global memory: 16 bytes at a time, 32 on chips that have it.
#pragma once

#include <cuda_runtime.h>

#include <cstring>
#include <type_traits>

namespace lrfused {

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

// The same block, but the compiler does not know: what was looked up by it need not stay in
// registers until it is needed again.
__device__ inline unsigned same_block() {
#ifdef __CUDA_ARCH__
    unsigned block;
    asm volatile("mov.u32 %0, %%ctaid.x;" : "=r"(block));
    return block;
#else
    return blockIdx.x;
#endif
}

// The most that a thread reads or writes at once; a build for the emulation may choose, too.
#ifndef LRF_WIDEST
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 1000 && \
    __CUDACC_VER_MAJOR__ * 100 + __CUDACC_VER_MINOR__ >= 1209
#define LRF_WIDEST 32
#else
#define LRF_WIDEST 16
#endif
#endif
constexpr int WIDEST = LRF_WIDEST;

struct alignas(32) Wide {
    uint32_t x[8];
};

// Nothing is said of what may leave the caches first: on an H200 apply takes 5% longer with
// streaming loads and stores (benchmarks/results/notes.md).
template <class Word>
__device__ inline Word load(const Word* from) {
    return __ldcg(from);
}

template <class Word>
__device__ inline void store(Word* to, Word word) {
    *global(to) = word;
}

#if defined(__CUDA_ARCH__) && LRF_WIDEST == 32  // there are no functions for these
template <>
__device__ inline Wide load(const Wide* from) {
    Wide w;
    asm volatile("ld.global.cg.v8.b32 {%0, %1, %2, %3, %4, %5, %6, %7}, [%8];"
                 : "=r"(w.x[0]), "=r"(w.x[1]), "=r"(w.x[2]), "=r"(w.x[3]), "=r"(w.x[4]),
                   "=r"(w.x[5]), "=r"(w.x[6]), "=r"(w.x[7])
                 : "l"(from));
    return w;
}

template <>
__device__ inline void store(Wide* to, Wide w) {
    asm volatile("st.global.v8.b32 [%8], {%0, %1, %2, %3, %4, %5, %6, %7};" ::"r"(w.x[0]),
                 "r"(w.x[1]), "r"(w.x[2]), "r"(w.x[3]), "r"(w.x[4]), "r"(w.x[5]), "r"(w.x[6]),
                 "r"(w.x[7]), "l"(to));
}
#endif

template <int bytes>
struct WordOf;
template <> struct WordOf<4> { using Type = unsigned; };
template <> struct WordOf<8> { using Type = uint2; };
template <> struct WordOf<16> { using Type = uint4; };
template <> struct WordOf<32> { using Type = Wide; };

// So many elements, in as few words as they fit in.
template <class T, int count>
struct Elements {
    static constexpr int bytes = static_cast<int>(sizeof(T)) * count;
    using Word = typename WordOf<(bytes < WIDEST ? bytes : WIDEST)>::Type;
    static constexpr int words = bytes / static_cast<int>(sizeof(Word));

    alignas(Word) T x[count];
};

template <int count, class T>
__device__ inline Elements<T, count> read_aligned(const T* from) {
    Elements<T, count> elements;
    using Word = typename Elements<T, count>::Word;
    Word words[Elements<T, count>::words];
    const Word* source = reinterpret_cast<const Word*>(from);
#pragma unroll
    for (int i = 0; i < elements.words; ++i) words[i] = load(source + i);
    memcpy(&elements, words, sizeof elements);
    return elements;
}

template <int count, class T>
__device__ inline void write_aligned(const Elements<T, count>& elements, T* to) {
    using Word = typename Elements<T, count>::Word;
    Word words[Elements<T, count>::words];
    memcpy(words, &elements, sizeof elements);
    Word* target = reinterpret_cast<Word*>(to);
#pragma unroll
    for (int i = 0; i < elements.words; ++i) store(target + i, words[i]);
}

}  // namespace lrfused
