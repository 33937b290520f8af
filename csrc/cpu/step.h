// One optimizer step on the CPU: measure, plan, apply over a fixed table of tensors.
#pragma once

#include <string>
#include <vector>

#include "core/plan.h"
#include "cpu/kernels.h"
#include "host/rows.h"

namespace lrfused {

// The ranges of a tensor's units and chunks.
struct Extent {
    int64_t first_unit, units, first_chunk, chunks;
};

// The arguments that change with each call.
struct Call {
    const int64_t* gradients;  // (tensors, 2): pointer, dtype; dtype -1 without a gradient
    const double* values;      // (groups, slots): numbers from the host
    const bool* is_override;   // (groups, slots): where `values` replaces the program
    double* next_values;       // (groups, slots), output: the values for the next step
    double grad_scale;
    bool found_inf;
    int threads;
    const Kernels* kernels;
};

struct Result {
    int error;  // an ErrorCode; unless ERROR_NONE, nothing was changed
    bool proceeded;
    int64_t step;
};

class Step {
  public:
    Step(std::vector<TensorRow> tensors, std::vector<GroupRow> groups, Options options,
         std::vector<ProgramRow> programs, State state);

    Result run(const Call& call);

    // Other rows of these tensors, and other programs; only what depends on sizes is made anew.
    void update(const std::vector<size_t>& indices, std::vector<TensorRow> rows,
                std::vector<ProgramRow> new_programs);

  private:
    void cut();
    void make_registers();
    bool begin(const Call& call);
    void evaluate_hyperparameters(const Call& call, double* values);
    void measure(const Call& call, int64_t chunk);
    Decided plan(const Call& call);
    bool overflows() const;
    bool is_idle(const Piece& chunk) const;
    bool averages(size_t tensor) const;
    Sums sums() const;
    void plan_units();
    void plan_tensors();
    size_t row_of(const ScalarInputs& inputs);
    void apply(const Call& call, int64_t chunk);
    int threads_for(const Call& call) const;

    const TensorRow& tensor_of(const Piece& chunk) const;
    const double* values_of(int group) const;

    std::vector<TensorRow> tensors;
    std::vector<Extent> extents;  // of each tensor
    std::vector<Piece> chunks;
    std::vector<int64_t> tasks;  // the first chunk of each, and the end
    std::vector<GroupRow> groups;
    Options options;
    std::vector<ProgramRow> programs;
    State state;

    std::vector<double> hyperparameters, registers;
    std::vector<GroupPlan> group_plans;
    std::vector<ScalarInputs> row_inputs;  // of each row of scalars in this step
    std::vector<ScalarRow> rows;
    std::vector<Scalars<float>> rounded_rows;
    std::vector<size_t> row_of_tensor;
    std::vector<Measured> measured;  // by chunk
    std::vector<double> agc;         // by unit
    std::vector<char> is_active;
    double inverse = 1.0, coefficient = 1.0;
    bool clips_before_norm = false;
    Decided decided = REFUSED;
};

}  // namespace lrfused
