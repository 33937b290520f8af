// A pointer to elements of a storage type.
#pragma once

#include "core/dtypes.h"

namespace lrfused {

struct TypedPointer {
    void* data;
    int dtype;

    LRF_HD TypedPointer at(int64_t element) const {
        return {static_cast<char*>(data) + (element << size_shift(dtype)), dtype};
    }
};

}  // namespace lrfused
