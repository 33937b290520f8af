// The evaluator of schedule programs (lrfused/schedules/bytecode.py), for host and device. The
// caller provides the registers: step, constants, inputs, then one per instruction.
#pragma once

#include "core/elementary.h"

namespace lrfused {

enum Op : int32_t {
    ADD, SUB, MUL, DIV, POW, MOD, MIN, MAX, LESS, LESS_EQUAL, EQUAL, SELECT, FLOOR, SQRT, EXP,
    LOG, COS, TABLE, OP_COUNT
};

struct Instruction {
    int32_t op, a, b, c;
};

// The table's value at a position: linear between entries, constant outside.
LRF_HD inline double interpolate(double position, double offset, double length,
                                         const double* table) {
    double last = length - 1.0;
    double held = position < 0.0 ? 0.0 : (position > last ? last : position);
    double below = held == held ? floor_of(held) : 0.0;
    double fraction = held - below;
    double x = table[static_cast<int64_t>(offset + below)];
    double y = table[static_cast<int64_t>(offset + (below < last ? below + 1.0 : last))];
    return fraction == 0.0 ? x : x + (y - x) * fraction;
}

LRF_HD inline double execute(Instruction i, const double* r, const double* table) {
    double x = r[i.a], y = r[i.b];
    switch (i.op) {
        case ADD: return x + y;
        case SUB: return x - y;
        case MUL: return x * y;
        case DIV: return x / y;
        case POW: return power(x, y);
        case MOD: return x - y * floor_of(x / y);
        case MIN: return x < y || x != x ? x : y;
        case MAX: return x > y || x != x ? x : y;
        case LESS: return x < y ? 1.0 : 0.0;
        case LESS_EQUAL: return x <= y ? 1.0 : 0.0;
        case EQUAL: return x == y ? 1.0 : 0.0;
        case SELECT: return x != 0.0 ? y : r[i.c];
        case FLOOR: return floor_of(x);
        case SQRT: return root_of(x);
        case EXP: return exponential(x);
        case LOG: return logarithm(x);
        case COS: return cosine(x);
        case TABLE: return interpolate(x, y, r[i.c], table);
    }
    return quiet_nan();
}

// registers[0 .. first) must be filled; instruction i writes registers[first + i].
LRF_HD inline void run_program(const Instruction* code, int count, double* registers, int first,
                               const double* table) {
    for (int i = 0; i < count; ++i) registers[first + i] = execute(code[i], registers, table);
}

LRF_HD inline double evaluate(const Instruction* code, int count, int result, double* registers,
                              int first, const double* table) {
    run_program(code, count, registers, first, table);
    return registers[result];
}

}  // namespace lrfused
