// Schedule programs on the device: core/program.h with registers of a block's own.
#pragma once

#include "cuda/block.cuh"
#include "cuda/table.h"

namespace lrfused {

__device__ inline double evaluate(const Program& program, int64_t step, double* registers) {
    double* r = registers;
    *r++ = static_cast<double>(step);
    for (int i = 0; i < program.constants_count; ++i) *r++ = program.constants[i];
    for (int i = 0; i < program.inputs_count; ++i) *r++ = read_input(program.inputs[i]);
    return evaluate(program.code, program.count, program.result, registers,
                    static_cast<int>(r - registers), program.samples);
}

__device__ inline double inverse_scale(const Arguments& a) {
    return inverse_scale(a.state, a.options,
                         a.call.grad_scale ? static_cast<double>(*a.call.grad_scale)
                                           : a.call.grad_scale_number);
}

// The bound of a group's clip by value or the threshold of its adaptive one, before plan has run.
__device__ inline double hyperparameter(const Arguments& a, int64_t group, int slot, int64_t now,
                                        double* registers) {
    const Group& row = a.table.groups[group];
    const int64_t place = group * a.options.slots + slot;
    if (a.call.is_override[place] != 0.0) return a.call.values[place];
    const int64_t program = slot == AGC ? row.agc_program : row.clip_program;
    return evaluate(a.table.programs[program], now, registers);
}

// Registers of a program, odd, so that neighbours use other banks; and for how many there are any.
__device__ inline int program_stride(const Table& table) { return table.registers | 1; }

__device__ inline int program_lanes(const Table& table) {
    const int lanes = REGISTERS / program_stride(table);
    return lanes < MEASURE_THREADS ? lanes : MEASURE_THREADS;
}

// Programs side by side, as many as there are registers for.
__device__ inline void evaluate_hyperparameters(const Arguments& a, int64_t now,
                                                double* registers) {
    const Table& table = a.table;
    double* values = a.workspace.hyperparameters;
    for (int64_t i = thread_index(); i < table.groups_count * a.options.slots; i += MEASURE_THREADS)
        if (a.call.is_override[i] != 0.0) values[i] = a.call.values[i];
    const int lanes = program_lanes(table);
    if (thread_index() >= lanes) return;
    double* mine = registers + thread_index() * program_stride(table);
    for (int64_t i = thread_index(); i < table.programs_count; i += lanes) {
        const Program& program = table.programs[i];
        if (a.call.is_override[program.place] == 0.0)
            values[program.place] = evaluate(program, now, mine);
    }
}

}  // namespace lrfused
