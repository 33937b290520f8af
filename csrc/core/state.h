// An optimizer's state besides its rule's operands; must match lrfused/state/device_state.py.
#pragma once

#include "core/common.h"

namespace lrfused {

// Indices of 64-bit words; from ERROR_VALUE on they hold float64 bits.
enum Field {
    STEP, SKIPPED_STEPS, CONSECUTIVE_SKIPS, CLIPPED_STEPS, GROWTH_TRACKER, HYSTERESIS_TRACKER,
    ERROR, ERROR_PLACE, ERROR_SLOT, ERROR_STEP, ERROR_VALUE, GRAD_NORM, CLIP_COEFFICIENT,
    LARGEST_GRADIENT, TINY_GRADIENTS, LOSS_SCALE, FIELDS
};

struct State {
    int64_t* words;     // FIELDS, then the hyperparameters of each group
    float* loss_scale;  // multiplies the loss
    int64_t* counts;    // updates of each parameter
    float* steps;       // the same, as shown in state["step"]
    double* carried;    // the rule's carried numbers, of each parameter

    LRF_HD void write(int field, double value) const {
        words[field] = static_cast<int64_t>(bits_of(value));
    }
};

}  // namespace lrfused
