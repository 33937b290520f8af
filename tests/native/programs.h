// Random programs: schedules of hyperparameters, and the scalars of a group.
#pragma once

#include "host/rows.h"
#include "memory.h"
#include "rules/rules.h"

enum Register { ZERO = 1, LENGTH, HALF, LIMIT };  // of every program's first constants

inline std::vector<double> numbers(Random& random, int64_t count, double low, double high) {
    std::vector<double> list(static_cast<size_t>(count));
    for (double& x : list) x = random.within(low, high);
    return list;
}

// Appends random operations, then some that bring the last value into [0, 0.9]; the register of
// what comes out.
inline int32_t add_operations(Random& random, ProgramRow& program, int count) {
    auto next = [&] { return static_cast<int32_t>(program.registers()); };
    auto any = [&] { return static_cast<int32_t>(random.below(next())); };
    auto add = [&](int op, int a, int b, int c) {
        program.code.push_back({op, a, b, c});
        return next() - 1;
    };
    for (int i = 0; i < count; ++i) {
        int op = static_cast<int>(random.below(program.samples->empty() ? TABLE : OP_COUNT));
        int a = any(), b = any();
        if (op == TABLE) add(op, a, ZERO, LENGTH);
        else add(op, a, b, any());
    }
    int last = next() - 1;
    int number = add(SELECT, add(EQUAL, last, last, 0), last, HALF);
    return add(MAX, add(MIN, number, LIMIT, 0), ZERO, 0);
}

// A schedule of a hyperparameter; the program keeps the addresses of its inputs.
inline ProgramRow random_schedule(Random& random, std::vector<Memory>& inputs) {
    ProgramRow program;
    program.constants = {0.0, 4.0, 0.5, 0.9, random.within(-9.0, 9.0)};
    program.samples = std::make_shared<const std::vector<double>>(numbers(random, 4, 0.0, 1.0));
    for (int dtype : {FLOAT64, FLOAT32, BFLOAT16, FLOAT16}) {
        inputs.emplace_back(dtype, numbers(random, 1, -2.0, 2.0), random.below(2));
        program.inputs.push_back({inputs.back().pointer.data, dtype});
    }
    program.leading = static_cast<int>(1 + program.constants.size() + program.inputs.size());
    program.results = {add_operations(random, program, 12)};
    return program;
}

// A group whose scalars are what random operations give, or else leading registers, among them 1
// and 2, which are modes of SGD.
inline GroupRow random_group(Random& random, const Options& options) {
    GroupOptions group{random.one_in(2), random.one_in(2),
                       random.one_of<int>({AGC_OFF, AGC_UNIT, AGC_TENSOR}), 0,
                       random.one_of<int64_t>({0, 0, 1}), random.one_of<int64_t>({0, 1, 2}), {}};
    for (int slot = 0; slot < options.slots; ++slot)
        group.ranges[slot] = random.one_of<uint8_t>({RANGE_FINITE, RANGE_BELOW_ONE, RANGE_LIMIT});
    if (random.one_in(20)) group.ranges[random.below(options.slots)] = RANGE_ZERO;
    ProgramRow scalars;
    scalars.constants = {0.0, 4.0, 0.5, 0.9, 1.0, 2.0, random.within(-2.0, 2.0)};
    scalars.leading = static_cast<int>(1 + scalars.constants.size());
    scalars.leading += options.slots + options.carried;
    Rules::with(options.rule, [&](auto rule) {
        using Rule = decltype(rule);
        do group.operands = static_cast<int>(random.below(MAX_OPERANDS + 1));
        while (!Rule::Operands::contain(group.operands));
        scalars.results.resize(std::size(Rule::SCALARS) + static_cast<size_t>(options.carried));
    });
    for (int32_t& result : scalars.results)
        result = random.one_in(2) ? add_operations(random, scalars, 2)
                                  : static_cast<int32_t>(random.below(scalars.leading));
    return {group, std::move(scalars)};
}
