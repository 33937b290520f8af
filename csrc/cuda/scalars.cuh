// The rows of scalars, by one block. A row takes an interpreted program, so tensors whose inputs
// are equal share one: each offers itself at the place of its inputs, and the first of them leads.
#pragma once

#include "cuda/norms.cuh"

namespace lrfused {

constexpr int NOBODY = INT32_MAX;

// What a block of measure and plan shares.
struct Shared {
    double registers[REGISTERS];
    Found found;
    double of_warps[WARPS];
    int64_t first_wrong[WARPS];
    int leaders[SHARED_ROWS];  // the tensors whose inputs the shared rows are for
};

__device__ inline bool is_active(const Arguments& a, int group, TypedPointer gradient) {
    return gradient.dtype >= 0 && a.workspace.groups[group].active;
}

// The shared row of such inputs: of neighbouring groups another one, of other counts, too.
__device__ inline int shared_row(int group, int64_t count) {
    return static_cast<int>((37 * static_cast<uint64_t>(count) + group) % SHARED_ROWS);
}

__device__ inline ScalarInputs inputs_of(const Arguments& a, int64_t t) {
    return scalar_inputs(a.state, t, a.table.tensors[t].group, a.state.counts[t],
                         a.options.carried);
}

// Fills a row for each thread that names a tensor: in a warp as many at a time as it has registers
// for. Inputs are read anew, so that they do not wait for that.
__device__ inline void evaluate_rows(const Arguments& a, int tensor, int row, double* registers) {
    const int stride = a.table.scalar_registers | 1;  // odd: neighbours use other banks
    const int lanes = WARP_REGISTERS / stride, lane = thread_index() % WARP;
    double* mine = registers + warp_index() * WARP_REGISTERS + lane % lanes * stride;
#pragma unroll 1
    for (int first = 0; first < WARP; first += lanes) {
        if (tensor != NOBODY && lane / lanes * lanes == first) {
            const ScalarInputs inputs = inputs_of(a, tensor);
            evaluate_scalars(a.table.groups[inputs.group].scalars, inputs,
                             a.workspace.hyperparameters + inputs.group * a.options.slots,
                             a.options.slots, a.options.carried, mine, a.workspace.rows[row]);
        }
        __syncwarp();
    }
}

// Counts the updates; of tensors that look for the same row the first one leads.
template <class Launched>
__device__ inline void choose_leaders(const Launched& a, int* leaders) {
    for (int64_t t = thread_index(); t < a.table.tensors_count; t += blockDim.x) {
        const int group = a.table.tensors[t].group;
        if (!is_active(a, group, a.gradient(t))) continue;
        const int64_t count = count_update(a.state, t);
        atomicMin(leaders + shared_row(group, count), static_cast<int>(t));
    }
}

__device__ inline void fill_shared_rows(const Arguments& a, Shared& shared) {
    const int row = thread_index(), leader = shared.leaders[row];
    if (leader != NOBODY) a.workspace.shared_inputs[row] = inputs_of(a, leader);
    evaluate_rows(a, leader, row, shared.registers);
}

// That of the leader, if its inputs are those of this tensor.
__device__ inline int row_to_share(const Arguments& a, int t, const int* leaders) {
    const ScalarInputs inputs = inputs_of(a, t);
    const int row = shared_row(inputs.group, inputs.count);
    return leaders[row] == t || a.workspace.shared_inputs[row] == inputs ? row : NOBODY;
}

// A row for each tensor: that of its leader, if their inputs are equal, or else its own.
template <class Launched>
__device__ inline void take_rows(const Launched& a, Shared& shared) {
    const int count = static_cast<int>(a.table.tensors_count);
#pragma unroll 1
    for (int first = 0; first < count; first += MEASURE_THREADS) {
        const int t = first + thread_index();
        const bool moves = t < count && is_active(a, a.table.tensors[t].group, a.gradient(t));
        int row = moves ? row_to_share(a, t, shared.leaders) : NOBODY;
        const bool is_alone = moves && row == NOBODY;
        if (is_alone) row = SHARED_ROWS + t;
        evaluate_rows(a, is_alone ? t : NOBODY, row, shared.registers);
        if (!moves) continue;
        a.workspace.row_of[t] = row;
        store_carried(a.state, t, a.workspace.rows[row], a.options.carried);
    }
}

// By the whole block; where plan began every shared row was nobody's.
template <class Launched>
__device__ inline void plan_tensors(const Launched& a, Shared& shared) {
    choose_leaders(a, shared.leaders);
    __syncthreads();
    fill_shared_rows(a, shared);
    __syncthreads();
    take_rows(a, shared);
}

}  // namespace lrfused
