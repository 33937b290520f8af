// A mask: one bit an element in the order of memory, lowest first, 1 where it is kept. As in
// lrfused/memory/bits.py, which adds bytes for what is read beyond the last element.
#pragma once

#include "core/common.h"

namespace lrfused {

struct Mask {
    const uint32_t* words;  // null: everything is kept
    int64_t first;          // the bit of element 0

    LRF_HD Mask at(int64_t element) const { return {words, first + element}; }

    LRF_HD bool keeps(int64_t element) const {
        const int64_t bit = first + element;
        return *word_at(bit) >> (bit & 31) & 1;
    }

    // Those of 32 elements.
    LRF_HD uint32_t word(int64_t element) const {
        const int64_t bit = first + element;
        const uint32_t* at = word_at(bit);
#ifdef __CUDA_ARCH__
        return __funnelshift_r(at[0], at[1], static_cast<uint32_t>(bit));
#else
        const uint64_t both = static_cast<uint64_t>(at[1]) << 32 | at[0];
        return static_cast<uint32_t>(both >> (bit & 31));
#endif
    }

  private:
    LRF_HD const uint32_t* word_at(int64_t bit) const {
        const uint32_t* at = words + (bit >> 5);
#ifdef __CUDA_ARCH__
        __builtin_assume(__isGlobal(at));  // the compiler cannot know of pointers from a table
#endif
        return at;
    }
};

}  // namespace lrfused
