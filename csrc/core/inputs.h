// Values that live in somebody's tensor and that schedules read.
#pragma once

#include "core/dtypes.h"

namespace lrfused {

struct InputRow {
    const void* data;
    int dtype;  // a Dtype, or one of the two below
};
enum InputDtype { INT64 = 4, INT32 = 5 };

LRF_HD inline double read_input(const InputRow& input) {
    double value = 0.0;
    switch (input.dtype) {
        case FLOAT64: return *static_cast<const double*>(input.data);
        case FLOAT32: return *static_cast<const float*>(input.data);
        case BFLOAT16: read_as(*static_cast<const bfloat16*>(input.data), value); return value;
        case FLOAT16: read_as(*static_cast<const float16*>(input.data), value); return value;
        case INT64: return static_cast<double>(*static_cast<const int64_t*>(input.data));
        case INT32: return *static_cast<const int32_t*>(input.data);
    }
    return quiet_nan();
}

}  // namespace lrfused
