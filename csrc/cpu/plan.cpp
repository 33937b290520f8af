// Plan: the hyperparameters, and the step's scalars from the measurements.
#include <algorithm>

#include "cpu/step.h"

namespace lrfused {

void Step::evaluate_hyperparameters(const Call& call, double* values) {
    std::copy(call.values, call.values + hyperparameters.size(), values);
    for (const ProgramRow& program : programs) {
        size_t place = static_cast<size_t>(program.group * options.slots + program.slot);
        if (call.is_override[place]) continue;
        double* r = registers.data();
        *r++ = static_cast<double>(state.words[STEP]);
        for (double constant : program.constants) *r++ = constant;
        for (const InputRow& input : program.inputs) *r++ = read_input(input);
        values[place] = evaluate(program.code.data(), static_cast<int>(program.code.size()),
                                 program.results[0], registers.data(), program.leading,
                                 program.samples->data());
    }
}

// The coefficients of adaptive clipping, from sums of squares of the unscaled, averaged,
// value-clipped gradient.
void Step::plan_units() {
    for (size_t t = 0; t < tensors.size(); ++t) {
        const size_t g = static_cast<size_t>(tensors[t].group);
        const GroupOptions& group = groups[g].options;
        const Extent& extent = extents[t];
        if (!is_active[t]) continue;
        int64_t per_unit = extent.units ? extent.chunks / extent.units : 0;
        for (int64_t unit = 0; unit < extent.units; ++unit) {
            Measured* first = measured.data() + extent.first_chunk + unit * per_unit;
            if (!group.value_clip)
                for (int64_t i = 0; i < per_unit; ++i)
                    first[i].clipped = first[i].raw * (inverse * inverse);
            double& factor = agc[static_cast<size_t>(extent.first_unit + unit)];
            factor = 1.0;
            if (!group.agc) continue;
            double gradient = combine(per_unit, [&](int64_t i) { return first[i].clipped; });
            double weight = combine(per_unit, [&](int64_t i) { return first[i].param; });
            factor = agc_coefficient(group_plans[g].agc, gradient, weight);
        }
    }
}

// Chunks without a gradient, or in groups that have not started, take no part.
bool Step::is_idle(const Piece& chunk) const {
    return !is_active[static_cast<size_t>(chunk.tensor)];
}

bool Step::overflows() const {
    for (size_t c = 0; c < chunks.size(); ++c)
        if (!is_idle(chunks[c]) && lrfused::overflows(measured[c].largest, inverse,
                                                      tensor_of(chunks[c]).p.dtype == FLOAT64))
            return true;
    return false;
}

Sums Step::sums() const {
    Sums sums = {};
    for (size_t c = 0; c < chunks.size(); ++c) {
        if (is_idle(chunks[c])) continue;
        double bound = group_plans[static_cast<size_t>(tensor_of(chunks[c]).group)].clip_bound;
        double scaled = measured[c].largest * inverse;
        scaled = (scaled > bound ? bound : scaled) * agc[static_cast<size_t>(chunks[c].unit)];
        sums.largest = propagating_maximum(sums.largest, measured[c].largest);
        sums.elements += measured[c].elements;
        sums.tiny += measured[c].tiny;
        sums.largest_seen = propagating_maximum(sums.largest_seen, scaled);
    }
    if (options.infinity_norm) return sums;
    const int64_t count = static_cast<int64_t>(chunks.size());
    sums.raw = combine(count, [&](int64_t c) { return measured[c].raw; });
    if (clips_before_norm)
        sums.seen = combine(count, [&](int64_t c) {
            double factor = agc[static_cast<size_t>(chunks[static_cast<size_t>(c)].unit)];
            return measured[static_cast<size_t>(c)].clipped * (factor * factor);
        });
    return sums;
}

Decided Step::plan(const Call& call) {
    bool nonfinite = false;
    Norm norm = {};
    if (options.measures) {
        if (clips_before_norm) plan_units();
        nonfinite = overflows();
        norm = norm_of(sums(), inverse, options.infinity_norm, clips_before_norm);
    }
    const Verdict verdict = judge(options, nonfinite, call.found_inf,
                                  hyperparameters[MAX_GRAD_NORM], norm.seen);
    if (verdict.is_error) {
        latch(state, ERROR_GRADIENT, 0, 0, state.words[STEP], 0.0);
        return REFUSED;
    }
    if (options.measures) {
        state.write(GRAD_NORM, norm.before);
        state.write(LARGEST_GRADIENT, norm.largest);
        state.write(TINY_GRADIENTS, norm.tiny);
    }
    coefficient = verdict.coefficient;
    state.write(CLIP_COEFFICIENT, coefficient);
    if (!verdict.skip) plan_tensors();
    count_step(state, verdict.skip, coefficient, options.advance_schedule_on_skip);
    if (options.loss_scale.dynamic) update_loss_scale(state, options.loss_scale, verdict.skip);
    return verdict.skip ? SKIPPED : PROCEEDS;
}

void Step::plan_tensors() {
    rows.clear();
    rounded_rows.clear();
    row_inputs.clear();
    for (size_t t = 0; t < tensors.size(); ++t) {
        if (!is_active[t]) continue;
        const int64_t index = static_cast<int64_t>(t), count = count_update(state, index);
        row_of_tensor[t] =
            row_of(scalar_inputs(state, index, tensors[t].group, count, options.carried));
        store_carried(state, index, rows[row_of_tensor[t]], options.carried);
    }
}

// Tensors of one group mostly have equal inputs, and then share a row of scalars. Only the last few
// rows are searched: if many differ, a longer search would cost more than it saves.
size_t Step::row_of(const ScalarInputs& inputs) {
    constexpr size_t FAR = 8;
    for (size_t back = 1; back <= std::min(FAR, rows.size()); ++back)
        if (row_inputs[rows.size() - back] == inputs) return rows.size() - back;
    const ProgramRow& scalars = groups[static_cast<size_t>(inputs.group)].scalars;
    const ScalarProgram program = {
        scalars.code.data(),
        scalars.constants.data(),
        scalars.results.data(),
        static_cast<int32_t>(scalars.code.size()),
        static_cast<int32_t>(scalars.constants.size()),
        static_cast<int32_t>(scalars.results.size()) - options.carried,
    };
    rows.emplace_back();
    evaluate_scalars(program, inputs, values_of(inputs.group), options.slots, options.carried,
                     registers.data(), rows.back());
    rounded_rows.push_back(rounded<float>(rows.back().scalars));
    row_inputs.push_back(inputs);
    return rows.size() - 1;
}

}  // namespace lrfused
