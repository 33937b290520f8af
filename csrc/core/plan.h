// Plan, in pieces that know nothing of each other's order: hyperparameters of a group, scalars
// of a tensor, counters, loss scale. The order of operations is that of lrfused/backends/reference/.
#pragma once

#include "core/elementary.h"
#include "core/options.h"
#include "core/state.h"

namespace lrfused {

constexpr double LARGEST_FLOAT32 = 3.4028234663852886e38;
constexpr double UNIT_NORM_FLOOR = 1e-3;

struct GroupPlan {
    bool active;
    double lr, decay, beta1, one_minus_beta1, beta2, one_minus_beta2, eps, bound, agc;
};

struct TensorPlan {
    double step_size, inverse_root;
};

// Thresholds may be infinite; betas lie in [0, 1); the rest must be finite in float32.
LRF_HD inline bool usable(int slot, double value) {
    if (slot == CLIP_VALUE || slot == AGC || slot == MAX_GRAD_NORM) return value >= 0.0;
    if (slot == BETA1 || slot == BETA2) return value >= 0.0 && value < 1.0;
    return value <= LARGEST_FLOAT32 && value >= -LARGEST_FLOAT32;
}

LRF_HD inline GroupPlan group_plan(const double* values, const GroupOptions& options,
                                   int64_t now) {
    GroupPlan plan;
    double lr = values[LR], weight_decay = values[WEIGHT_DECAY];
    plan.active = now >= options.start_step;
    plan.lr = lr;
    plan.decay = options.decay_mode == DECAY_LR            ? 1.0 - lr * weight_decay
                 : options.decay_mode == DECAY_INDEPENDENT ? 1.0 - weight_decay
                                                           : 1.0 - weight_decay * (lr / options.peak_lr);
    plan.beta1 = values[BETA1];
    plan.one_minus_beta1 = 1.0 - values[BETA1];
    plan.beta2 = values[BETA2];
    plan.one_minus_beta2 = 1.0 - values[BETA2];
    plan.eps = values[EPS];
    plan.bound = options.value_clip ? values[CLIP_VALUE] : infinity();
    plan.agc = values[AGC];
    return plan;
}

// Coefficient of adaptive clipping from the sums of squares of a unit's gradient and weights.
LRF_HD inline double agc_coefficient(double threshold, double gradient, double weight) {
    double norm = root_of(gradient), size = root_of(weight);
    double limit = threshold * (size > UNIT_NORM_FLOOR ? size : UNIT_NORM_FLOOR);
    return norm > limit ? limit / norm : 1.0;
}

LRF_HD inline double clip_coefficient(double threshold, double norm) {
    double ratio = threshold / (norm + 1e-6);
    return ratio < 1.0 || ratio != ratio ? ratio : 1.0;
}

// What stands in state["step"] can be a number of updates.
LRF_HD inline bool is_count(float shown) { return shown >= 0.0f && shown < 0x1p62f; }

// Counts the update of parameter t: its count now, and the products of its betas.
LRF_HD inline int64_t count_update(const State& state, int64_t t, const GroupPlan& group) {
    float shown = state.steps[t];
    int64_t count = state.counts[t];
    if (shown != static_cast<float>(count)) count = static_cast<int64_t>(shown);  // written
    ++count;
    state.counts[t] = count;
    state.steps[t] = static_cast<float>(count);
    state.products[2 * t] *= group.beta1;
    state.products[2 * t + 1] *= group.beta2;
    return count;
}

// What the count of parameter t decides.
LRF_HD inline TensorPlan tensor_plan(const State& state, int64_t t, const GroupPlan& group,
                                     int bias_correction) {
    double first = state.products[2 * t], second = state.products[2 * t + 1];
    if (bias_correction == BIAS_POWER) {
        first = power_integer(group.beta1, state.counts[t]);
        second = power_integer(group.beta2, state.counts[t]);
    }
    return {group.lr / (1.0 - first), 1.0 / root_of(1.0 - second)};
}

// A skipped step leaves the schedule where it is, unless told otherwise.
LRF_HD inline void count_step(const State& state, bool skip, double coefficient,
                              bool advance_schedule_on_skip) {
    if (skip) {
        state.words[SKIPPED_STEPS] += 1;
        state.words[CONSECUTIVE_SKIPS] += 1;
        state.words[STEP] += advance_schedule_on_skip;
        return;
    }
    state.words[CONSECUTIVE_SKIPS] = 0;
    state.words[CLIPPED_STEPS] += coefficient < 1.0;
    state.words[STEP] += 1;
}

// Growth and backoff; the result is rounded to float32, as GradScaler's is.
LRF_HD inline void update_loss_scale(const State& state, const LossScalePolicy& policy, bool bad) {
    double scale = *state.loss_scale;
    if (bad) {
        state.words[GROWTH_TRACKER] = 0;
        state.words[HYSTERESIS_TRACKER] -= 1;
        if (state.words[HYSTERESIS_TRACKER] <= 0) {
            double lower = scale * policy.backoff_factor;
            scale = lower > policy.minimum ? lower : policy.minimum;
        }
    } else {
        state.words[HYSTERESIS_TRACKER] = policy.hysteresis;
        state.words[GROWTH_TRACKER] += 1;
        if (state.words[GROWTH_TRACKER] >= policy.growth_interval) {
            state.words[GROWTH_TRACKER] = 0;
            double higher = scale * policy.growth_factor;
            if (higher <= LARGEST_FLOAT32) scale = higher < policy.maximum ? higher : policy.maximum;
        }
    }
    *state.loss_scale = static_cast<float>(scale);
    state.write(LOSS_SCALE, *state.loss_scale);
}

}  // namespace lrfused
