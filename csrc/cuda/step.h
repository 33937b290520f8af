// One table of tensors, ready to be stepped: lays out what the device reads, and launches.
#pragma once

#include <cuda_runtime.h>

#include <vector>

#include "cuda/layout.h"

namespace lrfused {

// How many gradients fit among a kernel's parameters, with the present driver.
int64_t parameter_capacity();

// Of all steps, for benchmarks: whether apply may be launched while measure still runs, and
// whether both prefer the same part of the first cache as shared memory (a multiprocessor that has
// to change it cannot run them together).
struct Switches {
    bool dependent_launch = true, equal_carveout = true;
};
extern Switches switches;

class Step {
  public:
    Step(std::vector<TensorRow> tensors, std::vector<GroupRow> groups, Options options,
         std::vector<ProgramRow> programs, State state);

    // Other rows of these tensors, and other programs; then it has to be placed again.
    void update(const std::vector<size_t>& indices, std::vector<TensorRow> rows,
                std::vector<ProgramRow> programs);

    // Bytes of the table; of the workspace, which is to be zeros at first.
    int64_t table_size() const { return table_bytes; }
    int64_t workspace_size() const { return workspace_bytes; }

    // Where in the workspace: what is measured ends and what is decided begins, and where that ends;
    // whether something overflows.
    int64_t decided_place() const, decided_end() const;
    int64_t overflows_place() const;

    // The table's bytes for this address; from now on the kernels use these addresses.
    std::vector<char> place(uint64_t table, uint64_t workspace);

    // These phases of a step: at most two launches on the stream. Gradients as words (table.h).
    void run(const Call& call, const std::vector<uint64_t>& gradients, int phases, int device,
             cudaStream_t stream);

  private:
    void measure_sizes();

    Description from;
    Arguments arguments;
    int64_t table_bytes, workspace_bytes;
    int can_depend = -1;  // not asked yet
};

}  // namespace lrfused
