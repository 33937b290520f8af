// Memory of one of the four types.
#pragma once

#include "core/dtypes.h"

namespace lrfused {

struct Stretch {
    void* data;
    int dtype;

    LRF_HD Stretch at(int64_t element) const {
        int shift = dtype == FLOAT64 ? 3 : dtype == FLOAT32 ? 2 : 1;
        return {static_cast<char*>(data) + (element << shift), dtype};
    }
};

}  // namespace lrfused
