// The two inner loops of the CPU backend, over one chunk of one tensor. Each instruction set
// compiles kernels.inl once; the choice is made at run time (instruction_set.cpp).
#pragma once

#include "core/dtypes.h"
#include "core/norm.h"
#include "core/update.h"

namespace lrfused {

// A stretch of memory of one of the four types.
struct Stretch {
    void* data = nullptr;
    int dtype = FLOAT32;

    Stretch at(int64_t element) const {
        constexpr int size[] = {8, 4, 2, 2};
        return {static_cast<char*>(data) + element * size[dtype], dtype};
    }
};

struct MeasureTask {
    Stretch g, p;  // p only for adaptive clipping
    int64_t count;
    bool double_precision;  // the compute type
    bool value_clip;
    double inverse, bound;  // unscales the gradient, then clips it
};

// Sums of squares of g, of the clipped g and of p; the largest absolute value of g.
struct Measured {
    double raw = 0.0, clipped = 0.0, param = 0.0, largest = 0.0;
};

struct ApplyTask {
    Stretch p, g, m, v, x;  // x only with amsgrad
    int64_t count;
    bool double_precision, amsgrad, write_gradient, maximize;
    Record<double> record;
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
