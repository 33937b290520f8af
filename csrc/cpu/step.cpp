// The step: what runs before, between and after the two parallel loops. Every formula is in
// csrc/core/; the order of the phases is that of lrfused/reference.py.
#include "cpu/step.h"

#include <algorithm>
#include <utility>

#include "cpu/threads.h"

namespace lrfused {

constexpr int64_t TASK = 16384;

Step::Step(std::vector<Tensor> tensors_, std::vector<GroupOptions> groups_, Options options_,
           std::vector<Program> programs_, State state_)
    : tensors(std::move(tensors_)), groups(std::move(groups_)), options(options_),
      programs(std::move(programs_)), state(state_) {
    int64_t units = 0;
    for (size_t t = 0; t < tensors.size(); ++t) {
        Tensor& tensor = tensors[t];
        int64_t length = tensor.unit ? tensor.unit : tensor.count;
        tensor.first_unit = units;
        tensor.units = tensor.unit ? tensor.count / tensor.unit : 1;
        tensor.first_chunk = static_cast<int64_t>(chunks.size());
        for (int64_t unit = 0; unit < tensor.units; ++unit)
            for (int64_t start = 0; start < length; start += CHUNK)
                chunks.push_back({static_cast<int64_t>(t), units + unit, unit * length + start,
                                  std::min(CHUNK, length - start)});
        tensor.chunks = static_cast<int64_t>(chunks.size()) - tensor.first_chunk;
        units += tensor.units;
    }
    // What a thread takes at a time: one chunk, or several small ones.
    for (int64_t c = 0, size = TASK; c < static_cast<int64_t>(chunks.size()); ++c) {
        if (size >= TASK) {
            tasks.push_back(c);
            size = 0;
        }
        size += chunks[static_cast<size_t>(c)].count;
    }
    tasks.push_back(static_cast<int64_t>(chunks.size()));
    for (const GroupOptions& group : groups) clips_before_norm |= group.value_clip || group.agc;
    size_t longest = 0;
    for (const Program& program : programs)
        longest = std::max(longest, 1 + program.constants.size() + program.inputs.size() +
                                        program.code.size());
    registers.resize(longest);
    hyperparameters.resize(groups.size() * SLOTS);
    group_plans.resize(groups.size());
    tensor_plans.resize(tensors.size());
    measured.resize(chunks.size());
    agc.resize(static_cast<size_t>(units), 1.0);
    is_active.resize(tensors.size());
}

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

bool Step::begin(const Call& call) {
    int64_t now = state.words[STEP];
    evaluate_hyperparameters(call, hyperparameters.data());
    state.words[ERROR] = ERROR_NONE;
    for (size_t g = 0; g < groups.size(); ++g) {
        const double* values = &hyperparameters[g * SLOTS];
        for (int slot = 0; slot < SLOTS; ++slot) {
            if (now < groups[g].start_step || usable(slot, values[slot])) continue;
            state.words[ERROR] = ERROR_HYPERPARAMETER;
            state.words[ERROR_PLACE] = static_cast<int64_t>(g);
            state.words[ERROR_SLOT] = slot;
            state.words[ERROR_STEP] = now;
            state.write(ERROR_VALUE, values[slot]);
            return false;
        }
    }
    for (size_t g = 0; g < groups.size(); ++g)
        group_plans[g] = group_plan(&hyperparameters[g * SLOTS], groups[g], now);
    for (size_t t = 0; t < tensors.size(); ++t) {
        is_active[t] = call.gradients[2 * t + 1] >= 0 && group_plans[tensors[t].group].active;
        if (!is_active[t] || is_count(state.steps[t])) continue;
        state.words[ERROR] = ERROR_COUNT;
        state.words[ERROR_PLACE] = static_cast<int64_t>(t);
        state.words[ERROR_STEP] = now;
        state.write(ERROR_VALUE, state.steps[t]);
        return false;
    }
    for (size_t i = 0; i < hyperparameters.size(); ++i)
        state.write(FIELDS + static_cast<int>(i), hyperparameters[i]);
    double scale = static_cast<double>(*state.loss_scale) * options.accumulation_steps;
    inverse = 1.0 / (scale * call.grad_scale);
    return true;
}

static Stretch gradient_of(const Call& call, int64_t tensor) {
    return {reinterpret_cast<void*>(call.gradients[2 * tensor]),
            static_cast<int>(call.gradients[2 * tensor + 1])};
}

// Waking threads costs some microseconds: little work is done by the caller alone.
int Step::threads_for(const Call& call) const {
    int64_t total = 0;
    for (size_t t = 0; t < tensors.size(); ++t)
        if (is_active[t]) total += tensors[t].count;
    return total < 2 * TASK ? 1 : call.threads;
}

void Step::measure(const Call& call, int64_t c) {
    const Chunk& chunk = chunks[static_cast<size_t>(c)];
    const Tensor& tensor = tensors[static_cast<size_t>(chunk.tensor)];
    Measured& result = measured[static_cast<size_t>(c)];
    result = Measured();
    if (!is_active[static_cast<size_t>(chunk.tensor)]) return;
    const GroupOptions& group = groups[static_cast<size_t>(tensor.group)];
    MeasureTask task;
    task.g = gradient_of(call, chunk.tensor).at(chunk.offset);
    if (group.agc) task.p = tensor.p.at(chunk.offset);
    task.count = chunk.count;
    task.double_precision = tensor.p.dtype == FLOAT64;
    task.value_clip = group.value_clip;
    task.inverse = inverse;
    task.bound = group_plans[static_cast<size_t>(tensor.group)].bound;
    result = call.kernels->measure(task);
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

void Step::apply(const Call& call, int64_t c) {
    const Chunk& chunk = chunks[static_cast<size_t>(c)];
    size_t t = static_cast<size_t>(chunk.tensor);
    if (!is_active[t]) return;
    const Tensor& tensor = tensors[t];
    const GroupOptions& options_of_group = groups[static_cast<size_t>(tensor.group)];
    const GroupPlan& group = group_plans[static_cast<size_t>(tensor.group)];
    double factor = agc[static_cast<size_t>(chunk.unit)];
    double sign = options_of_group.maximize ? -1.0 : 1.0;
    ApplyTask task;
    task.p = tensor.p.at(chunk.offset);
    task.g = gradient_of(call, chunk.tensor).at(chunk.offset);
    task.m = tensor.m.at(chunk.offset);
    task.v = tensor.v.at(chunk.offset);
    if (options_of_group.amsgrad) task.x = tensor.x.at(chunk.offset);
    task.count = chunk.count;
    task.double_precision = tensor.p.dtype == FLOAT64;
    task.amsgrad = options_of_group.amsgrad;
    task.write_gradient = options.write_grads;
    task.maximize = options_of_group.maximize;
    Record<double>& r = task.record;
    bool split = options_of_group.value_clip;
    r.before = split ? sign * inverse : sign * ((inverse * factor) * coefficient);
    r.bound = group.bound;
    r.after = split ? factor * coefficient : 1.0;
    r.decay = group.decay;
    r.beta1 = group.beta1;
    r.one_minus_beta1 = group.one_minus_beta1;
    r.beta2 = group.beta2;
    r.one_minus_beta2 = group.one_minus_beta2;
    r.eps = group.eps;
    r.step_size = tensor_plans[t].step_size;
    r.inverse_root = tensor_plans[t].inverse_root;
    call.kernels->apply(task);
}

// One parallel region: whoever ends the last measurement plans, the others wait for that.
Result Step::run(const Call& call) {
    FloatingPointMode mode;
    if (!begin(call)) return {static_cast<int>(state.words[ERROR]), false, state.words[STEP]};
    int64_t count = static_cast<int64_t>(tasks.size()) - 1;
    Queue measuring(count), applying(count);
    Gate planned;
    bool measures = options.measures && count > 0;
    if (!measures) proceed = plan(call);
    auto over_chunks = [&](auto body) {
        return [&, body](int64_t i) {
            for (int64_t c = tasks[static_cast<size_t>(i)]; c < tasks[static_cast<size_t>(i) + 1]; ++c)
                body(c);
        };
    };
    if (measures || proceed)
        run_in_threads(threads_for(call), [&] {
            if (measures) {
                if (measuring.work_off(over_chunks([&](int64_t c) { measure(call, c); }))) {
                    proceed = plan(call);
                    planned.open();
                }
                planned.wait();
            }
            if (proceed) applying.work_off(over_chunks([&](int64_t c) { apply(call, c); }));
        });
    evaluate_hyperparameters(call, call.next_values);
    return {static_cast<int>(state.words[ERROR]), proceed, state.words[STEP]};
}

}  // namespace lrfused
