// How many state operands a rule may have, which is all that its kernels are compiled for.
#pragma once

#include <type_traits>

#include "core/common.h"

namespace lrfused {

LRF_HD inline float root_of(float x) { return __builtin_sqrtf(x); }

template <int... counts>
struct OperandCounts {
    // body(a constant) of the count.
    template <class Body>
    LRF_HD static void with(int count, Body body) {
        ((count == counts ? body(std::integral_constant<int, counts>()) : void()), ...);
    }

    static bool contain(int count) { return ((count == counts) || ...); }
};

}  // namespace lrfused
