// The rows that a native Step is built from, as described by lrfused/backends/description.py, and
// the cutting of tensors into pieces.
#pragma once

#include <algorithm>
#include <cstdint>
#include <map>
#include <memory>
#include <stdexcept>
#include <utility>
#include <vector>

#include "core/inputs.h"
#include "core/options.h"
#include "core/typed_pointer.h"

namespace lrfused {

// A tensor on another device has a row with a null pointer, so that indices are the same on all
// devices; nothing is done for it.
struct TensorRow {
    TypedPointer p, operands[MAX_OPERANDS], average;
    const uint32_t* mask;  // its words, or null
    int64_t count, unit;  // elements; length of an output unit, 0 without units
    int group;

    bool is_here() const { return p.data; }
    int64_t units() const { return unit ? count / unit : 1; }
    int64_t unit_length() const { return unit ? unit : count; }
};

// A table of values, which thousands of programs may share.
using Samples = std::shared_ptr<const std::vector<double>>;

// The program of a schedule, which computes one hyperparameter, or of a group's scalars.
struct ProgramRow {
    int group = 0, slot = 0;
    std::vector<Instruction> code;
    std::vector<double> constants;
    Samples samples = std::make_shared<const std::vector<double>>();
    std::vector<InputRow> inputs;
    std::vector<int32_t> results;  // registers
    int leading = 0;               // registers before the code's own

    size_t registers() const { return static_cast<size_t>(leading) + code.size(); }
};

struct GroupRow {
    GroupOptions options;
    ProgramRow scalars;
};

// A range of elements inside one unit of one tensor: a chunk of measure, a tile of apply.
struct Piece {
    int64_t tensor, unit, offset;
    int count;
    int is_whole_unit;  // no bool: bytes between two pieces would differ from table to table
};

// Replaces the rows at these indices, and the programs of the same group and slot; one without results is only
// taken away. Returns whether tensors have to be cut anew.
inline bool replace_rows(std::vector<TensorRow>& tensors, const std::vector<size_t>& indices,
                         std::vector<TensorRow> rows, std::vector<ProgramRow>& programs,
                         std::vector<ProgramRow> new_programs) {
    if (indices.size() != rows.size())
        throw std::invalid_argument("tensors: one row is needed for each index");
    bool is_cut = true;
    for (size_t i = 0; i < indices.size(); ++i) {
        TensorRow& tensor = tensors.at(indices[i]);
        is_cut &= tensor.count == rows[i].count && tensor.unit == rows[i].unit;
        tensor = rows[i];
    }
    std::map<std::pair<int, int>, size_t> places;
    for (size_t i = 0; i < programs.size() && !new_programs.empty(); ++i)
        places[{programs[i].group, programs[i].slot}] = i;
    for (ProgramRow& program : new_programs) {
        const auto place = places.find({program.group, program.slot});
        if (place == places.end()) programs.push_back(std::move(program));
        else programs[place->second] = std::move(program);
    }
    const auto is_none = [](const ProgramRow& program) { return program.results.empty(); };
    programs.erase(std::remove_if(programs.begin(), programs.end(), is_none), programs.end());
    return !is_cut;
}

// Cuts every tensor into pieces of at most `size` elements, none across two units.
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
