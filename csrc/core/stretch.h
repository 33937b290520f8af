// Memory of one of the types of storage.
#pragma once

#include "core/dtypes.h"

namespace lrfused {

struct Stretch {
    void* data;
    int dtype;

    LRF_HD Stretch at(int64_t element) const {
        return {static_cast<char*>(data) + (element << size_shift(dtype)), dtype};
    }
};

}  // namespace lrfused
