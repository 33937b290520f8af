// Plan, by one block: groups, programs, tensors and spans side by side. The formulas are
// those of core/plan.h, their order that of lrfused/backends/reference/.
#pragma once

#include "cuda/scalars.cuh"
#include "cuda/tickets.cuh"

namespace lrfused {

constexpr int64_t NOWHERE = INT64_MAX;

// The first place whose hyperparameter no step can use, or else (counted on from the places) the
// first tensor whose count is none; also fills the groups' plans.
template <class Launched>
__device__ inline int64_t first_wrong(const Launched& a, int64_t now, int64_t* of_warps) {
    const Table& table = a.table;
    const double* values = a.workspace.hyperparameters;
    const int slots = a.options.slots;
    const int64_t places = table.groups_count * slots;
    int64_t first = NOWHERE;
    for (int64_t i = thread_index(); i < places && first == NOWHERE; i += blockDim.x) {
        const GroupOptions& options = table.groups[i / slots].options;
        const int slot = static_cast<int>(i % slots);
        if (is_read(slot, options, now) && !is_usable(options.ranges[slot], values[i])) first = i;
    }
    for (int64_t g = thread_index(); g < table.groups_count; g += blockDim.x)
        a.workspace.groups[g] = group_plan(values + g * slots, table.groups[g].options, now);
    for (int64_t t = thread_index(); t < table.tensors_count && first == NOWHERE; t += blockDim.x)
        if (now >= table.groups[table.tensors[t].group].options.start_step &&
            a.gradient(t).dtype >= 0 && !is_count(a.state.steps[t]))
            first = places + t;
    first = over_warp(first, [](int64_t x, int64_t y) { return x < y ? x : y; });
    if (leads_warp()) of_warps[warp_index()] = first;
    __syncthreads();
    for (int i = 0; i < WARPS; ++i) first = of_warps[i] < first ? of_warps[i] : first;
    return first;
}

__device__ inline void latch_wrong(const Arguments& a, int64_t wrong, int64_t now) {
    const int slots = a.options.slots;
    const int64_t places = a.table.groups_count * slots;
    if (wrong < places)
        latch(a.state, ERROR_HYPERPARAMETER, wrong / slots, static_cast<int>(wrong % slots), now,
              a.workspace.hyperparameters[wrong]);
    else
        latch(a.state, ERROR_COUNT, wrong - places, 0, now, a.state.steps[wrong - places]);
}

// Before the tensors are planned, so that it does not wait in registers.
__device__ inline void write_metrics(const State& state, const Norm& norm) {
    state.write(GRAD_NORM, norm.before);
    state.write(LARGEST_GRADIENT, norm.largest);
    state.write(TINY_GRADIENTS, norm.tiny);
}

// Counters and the next loss scale, by one thread.
__device__ inline void conclude(const Arguments& a, const Verdict& verdict, double inverse) {
    a.state.write(CLIP_COEFFICIENT, verdict.coefficient);
    count_step(a.state, verdict.skip, verdict.coefficient, a.options.advance_schedule_on_skip);
    if (a.options.loss_scale.dynamic)
        update_loss_scale(a.state, a.options.loss_scale, verdict.skip);
    a.workspace.decision->inverse = inverse;
    a.workspace.decision->coefficient = verdict.coefficient;
    a.workspace.decision->decided = verdict.skip ? SKIPPED : PROCEEDS;
}

template <class Launched>
__device__ inline void plan(const Launched& a, Shared& shared) {
    const bool leads = thread_index() == 0;
    const int64_t now = a.state.words[STEP];
    const double inverse = inverse_scale(a);
    const bool found_inf = a.call.found_inf ? *a.call.found_inf != 0.0f : a.call.found_inf_number;
    const bool overflows = __ldcg(&a.workspace.decision->overflows) != 0;
    evaluate_hyperparameters(a, now, shared.registers);
    shared.leaders[thread_index()] = NOBODY;
    __syncthreads();
    if (leads) {
        a.workspace.decision->decided = REFUSED;
        a.workspace.decision->overflows = false;
    }
    const int64_t wrong = first_wrong(a, now, shared.first_wrong);
    if (wrong != NOWHERE) {
        if (leads) latch_wrong(a, wrong, now);
        return;
    }
    for (int64_t i = thread_index(); i < a.table.groups_count * a.options.slots; i += blockDim.x)
        a.state.write(FIELDS + static_cast<int>(i), a.workspace.hyperparameters[i]);
    Norm norm = {};
    if (a.options.measures)
        norm = norm_of(sums_of_spans(a.table, a.workspace, shared.of_warps), inverse,
                       a.options.infinity_norm, a.table.clips_before_norm);
    const double threshold = a.workspace.hyperparameters[MAX_GRAD_NORM];
    const Verdict verdict = judge(a.options, overflows, found_inf, threshold, norm.seen);
    if (verdict.is_error) {
        if (leads) latch(a.state, ERROR_GRADIENT, 0, 0, now, 0.0);
        return;
    }
    if (leads && a.options.measures) write_metrics(a.state, norm);
    if (!verdict.skip) plan_tensors(a, shared);
    if (leads) conclude(a, verdict, inverse);
}

}  // namespace lrfused
