// The two inner loops of the CPU backend, over one chunk of one tensor. kernels.inl is compiled
// once per instruction set; the choice is made at run time (instruction_set.cpp).
#pragma once

#include "core/norm.h"
#include "core/record.h"
#include "core/typed_pointer.h"
#include "rules/rules.h"

namespace lrfused {

struct MeasureTask {
    TypedPointer g, p;  // p is set only for adaptive clipping
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
    TypedPointer p, g, operands[MAX_OPERANDS];
    int64_t count;
    bool double_precision, write_gradient, maximize;
    Prologue<double> prologue;
    const Scalars<double>* scalars;
    const Scalars<float>* rounded;  // `scalars` as float32
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
