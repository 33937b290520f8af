// How the tensors are cut, and who waits for whom: rows of the table that follow from sizes alone.
#pragma once

#include <vector>

#include "cuda/table.h"

namespace lrfused {

struct Rows {
    std::vector<Piece> chunks, tiles;
    std::vector<Part> parts;
    std::vector<LongUnit> long_units;
    std::vector<Span> spans;
    int64_t units, spans_here;
};

Rows rows_of(const std::vector<TensorRow>& tensors, const std::vector<GroupRow>& groups);

}  // namespace lrfused
