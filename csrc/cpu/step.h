// One optimizer step on the CPU: measure, plan, apply over a fixed table of tensors.
#pragma once

#include <string>
#include <vector>

#include "core/plan.h"
#include "core/program.h"
#include "cpu/kernels.h"

namespace lrfused {

struct Tensor {
    Stretch p, m, v, x;
    int64_t count, unit;  // elements; length of an output unit, 0 without units
    int group;
    int64_t first_unit, units, first_chunk, chunks;
};

// A stretch of at most CHUNK elements inside one unit of one tensor.
struct Chunk {
    int64_t tensor, unit, offset, count;
};

// A value that lives in somebody's tensor.
struct Input {
    const void* data;
    int dtype;  // a Dtype, or one of the two below
};
enum { INT64 = 4, INT32 = 5 };

struct Program {
    int group, slot;
    std::vector<Instruction> code;
    std::vector<double> constants, table;
    std::vector<Input> inputs;
    int result;
};

// What changes from call to call.
struct Call {
    const int64_t* gradients;  // (tensors, 2): pointer, dtype; dtype -1 without a gradient
    const double* values;      // (groups, SLOTS): the host's numbers
    const bool* given;         // (groups, SLOTS): where they count, instead of a program
    double* next_values;         // (groups, SLOTS): filled, what the programs give after the step
    double grad_scale;
    bool found_inf;
    int threads;
    const Kernels* kernels;
};

struct Result {
    int error;  // an ErrorCode; anything but ERROR_NONE has changed nothing
    bool proceeded;
    int64_t step;
};

class Step {
  public:
    Step(std::vector<Tensor> tensors, std::vector<GroupOptions> groups, Options options,
         std::vector<Program> programs, State state);

    Result run(const Call& call);

  private:
    bool begin(const Call& call);
    void evaluate_hyperparameters(const Call& call, double* values);
    void measure(const Call& call, int64_t chunk);
    bool plan(const Call& call);
    bool overflows() const;
    double clip_norm();
    void plan_units();
    void plan_tensors();
    void apply(const Call& call, int64_t chunk);
    int threads_for(const Call& call) const;

    std::vector<Tensor> tensors;
    std::vector<Chunk> chunks;
    std::vector<int64_t> tasks;  // where each begins among the chunks, and the end
    std::vector<GroupOptions> groups;
    Options options;
    std::vector<Program> programs;
    State state;

    std::vector<double> hyperparameters, registers;
    std::vector<GroupPlan> group_plans;
    std::vector<TensorPlan> tensor_plans;
    std::vector<Measured> measured;  // by chunk
    std::vector<double> agc;         // by unit
    std::vector<char> is_active;
    double inverse = 1.0, coefficient = 1.0;
    bool clips_before_norm = false, proceed = false;
};

}  // namespace lrfused
