// What a block of measure and plan shares.
#pragma once

#include "cuda/norms.cuh"

namespace lrfused {

struct Shared {
    double registers[REGISTERS];
    Found found;
    Sums of_warps[WARPS];  // of a span, or of all
    Turns turns;           // of a unit
    int64_t wrong_of_warps[WARPS];
    int leaders[SHARED_ROWS];  // the tensors whose inputs the shared rows are for
};

}  // namespace lrfused
