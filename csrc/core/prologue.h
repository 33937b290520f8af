// The prologue of every rule: unscale, average and clip the gradient, and negate it for maximize.
// Nothing is contracted to fma: the order of these operations is the definition.
#pragma once

#include "core/common.h"

namespace lrfused {

template <class C>
struct Prologue {
    C pre_scale, clip_bound, post_scale;  // g * pre_scale, clipped to +-clip_bound, * post_scale
};

template <class C>
LRF_HD inline Prologue<C> rounded(const Prologue<double>& r) {
    return {static_cast<C>(r.pre_scale), static_cast<C>(r.clip_bound),
            static_cast<C>(r.post_scale)};
}

// By compare and select, so that nan stays nan.
template <class C>
LRF_HD inline C clip_value(C x, C bound) {
    x = x > bound ? bound : x;
    return x < -bound ? -bound : x;
}

template <class C>
LRF_HD inline C clip_gradient(C g, const Prologue<C>& r) {
    return clip_value(g * r.pre_scale, r.clip_bound) * r.post_scale;
}

// With a value clip, the factors of unit and global clip are applied after it.
LRF_HD inline Prologue<double> make_prologue(bool maximize, bool value_clip, double clip_bound,
                                             double inverse_scale, double unit_factor,
                                             double coefficient) {
    double sign = maximize ? -1.0 : 1.0;
    if (value_clip) return {sign * inverse_scale, clip_bound, unit_factor * coefficient};
    return {sign * ((inverse_scale * unit_factor) * coefficient), infinity(), 1.0};
}

}  // namespace lrfused
