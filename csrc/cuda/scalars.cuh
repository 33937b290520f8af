// The rows of scalars, by one block. A row takes an interpreted program, so tensors whose inputs
// are equal share one: each offers itself at the place of its inputs, and the first of them leads.
// Counts and carried numbers stay what they are until plan knows that the step proceeds.
#pragma once

#include "cuda/shared.cuh"

namespace lrfused {

constexpr int NOBODY = INT32_MAX;

__device__ inline bool is_active(const Arguments& a, int group, TypedPointer gradient) {
    return gradient.dtype >= 0 && a.workspace.groups[group].active;
}

// The shared row of such inputs: of neighbouring groups another one, of other counts, too.
__device__ inline int shared_row(int group, int64_t count) {
    return static_cast<int>((37 * static_cast<uint64_t>(count) + group) % SHARED_ROWS);
}

__device__ inline ScalarInputs inputs_of(const Arguments& a, int64_t t) {
    return scalar_inputs(a.state, t, a.table.tensors[t].group, next_count(a.state, t),
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

// Of tensors that look for the same row the first one leads.
template <class Launched>
__device__ inline void choose_leaders(const Launched& a, int* leaders) {
    for (int64_t t = thread_index(); t < a.table.tensors_count; t += MEASURE_THREADS) {
        const int group = a.table.tensors[t].group;
        if (is_active(a, group, a.gradient(t)))
            atomicMin(leaders + shared_row(group, next_count(a.state, t)), static_cast<int>(t));
    }
}

// That of the leader, if its inputs are those of this tensor, or else its own.
__device__ inline int row_for(const Arguments& a, int t, const int* leaders) {
    const ScalarInputs inputs = inputs_of(a, t);
    const int row = shared_row(inputs.group, inputs.count), leader = leaders[row];
    return leader == t || inputs_of(a, leader) == inputs ? row : SHARED_ROWS + t;
}

// A row for each tensor that moves: those that are shared in the first turn, of their leaders.
template <class Launched>
__device__ inline void fill_rows(const Launched& a, Shared& shared) {
    const int count = static_cast<int>(a.table.tensors_count);
#pragma unroll 1
    for (int first = -SHARED_ROWS; first < count; first += MEASURE_THREADS) {
        int row = thread_index(), tensor = NOBODY;
        if (first < 0) {
            tensor = shared.leaders[row];
        } else if (const int t = first + thread_index(); t < count) {
            const bool moves = is_active(a, a.table.tensors[t].group, a.gradient(t));
            a.workspace.row_of[t] = row = moves ? row_for(a, t, shared.leaders) : STAYS;
            if (row >= SHARED_ROWS) tensor = t;
        }
        evaluate_rows(a, tensor, row, shared.registers);
    }
}

}  // namespace lrfused
