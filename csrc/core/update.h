// The arithmetic of one element: clip its gradient, then AdamW. Nothing is contracted, so the
// order of these operations is the definition; lrfused/backends/reference/ has the same.
#pragma once

#include "core/common.h"

namespace lrfused {

LRF_HD inline float root_of(float x) { return __builtin_sqrtf(x); }

template <class C>
struct Record {
    // gradient: times before, clipped to +-bound, times after
    C before, bound, after;
    // of the group; of the tensor: lr / bias correction 1, 1 / root of bias correction 2
    C decay, beta1, one_minus_beta1, beta2, one_minus_beta2, eps;
    C step_size, inverse_root;
};

// By compare and select, so that nan stays nan.
template <class C>
LRF_HD inline C clip_value(C x, C bound) {
    x = x > bound ? bound : x;
    return x < -bound ? -bound : x;
}

template <class C>
LRF_HD inline C clip_gradient(C g, const Record<C>& r) {
    return clip_value(g * r.before, r.bound) * r.after;
}

template <class C, bool amsgrad>
LRF_HD inline void adamw(C g, C& p, C& m, C& v, C& x, const Record<C>& r) {
    C decayed = p * r.decay;
    C first = m * r.beta1 + g * r.one_minus_beta1;
    C second = v * r.beta2 + (g * r.one_minus_beta2) * g;
    m = first;
    v = second;
    if (amsgrad) {
        second = second > x || second != second ? second : x;
        x = second;
    }
    C denominator = root_of(second) * r.inverse_root + r.eps;
    p = decayed - (first * r.step_size) / denominator;
}

}  // namespace lrfused
