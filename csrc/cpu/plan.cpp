// Plan: the hyperparameters, and from what was measured the scalars of the step.
#include <algorithm>

#include "cpu/step.h"

namespace lrfused {

static double read_input(const Input& input) {
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

void Step::evaluate_hyperparameters(const Call& call, double* values) {
    std::copy(call.values, call.values + hyperparameters.size(), values);
    for (const Program& program : programs) {
        size_t place = static_cast<size_t>(program.group) * SLOTS + program.slot;
        if (call.given[place]) continue;
        double* r = registers.data();
        *r++ = static_cast<double>(state.words[STEP]);
        for (double constant : program.constants) *r++ = constant;
        for (const Input& input : program.inputs) *r++ = read_input(input);
        values[place] =
            evaluate(program.code.data(), static_cast<int>(program.code.size()), program.result,
                     registers.data(), static_cast<int>(r - registers.data()),
                     program.table.data());
    }
}

// Sums of squares of the unscaled, averaged, value-clipped gradient, and from them the
// coefficients of adaptive clipping.
void Step::plan_units() {
    for (size_t t = 0; t < tensors.size(); ++t) {
        const Tensor& tensor = tensors[t];
        const GroupOptions& group = groups[static_cast<size_t>(tensor.group)];
        if (!is_active[t]) continue;
        int64_t per_unit = tensor.chunks / tensor.units;
        for (int64_t unit = 0; unit < tensor.units; ++unit) {
            Measured* first = measured.data() + tensor.first_chunk + unit * per_unit;
            if (!group.value_clip)
                for (int64_t i = 0; i < per_unit; ++i)
                    first[i].clipped = first[i].raw * (inverse * inverse);
            double& factor = agc[static_cast<size_t>(tensor.first_unit + unit)];
            factor = 1.0;
            if (!group.agc) continue;
            double gradient = combine(per_unit, [&](int64_t i) { return first[i].clipped; });
            double weight = combine(per_unit, [&](int64_t i) { return first[i].param; });
            factor = agc_coefficient(group_plans[static_cast<size_t>(tensor.group)].agc, gradient,
                                     weight);
        }
    }
}

bool Step::overflows() const {
    for (size_t c = 0; c < chunks.size(); ++c) {
        double largest = measured[c].largest;
        if (tensors[static_cast<size_t>(chunks[c].tensor)].p.dtype == FLOAT64)
            largest = largest * inverse;
        else
            largest = static_cast<float>(largest) * static_cast<float>(inverse);
        if (!(largest < infinity())) return true;
    }
    return false;
}

// The norm before any clip goes to the metrics; returned is the one that the global clip sees.
double Step::clip_norm() {
    double largest = 0.0, largest_seen = 0.0;
    for (size_t c = 0; c < chunks.size(); ++c) {
        const Tensor& tensor = tensors[static_cast<size_t>(chunks[c].tensor)];
        double bound = group_plans[static_cast<size_t>(tensor.group)].bound;
        double scaled = measured[c].largest * inverse;
        scaled = (scaled > bound ? bound : scaled) * agc[static_cast<size_t>(chunks[c].unit)];
        largest = propagating_maximum(largest, measured[c].largest);
        largest_seen = propagating_maximum(largest_seen, scaled);
    }
    state.write(LARGEST_GRADIENT, largest);
    int64_t count = static_cast<int64_t>(chunks.size());
    double before;
    if (options.infinity_norm)
        before = largest * inverse;
    else
        before = root_of(combine(count, [&](int64_t c) { return measured[c].raw; })) * inverse;
    state.write(GRAD_NORM, before);
    if (!clips_before_norm) return before;
    if (options.infinity_norm) return largest_seen;
    return root_of(combine(count, [&](int64_t c) {
        double factor = agc[static_cast<size_t>(chunks[static_cast<size_t>(c)].unit)];
        return measured[static_cast<size_t>(c)].clipped * (factor * factor);
    }));
}

bool Step::plan(const Call& call) {
    bool nonfinite = false;
    coefficient = 1.0;
    if (options.measures) {
        if (clips_before_norm) plan_units();
        nonfinite = overflows();
        if (nonfinite && options.raises_on_gradients && !call.found_inf) {
            state.words[ERROR] = ERROR_GRADIENT;
            state.words[ERROR_STEP] = state.words[STEP];
            return false;
        }
        double norm = clip_norm();
        if (options.clip_norm) coefficient = clip_coefficient(hyperparameters[MAX_GRAD_NORM], norm);
    }
    state.write(CLIP_COEFFICIENT, coefficient);
    bool skip = (nonfinite && options.checks_gradients) || call.found_inf;
    if (!skip) plan_tensors();
    count_step(state, skip, coefficient, options.advance_schedule_on_skip);
    if (options.loss_scale.dynamic) update_loss_scale(state, options.loss_scale, skip);
    return !skip;
}

// Tensors of one group mostly have the same count: what it decides is computed once for them.
void Step::plan_tensors() {
    const TensorPlan* last = nullptr;
    int last_group = -1;
    int64_t last_count = -1;
    for (size_t t = 0; t < tensors.size(); ++t) {
        if (!is_active[t]) continue;
        int group = tensors[t].group;
        const GroupPlan& plan = group_plans[static_cast<size_t>(group)];
        int correction = groups[static_cast<size_t>(group)].bias_correction;
        int64_t count = count_update(state, static_cast<int64_t>(t), plan);
        bool same = group == last_group && count == last_count && correction == BIAS_POWER;
        tensor_plans[t] = same ? *last : tensor_plan(state, static_cast<int64_t>(t), plan, correction);
        last = &tensor_plans[t];
        last_group = group;
        last_count = count;
    }
}

}  // namespace lrfused
