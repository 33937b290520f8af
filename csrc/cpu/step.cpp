// The step: the serial parts before, between and after the two parallel loops. The formulas are in
// csrc/core/; the order of the phases is that of lrfused/backends/reference/.
#include "cpu/step.h"

#include <algorithm>
#include <utility>

#include "cpu/threads.h"

namespace lrfused {

constexpr int64_t TASK = 16384;

Step::Step(std::vector<TensorRow> tensors_, std::vector<GroupRow> groups_, Options options_,
           std::vector<ProgramRow> programs_, State state_)
    : tensors(std::move(tensors_)), groups(std::move(groups_)), options(options_),
      programs(std::move(programs_)), state(state_) {
    for (const GroupRow& group : groups)
        clips_before_norm |= group.options.value_clip || group.options.agc;
    hyperparameters.resize(groups.size() * static_cast<size_t>(options.slots));
    group_plans.resize(groups.size());
    row_of_tensor.resize(tensors.size());
    is_active.resize(tensors.size());
    make_registers();
    cut();
}

void Step::update(const std::vector<size_t>& indices, std::vector<TensorRow> rows,
                  std::vector<ProgramRow> new_programs) {
    if (replace_rows(tensors, indices, std::move(rows), programs, std::move(new_programs))) cut();
    make_registers();
}

void Step::make_registers() {
    size_t longest = 0;
    for (const GroupRow& group : groups) longest = std::max(longest, group.scalars.registers());
    for (const ProgramRow& program : programs) longest = std::max(longest, program.registers());
    registers.resize(longest);
}

void Step::cut() {
    chunks = pieces(tensors, CHUNK);
    extents.clear();
    tasks.clear();
    int64_t units = 0, first_chunk = 0;
    for (const TensorRow& tensor : tensors) {
        int64_t per_unit = (tensor.unit_length() + CHUNK - 1) / CHUNK;
        extents.push_back({units, tensor.units(), first_chunk, tensor.units() * per_unit});
        units += tensor.units();
        first_chunk += extents.back().chunks;
    }
    // A task, the unit of work of a thread, is one chunk or several small ones.
    for (int64_t c = 0, size = TASK; c < static_cast<int64_t>(chunks.size()); ++c) {
        if (size >= TASK) {
            tasks.push_back(c);
            size = 0;
        }
        size += chunks[static_cast<size_t>(c)].count;
    }
    tasks.push_back(static_cast<int64_t>(chunks.size()));
    measured.resize(chunks.size());
    agc.assign(static_cast<size_t>(units), 1.0);
}

const TensorRow& Step::tensor_of(const Piece& chunk) const {
    return tensors[static_cast<size_t>(chunk.tensor)];
}

const double* Step::values_of(int group) const {
    return hyperparameters.data() + static_cast<size_t>(group) * static_cast<size_t>(options.slots);
}

bool Step::begin(const Call& call) {
    int64_t now = state.words[STEP];
    evaluate_hyperparameters(call, hyperparameters.data());
    state.words[ERROR] = ERROR_NONE;
    for (size_t g = 0; g < groups.size(); ++g) {
        const GroupOptions& group = groups[g].options;
        const double* values = values_of(static_cast<int>(g));
        for (int slot = 0; slot < options.slots; ++slot) {
            if (!is_read(slot, group, now) || is_usable(group.ranges[slot], values[slot])) continue;
            latch(state, ERROR_HYPERPARAMETER, static_cast<int64_t>(g), slot, now, values[slot]);
            return false;
        }
        group_plans[g] = group_plan(values, group, now);
    }
    for (size_t t = 0; t < tensors.size(); ++t) {
        is_active[t] = call.gradients[2 * t + 1] >= 0 && group_plans[tensors[t].group].active;
        if (!is_active[t] || is_count(state.steps[t])) continue;
        latch(state, ERROR_COUNT, static_cast<int64_t>(t), 0, now, state.steps[t]);
        return false;
    }
    for (size_t i = 0; i < hyperparameters.size(); ++i)
        state.write(FIELDS + static_cast<int>(i), hyperparameters[i]);
    inverse = inverse_scale(state, options, call.grad_scale);
    return true;
}

static TypedPointer gradient_of(const Call& call, int64_t tensor) {
    return {reinterpret_cast<void*>(call.gradients[2 * tensor]),
            static_cast<int>(call.gradients[2 * tensor + 1])};
}

// The tensor's average is updated, whether or not the tensor moves.
bool Step::averages(size_t t) const {
    const GroupPlan& group = group_plans[static_cast<size_t>(tensors[t].group)];
    return tensors[t].average.data && group.average_weight != NOT_NOW;
}

// Waking threads costs some microseconds, so the calling thread does small steps alone.
int Step::threads_for(const Call& call) const {
    int64_t total = 0;
    for (size_t t = 0; t < tensors.size(); ++t)
        if (is_active[t] || averages(t)) total += tensors[t].count;
    return total < 2 * TASK ? 1 : call.threads;
}

void Step::measure(const Call& call, int64_t c) {
    const Piece& chunk = chunks[static_cast<size_t>(c)];
    const TensorRow& tensor = tensor_of(chunk);
    Measured& result = measured[static_cast<size_t>(c)];
    result = Measured();
    if (!is_active[static_cast<size_t>(chunk.tensor)]) return;
    const GroupOptions& group = groups[static_cast<size_t>(tensor.group)].options;
    MeasureTask task{};
    task.g = gradient_of(call, chunk.tensor).at(chunk.offset);
    if (group.agc) task.p = tensor.p.at(chunk.offset);
    task.mask = Mask{tensor.mask, chunk.offset};
    task.count = chunk.count;
    task.double_precision = tensor.p.dtype == FLOAT64;
    task.value_clip = group.value_clip;
    task.inverse = inverse;
    task.bound = group_plans[static_cast<size_t>(tensor.group)].clip_bound;
    result = call.kernels->measure(task);
}

void Step::apply(const Call& call, int64_t c) {
    const Piece& chunk = chunks[static_cast<size_t>(c)];
    size_t t = static_cast<size_t>(chunk.tensor);
    const TensorRow& tensor = tensors[t];
    const GroupOptions& group = groups[static_cast<size_t>(tensor.group)].options;
    const GroupPlan& plan = group_plans[static_cast<size_t>(tensor.group)];
    double factor = agc[static_cast<size_t>(chunk.unit)];
    const TypedPointer g = gradient_of(call, chunk.tensor);
    ApplyTask task{};
    task.moves = decided == PROCEEDS && is_active[t];
    task.average_weight = decided == PROCEEDS && averages(t) ? plan.average_weight : NOT_NOW;
    task.zero_gradient = options.zero_grads && g.dtype >= 0;
    if (!task.moves && task.average_weight == NOT_NOW && !task.zero_gradient) return;
    task.rule = options.rule;
    task.operands_count = task.moves ? group.operands : 0;
    task.p = tensor.p.at(chunk.offset);
    if (g.data) task.g = g.at(chunk.offset);
    for (int i = 0; i < group.operands && task.moves; ++i)
        task.operands[i] = tensor.operands[i].at(chunk.offset);
    if (tensor.average.data) task.average = tensor.average.at(chunk.offset);
    task.mask = Mask{tensor.mask, chunk.offset};
    task.count = chunk.count;
    task.double_precision = tensor.p.dtype == FLOAT64;
    task.write_gradient = options.write_grads;
    task.maximize = group.maximize;
    task.prologue =
        make_prologue(group.maximize, group.value_clip, plan.clip_bound, inverse, factor, coefficient);
    if (task.moves) {
        task.scalars = &rows[row_of_tensor[t]].scalars;
        task.rounded = &rounded_rows[row_of_tensor[t]];
    }
    call.kernels->apply(task);
}

// One parallel region: the thread that finishes the last measurement plans, the others wait for it.
Result Step::run(const Call& call) {
    FloatingPointMode mode;
    if (!begin(call)) return {static_cast<int>(state.words[ERROR]), false, state.words[STEP]};
    int64_t count = static_cast<int64_t>(tasks.size()) - 1;
    Queue measuring(count), applying(count);
    Gate planned;
    bool measures = options.measures && count > 0;
    if (!measures) decided = plan(call);
    auto applies = [&] {
        return decided == PROCEEDS || (decided == SKIPPED && options.zero_grads);
    };
    auto over_chunks = [&](auto body) {
        return [&, body](int64_t i) {
            for (int64_t c = tasks[static_cast<size_t>(i)]; c < tasks[static_cast<size_t>(i) + 1]; ++c)
                body(c);
        };
    };
    if (measures || applies())
        run_in_threads(threads_for(call), [&] {
            if (measures) {
                if (measuring.work_off(over_chunks([&](int64_t c) { measure(call, c); }))) {
                    decided = plan(call);
                    planned.open();
                }
                planned.wait();
            }
            if (applies()) applying.work_off(over_chunks([&](int64_t c) { apply(call, c); }));
        });
    evaluate_hyperparameters(call, call.next_values);
    const bool proceeded = decided == PROCEEDS;
    return {static_cast<int>(state.words[ERROR]), proceeded, state.words[STEP]};
}

}  // namespace lrfused
