// What a native Step is made from, as Python describes it (lrfused/backends/description.py), and how
// tensors are cut into pieces.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "core/inputs.h"
#include "core/options.h"
#include "core/stretch.h"

namespace lrfused {

// What lies on another device has no memory here: it has its rows, so that places are the same on
// all devices, and nothing is done for it.
struct TensorRow {
    Stretch p, operands[MAX_OPERANDS];
    int64_t count, unit;  // elements; length of an output unit, 0 without units
    int group;

    bool is_here() const { return p.data; }
    int64_t units() const { return unit ? count / unit : 1; }
    int64_t unit_length() const { return unit ? unit : count; }
};

// A schedule, which fills one place of the hyperparameters; or the scalars of a group.
struct ProgramRow {
    int group = 0, slot = 0;
    std::vector<Instruction> code;
    std::vector<double> constants, samples;
    std::vector<InputRow> inputs;
    std::vector<int32_t> results;  // registers
    int leading = 0;               // registers before those of the code

    size_t registers() const { return static_cast<size_t>(leading) + code.size(); }
};

struct GroupRow {
    GroupOptions options;
    ProgramRow scalars;
};

// At most so many elements inside one unit of one tensor: a chunk of measure, a tile of apply.
struct Piece {
    int64_t tensor, unit, offset;
    int count;
    bool is_whole_unit;
};

// Every tensor in pieces of at most `size` elements, none across two units.
inline std::vector<Piece> pieces(const std::vector<TensorRow>& tensors, int64_t size) {
    std::vector<Piece> list;
    int64_t first_unit = 0;
    for (size_t t = 0; t < tensors.size(); ++t) {
        const int64_t units = tensors[t].units(), length = tensors[t].unit_length();
        for (int64_t unit = 0; unit < units; ++unit)
            for (int64_t start = 0; start < length; start += size)
                list.push_back({static_cast<int64_t>(t), first_unit + unit, unit * length + start,
                                static_cast<int>(std::min(size, length - start)), length <= size});
        first_unit += units;
    }
    return list;
}

}  // namespace lrfused
