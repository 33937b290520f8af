// The numbers of state operands that a rule may have; its kernels are compiled for each of them.
#pragma once

#include <type_traits>

#include "core/common.h"

namespace lrfused {

LRF_HD inline float root_of(float x) { return __builtin_sqrtf(x); }

template <int... counts>
struct OperandCounts {
    // Calls body with the count as a compile-time constant.
    template <class Body>
    LRF_HD static void with(int count, Body body) {
        ((count == counts ? body(std::integral_constant<int, counts>()) : void()), ...);
    }

    static bool contain(int count) { return ((count == counts) || ...); }
};

}  // namespace lrfused
