// The scalars of a rule, computed by a program per group from its hyperparameters, the count of a
// parameter's updates (including the present one) and the carried numbers.
#pragma once

#include "core/program.h"

namespace lrfused {

constexpr int MAX_SLOTS = 16, MAX_SCALARS = 8, MAX_CARRIED = 2, MAX_OPERANDS = 3;

template <class C>
struct Scalars {
    C x[MAX_SCALARS];

    LRF_HD C operator[](int scalar) const { return x[scalar]; }
};

template <class C>
LRF_HD inline Scalars<C> rounded(const Scalars<double>& scalars) {
    Scalars<C> result;
    for (int i = 0; i < MAX_SCALARS; ++i) result.x[i] = static_cast<C>(scalars.x[i]);
    return result;
}

// Registers: count, constants, hyperparameters by slot, carried numbers, then one per instruction.
// `results` are the registers of the scalars, then of the carried numbers after the update.
struct ScalarProgram {
    const Instruction* code;
    const double* constants;
    const int32_t* results;
    int32_t count, constants_count, scalars_count;
};

// Everything that a tensor's scalars depend on: tensors with equal inputs have equal scalars.
struct ScalarInputs {
    int group;
    int64_t count;
    double carried[MAX_CARRIED];

    LRF_HD bool operator==(const ScalarInputs& other) const {
        bool same = group == other.group && count == other.count;
        for (int i = 0; i < MAX_CARRIED; ++i)
            same &= bits_of(carried[i]) == bits_of(other.carried[i]);
        return same;
    }
};

struct ScalarRow {
    Scalars<double> scalars;
    double carried[MAX_CARRIED];  // after the update
};

// Fills the row in place: on a GPU a local array indexed at run time would go to local memory.
LRF_HD inline void evaluate_scalars(const ScalarProgram& program, const ScalarInputs& inputs,
                                    const double* hyperparameters, int slots, int carried,
                                    double* registers, ScalarRow& row) {
    double* r = registers;
    *r++ = static_cast<double>(inputs.count);
    for (int i = 0; i < program.constants_count; ++i) *r++ = program.constants[i];
    for (int i = 0; i < slots; ++i) *r++ = hyperparameters[i];
    for (int i = 0; i < MAX_CARRIED; ++i)
        if (i < carried) *r++ = inputs.carried[i];
    run_program(program.code, program.count, registers, static_cast<int>(r - registers), nullptr);
    for (int i = 0; i < program.scalars_count; ++i)
        row.scalars.x[i] = registers[program.results[i]];
    for (int i = 0; i < carried; ++i)
        row.carried[i] = registers[program.results[program.scalars_count + i]];
}

}  // namespace lrfused
