// The average of the weights, as in lrfused/rules/average.py and lrfused/backends/triton/riders.py.
#pragma once

#include "core/common.h"

namespace lrfused {

constexpr double NOT_NOW = -1.0;

// The weight of the parameters in this step's update of their averages.
LRF_HD inline double average_weight(double decay, int64_t every, int64_t now) {
    return every && now % every == 0 ? 1.0 - decay : NOT_NOW;
}

// One element; an average without a value yet is nan.
template <class C>
LRF_HD inline C update_average(C a, C p, C weight) {
    C change = p - a;
    C mixed = weight < C(0.5) ? a + change * weight : p - change * (C(1) - weight);
    return a != a ? p : mixed;
}

}  // namespace lrfused
