// Inputs: values that schedules read from the caller's tensors.
#pragma once

#include "core/dtypes.h"

namespace lrfused {

// Codes as in lrfused/schedules/payloads.py, independent of the storage types' Dtype.
enum InputDtype {
    INPUT_FLOAT64, INPUT_FLOAT32, INPUT_BFLOAT16, INPUT_FLOAT16, INPUT_INT64, INPUT_INT32
};

struct InputRow {
    const void* data;
    int dtype;  // an InputDtype
};

LRF_HD inline double read_input(const InputRow& input) {
    switch (input.dtype) {
        case INPUT_FLOAT64: return *static_cast<const double*>(input.data);
        case INPUT_FLOAT32: return *static_cast<const float*>(input.data);
        case INPUT_BFLOAT16: return widen(*static_cast<const bfloat16*>(input.data));
        case INPUT_FLOAT16: return widen(*static_cast<const float16*>(input.data));
        case INPUT_INT64: return static_cast<double>(*static_cast<const int64_t*>(input.data));
        case INPUT_INT32: return *static_cast<const int32_t*>(input.data);
    }
    return quiet_nan();
}

}  // namespace lrfused
