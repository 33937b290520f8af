// Plan, by one block: what was prepared and what was measured decide about the step. The formulas
// are those of core/plan.h, their order that of lrfused/backends/reference/.
#pragma once

#include "cuda/tickets.cuh"

namespace lrfused {

__device__ inline void latch_wrong(const Arguments& a) {
    const int64_t wrong = a.workspace.decision->wrong, now = a.state.words[STEP];
    const int64_t slots = a.options.slots, places = a.table.groups_count * slots;
    if (wrong < places)
        latch(a.state, ERROR_HYPERPARAMETER, wrong / slots, static_cast<int>(wrong % slots), now,
              a.workspace.hyperparameters[wrong]);
    else
        latch(a.state, ERROR_COUNT, wrong - places, 0, now, a.state.steps[wrong - places]);
}

__device__ inline void write_metrics(const State& state, const Norm& norm) {
    state.write(GRAD_NORM, norm.before);
    state.write(LARGEST_GRADIENT, norm.largest);
    state.write(TINY_GRADIENTS, norm.tiny);
}

// The updates, and the numbers that are carried to the next ones; of a few tensors at a time, so
// that they wait for memory together.
__device__ inline void count_updates(const Arguments& a) {
    constexpr int few = 2;
    const int tensors = static_cast<int>(a.table.tensors_count), carried = a.options.carried;
    const State& state = a.state;
#pragma unroll 1
    for (int first = thread_index(); first < tensors; first += few * MEASURE_THREADS) {
        int row[few];
        int64_t count[few];
        double after[few][MAX_CARRIED];
#pragma unroll
        for (int k = 0; k < few; ++k) {
            const int t = first + k * MEASURE_THREADS;
            row[k] = t < tensors ? a.workspace.row_of[t] : STAYS;
            if (t < tensors) count[k] = next_count(state, t);
        }
#pragma unroll
        for (int k = 0; k < few; ++k)
#pragma unroll
            for (int i = 0; i < MAX_CARRIED; ++i)
                if (row[k] != STAYS && i < carried)
                    after[k][i] = a.workspace.rows[row[k]].carried[i];
#pragma unroll
        for (int k = 0; k < few; ++k) {
            if (row[k] == STAYS) continue;
            const int t = first + k * MEASURE_THREADS;
            set_count(state, t, count[k]);
#pragma unroll
            for (int i = 0; i < MAX_CARRIED; ++i)
                if (i < carried) state.carried[int64_t(carried) * t + i] = after[k][i];
        }
    }
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
    const bool leads = thread_index() == MEASURE_THREADS - 1;  // its warp counts the fewest tensors
    Decision& decision = *a.workspace.decision;
    const double* values = a.workspace.hyperparameters;
    const bool overflows = a.options.measures && decision.overflows != 0;
    const double inverse = inverse_scale(a);
    Norm norm = {};
    if (a.options.measures)
        norm = norm_of(sums_of_spans(a.table, a.workspace, shared.of_warps), inverse,
                       a.options.infinity_norm, a.table.clips_before_norm);
    const bool refused = decision.wrong != NOWHERE;
    const double threshold = values[MAX_GRAD_NORM];
    const bool found_inf = a.call.found_inf ? *a.call.found_inf != 0.0f : a.call.found_inf_number;
    if (leads) {
        decision.decided = REFUSED;
        if (a.options.measures) decision.overflows = false;  // read before norm_of's barriers
    }
    if (refused) {
        if (leads) latch_wrong(a);
        return;
    }
    const int places = static_cast<int>(a.table.groups_count) * a.options.slots;
    for (int i = thread_index(); i < places; i += MEASURE_THREADS)
        a.state.write(FIELDS + i, values[i]);
    const Verdict verdict = judge(a.options, overflows, found_inf, threshold, norm.seen);
    if (verdict.is_error) {
        if (leads) latch(a.state, ERROR_GRADIENT, 0, 0, a.state.words[STEP], 0.0);
        return;
    }
    if (leads) {
        if (a.options.measures) write_metrics(a.state, norm);
        conclude(a, verdict, inverse);
    }
    if (!verdict.skip) count_updates(a);
}

}  // namespace lrfused
