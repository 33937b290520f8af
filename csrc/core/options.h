// The options of a step: lrfused/settings/options.py in C++, with the same numbers.
#pragma once

#include <cstdint>

namespace lrfused {

enum Slot { LR, WEIGHT_DECAY, BETA1, BETA2, EPS, CLIP_VALUE, AGC, MAX_GRAD_NORM, SLOTS };
enum DecayMode { DECAY_LR, DECAY_INDEPENDENT, DECAY_LR_RATIO };
enum BiasCorrection { BIAS_POWER, BIAS_PRODUCT };
enum AgcMode { AGC_OFF, AGC_UNIT, AGC_TENSOR };
enum ErrorCode { ERROR_NONE, ERROR_HYPERPARAMETER, ERROR_GRADIENT, ERROR_COUNT };

struct GroupOptions {
    bool amsgrad, maximize, value_clip;
    int decay_mode, bias_correction, agc;
    int64_t start_step;
    double peak_lr;
};

struct LossScalePolicy {
    bool dynamic;
    double growth_factor, backoff_factor, minimum, maximum;
    int64_t growth_interval, hysteresis;
};

struct Options {
    bool measures, clip_norm, infinity_norm, checks_gradients, advance_schedule_on_skip;
    bool raises_on_gradients, write_grads;
    double accumulation_steps;
    LossScalePolicy loss_scale;
};

}  // namespace lrfused
