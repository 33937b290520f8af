// What the kernels read and write on the device, as host and device see it.
//
// The table is laid out once, in one block of memory, and never changes; the workspace is what the
// kernels hand to each other. Both belong to whoever launches (lrfused/backends/cuda/step.py).
#pragma once

#include <cstdint>

#include "core/inputs.h"
#include "core/plan.h"
#include "core/typed_pointer.h"
#include "host/rows.h"
#include "riders/mask.h"

namespace lrfused {

struct Tensor {
    TypedPointer p, operands[MAX_OPERANDS], average;
    const uint32_t* mask;
    int group;
};

// A quarter of a chunk's lanes: what a block of measure adds up.
struct Part {
    int64_t chunk;
    int quarter;
    int long_unit;  // that waits for it; -1: its span does
};

// A unit of several chunks, whose adaptive clipping waits for all of its parts.
struct LongUnit {
    int64_t first_chunk, chunks;
    unsigned parts;  // those that are here
};

// What 256 neighbouring chunks wait for: parts, and units that have chunks there.
struct Span {
    unsigned parts, units_here, units;  // those that are here, and all
    int first_group, groups;            // of its chunks
};

struct Group {
    GroupOptions options;
    int64_t clip_program, agc_program;  // of clip_value and agc; -1 without one
    ScalarProgram scalars;
};

struct Program {
    const Instruction* code;
    const double* constants;
    const InputRow* inputs;
    const double* samples;
    int64_t place;  // of a hyperparameter: group * slots + slot
    int count, constants_count, inputs_count, result;
};

struct Table {
    const Tensor* tensors;
    const Piece* chunks;
    const Part* parts;
    const Piece* tiles;
    const LongUnit* long_units;
    const Span* spans;
    const Group* groups;
    const Program* programs;
    int64_t tensors_count, chunks_count, parts_count, tiles_count, units_count, long_units_count;
    int64_t spans_count, spans_here, groups_count, programs_count;
    int registers, scalar_registers;  // that the longest program needs, of schedules and of scalars
    bool clips_before_norm, rides;  // the latter: something of it may have riders
};

// What was decided about a step.
struct Decision {
    double inverse, coefficient;
    int64_t wrong;  // the first thing that refuses the step whatever was measured, or NOWHERE
    int decided;    // a Decided
    int overflows;  // measure found a gradient that is not finite
    unsigned ticket;
};

struct Workspace {
    double *raw, *clipped, *param, *largest, *elements, *tiny;  // of each part: QUARTERS a chunk
    double* factors;          // of adaptive clipping, by unit
    double* thresholds;       // of each group that clips before the norm: CLIP_VALUE, AGC
    double* hyperparameters;  // by place
    GroupPlan* groups;
    ScalarRow* rows;  // SHARED_ROWS, then one of each tensor for itself
    int* row_of;      // of each tensor; STAYS: of one that does not move
    Decision* decision;
    Sums* spans;
    unsigned *span_tickets, *unit_tickets;
};

// What is new in each call. Numbers that may change under a captured graph lie on the device.
struct Call {
    const double* values;           // by place: the host's numbers,
    const double* is_override;      // and 1 where they count instead of a program
    const uint64_t* gradients;      // on the device; null where they are kernel parameters
    const float *grad_scale, *found_inf;  // or null, and then
    double grad_scale_number;
    bool found_inf_number;
};

constexpr int QUARTERS = 4;
constexpr int TILE = 8192;
constexpr int REGISTERS = 1024;  // of programs, in shared memory: more than 256 instructions need
constexpr int MEASURE_THREADS = 128, APPLY_THREADS = 256;
constexpr int WARP = 32, WARPS = MEASURE_THREADS / WARP;
constexpr int WARP_REGISTERS = REGISTERS / WARPS;
constexpr int SHARED_ROWS = MEASURE_THREADS;  // of scalars
constexpr int STAYS = -1;
constexpr int64_t NOWHERE = INT64_MAX;

// What a launch does of a step; parameters on several devices take one after the other.
enum Phase { MEASURE = 1, PLAN = 2, APPLY = 4, WHOLE_STEP = 7 };

// A gradient in one word: its dtype (plus one) above its address, 0 without a gradient.
constexpr int DTYPE_SHIFT = 60;

struct Arguments {
    Table table;
    Options options;
    State state;
    Workspace workspace;
    Call call;
    bool measures, combines, plans;
};

// With workspace for so many gradients among the kernel parameters.
template <int capacity>
struct Launch : Arguments {
    uint64_t gradients[capacity];

    LRF_HD TypedPointer gradient(int64_t tensor) const {
        uint64_t word = call.gradients ? call.gradients[tensor] : gradients[tensor];
        return {reinterpret_cast<void*>(word & ((uint64_t(1) << DTYPE_SHIFT) - 1)),
                static_cast<int>(word >> DTYPE_SHIFT) - 1};
    }
};

constexpr int FEW = (4096 - sizeof(Arguments)) / 8;     // parameters of 4 KiB: every driver
constexpr int MANY = (32764 - sizeof(Arguments)) / 8;  // CUDA 12.1 and newer

}  // namespace lrfused
