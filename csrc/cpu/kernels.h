// The two inner loops of the CPU backend, over one chunk of one tensor. kernels.inl is compiled
// once per instruction set; the choice is made at run time (instruction_set.cpp).
#pragma once

#include <algorithm>

#include "core/norm.h"
#include "core/record.h"
#include "core/typed_pointer.h"
#include "riders/average.h"
#include "riders/mask.h"
#include "rules/rules.h"

namespace lrfused {

struct MeasureTask {
    TypedPointer g, p;  // p is set only for adaptive clipping
    Mask mask;
    int64_t count;
    bool double_precision;  // the compute type
    bool value_clip;
    double inverse, bound;  // unscales the gradient, then clips it
};

// Sums of squares of g, of the clipped g and of p; the largest absolute value of g; how many elements
// g has, and how many of them are zero or subnormal.
struct Measured {
    double raw = 0.0, clipped = 0.0, param = 0.0, largest = 0.0, elements = 0.0, tiny = 0.0;
};

struct ApplyTask {
    int rule, operands_count;
    TypedPointer p, g, operands[MAX_OPERANDS], average;
    Mask mask;
    int64_t count;
    bool double_precision, moves, write_gradient, zero_gradient, maximize;
    double average_weight;  // NOT_NOW: the average stays
    Prologue<double> prologue;
    const Scalars<double>* scalars;
    const Scalars<float>* rounded;  // `scalars` as float32

    bool rides() const {
        return !moves || mask.words || average_weight != NOT_NOW || zero_gradient;
    }

    // The same for elements from `start` on.
    ApplyTask at(int64_t start, int64_t count_) const {
        ApplyTask part = *this;
        for (TypedPointer* pointer : {&part.p, &part.g, &part.average})
            if (pointer->data) *pointer = pointer->at(start);
        for (int k = 0; k < operands_count; ++k) part.operands[k] = operands[k].at(start);
        part.mask = mask.at(start);
        part.count = count_;
        return part;
    }
};

struct Kernels {
    const char* name;
    Measured (*measure)(const MeasureTask&);
    void (*apply)(const ApplyTask&);
};

extern const Kernels kernels_baseline;
#if defined(__x86_64__)
extern const Kernels kernels_avx2;
extern const Kernels kernels_avx512;
#endif

}  // namespace lrfused
