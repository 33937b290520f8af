// The parts of plan, whose order the backends fix: a group's hyperparameters, a parameter's counts,
// counters, loss scale. The order of operations is that of lrfused/backends/reference/.
#pragma once

#include "core/elementary.h"
#include "core/options.h"
#include "core/state.h"
#include "riders/average.h"

namespace lrfused {

constexpr double LARGEST_FLOAT32 = 3.4028234663852886e38;
constexpr double UNIT_NORM_FLOOR = 1e-3;

// What a step uses of a group besides its rule.
struct GroupPlan {
    bool active;
    double clip_bound, agc, average_weight;
};

// What is done about a step. Of one that is refused, nothing is; of one that is skipped, zero_grads.
enum Decided { REFUSED, PROCEEDS, SKIPPED };

LRF_HD inline bool is_usable(int range, double value) {
    if (range == RANGE_LIMIT) return value >= 0.0;
    if (range == RANGE_BELOW_ONE) return value >= 0.0 && value < 1.0;
    if (range == RANGE_POSITIVE) return value > 0.0 && value <= LARGEST_FLOAT32;
    if (range == RANGE_ZERO) return value == 0.0;
    if (range == RANGE_UNIT) return value >= 0.0 && value <= 1.0;
    return value <= LARGEST_FLOAT32 && value >= -LARGEST_FLOAT32;
}

// Averages go on before a group starts.
LRF_HD inline bool is_read(int slot, const GroupOptions& options, int64_t now) {
    return now >= options.start_step || slot == EMA_DECAY;
}

LRF_HD inline GroupPlan group_plan(const double* values, const GroupOptions& options,
                                   int64_t now) {
    return {now >= options.start_step, options.value_clip ? values[CLIP_VALUE] : infinity(),
            values[AGC], average_weight(values[EMA_DECAY], options.average_every, now)};
}

// The coefficient of adaptive clipping, from the sums of squares of a unit's gradient and weights.
LRF_HD inline double agc_coefficient(double threshold, double gradient, double weight) {
    double norm = root_of(gradient), size = root_of(weight);
    double limit = threshold * (size > UNIT_NORM_FLOOR ? size : UNIT_NORM_FLOOR);
    return norm > limit ? limit / norm : 1.0;
}

LRF_HD inline double clip_coefficient(double threshold, double norm) {
    double ratio = threshold / (norm + 1e-6);
    return ratio < 1.0 || ratio != ratio ? ratio : 1.0;
}

// What unscales and averages a gradient; `outside` is an outside GradScaler's scale.
LRF_HD inline double inverse_scale(const State& state, const Options& options, double outside) {
    double scale = static_cast<double>(*state.loss_scale) * options.accumulation_steps;
    return 1.0 / (scale * outside);
}

// True for the largest magnitude in a gradient that is not finite, before or after it is unscaled in
// the compute type.
LRF_HD inline bool overflows(double largest, double inverse, bool double_precision) {
    if (double_precision) return !(largest * inverse < infinity());
    return !(static_cast<float>(largest) * static_cast<float>(inverse) < infinity());
}

// Sums of squares and largest magnitudes over gradients: raw, and as the global clip sees them;
// how many elements there are, and how many are zero or subnormal (exact in any order).
struct Sums {
    double raw, seen, largest, largest_seen, elements, tiny;
};

// The norm before any clip and the one that the global clip uses; the largest magnitude; the share
// of elements that are zero or subnormal, nan of none.
struct Norm {
    double before, seen, largest, tiny;
};

LRF_HD inline Norm norm_of(const Sums& sums, double inverse, bool infinity_norm,
                           bool clips_before_norm) {
    Norm norm;
    norm.largest = sums.largest;
    norm.tiny = sums.tiny / sums.elements;
    norm.before = infinity_norm ? sums.largest * inverse : root_of(sums.raw) * inverse;
    if (!clips_before_norm) norm.seen = norm.before;
    else norm.seen = infinity_norm ? sums.largest_seen : root_of(sums.seen);
    return norm;
}

// The decision about a step after its gradients were measured.
struct Verdict {
    bool is_error, skip;
    double coefficient;  // of the global clip
};

LRF_HD inline Verdict judge(const Options& options, bool nonfinite, bool found_inf,
                            double threshold, double norm) {
    Verdict verdict = {nonfinite && options.raises_on_gradients && !found_inf,
                       (nonfinite && options.checks_gradients) || found_inf, 1.0};
    if (options.measures && options.clip_norm)
        verdict.coefficient = clip_coefficient(threshold, norm);
    return verdict;
}

// Records an error unless one is already latched: the first stays until the host has seen it.
LRF_HD inline void latch(const State& state, ErrorCode error, int64_t place, int slot,
                         int64_t now, double value) {
    if (state.words[ERROR] != ERROR_NONE) return;
    state.words[ERROR] = error;
    state.words[ERROR_PLACE] = place;
    state.words[ERROR_SLOT] = slot;
    state.words[ERROR_STEP] = now;
    state.write(ERROR_VALUE, value);
}

// True if the value of state["step"] is a possible count, exact in float64 after one more.
LRF_HD inline bool is_count(float shown) { return shown >= 0.0f && shown < 0x1p53f; }

// The count of parameter t after another update.
LRF_HD inline int64_t next_count(const State& state, int64_t t) {
    float shown = state.steps[t];
    int64_t count = state.counts[t];
    if (shown != static_cast<float>(count)) count = static_cast<int64_t>(shown);  // caller's
    return count + 1;
}

LRF_HD inline void set_count(const State& state, int64_t t, int64_t count) {
    state.counts[t] = count;
    state.steps[t] = static_cast<float>(count);
}

// Counts an update of parameter t and returns the new count.
LRF_HD inline int64_t count_update(const State& state, int64_t t) {
    const int64_t count = next_count(state, t);
    set_count(state, t, count);
    return count;
}

LRF_HD inline ScalarInputs scalar_inputs(const State& state, int64_t t, int group, int64_t count,
                                         int carried) {
    ScalarInputs inputs = {group, count, {}};
    for (int i = 0; i < MAX_CARRIED; ++i)
        if (i < carried) inputs.carried[i] = state.carried[carried * t + i];
    return inputs;
}

LRF_HD inline void store_carried(const State& state, int64_t t, const ScalarRow& row,
                                 int carried) {
    for (int i = 0; i < carried; ++i) state.carried[carried * t + i] = row.carried[i];
}

// Updates the counters; a skipped step advances the schedules only with advance_schedule_on_skip.
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

// Growth and backoff; the result is rounded to float32, as in GradScaler.
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
            if (higher <= LARGEST_FLOAT32)
                scale = higher < policy.maximum ? higher : policy.maximum;
        }
    }
    *state.loss_scale = static_cast<float>(scale);
    state.write(LOSS_SCALE, *state.loss_scale);
}

}  // namespace lrfused
