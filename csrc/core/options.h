// The options of a step; the numbers must match lrfused/settings/options.py and slots.py.
#pragma once

#include <cstdint>

#include "core/scalars.h"

namespace lrfused {

// The hyperparameters that plan uses; those of the rules follow.
enum Slot { MAX_GRAD_NORM, CLIP_VALUE, AGC, EMA_DECAY, FIRST_OF_RULES };
enum Range {
    RANGE_FINITE, RANGE_BELOW_ONE, RANGE_LIMIT, RANGE_POSITIVE, RANGE_ZERO, RANGE_UNIT, RANGES
};
enum AgcMode { AGC_OFF, AGC_UNIT, AGC_TENSOR };
enum ErrorCode { ERROR_NONE, ERROR_HYPERPARAMETER, ERROR_GRADIENT, ERROR_COUNT };

struct GroupOptions {
    bool maximize, value_clip;
    int agc, operands;  // an AgcMode; how many of the rule's state operands are used
    int64_t start_step, average_every;  // the latter 0 without averages
    uint8_t ranges[MAX_SLOTS];
};

struct LossScalePolicy {
    bool dynamic;
    double growth_factor, backoff_factor, minimum, maximum;
    int64_t growth_interval, hysteresis;
};

struct Options {
    int rule, slots, carried;  // index in the list; columns of hyperparameters; carried numbers
    bool measures, clip_norm, infinity_norm, checks_gradients, advance_schedule_on_skip;
    bool raises_on_gradients, write_grads, zero_grads;
    double accumulation_steps;
    LossScalePolicy loss_scale;
};

}  // namespace lrfused
