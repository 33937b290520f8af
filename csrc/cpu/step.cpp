// The step: what runs before, between and after the two parallel loops. Every formula is in
// csrc/core/; the order of the phases is that of lrfused/backends/reference/.
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
