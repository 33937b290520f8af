// What plan needs and no gradient decides, so that it need not wait for measure: hyperparameters,
// groups' plans, rows of scalars. By the first block, beside what the others do; who plans finds it
// in the workspace.
#pragma once

#include "cuda/scalars.cuh"

namespace lrfused {

// The first place whose hyperparameter no step can use, or else (counted on from the places) the
// first tensor whose count is none; also fills the groups' plans.
template <class Launched>
__device__ inline int64_t first_wrong(const Launched& a, int64_t now, int64_t* of_warps) {
    const Table& table = a.table;
    const double* values = a.workspace.hyperparameters;
    const int slots = a.options.slots, places = static_cast<int>(table.groups_count) * slots;
    int64_t first = NOWHERE;
    for (int i = thread_index(); i < places && first == NOWHERE; i += MEASURE_THREADS) {
        const GroupOptions& options = table.groups[i / slots].options;
        const int slot = i % slots;
        if (is_read(slot, options, now) && !is_usable(options.ranges[slot], values[i])) first = i;
    }
    for (int64_t g = thread_index(); g < table.groups_count; g += MEASURE_THREADS)
        a.workspace.groups[g] = group_plan(values + g * slots, table.groups[g].options, now);
    const int tensors = static_cast<int>(table.tensors_count);
    for (int t = thread_index(); t < tensors && first == NOWHERE; t += MEASURE_THREADS)
        if (now >= table.groups[table.tensors[t].group].options.start_step &&
            a.gradient(t).dtype >= 0 && !is_count(a.state.steps[t]))
            first = places + t;
    first = over_warp(first, [](int64_t x, int64_t y) { return x < y ? x : y; });
    if (leads_warp()) of_warps[warp_index()] = first;
    __syncthreads();
    for (int i = 0; i < WARPS; ++i) first = of_warps[i] < first ? of_warps[i] : first;
    return first;
}

template <class Launched>
__device__ inline void prepare(const Launched& a, Shared& shared) {
    const int64_t now = a.state.words[STEP];
    evaluate_hyperparameters(a, now, shared.registers);
    shared.leaders[thread_index()] = NOBODY;
    __syncthreads();
    const int64_t wrong = first_wrong(a, now, shared.wrong_of_warps);
    if (thread_index() == 0) a.workspace.decision->wrong = wrong;
    if (wrong == NOWHERE) {
        choose_leaders(a, shared.leaders);
        __syncthreads();
        fill_rows(a, shared);
    }
    __syncthreads();  // before this block's ticket, and others use the registers
}

}  // namespace lrfused
